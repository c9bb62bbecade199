"""What each layer's bits cost on a device, measured on the device itself.

The network is measured as it will run: once with every layer at the first pair of bits, and once
for each layer and each other pair, that layer alone changed. What a pair costs is the difference,
so fused operations, changes of grid and the runtime's own choices are in it (measurement on the
device for a bit allocation as in OHQ, Huang et al., 2023, which times layers apart). The sum of the
differences predicts any allocation.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.bits.allocation import Bits
from search_spaces.errors import EnvironmentProblem, InputError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from devices.device import Device
    from devices.measuring.protocol import Protocol
    from devices.measuring.store import Store

Measure = Callable[[Sequence[Path]], Sequence[float]]
"""Model files -> the latency of each in milliseconds."""


@dataclass(frozen=True)
class DeviceCosts:
    """Latencies of a network on a device, by the bits of its layers.

    Attributes:
        base: bits of every layer that the others are told against.
        base_ms: latency of the network at them.
        differences: layer -> bits -> milliseconds more than at ``base``.
    """

    base: Bits
    base_ms: float
    differences: Mapping[str, Mapping[Bits, float]]

    def latency_ms(self, layer: str, bits: Bits) -> float:
        """Return what a layer at ``bits`` adds to the network's latency.

        A layer whose bits do not vary adds nothing to what is measured.

        Raises:
            InputError: it was not measured.
        """
        known = self.differences.get(layer)
        if bits == self.base or (known is not None and not known):
            return 0.0
        known = known or {}
        if bits not in known:
            raise InputError(f"{layer} was not measured at {bits}")
        return known[bits]

    def predict(self, assigned: Mapping[str, Bits]) -> float:
        """Return the latency of an allocation, in milliseconds."""
        return self.base_ms + sum(self.latency_ms(name, bits) for name, bits in assigned.items())

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON-compatible data."""
        return {
            "base": str(self.base),
            "base_ms": self.base_ms,
            "differences_ms": {
                layer: {str(bits): value for bits, value in known.items()}
                for layer, known in self.differences.items()
            },
        }


def measure_layers(
    module: nn.Module,
    images: Iterable[Tensor],
    pairs: Sequence[Bits],
    measure: Measure,
    *,
    edge_bits: int | None = 8,
    weight_storage: str = "packed",
    on_file: Callable[[int, int], None] | None = None,
) -> DeviceCosts:
    """Measure a trained float network with each layer at each pair of bits.

    Args:
        module: left as it is.
        images: calibration batches; one is enough, for latency does not depend on their values.
        pairs: of bits; the first is where all layers are while another is measured.
        measure: of files, all of them at once, so that they can take turns.
        edge_bits: bits of the first and the last layer, which do not vary; None lets them.
        weight_storage: as in :func:`supernet.onnx.export.export_onnx`.
        on_file: called with (done, total) after each file is written.

    Raises:
        InputError: fewer than two pairs, or a network that cannot be traced.
        EnvironmentProblem: a file could not be measured.
    """
    from supernet.onnx.export import export_onnx
    from supernet.ptq.quantize import quantize_post_training
    from supernet.ptq.rank import traced

    pairs = list(dict.fromkeys(pairs))
    if len(pairs) < 2:
        raise InputError(f"{len(pairs)} pairs of bits leave nothing to choose; give two or more")
    batches = list(images)[:1]
    names = list(traced(module, batches).layers)
    fixed = set() if edge_bits is None else {names[0], names[-1]}
    base = pairs[0]

    def bits_of(changed: str | None, bits: Bits) -> dict[str, tuple[int | str, int | str]]:
        found: dict[str, tuple[int | str, int | str]] = {}
        for name in names:
            own = bits if name == changed else base
            found[name] = (own.weight, own.activation)
            if name in fixed and edge_bits is not None:
                found[name] = (edge_bits, edge_bits)
        return found

    wanted: list[tuple[str | None, Bits]] = [(None, base)]
    wanted += [(name, bits) for name in names if name not in fixed for bits in pairs[1:]]
    with tempfile.TemporaryDirectory(prefix="layers-") as folder:
        files = []
        for number, (name, bits) in enumerate(wanted):
            network = quantize_post_training(module, batches, bits_of(name, bits), steps=())
            files.append(Path(folder) / f"{number}.onnx")
            export_onnx(network, files[-1], batch=1, weight_storage=weight_storage)
            if on_file is not None:
                on_file(number + 1, len(wanted))
        latencies = list(measure(files))
    for (name, bits), value in zip(wanted, latencies, strict=True):
        if not np.isfinite(value):
            told = "the whole network" if name is None else f"{name} at {bits}"
            raise EnvironmentProblem(f"{told} could not be measured on the device")
    differences: dict[str, dict[Bits, float]] = {name: {} for name in names}
    for (name, bits), value in list(zip(wanted, latencies, strict=True))[1:]:
        assert name is not None
        differences[name][bits] = value - latencies[0]
    return DeviceCosts(base, latencies[0], differences)


@dataclass(frozen=True)
class Verified:
    """An allocation measured beside the network of the first pair of bits.

    Attributes:
        predicted_ms: of the allocation, by the speed that the device has now.
        measured_ms: of its file.
        base_ms: of the network with all layers at the first pair.
    """

    predicted_ms: float
    measured_ms: float
    base_ms: float

    @property
    def error(self) -> float:
        """How far the prediction is off, as a share of what is measured."""
        return abs(self.predicted_ms - self.measured_ms) / self.measured_ms

    def to_json(self) -> dict[str, float]:
        """Return everything, and what the allocation takes of the base's time."""
        return {
            "predicted_ms": self.predicted_ms,
            "measured_ms": self.measured_ms,
            "base_ms": self.base_ms,
            "prediction_error": self.error,
            "share_of_base": self.measured_ms / self.base_ms,
        }


def verify(
    module: nn.Module,
    images: Iterable[Tensor],
    costs: DeviceCosts,
    assigned: Mapping[str, Bits],
    model: Path,
    measure: Measure,
    *,
    edge_bits: int | None = 8,
    weight_storage: str = "packed",
) -> Verified:
    """Measure an exported allocation, and the network of the first pair of bits beside it.

    Args:
        module, images, measure, edge_bits, weight_storage: as :func:`measure_layers` had them.
        costs: what it gave.
        assigned: bits of each layer.
        model: the exported file.
    """
    from supernet.onnx.export import export_onnx
    from supernet.ptq.quantize import quantize_post_training

    pair = costs.base.weight, costs.base.activation
    batches = list(images)[:1]
    network = quantize_post_training(module, batches, pair, steps=(), edge_bits=edge_bits)
    with tempfile.TemporaryDirectory(prefix="base-") as folder:
        base = Path(folder) / "base.onnx"
        export_onnx(network, base, batch=1, weight_storage=weight_storage)
        base_ms, measured_ms = measure([base, model])
    # What the machine has become faster or slower by since is the same for both.
    return Verified(costs.predict(assigned) * base_ms / costs.base_ms, measured_ms, base_ms)


def on_device(
    device: Device, protocol: Protocol | None = None, store: Store | None = None
) -> Measure:
    """Return a measurement by the protocol of a device: of this machine, or a board at a hub."""

    def measure(files: Sequence[Path]) -> list[float]:
        found = device.measure(files, protocol=protocol, store=store, variant="bits")
        return [one.latency_ms for one in found]

    return measure


def in_turns(
    runtime: str,
    options: Mapping[str, Any] | None = None,
    *,
    rounds: int = 60,
    clock: Callable[[], int] = time.thread_time_ns,
) -> Measure:
    """Return a measurement in this process, for a machine that is not quiet.

    All files are loaded and called in turn, one thread each; a file's latency is the lower quartile
    of its calls in processor time, which what else runs on the machine hardly enters.

    Args:
        runtime: registered name.
        options: of the runtime.
        rounds: calls of each file.
        clock: in nanoseconds.
    """

    def measure(files: Sequence[Path]) -> list[float]:
        from devices.runtime import make_runtime

        made = make_runtime(runtime, {**(options or {}), "threads": 1, "batch": 1})
        rng = np.random.default_rng(0)
        calls = []
        for file in files:
            session = made.load(file)
            arrays = [rng.normal(size=spec.shape).astype(spec.dtype) for spec in session.inputs]
            call = session.bind(*arrays)
            call()
            calls.append(call)
        times = np.zeros((rounds, len(calls)))
        for row in times:
            for k, call in enumerate(calls):
                call()  # brings what the others pushed out of the caches back
                begin = clock()
                call()
                row[k] = clock() - begin
        return (np.quantile(times, 0.25, axis=0) * 1e-6).tolist()

    return measure
