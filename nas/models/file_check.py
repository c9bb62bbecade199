"""An exported file against the network it was made from, and the first layer that differs."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.models.outputs import as_arrays, relative_error

if TYPE_CHECKING:
    from torch import Tensor

    from supernet.plain import PlainNetwork

TOLERANCE = 0.05
"""Largest relative error of outputs; a rounding that falls the other way gives less."""

FEW_BITS_TOLERANCE = 0.15
"""The same where a grid has so few steps that one of them is a large part of a value."""

_FEW_BITS = 4

FLOAT_TOLERANCE = 1e-3
"""The same where nothing is quantised."""

_NOISE = 3e-4
_PROBES = 4


def file_problem(network: PlainNetwork, path: Path, images: Tensor) -> str | None:
    """Return in words where a file differs from its network; None if it does not.

    The file runs unoptimised, which is what it says; what a runtime makes of it is
    :func:`nas.models.parity.check_optimised`'s question. Rounding to few bits can turn a
    difference in the last digit into one of a whole step, so a network may differ by three
    times the most that noise of a few ten-thousandths of its input does to it.

    Args:
        network: in evaluation mode.
        path: the file.
        images: (batch, channels, height, width).
    """
    import torch

    from nas.models.parity import evaluate_outputs
    from search_spaces.plan import FLOAT_BITS

    found = evaluate_outputs(path, [images], optimise=False)
    with torch.no_grad():
        expected = as_arrays(network(images))
        shapes = [[each.shape for each in outputs] for outputs in (found, expected)]
        if shapes[0] != shapes[1]:
            return f"it returns {shapes[0]} where the network returns {shapes[1]}"
        error = relative_error(found, expected)
        least = min(
            min(layer.weight_bits, layer.activation_bits) for layer in network.plan.layers()
        )
        allowed = (
            FLOAT_TOLERANCE
            if least >= FLOAT_BITS
            else FEW_BITS_TOLERANCE
            if least <= _FEW_BITS
            else TOLERANCE
        )
        if error <= allowed:
            return None
        generator = torch.Generator().manual_seed(0)
        for _ in range(_PROBES):
            noise = torch.randn(images.shape, generator=generator) * images.std() * _NOISE
            noisy = as_arrays(network(images + noise))
            allowed = max(allowed, 3 * relative_error(noisy, expected))
    if error <= allowed:
        return None
    layer = _first_layer(network, path, images, allowed)
    where = f"first at the layer {layer}" if layer else "though every layer agrees"
    return (
        f"its outputs differ from the network's by {error:.3g} (relative; at most {allowed:.3g} "
        f"is rounding), {where}"
    )


def _first_layer(network: PlainNetwork, path: Path, images: Tensor, tolerance: float) -> str | None:
    import onnx
    import torch

    wanted: dict[str, np.ndarray] = {}

    def keep(name: str) -> Any:
        def hook(_module: Any, _inputs: Any, output: Tensor) -> None:
            # A hook that returned something would replace the output.
            wanted.setdefault(name, output.cpu().numpy())

        return hook

    handles = [
        layer.register_forward_hook(keep(layer.layer.name)) for layer in network.plain_layers()
    ]
    try:
        with torch.no_grad():
            network(images)
    finally:
        for handle in handles:
            handle.remove()
    model = onnx.load(path)
    made = {output for node in model.graph.node for output in node.output}
    names = [name for name in wanted if name in made]
    known = {output.name for output in model.graph.output}
    model.graph.output.extend(
        onnx.helper.make_empty_tensor_value_info(name) for name in names if name not in known
    )
    with tempfile.TemporaryDirectory() as folder:
        with_layers = Path(folder) / "layers.onnx"
        onnx.save(model, with_layers)
        found = _outputs(with_layers, names, images)
    for name in names:
        here, there = found[name], wanted[name]
        same_size = here.size == there.size
        if not same_size or relative_error([here.reshape(there.shape)], [there]) > tolerance:
            return name
    return None


def _outputs(path: Path, names: list[str], images: Tensor) -> dict[str, np.ndarray]:
    from nas.models.parity import open_session

    session = open_session(path, optimise=False)
    feed = {session.get_inputs()[0].name: images.cpu().numpy().astype(np.float32)}
    return dict(zip(names, session.run(names, feed), strict=True))
