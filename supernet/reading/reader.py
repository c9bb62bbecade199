"""The one reader of networks: a module in normal form, compared with the module itself."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, fx, nn

from search_spaces.errors import InputError
from supernet.reading.capture import capture, module_path
from supernet.reading.compare import first_difference
from supernet.reading.normal_form import normalise
from supernet.reading.operations import packet

TOLERANCE = 1e-4
"""Largest difference of outputs, relative to the largest output; float sums vary by less."""

_MARK = "normal_form"
"""Key of the dimensions that may vary in a network that was read."""


@torch.no_grad()
def read_network(
    module: nn.Module,
    example: Tensor | Sequence[Tensor],
    *,
    fold: bool = True,
    dynamic: Sequence[int] = (0,),
) -> fx.GraphModule:
    """Return ``module`` in normal form; it computes the same.

    The graph's nodes are layers (``nn.Conv2d``, ``nn.Linear``, ``nn.LayerNorm``, and
    ``nn.BatchNorm2d`` behind convolutions unless they are folded), ATen operations without
    side effects, and constants.

    Args:
        module: any module that ``torch.export`` can capture; left as it is, read in evaluation
            mode. One that was read before is copied, and not captured again.
        example: one input (batch, ...), or several.
        fold: fold batch norms into the layers before them.
        dynamic: dimensions of the inputs that may have other sizes; the batch by default.

    Raises:
        InputError: the module cannot be captured, fails on ``example``, has weights that are not
            float32, computes with complex numbers, or what was read computes something else; the
            message names the first layer that differs.
    """
    if isinstance(module, fx.GraphModule) and set(dynamic) <= set(module.meta.get(_MARK, ())):
        again = copy.deepcopy(module)
        if fold:
            normalise(again, fold=True)
        return again
    inputs = [example] if isinstance(example, Tensor) else list(example)
    _expect_float32(module)
    # Of one image, the size of the batch would count as a constant.
    inputs = [torch.cat([x, x])[:2].cpu() if len(x) < 2 else x[:2].cpu() for x in inputs]
    read = capture(module, inputs, dynamic=dynamic)
    normalise(read, fold=fold)
    _refuse_complex(module, read)
    # More images than were captured, so that a batch size taken for a constant shows.
    generator = torch.Generator().manual_seed(0)
    more = [
        torch.cat([x, x[:1] + 0.1 * torch.randn(x[:1].shape, generator=generator)])
        if x.is_floating_point()
        else torch.cat([x, x[:1]])
        for x in inputs
    ]
    wrong = first_difference(module, read, more, tolerance=TOLERANCE)
    # Once more: what is no function of its input would differ from now on.
    wrong = wrong or first_difference(module, read, [x[1:] for x in more], tolerance=TOLERANCE)
    if wrong is not None:
        raise InputError(f"{type(module).__name__} was not read as what it computes: {wrong}")
    read.meta[_MARK] = tuple(dynamic)
    return read


def _expect_float32(module: nn.Module) -> None:
    for name, parameter in module.named_parameters():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise InputError(f"{name} is lazy and has no size yet; call the network once before")
        if parameter.is_floating_point() and parameter.dtype != torch.float32:
            raise InputError(
                f"{name} has weights of {str(parameter.dtype).removeprefix('torch.')}; networks "
                "are read in float32: call .float() on it, and leave casts out of its forward"
            )


def _refuse_complex(module: nn.Module, read: fx.GraphModule) -> None:
    for node in read.graph.nodes:
        value = node.meta.get("val")
        if isinstance(value, Tensor) and value.is_complex():
            place = module_path(node) or type(module).__name__
            raise InputError(
                f"{place} computes with complex numbers ({packet(node) or node.name}), which no "
                "exported file holds; write them as pairs of real ones, and transforms such as "
                "fft as products with matrices of cosines and sines"
            )
