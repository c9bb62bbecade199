"""How tensors run through each kind of block, written once.

A dataflow gets its layers and quantisation points as callables by name. In the supernet
they are elastic layers bound to an architecture, in an extracted network plain
modules; both therefore compute the same thing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor
from torch.nn import functional as F

from search_spaces.errors import InputError
from search_spaces.registry import Registry

Operation = Callable[[Tensor], Tensor]
Dataflow = Callable[[Tensor, Mapping[str, Operation], bool], Tensor]

DATAFLOWS: Registry[Dataflow] = Registry("block kind", group="nas.dataflows")


def activate(x: Tensor, name: str) -> Tensor:
    """Apply the non-linearity ``name`` to ``x`` of any shape.

    Raises:
        InputError: the name is none of ``relu, hswish, hsigmoid, none, stream``.
    """
    if name == "relu":
        return F.relu(x)
    if name == "hswish":
        return F.hardswish(x)
    if name == "hsigmoid":
        return F.hardsigmoid(x)
    if name in ("none", "stream"):
        return x
    raise InputError(f"unknown activation {name!r} (available: relu, hswish, hsigmoid, none)")


@DATAFLOWS.register("stem")
def stem(x: Tensor, ops: Mapping[str, Operation], residual: bool) -> Tensor:
    """First convolution: (batch, channels, height, width) images to features."""
    return ops["output"](ops["stem"](x))


@DATAFLOWS.register("mbconv")
def mbconv(x: Tensor, ops: Mapping[str, Operation], residual: bool) -> Tensor:
    """Inverted residual block (Sandler et al., CVPR 2018), optionally with squeeze-and-excite.

    ``x``: (batch, channels, height, width), quantised as a stream.
    """
    h = ops["expand"](x) if "expand" in ops else x
    # A fused block has no depthwise convolution.
    h = ops["depthwise"](h) if "depthwise" in ops else h
    if "squeeze" in ops:
        h = ops["gate"](h)
        gate = ops["squeeze"](h.mean((2, 3), keepdim=True))
        h = h * activate(ops["excite"](gate), "hsigmoid")
    h = ops["output"](ops["project"](h))
    return ops["sum"](x + h) if residual else h


@DATAFLOWS.register("head")
def head(x: Tensor, ops: Mapping[str, Operation], residual: bool) -> Tensor:
    """Last convolution, global average pooling and classifier: returns (batch, outputs)."""
    h = ops["pool"](ops["head"](x)).mean((2, 3))
    if "feature" in ops:
        h = ops["feature"](h)
    return ops["classifier"](h)
