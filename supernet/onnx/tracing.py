"""A network traced for its export, and the values that its nodes carry."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from supernet.onnx.graph import View
from supernet.plain import PlainLayer, Source


class LayerTracer(fx.Tracer):
    """Traces a network down to its layers, which are exported as a whole."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether ``m`` is one of the layers."""
        return isinstance(m, (PlainLayer, Source))


def reshaped(shape: tuple[int, ...]) -> View:
    """Return a view of a value that has ``shape``."""
    return lambda graph, name: graph.node("Reshape", [name, graph.constant(np.array(shape))])


def flat(arguments: Any) -> Iterator[Any]:
    """Yield what arguments hold, those of lists and tuples one by one."""
    for argument in arguments:
        if isinstance(argument, (tuple, list)):
            yield from flat(argument)
        else:
            yield argument


def attribute_of(module: nn.Module, path: str) -> torch.Tensor:
    """Return the tensor at the dotted ``path`` of a module."""
    found: Any = module
    for part in path.split("."):
        found = getattr(found, part)
    assert isinstance(found, torch.Tensor)
    return found
