"""Transposed convolutions as convolutions, whose weights can be quantised as those of any other.

A transposed convolution of stride ``s`` makes a block of ``s x s`` pixels of each pixel. All pixels
at one place of their blocks see the same weights, so they are the output of a convolution, and a
pixel shuffle puts the ``s x s`` of them together (Shi et al. 2016, arXiv:1609.07009). Nothing is
multiplied by zeros between pixels, and every runtime of integers has both operations. Where the two
strides differ, blocks are as large as their least common multiple, each of several pixels, and the
convolution has a stride. Gaps between weights become weights of zero, but with a stride of 1, where
the convolution has them too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from supernet.reading.capture import attribute, put
from supernet.reading.normal_form import STATISTICS
from supernet.reading.operations import packet

_WHOLE = 2**63 - 1
"""Where a slice ends that leaves nothing out."""

_ARGUMENTS = ("stride", "padding", "output_padding", "groups", "dilation")


@torch.no_grad()
def convolutions_for_transposed(module: fx.GraphModule) -> tuple[str, ...]:
    """Replace the transposed convolutions of a network that was read, in place.

    Those that are used more than once stay, and those with unlike strides where sizes vary. A
    batch norm behind one, which was read as a factor of each channel, is part of it; one that was
    not folded follows it, before the pixels are shuffled. Its statistics are then those of all that
    the convolution gives, what is cut off at the image's edges included.

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

    The blocks are square: with ``side`` pixels, the least common multiple of the strides, a block
    is made of ``side / stride`` pixels of the input, which are the stride of the convolution.

    Args:
        weight: of the transposed convolution, (inputs, outputs / groups, height, width).
        stride: of each axis.
        groups: of channels.

    Returns:
        (outputs * side ** 2, inputs / groups, rows, columns), for images padded in front by
        ``-(-height // stride) - 1`` rows, and by as many columns.
    """
    inputs, each = weight.shape[:2]
    side = math.lcm(*stride)
    wide = nn.functional.pad(weight, (0, 1, 0, 1))  # the last row and column are zeros
    taken = [_taps(weight.shape[2 + i], stride[i], side) for i in range(2)]
    split = wide[:, :, taken[0]][..., taken[1]]
    split = split.reshape(groups, inputs // groups, each, side, -1, side, taken[1].shape[1])
    split = split.permute(0, 2, 3, 5, 1, 4, 6)
    return split.reshape(-1, inputs // groups, *split.shape[-2:])


def _taps(count: int, stride: int, side: int) -> Tensor:
    """Return which of ``count`` weights each place of a block sees at each tap: (side, taps).

    ``count`` stands for none of them.
    """
    before = -(-count // stride) - 1
    place = torch.arange(side)[:, None]
    tap = torch.arange(before + side // stride)[None]
    found = place - (tap - before) * stride
    return torch.where((found >= 0) & (found < count), found, count)


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
    found = _sides(source)
    if stride[0] != stride[1] and found is None:
        return ""
    shape = found or (0, 0)  # asked for where strides differ
    weight = attribute(module, str(weight_node.target))
    block = math.lcm(*stride)
    pixels = [block // step for step in stride]
    # Rows that only the bias reaches see weights of zero.
    beyond = [max(0, more[i] - padding[i]) for i in range(2)]
    gaps = dilation if stride == (1, 1) and not any(beyond) else (1, 1)
    if gaps != dilation:
        weight = _spread(weight, dilation)
    sides = [gaps[i] * (weight.shape[2 + i] - 1) + 1 for i in range(2)]
    weight = nn.functional.pad(weight, (0, beyond[1], 0, beyond[0]))
    split = phases(weight, stride, groups)
    kernel = (split.shape[2], split.shape[3])
    around = [gaps[i] * (kernel[i] - pixels[i]) for i in range(2)]
    conv = nn.Conv2d(
        weight.shape[0], len(split), kernel, stride=(pixels[0], pixels[1]),
        padding=(around[0], around[1]), dilation=gaps, groups=groups,
    )  # fmt: skip
    conv.weight.copy_(split)
    bias = weight.new_zeros(len(split) // block**2)
    if isinstance(bias_node, fx.Node):
        bias = attribute(module, str(bias_node.target))
    assert conv.bias is not None
    conv.bias.copy_(bias.repeat_interleave(block**2))
    statistics = _statistics_behind(module, node)
    if (norm := _norm_behind(module, node)) is not None:
        pixel = module.get_submodule(str(norm.target))
        assert isinstance(pixel, nn.Conv2d) and pixel.bias is not None
        gain = pixel.weight.flatten().repeat_interleave(block**2)
        conv.weight.mul_(gain.view(-1, 1, 1, 1))
        conv.bias.mul_(gain).add_(pixel.bias.repeat_interleave(block**2))
        norm.replace_all_uses_with(node)
        module.graph.erase_node(norm)
    conv.eval()
    put(module, path, conv)
    with module.graph.inserting_before(node):
        behind = [0, 0]
        for i in range(2):
            if pixels[i] > 1:  # A last block that is not whole reaches beyond the image.
                reach = (shape[i] - 1) * stride[i] + sides[i] + beyond[i]
                behind[i] = max(0, pixels[i] * -(-reach // block) - shape[i] - around[i])
        if any(behind):
            source = module.graph.call_function(
                torch.ops.aten.constant_pad_nd.default, (source, [0, behind[1], 0, behind[0]], 0.0)
            )
        out = module.graph.call_module(path, (source,))
        if statistics is not None:
            # Before the shuffle, where each channel is several outputs: they share what it has.
            out.meta["nn_module_stack"] = node.meta.get("nn_module_stack")
            out.meta["shared_norm"] = block**2
            out = _norm_before_shuffle(module, statistics, out, block**2)
        if block > 1:
            out = module.graph.call_function(torch.ops.aten.pixel_shuffle.default, (out, block))
        for i in range(2):
            if pixels[i] > 1:
                last = (shape[i] - 1) * stride[i] - padding[i] + sides[i] + more[i]
            else:  # Cut off at the end, however large the image is.
                end = block * (around[i] + 1) + padding[i] - sides[i] - more[i]
                last = -end if end else _WHOLE
            if padding[i] or last != _WHOLE:
                out = module.graph.call_function(
                    torch.ops.aten.slice.Tensor, (out, 2 + i, padding[i], last)
                )
    before: fx.Node = out
    while before is not node.args[0]:
        # All of them are where it was, as in an element of a sequence.
        before.meta["nn_module_stack"] = node.meta.get("nn_module_stack")
        before = before.args[0]  # type: ignore[assignment]
    out.meta = dict(node.meta)
    node.replace_all_uses_with(out)
    module.graph.erase_node(node)
    return path


def _sides(node: Any) -> tuple[int, int] | None:
    """Return height and width of an image; None where they are not known, or vary."""
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    sides = getattr(value, "shape", ())[2:]
    return tuple(sides) if len(sides) == 2 and all(type(n) is int for n in sides) else None


def _spread(weight: Tensor, dilation: tuple[int, int]) -> Tensor:
    """Return weights with zeros in their gaps."""
    sides = [gap * (side - 1) + 1 for gap, side in zip(dilation, weight.shape[2:], strict=True)]
    wide = weight.new_zeros(*weight.shape[:2], *sides)
    wide[:, :, :: dilation[0], :: dilation[1]] = weight
    return wide


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


def _statistics_behind(module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """Return the batch norm that alone reads a tensor, behind a convolution that changes nothing.

    Norms that are not folded are read so, see :mod:`supernet.reading.normal_form`.
    """
    users = list(node.users)
    if len(users) != 1 or users[0].op != "call_module" or len(users[0].users) != 1:
        return None
    norm = next(iter(users[0].users))
    placed = norm.op == "call_module" and norm.target == f"{users[0].target}{STATISTICS}"
    return norm if placed else None


def _norm_before_shuffle(
    module: fx.GraphModule, norm: fx.Node, source: fx.Node, places: int
) -> fx.Node:
    """Put a batch norm behind ``source``, which has ``places`` outputs for each of its channels."""
    own = module.get_submodule(str(norm.target))
    assert isinstance(own, nn.BatchNorm2d)
    wide = nn.BatchNorm2d(own.num_features * places, eps=own.eps)
    for name, value in wide.state_dict().items():
        if value.dim():
            value.copy_(own.state_dict()[name].repeat_interleave(places))
    path = str(norm.target).removesuffix(STATISTICS)
    (pixel,) = norm.all_input_nodes
    norm.replace_all_uses_with(pixel)
    module.graph.erase_node(norm)
    pixel.replace_all_uses_with(pixel.all_input_nodes[0])
    module.graph.erase_node(pixel)
    put(module, path, wide.eval())
    return module.graph.call_module(path, (source,))


def _both(value: Any) -> tuple[int, int]:
    numbers = list(value) if isinstance(value, Sequence) else [value]
    return int(numbers[0]), int(numbers[-1])
