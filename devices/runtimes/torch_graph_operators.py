"""Translations of the operators that this project's own files lack and others' have.

Signatures are those of :mod:`devices.runtimes.torch_graph`: (node, tensors, small constants).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from search_spaces.errors import InputError
from search_spaces.model_files.graph import Node


def _of_one(call: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda node, x, fixed: call(x[0])


def _axes(node: Node, fixed: list[Any], rank: int) -> list[int]:
    axes = fixed[1] if len(fixed) > 1 and fixed[1] is not None else node.attributes.get("axes")
    return [int(a) for a in axes] if axes else list(range(rank))


def _reduce(call: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def run(node: Node, x: list[Tensor], fixed: list[Any]) -> Tensor:
        keep = bool(node.attributes.get("keepdims", 1))
        return call(x[0], _axes(node, fixed, x[0].dim()), keepdim=keep)

    return run


def _batch_norm(node: Node, x: list[Tensor], fixed: list[Any]) -> Tensor:
    if node.attributes.get("training_mode", 0):
        raise InputError("BatchNormalization in training mode has no torch translation")
    epsilon = node.attributes.get("epsilon", 1e-5)
    return F.batch_norm(x[0], x[3], x[4], x[1], x[2], False, 0.0, epsilon)


def _instance_norm(node: Node, x: list[Tensor], fixed: list[Any]) -> Tensor:
    return F.instance_norm(x[0], weight=x[1], bias=x[2], eps=node.attributes.get("epsilon", 1e-5))


def _prelu(node: Node, x: list[Tensor], fixed: list[Any]) -> Tensor:
    return torch.where(x[0] >= 0, x[0], x[0] * x[1])


def _pad(node: Node, x: list[Tensor], fixed: list[Any]) -> Tensor:
    mode = node.attributes.get("mode", "constant")
    pads = fixed[1] if len(fixed) > 1 and fixed[1] is not None else node.attributes["pads"]
    rank = len(pads) // 2
    sides = [
        int(side) for axis in reversed(range(rank)) for side in (pads[axis], pads[rank + axis])
    ]
    if len(fixed) > 3 and fixed[3] is not None:
        raise InputError("Pad along named axes has no torch translation")
    if mode != "constant":
        # Torch pads the last dimensions alone, and asks for no sides of the others.
        while sides and sides[-2:] == [0, 0]:
            sides = sides[:-2]
        return F.pad(x[0], sides, {"edge": "replicate", "reflect": "reflect"}[mode])
    value = fixed[2] if len(fixed) > 2 and fixed[2] is not None else 0.0
    return F.pad(x[0], sides, value=float(value[0] if isinstance(value, list) else value))


def _expand(node: Node, x: list[Tensor], fixed: list[Any]) -> Tensor:
    # As they come: int() of a size that may vary would make it a constant.
    sizes = list(fixed[1])
    shape = [1] * max(0, len(sizes) - x[0].dim()) + list(x[0].shape)
    sizes = [1] * (len(shape) - len(sizes)) + sizes
    return x[0].expand([old if n == 1 else n for old, n in zip(shape, sizes, strict=True)])


def _depth_to_space(node: Node, x: list[Tensor], fixed: list[Any]) -> Tensor:
    side = node.attributes["blocksize"]
    image = x[0]
    if node.attributes.get("mode", "DCR") == "DCR":
        # The channels of a place come first here, and last in torch.
        image = image.unflatten(1, (side * side, -1)).transpose(1, 2).flatten(1, 2)
    return F.pixel_shuffle(image, side)


def _space_to_depth(node: Node, x: list[Tensor], fixed: list[Any]) -> Tensor:
    side = node.attributes["blocksize"]
    # The places of a block come first here, and last in torch.
    found = F.pixel_unshuffle(x[0], side).unflatten(1, (-1, side * side))
    return found.transpose(1, 2).flatten(1, 2)


def _group_norm(node: Node, x: list[Tensor], fixed: list[Any]) -> Tensor:
    groups, channels = node.attributes["num_groups"], x[0].shape[1]
    # Operator sets before 21 have a scale and a bias for each group.
    scale, bias = (v.repeat_interleave(channels // v.shape[0]) for v in x[1:3])
    return F.group_norm(x[0], groups, scale, bias, node.attributes.get("epsilon", 1e-5))


def _arg_max(node: Node, x: list[Tensor], fixed: list[Any]) -> Tensor:
    if node.attributes.get("select_last_index", 0):
        raise InputError("ArgMax of the last of equals has no torch translation")
    keep = bool(node.attributes.get("keepdims", 1))
    return torch.argmax(x[0], node.attributes.get("axis", 0), keepdim=keep)


OPERATORS: dict[str, Callable[..., Any]] = {
    "BatchNormalization": _batch_norm,
    "InstanceNormalization": _instance_norm,
    "PRelu": _prelu,
    "Pad": _pad,
    "Expand": _expand,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    "GroupNormalization": _group_norm,
    "ArgMax": _arg_max,
    "Tile": lambda node, x, fixed: x[0].repeat(list(fixed[1])),
    "Einsum": lambda node, x, fixed: torch.einsum(node.attributes["equation"], *x),
    "ReduceSum": _reduce(torch.sum),
    "ReduceMax": _reduce(torch.amax),
    "ReduceMin": _reduce(torch.amin),
    "GlobalMaxPool": lambda node, x, fixed: x[0].amax(tuple(range(2, x[0].dim())), keepdim=True),
    "LeakyRelu": lambda node, x, fixed: F.leaky_relu(x[0], node.attributes.get("alpha", 0.01)),
    "Elu": lambda node, x, fixed: F.elu(x[0], node.attributes.get("alpha", 1.0)),
    "Selu": _of_one(F.selu),
    "Softplus": _of_one(F.softplus),
    "Softsign": _of_one(F.softsign),
    "Mish": _of_one(F.mish),
    "Abs": _of_one(torch.abs),
    "Log": _of_one(torch.log),
    "Reciprocal": _of_one(torch.reciprocal),
    "Floor": _of_one(torch.floor),
    "Ceil": _of_one(torch.ceil),
    "Sin": _of_one(torch.sin),
    "Cos": _of_one(torch.cos),
    "Dropout": _of_one(lambda x: x),
}
"""ONNX operator -> f(node, tensors, small constants as lists or None)."""
