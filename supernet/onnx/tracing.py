"""A network traced for its export, and the values that its nodes carry."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import fx, nn

from supernet.onnx.graph import View
from supernet.plain import PlainLayer, Source

if TYPE_CHECKING:
    pass


class LayerTracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, (PlainLayer, Source))


def reshaped(shape: tuple[int, ...]) -> View:
    return lambda graph, name: graph.node("Reshape", [name, graph.constant(np.array(shape))])


def flat(arguments: Any) -> Iterator[Any]:
    for argument in arguments:
        if isinstance(argument, (tuple, list)):
            yield from flat(argument)
        else:
            yield argument


def attribute_of(module: nn.Module, path: str) -> torch.Tensor:
    found: Any = module
    for part in path.split("."):
        found = getattr(found, part)
    assert isinstance(found, torch.Tensor)
    return found


def write_bytes(path: Path, data: bytes) -> None:
    path.write_bytes(data)
