"""Translations of the operators that move a window: convolutions, pools and resizing.

Padding is what files of other frameworks write most differently: as ``auto_pad``, or on one side
alone. Signatures are those of :mod:`devices.runtimes.torch_graph`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from search_spaces.errors import InputError
from search_spaces.model_files.graph import Node

_POOLS: dict[str, tuple[Callable[..., Any], ...]] = {
    "MaxPool": (F.max_pool1d, F.max_pool2d, F.max_pool3d),
    "AveragePool": (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d),
}


def conv(node: Node, x: list[Tensor], fixed: list[Any]) -> Tensor:
    """Translate Conv."""
    a = node.attributes
    image, weight = x[0], x[1]
    rank = weight.dim() - 2
    stride = list(a.get("strides", [1] * rank))
    dilation = list(a.get("dilations", [1] * rank))
    begin, end = _pads(node, image, list(weight.shape[2:]), stride, dilation)
    padding: Any = tuple(begin)
    if begin != end:
        image, padding = F.pad(image, _sides(begin, end)), 0
    call = (F.conv1d, F.conv2d, F.conv3d)[rank - 1]
    bias = x[2] if len(x) > 2 else None
    return call(image, weight, bias, tuple(stride), padding, tuple(dilation), a.get("group", 1))


def conv_transpose(node: Node, x: list[Tensor], fixed: list[Any]) -> Tensor:
    """Translate ConvTranspose: what it pads is cut off at the end where both sides differ."""
    a, rank = node.attributes, x[1].dim() - 2
    stride, dilation = a.get("strides", [1] * rank), a.get("dilations", [1] * rank)
    more = a.get("output_padding", [0] * rank)
    begin, end = a.get("pads", [0] * 2 * rank)[:rank], a.get("pads", [0] * 2 * rank)[rank:]
    mode = a.get("auto_pad", "NOTSET")
    if "output_shape" in a or mode.startswith("SAME"):
        sizes = [int(n) for n in x[0].shape[2:]]
        wanted = a.get("output_shape") or [n * s for n, s in zip(sizes, stride, strict=True)]
        begin, end = [], []
        for i in range(rank):
            window = (x[1].shape[2 + i] - 1) * dilation[i] + 1
            total = stride[i] * (sizes[i] - 1) + more[i] + window - wanted[-rank:][i]
            if total < 0:
                raise InputError(f"{node.op} ({node.output}) to a size larger than it makes")
            begin.append(total // 2 if mode == "SAME_UPPER" else total - total // 2)
            end.append(total - begin[-1])
    elif mode == "VALID":
        begin = end = [0] * rank
    call = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[rank - 1]
    bias, even = x[2] if len(x) > 2 else None, list(begin) == list(end)
    out = call(
        x[0], x[1], bias, stride, list(begin) if even else 0, more, a.get("group", 1), dilation
    )
    if even:
        return out
    for i in range(rank):
        out = out.narrow(2 + i, begin[i], out.shape[2 + i] - begin[i] - end[i])
    return out


def pool(node: Node, x: list[Tensor], fixed: list[Any]) -> Tensor:
    """Translate MaxPool and AveragePool.

    Raises:
        InputError: the second output of a MaxPool, or what torch has no window for.
    """
    a, image = node.attributes, x[0]
    kernel = list(a["kernel_shape"])
    rank = len(kernel)
    stride = list(a.get("strides", [1] * rank))
    dilation = list(a.get("dilations", [1] * rank))
    ceil = bool(a.get("ceil_mode", 0))
    call = _POOLS[node.op][rank - 1]
    begin, end = _pads(node, image, kernel, stride, dilation)
    # Torch pads at most half a window.
    even = begin == end and all(2 * p <= k for p, k in zip(begin, kernel, strict=True))
    if sum(map(bool, node.outputs)) > 1:
        raise InputError(f"{node.op} with places ({node.outputs[1]}) has no torch translation")
    if node.op == "MaxPool":
        if even:
            return call(image, kernel, stride, begin, dilation, ceil)
        # A repeated edge is in each of its windows anyway, as long as these have no gaps.
        if any(d > 1 for d in dilation) or any(
            p >= k for p, k in zip([*begin, *end], [*kernel, *kernel], strict=True)
        ):
            raise InputError(
                f"{node.op} with uneven pads and dilations has no torch translation ({node.output})"
            )
        image = F.pad(image, _sides(begin, end), mode="replicate")
        return call(image, kernel, stride, 0, 1, ceil)
    if any(d > 1 for d in dilation):
        raise InputError(f"{node.op} with dilations has no torch translation ({node.output})")
    counts = bool(a.get("count_include_pad", 0))
    if even:
        return call(image, kernel, stride, begin, ceil, counts)
    sides = _sides(begin, end)
    out = call(F.pad(image, sides), kernel, stride, 0, ceil)
    if counts:
        return out
    held = F.pad(image.new_ones((1, 1, *image.shape[2:])), sides)
    return out / call(held, kernel, stride, 0, ceil)


def resize(node: Node, x: list[Tensor], fixed: list[Any]) -> Tensor:
    """Translate Resize of signals and images.

    Raises:
        InputError: a form of it that torch has no other name for.
    """
    a, image = node.attributes, x[0]
    rank = image.dim() - 2
    scales, sizes = (fixed[i] if i < len(fixed) else None for i in (2, 3))
    shape = list(image.shape)
    if sizes:
        wanted = list(sizes)
    elif scales:
        # The size of a batch may vary, and is no number then.
        wanted = [n if s == 1 else int(n * s) for n, s in zip(shape, scales, strict=True)]
    else:
        raise InputError("Resize to a computed size; export it with a constant size")
    if len(wanted) != rank + 2 or wanted[:2] != shape[:2]:
        raise InputError(f"Resize of {tuple(shape)} to {tuple(wanted)} is no resizing of images")
    mode, place = a.get("mode", "nearest"), a.get("coordinate_transformation_mode", "half_pixel")
    form = (mode, place, a.get("nearest_mode", "round_prefer_floor"))
    whole = all(
        # Torch steps by the sizes, ONNX by the scales that a file names.
        not scales or abs(n * s - w) < 1e-4
        for n, s, w in zip(shape[2:], (scales or [])[2:], wanted[2:], strict=bool(scales))
    )
    target = [int(n) for n in wanted[2:]]
    if mode == "nearest":
        copies = all(w % int(n) == 0 for n, w in zip(shape[2:], target, strict=True))
        centres = place in ("half_pixel", "pytorch_half_pixel") and form[2].startswith("round")
        if (form[1:] == ("asymmetric", "floor") and whole) or (copies and centres):
            return F.interpolate(image, size=target, mode="nearest")
    elif mode in ("linear", "cubic") and whole and not a.get("antialias", 0):
        names = {("linear", 1): "linear", ("linear", 2): "bilinear", ("linear", 3): "trilinear",
                 ("cubic", 2): "bicubic"}  # fmt: skip
        exact = mode == "linear" or a.get("cubic_coeff_a", -0.75) == -0.75
        corners = place == "align_corners"
        larger = all(n > 1 for n in target) or place == "half_pixel"
        usual = place == "half_pixel" or corners or (place == "pytorch_half_pixel" and larger)
        if (mode, rank) in names and exact and usual and not a.get("exclude_outside", 0):
            return F.interpolate(image, size=target, mode=names[mode, rank], align_corners=corners)
    raise InputError(
        f"Resize of {image.dim()} axes in the form {', '.join(form)} has no torch translation"
    )


def _pads(
    node: Node, image: Tensor, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Return what is added before and after each axis."""
    rank = len(kernel)
    mode = node.attributes.get("auto_pad", "NOTSET")
    if mode in ("NOTSET", ""):
        pads = list(node.attributes.get("pads", [0] * 2 * rank))
        return pads[:rank], pads[rank:]
    if mode == "VALID":
        return [0] * rank, [0] * rank
    totals = []
    for i in range(rank):
        size = int(image.shape[2 + i])
        window = (int(kernel[i]) - 1) * dilation[i] + 1
        totals.append(max(0, (-(-size // stride[i]) - 1) * stride[i] + window - size))
    less, more = [n // 2 for n in totals], [n - n // 2 for n in totals]
    return (less, more) if mode == "SAME_UPPER" else (more, less)


def _sides(begin: Sequence[int], end: Sequence[int]) -> list[int]:
    """Return pads in torch's order: of the last axis first."""
    return [n for pair in zip(reversed(begin), reversed(end), strict=True) for n in pair]


WINDOWS = {
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "MaxPool": pool,
    "AveragePool": pool,
    "Resize": resize,
}
"""ONNX operator -> f(node, tensors, small constants as lists or None)."""
