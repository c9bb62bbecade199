"""A network that a command line or a job names: Python code, a collection, or an ONNX file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search_spaces.errors import InputError

if TYPE_CHECKING:
    from torch import nn


def load_source(
    name: str, weights: Path | str | None = None, *, arguments: Mapping[str, Any] | None = None
) -> nn.Module:
    """Return the network that a command line names, in evaluation mode.

    Args:
        name: an ONNX file, or as in :func:`supernet.own_model.sources.load_network`.
        weights: a .safetensors file with its state; the network's own otherwise.
        arguments: for what makes the network.

    Raises:
        InputError: no such network, weights that do not fit, or weights for an ONNX file.
    """
    from supernet.own_model.sources import load_network

    if not name.endswith(".onnx"):
        path = None if weights is None else Path(weights)
        return load_network(name, weights=path, arguments=arguments)
    from nas.bits.onnx_source import OnnxNetwork
    from supernet.own_model.vectors import flattening, vector_length

    if weights is not None:
        raise InputError(f"{name} has its weights within; leave out --weights")
    if not Path(name).is_file():
        raise InputError(f"there is no file {name}")
    network = OnnxNetwork(Path(name)).eval()
    return flattening(network) if vector_length(network) else network
