"""Transposed convolutions as convolutions, whose weights can be quantised as those of any other.

A transposed convolution of stride ``s`` makes a block of ``s x s`` pixels of each pixel. All pixels
at one place of their blocks see the same weights, so they are the output of a convolution, and a
pixel shuffle puts the ``s x s`` of them together (Shi et al. 2016, arXiv:1609.07009). Nothing is
multiplied by zeros between pixels, and every runtime of integers has both operations. Where the two
strides differ, rows and columns are put together one after the other. Gaps between weights become
weights of zero, but with a stride of 1, where the convolution has them too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from supernet.reading.capture import attribute, put
from supernet.reading.operations import packet

_ARGUMENTS = ("stride", "padding", "output_padding", "groups", "dilation")


@torch.no_grad()
def convolutions_for_transposed(module: fx.GraphModule) -> tuple[str, ...]:
    """Replace the transposed convolutions of a network that was read, in place.

    Those that are used more than once stay. A batch norm behind one, which was read as a factor of
    each channel, is part of it.

    Args:
        module: from :func:`supernet.reading.reader.read_network`.

    Returns:
        The paths of the convolutions: where the transposed ones' weights were.
    """
    made = []
    for node in list(module.graph.nodes):
        if packet(node) == "conv_transpose2d" and (path := _replaced(module, node)):
            made.append(path)
    if made:
        module.graph.eliminate_dead_code()
        module.graph.lint()
        module.recompile()
    return tuple(made)


def phases(weight: Tensor, stride: tuple[int, int], groups: int) -> Tensor:
    """Return the weights of the convolution before the pixel shuffle.

    Args:
        weight: of the transposed convolution, (inputs, outputs / groups, height, width).
        stride: of each axis.
        groups: of channels.

    Returns:
        (outputs * the product of the strides, inputs / groups, rows, columns), for images padded
        on each side by rows - 1 and columns - 1.
    """
    inputs, each, *sides = weight.shape
    rows, columns = (-(-side // step) for side, step in zip(sides, stride, strict=True))
    wide = weight.new_zeros(inputs, each, rows * stride[0], columns * stride[1])
    wide[:, :, : sides[0], : sides[1]] = weight
    # Of each axis, (tap from the last to the first, place in the block).
    split = wide.view(groups, inputs // groups, each, rows, stride[0], columns, stride[1]).flip(
        3, 5
    )
    return split.permute(0, 2, 4, 6, 1, 3, 5).reshape(-1, inputs // groups, rows, columns)


def _replaced(module: fx.GraphModule, node: fx.Node) -> str:
    """Replace one transposed convolution; "" where it stays."""
    source, weight_node, *others = node.args
    bias_node = others[0] if others else node.kwargs.get("bias")
    given = dict(zip(_ARGUMENTS, others[1:], strict=False)) | node.kwargs
    stride, padding, more, dilation = (
        _both(given.get(key, default))
        for key, default in (("stride", 1), ("padding", 0), ("output_padding", 0), ("dilation", 1))
    )
    groups = int(given.get("groups", 1))  # type: ignore[arg-type]
    if not (isinstance(weight_node, fx.Node) and weight_node.op == "get_attr"):
        return ""
    if len(weight_node.users) != 1:
        return ""
    path = str(weight_node.target).removesuffix(".weight")
    if path == str(weight_node.target):
        return ""
    weight = attribute(module, str(weight_node.target))
    places = stride[0] * stride[1]
    # Rows that only the bias reaches see weights of zero.
    beyond = [max(0, more[i] - padding[i]) for i in range(2)]
    gaps = dilation if stride == (1, 1) and not any(beyond) else (1, 1)
    if gaps != dilation:
        weight = _spread(weight, dilation)
    sides = [gaps[i] * (weight.shape[2 + i] - 1) + 1 for i in range(2)]
    weight = nn.functional.pad(weight, (0, beyond[1], 0, beyond[0]))
    split = phases(weight, stride, groups)
    kernel = (split.shape[2], split.shape[3])
    around = [gaps[i] * (kernel[i] - 1) for i in range(2)]
    # Pixels that are cut off at the bottom and on the right.
    ends = [stride[i] * (around[i] + 1) + padding[i] - sides[i] - more[i] for i in range(2)]
    conv = nn.Conv2d(
        weight.shape[0], len(split), kernel, padding=(around[0], around[1]), dilation=gaps,
        groups=groups,
    )  # fmt: skip
    conv.weight.copy_(split)
    bias = weight.new_zeros(len(split) // places)
    if isinstance(bias_node, fx.Node):
        bias = attribute(module, str(bias_node.target))
    assert conv.bias is not None
    conv.bias.copy_(bias.repeat_interleave(places))
    if (norm := _norm_behind(module, node)) is not None:
        pixel = module.get_submodule(str(norm.target))
        assert isinstance(pixel, nn.Conv2d) and pixel.bias is not None
        gain = pixel.weight.flatten().repeat_interleave(places)
        conv.weight.mul_(gain.view(-1, 1, 1, 1))
        conv.bias.mul_(gain).add_(pixel.bias.repeat_interleave(places))
        norm.replace_all_uses_with(node)
        module.graph.erase_node(norm)
    conv.eval()
    put(module, path, conv)
    with module.graph.inserting_before(node):
        out = module.graph.call_module(path, (source,))
        out = _together(module.graph, out, stride)
        for axis in range(2):
            if padding[axis] or ends[axis]:
                last = -ends[axis] if ends[axis] else 2**63 - 1
                out = module.graph.call_function(
                    torch.ops.aten.slice.Tensor, (out, 2 + axis, padding[axis], last)
                )
    out.meta = dict(node.meta)
    node.replace_all_uses_with(out)
    module.graph.erase_node(node)
    return path


def _spread(weight: Tensor, dilation: tuple[int, int]) -> Tensor:
    """Return weights with zeros in their gaps."""
    sides = [gap * (side - 1) + 1 for gap, side in zip(dilation, weight.shape[2:], strict=True)]
    wide = weight.new_zeros(*weight.shape[:2], *sides)
    wide[:, :, :: dilation[0], :: dilation[1]] = weight
    return wide


def _together(graph: fx.Graph, out: fx.Node, stride: tuple[int, int]) -> fx.Node:
    """Put the pixels of blocks, which are channels, next to each other."""
    aten, (rows, columns) = torch.ops.aten, stride
    if rows == columns:
        return graph.call_function(aten.pixel_shuffle.default, (out, rows)) if rows > 1 else out
    # (batch, channels, rows, columns, height, width), a dimension more at a time.
    if columns > 1:
        split = graph.call_function(aten.unflatten.int, (out, 1, [-1, columns]))
        moved = graph.call_function(aten.permute.default, (split, [0, 1, 3, 4, 2]))
        out = graph.call_function(aten.flatten.using_ints, (moved, 3, 4))
    if rows > 1:
        split = graph.call_function(aten.unflatten.int, (out, 1, [-1, rows]))
        moved = graph.call_function(aten.permute.default, (split, [0, 1, 3, 2, 4]))
        out = graph.call_function(aten.flatten.using_ints, (moved, 2, 3))
    return out


def _norm_behind(module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """Return the factors and biases of channels that alone read a tensor."""
    users = list(node.users)
    if len(users) != 1 or users[0].op != "call_module":
        return None
    pixel = module.get_submodule(str(users[0].target))
    if not isinstance(pixel, nn.Conv2d) or pixel.bias is None:
        return None
    form = (pixel.kernel_size, pixel.stride, pixel.padding)
    whole = pixel.groups == pixel.in_channels == pixel.out_channels
    return users[0] if whole and form == ((1, 1), (1, 1), (0, 0)) else None


def _both(value: Any) -> tuple[int, int]:
    numbers = list(value) if isinstance(value, Sequence) else [value]
    return int(numbers[0]), int(numbers[-1])
