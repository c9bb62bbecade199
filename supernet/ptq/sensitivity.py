"""How much each layer of a float network suffers at each bit-width, without any training.

One layer at a time is quantised, its weights or its input, and everything else stays float.
What changes is its own output, and the network's. The table is what an integer programme over
bit-widths minimises (the sum over layers of a metric), so a search needs no trained supernet.
Sources: the logits' divergence as in ZeroQ (Cai et al., CVPR 2020, section 3.2); the outliers of
a layer's weights as in Layer-Wise Quantization (Dumitru et al., 2024, the z-score criterion).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from search_spaces.atomic import write_json_atomic
from search_spaces.errors import InputError
from search_spaces.number_formats import bits_of, number_format
from search_spaces.plan import FLOAT_BITS
from supernet.ptq.graph import FloatGraph, Recorded, images_of, trace_float
from supernet.ptq.ranges import RangeObserver, quantize_weight, weight_steps
from supernet.quantizers.formats import encode_weights, round_to_format

METRICS = ("output", "logits_mse", "kl")
"""``output``: squared change of the layer's output over its power. ``logits_mse``: mean squared
change of the network's outputs. ``kl``: mean divergence of the softmax of the outputs over their
classes, in nats; where outputs are several tensors, which need not be classes, or one number, of
which a softmax is always one, the sum of the squared changes of each over its power."""

_MEANING = 2
"""Of the sums of :data:`METRICS` in files; higher where they come to mean something else."""


@dataclass(frozen=True)
class SensitivityTable:
    """What quantising one layer alone does.

    Attributes:
        layers: names, in order of execution: the plan's layer names of an extracted network,
            module paths of others.
        weight_bits, activation_bits: columns of the arrays below: bits of integers, or names of
            number formats.
        weights: metric of :data:`METRICS` -> (layers, weight_bits) float64.
        activations: metric -> (layers, activation_bits) float64, for the layer's input.
        outliers: ``weights`` and ``activations`` -> (layers,) share of values more than three
            standard deviations from their mean; ``weights_z1``: above one, as in the source.
    """

    layers: tuple[str, ...]
    weight_bits: tuple[int | str, ...]
    activation_bits: tuple[int | str, ...]
    weights: dict[str, np.ndarray]
    activations: dict[str, np.ndarray]
    outliers: dict[str, np.ndarray]

    def cost(
        self,
        layer: str,
        weight_bits: int | str,
        activation_bits: int | str,
        *,
        metric: str = "kl",
    ) -> float:
        """Return the cost of one layer at a pair of bit-widths; 32 is float and costs nothing.

        Raises:
            InputError: the table lacks the layer, the bits or the metric.
        """
        if layer not in self.layers or metric not in self.weights:
            raise InputError(f"the table has no layer {layer!r} or no metric {metric!r}")
        i = self.layers.index(layer)
        total = 0.0
        for bits, known, values in (
            (weight_bits, self.weight_bits, self.weights[metric]),
            (activation_bits, self.activation_bits, self.activations[metric]),
        ):
            if bits_of(bits) >= FLOAT_BITS:
                continue
            if bits not in known:
                told = f"{bits} bits" if isinstance(bits, int) else bits
                raise InputError(f"the table has no column for {told} (it has {known})")
            total += float(values[i, known.index(bits)])
        return total

    def save(self, path: Path) -> None:
        """Write the table as JSON."""
        write_json_atomic(path, self.to_json())

    def to_json(self) -> dict[str, Any]:
        """Return the table as JSON-able data."""
        arrays = {
            name: {key: value.tolist() for key, value in getattr(self, name).items()}
            for name in ("weights", "activations", "outliers")
        }
        lists = {n: list(getattr(self, n)) for n in ("layers", "weight_bits", "activation_bits")}
        return {**lists, **arrays}

    @classmethod
    def load(cls, path: Path) -> SensitivityTable:
        """Read a table that :meth:`save` wrote.

        Raises:
            InputError: the file is missing or no such table.
        """
        try:
            data = json.loads(Path(path).read_text())
            lists: dict[str, Any] = {
                n: tuple(data[n]) for n in ("layers", "weight_bits", "activation_bits")
            }
            arrays: dict[str, Any] = {
                n: {key: np.array(value) for key, value in data[n].items()}
                for n in ("weights", "activations", "outliers")
            }
            return cls(**lists, **arrays)
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path} is no sensitivity table: {error}") from error


@torch.no_grad()
def layer_sensitivity(
    module: nn.Module,
    batches: Iterable[Any],
    *,
    weight_bits: Sequence[int | str] = (2, 3, 4, 8),
    activation_bits: Sequence[int | str] = (2, 3, 4, 8),
    per_channel: bool = True,
    group: int = 0,
    path: Path | None = None,
    on_layer: Callable[[int, int], None] | None = None,
) -> SensitivityTable:
    """Measure the sensitivity of every convolution and linear layer of a float network.

    All bit-widths of a layer run through the rest of the network in one batch, and what lies
    before the layer is computed once.

    Args:
        module: any network that ``torch.export`` can capture; an extracted network must be in float
            (see :func:`supernet.training.subnets.float_plan`). Not changed.
        batches: images (batch, channels, height, width), or (images, targets) whose targets are
            ignored. A few hundred images are enough.
        weight_bits, activation_bits: bit-widths to try, 2 to 8, or names of number formats.
        per_channel: a weight step for each output channel, otherwise one for the layer.
        group: as in :func:`supernet.ptq.quantize.quantize_post_training`.
        path: JSON file that keeps finished batches, so that a second call goes on; the same
            network, images and bits are asked for.
        on_layer: told after each layer of each batch how many are done, and of how many.

    Raises:
        InputError: the module cannot be traced, there are no images, or ``path`` belongs to
            other data.
    """
    images = list(images_of(batches))
    if not images:
        raise InputError("layer sensitivity needs at least one batch of images")
    graph = trace_float(module, images[0])
    sums = _Sums(graph, (tuple(weight_bits), tuple(activation_bits)))
    key = _fingerprint(graph, images, sums.bits, [per_channel, group] if group else per_channel)
    if path is not None and Path(path).exists():
        sums.restore(Path(path), key)
    recorded = Recorded(graph.module, images[0])
    # What does not depend on the batch: quantised weights, and grids from the first batch.
    observers = {name: RangeObserver() for name in graph.layers}
    for name, node in graph.layers.items():
        observers[name].see(recorded.input_of(node))
    grids = {name: [_grid(o, b) for b in activation_bits] for name, o in observers.items()}
    for number, batch in enumerate(images):
        if number < sums.batches:
            continue
        if number > 0:
            recorded = Recorded(graph.module, batch)
        for row, (name, node) in enumerate(graph.layers.items()):
            layer, x = graph.layer(name), recorded.input_of(node)
            weight = layer.weight.detach()
            versions = [
                _with_weight(layer, x, _quantised(weight, bits, per_channel, group))
                for bits in weight_bits
            ]
            versions += [layer(grid(x)) for grid in grids[name]]
            sums.add(row, recorded, node, torch.stack(versions))
            sums.outliers[1, row] += outlier_share(x) * len(batch)
            if on_layer is not None:
                on_layer(number * len(graph.layers) + row + 1, len(images) * len(graph.layers))
        sums.finish(len(batch))
        if path is not None:
            sums.save(Path(path), key)
    return sums.table()


def outlier_share(values: Tensor, *, deviations: float = 3.0) -> float:
    """Return the share of ``values`` beyond ``deviations`` standard deviations from the mean."""
    deviation, mean = torch.std_mean(values.detach())
    return ((values - mean).abs() > deviations * deviation).float().mean().item()


def _change(wanted: Tensor, versions: Tensor) -> Tensor:
    """Return the mean squared change of each version (versions, batch, ...) of (batch, ...)."""
    return (versions - wanted).square().flatten(1).mean(1)


def _power(x: Tensor) -> Tensor:
    return x.square().mean().clamp(min=1e-20)


def apart(wanted: Sequence[Tensor], versions: Sequence[Tensor]) -> Tensor:
    """Return how far each version of a network's outputs is from them, as ``kl``: (versions,).

    Args:
        wanted: each (batch, ...).
        versions: of each, (versions, batch, ...).
    """
    if len(wanted) == 1 and wanted[0].shape[_class_axis(wanted[0])] > 1:
        return divergence(wanted[0], versions[0])
    parts = [_change(w, v) / _power(w) for w, v in zip(wanted, versions, strict=True)]
    return torch.stack(parts).sum(0)


def changes(recorded: Recorded, node: fx.Node, versions: Tensor, metrics: Sequence[str]) -> Tensor:
    """Return what other outputs of a layer change: (metrics, versions).

    Args:
        recorded: the network's values.
        node: of the layer.
        versions: its outputs (versions, batch, ...).
        metrics: of :data:`METRICS`.
    """
    wanted, found = recorded.outputs(), recorded.rerun(node, versions)
    before = recorded.values[node]
    pairs = list(zip(wanted, found, strict=True))
    kinds: dict[str, Callable[[], Tensor]] = {
        "output": lambda: _change(before, versions) / _power(before),
        "logits_mse": lambda: torch.stack([_change(after, own) for after, own in pairs]).sum(0),
        "kl": lambda: apart(wanted, found),
    }
    return torch.stack([kinds[metric]() for metric in metrics])


def _class_axis(outputs: Tensor) -> int:
    """Classes are the channels of maps, and the last axis of everything else."""
    return 1 - outputs.dim() if outputs.dim() >= 4 else -1


def divergence(wanted: Tensor, versions: Tensor) -> Tensor:
    """Return the mean divergence of each version (versions, batch, ...) from (batch, ...)."""
    axis = _class_axis(wanted)
    truth, found = torch.log_softmax(wanted, axis), torch.log_softmax(versions, axis)
    return (truth.exp() * (truth - found)).sum(axis).flatten(1).mean(1)


class _Sums:
    """Sums over images, in the order layers x (weight bits, then activation bits)."""

    def __init__(self, graph: FloatGraph, bits: tuple[tuple[Any, ...], tuple[Any, ...]]) -> None:
        self.graph, self.bits = graph, bits
        self.batches, self.images = 0, 0
        self.values = np.zeros((len(METRICS), len(graph.layers), sum(map(len, bits))))
        self.outliers = np.zeros((2, len(graph.layers)))

    def add(self, row: int, recorded: Recorded, node: fx.Node, versions: Tensor) -> None:
        """Add a layer's outputs ``versions`` (versions, batch, ...)."""
        rows = changes(recorded, node, versions, METRICS)
        self.values[:, row] += rows.double().cpu().numpy() * recorded.batch

    def finish(self, images: int) -> None:
        """Note that a batch of ``images`` is through."""
        self.batches += 1
        self.images += images

    def table(self) -> SensitivityTable:
        """Return the means over the images so far."""
        values = self.values / self.images
        split = len(self.bits[0])
        weights = [self.graph.layer(name).weight for name in self.graph.layers]
        return SensitivityTable(
            layers=tuple(self.graph.layers),
            weight_bits=self.bits[0],
            activation_bits=self.bits[1],
            weights={m: values[i, :, :split] for i, m in enumerate(METRICS)},
            activations={m: values[i, :, split:] for i, m in enumerate(METRICS)},
            outliers={
                "weights": np.array([outlier_share(w) for w in weights]),
                "weights_z1": np.array([outlier_share(w, deviations=1.0) for w in weights]),
                "activations": self.outliers[1] / self.images,
            },
        )

    def save(self, path: Path, key: str) -> None:
        """Write the sums to be gone on from; ``key`` says of what they are."""
        state = {"key": key, "batches": self.batches, "images": self.images}
        arrays = {"values": self.values.tolist(), "outliers": self.outliers.tolist()}
        write_json_atomic(path, {**state, **arrays})

    def restore(self, path: Path, key: str) -> None:
        """Go on from a file of :meth:`save`.

        Raises:
            InputError: it holds something else, or is of another ``key``.
        """
        try:
            state = json.loads(path.read_text())
            known = state["key"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} holds no unfinished sensitivity table: {error}") from error
        if known != key:
            raise InputError(
                f"{path} belongs to another network, other images or other bits; delete it or "
                "give another path"
            )
        self.batches, self.images = state["batches"], state["images"]
        self.values, self.outliers = np.array(state["values"]), np.array(state["outliers"])


def _with_weight(layer: nn.Module, x: Tensor, weight: Tensor) -> Tensor:
    return torch.func.functional_call(layer, {"weight": weight}, (x,))


def _quantised(weight: Tensor, number: int | str, per_channel: bool, group: int) -> Tensor:
    if isinstance(number, str):
        scales = group or ("channel" if per_channel else "tensor")
        encoded = encode_weights(weight, number_format(number), scales=scales)
        return torch.from_numpy(encoded.decoded()).to(weight.device)
    return quantize_weight(weight, weight_steps(weight, number, per_channel=per_channel), number)


def _grid(observer: RangeObserver, number: int | str) -> Callable[[Tensor], Tensor]:
    if isinstance(number, int):
        return observer.grid(number)
    chosen = number_format(number)
    step = observer.format_step(chosen)
    return lambda x: round_to_format(x / step, chosen) * step


def _fingerprint(graph: FloatGraph, images: list[Tensor], bits: Any, scales: Any) -> str:
    about = [_MEANING, bits, scales, list(graph.layers)]
    digest = hashlib.sha256(json.dumps(about).encode())
    for name in graph.layers:
        digest.update(graph.layer(name).weight.detach().cpu().numpy().tobytes())
    for batch in images:
        digest.update(np.ascontiguousarray(batch.cpu().numpy()).tobytes())
    return digest.hexdigest()
