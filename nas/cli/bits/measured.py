"""Layers measured on a device for ``nas bits --device``, and the network that comes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from nas.cli.device_options import chosen_device, key_values
from search_spaces.atomic import write_json_atomic

if TYPE_CHECKING:
    from nas.bits.device import DeviceCosts, Measure


def measured_on(
    device: str,
    runtime: str,
    option: list[str] | None,
    hub: str | None,
    token_file: Path | None,
    ca: Path | None,
    protocol: list[str] | None,
) -> Measure:
    """Return what measures files on the device that the options name."""
    from devices.measuring.protocol import Protocol
    from nas.bits.device import on_device

    options = key_values(option, "--option")
    board = None if hub is None else device
    found = chosen_device(
        device if hub is None else runtime, 1, 1, options, hub, token_file, board, ca, False,
        None, None,
    )  # fmt: skip
    return on_device(found, Protocol.from_json(key_values(protocol, "--protocol")))


def layers_on(
    source: Any,
    widths: list[int | str],
    inputs: list[int | str],
    edge_bits: int | None,
    measure: Measure,
) -> DeviceCosts:
    """Return the latency of each layer at each pair of bits on a device."""
    from nas.bits.allocation import Bits
    from nas.bits.device import measure_layers

    pairs = [Bits(w, a) for w in widths for a in inputs]
    # From the most bits down: the others are told against those.
    pairs.sort(key=lambda bits: (-bits.weight_bits, -bits.activation_bits))
    return measure_layers(source.module, source.calibration, pairs, measure, edge_bits=edge_bits)


def tell_verified(
    source: Any,
    result: Any,
    costs: DeviceCosts,
    measure: Measure,
    device: str,
    path: Path,
    *,
    edge_bits: int | None,
) -> None:
    """Measure the whole network that was written, record it in ``path`` and print it.

    Args:
        source: of the network.
        result: its allocation.
        costs: of the layers, by which it was predicted.
        measure: measures files.
        device: its name.
        path: of ``bits.json``; the model lies beside it.
        edge_bits: of the first and last layer.
    """
    from nas.bits.device import verify

    found = verify(
        source.module,
        source.calibration,
        costs,
        dict(zip(result.table.layers, result.best.options, strict=True)),
        path.parent / "model.onnx",
        measure,
        edge_bits=edge_bits,
    )
    written = json.loads(path.read_text(encoding="utf-8"))
    written["device"]["verified"] = found.to_json()
    write_json_atomic(path, written)
    typer.echo(
        f"on {device}: predicted {found.predicted_ms:.4g} ms, measured "
        f"{found.measured_ms:.4g} ms ({100 * found.error:.1f} % off); all layers at "
        f"{costs.base}: {found.base_ms:.4g} ms"
    )
