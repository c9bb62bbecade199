"""What holds of an ATen operation wherever it stands: one record for each, read by all who ask.

Names are those of :func:`packet`. An operation without a record has none of the properties, which
is always safe: what goes into it is followed no further.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx


@dataclass(frozen=True)
class OperationKind:
    """Properties of an operation.

    Attributes:
        pointwise: each value follows from one value at the same place.
        arithmetic: each value follows from one value of each of two tensors.
        spatial: each channel of images is computed by itself, from the last two axes.
        reshaping: the same values in the same order, in another shape.
        view: values are moved and none is changed, so that a reader reads the tensor before it.
        moving: values are moved or repeated, so that codes may be moved as well.
        product: multiplies and accumulates.
        mixing: runs on integers in some runtime, if what goes into it is quantised.
        integer: does so in every integer runtime.
        grid: what it makes of codes are codes of the same grid.
        sign: what it makes of values that are never negative never is.
        positive: what it makes is never negative.
        homogeneous: a positive factor of what goes in is a factor of what comes out.
        cutting: cuts off what is negative, or nearly so.
        sizes: looks at no values.
        created: looks at no values of its input, and makes a tensor of its sizes.
        identity: changes nothing in evaluation mode.
        neutral: changes nothing where shape and type stay the same; a slice then takes all.
        aliasing: may give a view of its input, though its schema does not say so.
        activation: name in plans of the non-linearity, if a quantiser can take it over.
    """

    pointwise: bool = False
    arithmetic: bool = False
    spatial: bool = False
    reshaping: bool = False
    view: bool = False
    moving: bool = False
    product: bool = False
    mixing: bool = False
    integer: bool = False
    grid: bool = False
    sign: bool = False
    positive: bool = False
    homogeneous: bool = False
    cutting: bool = False
    sizes: bool = False
    created: bool = False
    identity: bool = False
    neutral: bool = False
    aliasing: bool = False
    activation: str = ""


def _kinds(names: str, **properties: bool | str) -> dict[str, OperationKind]:
    return dict.fromkeys(names.split(), OperationKind(**properties))  # type: ignore[arg-type]


def _moving(names: str, **properties: bool) -> dict[str, OperationKind]:
    return _kinds(names, moving=True, grid=True, sign=True, **properties)


KINDS: dict[str, OperationKind] = {
    **_kinds("relu", pointwise=True, grid=True, sign=True, positive=True, homogeneous=True,
             cutting=True, activation="relu"),
    **_kinds("hardswish", pointwise=True, cutting=True, activation="hswish"),
    **_kinds("hardsigmoid", pointwise=True, positive=True, activation="hsigmoid"),
    **_kinds("gelu", pointwise=True, cutting=True, activation="gelu"),
    **_kinds("relu6", pointwise=True, positive=True, cutting=True),
    **_kinds("leaky_relu", pointwise=True, homogeneous=True, cutting=True),
    **_kinds("hardtanh silu elu mish clamp", pointwise=True, cutting=True),
    **_kinds("clamp_min prelu", cutting=True),
    **_kinds("sigmoid exp", pointwise=True, positive=True),
    **_kinds("tanh neg sqrt abs erf softplus", pointwise=True),
    **_kinds("softmax", positive=True),
    **_kinds("add", arithmetic=True, mixing=True, integer=True, homogeneous=True),
    **_kinds("sub maximum minimum", arithmetic=True, mixing=True, homogeneous=True),
    **_kinds("mul", arithmetic=True, mixing=True),
    **_kinds("div", arithmetic=True),
    **_kinds("cat", mixing=True, integer=True),
    **_kinds("mean", mixing=True, integer=True, sign=True, homogeneous=True),
    **_kinds("adaptive_avg_pool2d avg_pool2d", spatial=True, mixing=True, integer=True, sign=True,
             homogeneous=True),
    **_kinds("max_pool2d", spatial=True, mixing=True, integer=True, grid=True, sign=True,
             homogeneous=True),
    **_kinds("upsample_bilinear2d upsample_bicubic2d", spatial=True),
    **_moving("upsample_nearest2d", spatial=True),
    **_moving("flatten reshape", reshaping=True, view=True, homogeneous=True, neutral=True,
              aliasing=True),
    **_moving("view", reshaping=True, view=True, homogeneous=True, neutral=True),
    **_moving("squeeze unsqueeze", reshaping=True, view=True, homogeneous=True),
    **_moving("unflatten", reshaping=True, view=True, aliasing=True),
    **_moving("permute transpose split split_with_sizes unbind getitem select", view=True),
    **_moving("slice expand", view=True, neutral=True),
    **_moving("chunk", view=True, aliasing=True),
    **_moving("roll pixel_shuffle"),
    **_kinds("matmul bmm", product=True, mixing=True),
    **_kinds("scaled_dot_product_attention conv_transpose2d conv1d conv2d conv_transpose1d linear",
             product=True),
    **_kinds("sym_size", sizes=True),
    **_kinds("new_zeros new_ones new_full zeros_like ones_like full_like", created=True),
    **_kinds("dropout contiguous", identity=True, aliasing=True),
    **_kinds("dropout_ feature_dropout alpha_dropout native_dropout clone detach detach_ alias "
             "lift_fresh lift_fresh_copy", identity=True),
    **_kinds("_to_copy type_as _unsafe_view", neutral=True),
    **_kinds("to", neutral=True, aliasing=True),
}  # fmt: skip
"""Name of an operation -> what holds of it."""

ACTIVATIONS = {kind.activation: name for name, kind in KINDS.items() if kind.activation}
"""Name in plans of a non-linearity that a quantiser can take over -> its operation."""

_OTHER = OperationKind()


def packet(node: fx.Node) -> str:
    """Return the name of a node's operation without its overload; "" for other nodes."""
    if node.op == "call_method":
        return str(node.target)
    if node.op != "call_function":
        return ""
    target: Any = node.target
    if isinstance(target, torch._ops.OpOverload):
        return str(target.overloadpacket.__name__)
    return str(target.__name__)


def kind_of(node: fx.Node) -> OperationKind:
    """Return what holds of a node's operation; nothing of layers, inputs and unknown ones."""
    return KINDS.get(packet(node), _OTHER)


def alike(a: fx.Node, b: fx.Node) -> bool:
    """Whether two nodes are known to be tensors of one shape and type."""
    x, y = a.meta.get("val"), b.meta.get("val")
    return (
        isinstance(x, Tensor)
        and isinstance(y, Tensor)
        and x.dtype == y.dtype
        and len(x.shape) == len(y.shape)
        and all(same_size(i, j) for i, j in zip(x.shape, y.shape, strict=True))
    )


def same_size(a: Any, b: Any) -> bool:
    """Whether two sizes, of which either may vary, are known to be the same."""
    # Symbolic sizes are compared as written: asking whether they are equal would fix them.
    return str(a) == str(b)


def named(*properties: str) -> frozenset[str]:
    """Return the names of the operations that have all the properties."""
    return frozenset(
        name for name, kind in KINDS.items() if all(getattr(kind, key) for key in properties)
    )
