"""Weights of one subnet, layer by layer, so that each layer gives what it gives in the largest.

A narrower layer reads fewer channels than its weights were trained for. Those that are left stand
in for those that are gone by least squares: from the first layer on, the weights are chosen that
bring the layer's output, from what the subnet now gives it, nearest to its output in the largest
network (He et al., "Channel Pruning for Accelerating Very Deep Neural Networks", ICCV 2017,
equation 5, with the channels already chosen; as in their section on whole models, inputs are those
of the pruned network). It needs a few hundred images, no labels and no gradients.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from search_spaces.errors import InputError
from search_spaces.plan import FLOAT_BITS, LayerPlan, NetworkPlan
from supernet.batchnorm import BatchStatistics
from supernet.elastic import ElasticLayer, input_places
from supernet.network import Supernet
from supernet.ptq.ranges import weight_steps
from supernet.resolution import resize_images
from supernet.training.subnets import float_plan

POSITIONS = 24
"""Output positions of each image that count; neighbours say nearly the same."""


@torch.no_grad()
def reconstruct(
    supernet: Supernet,
    plan: NetworkPlan,
    batches: Iterable[Tensor],
    *,
    ridge: float = 1e-3,
    images: int = 256,
) -> Supernet:
    """Return a copy of ``supernet`` whose weights suit ``plan`` alone, without training.

    Args:
        supernet: with weights at which the largest architecture is good.
        plan: the architecture; layers are fitted in float, and the steps of its bits to them.
        batches: calibration images (batch, channels, height, width), not augmented.
        ridge: how much the weights are held where they are, against the mean square of the input.
        images: that are used at most.

    Raises:
        InputError: there are no images, or the architecture has a resolution of its own.
    """
    seen, found = 0, []
    for batch in batches:
        found.append(batch[: images - seen])
        seen += len(found[-1])
        if seen >= images:
            break
    if not found:
        raise InputError("reconstruction needs images, and there are none")
    whole, small = float_plan(supernet.plan(supernet.space.largest())), float_plan(plan)
    if whole.input_size != small.input_size:
        raise InputError(
            f"layers of {small.input_size} pixels cannot be held against layers of "
            f"{whole.input_size}: only architectures of the largest resolution are reconstructed"
        )
    data = resize_images(torch.cat(found), whole.input_size)
    data = data.contiguous(memory_format=torch.channels_last)
    wanted = _outputs(supernet, whole, data)
    full = {layer.name: layer for layer in whole.layers()}
    own = copy.deepcopy(supernet)
    changed = False
    for layer in small.layers():
        largest = full.get(layer.name)
        if largest is None or layer.kernel != largest.kernel:
            changed = True
            continue
        # Until something is narrower or left out, every layer gives what it gives in the largest.
        changed = changed or layer.in_channels != largest.in_channels
        if changed and largest.groups == 1:
            _solve(own, small, layer, data, wanted[layer.name], ridge)
        changed = changed or layer.out_channels != largest.out_channels
    if changed:
        _fit_steps(own, plan)
    return own


def _fit_steps(own: Supernet, plan: NetworkPlan) -> None:
    """Give the weights of ``plan`` steps of least error: those that they had were for others."""
    for layer in plan.layers():
        module = own.layer(layer.name)
        quantizer, bits = module.weight_quantizer, layer.weight_bits
        if bits >= FLOAT_BITS or layer.group or layer.out_parts:
            continue
        if quantizer.number_format(bits) is not None:
            continue
        each = quantizer.per_channel
        steps = weight_steps(module.slice_of(layer), bits, per_channel=each)
        quantizer.set_step(layer.kernel, bits, steps if each else steps[:1])


def _outputs(supernet: Supernet, plan: NetworkPlan, data: Tensor) -> dict[str, Tensor]:
    """Return what each layer gives before its norm, at some positions: name -> (rows, out)."""
    found: dict[str, Tensor] = {}

    def keep(module: ElasticLayer, layer: LayerPlan, x: Tensor) -> None:
        found[layer.name] = _rows(module, layer, x) @ _matrix(module, layer).T + _bias(
            module, layer
        )

    # A channel of its own (depthwise) has nobody to stand in for it.
    with _watched(supernet, [layer.name for layer in plan.layers() if layer.groups == 1], keep):
        supernet(data, plan, BatchStatistics())
    return found


def _solve(
    own: Supernet, plan: NetworkPlan, layer: LayerPlan, data: Tensor, wanted: Tensor, ridge: float
) -> None:
    """Give the layer the weights that bring its output nearest to ``wanted`` (rows, all out)."""
    kept: list[Tensor] = []

    def keep(module: ElasticLayer, layer: LayerPlan, x: Tensor) -> None:
        kept.append(_rows(module, layer, x))

    with _watched(own, [layer.name], keep):
        own(data, plan, BatchStatistics())
    module = own.layer(layer.name)
    rows, target = kept[0].double(), wanted[:, : layer.out_channels].double()
    matrix = _matrix(module, layer).double()
    row_mean, target_mean = rows.mean(0), target.mean(0)
    rows, target = rows - row_mean, target - target_mean
    gram = rows.T @ rows
    held = ridge * gram.diagonal().mean().clamp(min=1e-12)
    gram.diagonal().add_(held)
    change = torch.linalg.solve(gram, rows.T @ (target - rows @ matrix.T)).T
    matrix = (matrix + change).float()
    inputs = layer.in_channels // layer.groups
    places = input_places(layer)
    module.weight[: layer.out_channels, slice(inputs) if places is None else places] = (
        matrix.reshape(layer.out_channels, inputs, *module.weight.shape[2:])
    )
    if module.gamma is None or not layer.batch_norm:
        bias = target_mean - (matrix.double() @ row_mean)
        module.beta[: layer.out_channels] = bias.float()


@contextmanager
def _watched(supernet: Supernet, names: list[str], keep: Any) -> Iterator[None]:
    """Call ``keep(module, layer plan, input)`` for each of the layers in a forward pass."""
    handles = []
    for name in names:

        def before(module: Any, given: tuple[Any, ...], options: dict[str, Any]) -> None:
            keep(module, options["layer"], given[0])

        handles.append(supernet.layer(name).register_forward_pre_hook(before, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _rows(module: ElasticLayer, layer: LayerPlan, x: Tensor) -> Tensor:
    """Return what each output position reads, of some positions: (rows, inputs).

    The positions are the same for the same layer, whatever its channels.
    """
    x = module.inputs[layer.source](x, FLOAT_BITS)
    if layer.kind == "linear":
        rows = x.reshape(-1, x.shape[-1])
        chosen = _chosen(len(rows), POSITIONS * len(x), layer.name)
        return rows[chosen]
    parts = []
    for part in x.split(16):
        # F.unfold knows no two paddings of one side, and none is needed here.
        patches = F.unfold(part, layer.kernel_sides, layer.dilations, layer.pads, layer.strides)
        chosen = _chosen(patches.shape[-1], POSITIONS, layer.name)
        parts.append(patches[:, :, chosen].transpose(1, 2).flatten(0, 1))
    return torch.cat(parts)


def _chosen(available: int, count: int, name: str) -> Tensor:
    generator = torch.Generator().manual_seed(sum(name.encode()))
    return torch.randperm(available, generator=generator)[:count]


def _matrix(module: ElasticLayer, layer: LayerPlan) -> Tensor:
    """Return the weights of the layer as (out, inputs of a position)."""
    return module.quantized_weight(layer).flatten(1)


def _bias(module: ElasticLayer, layer: LayerPlan) -> Tensor:
    """Return what is added before the norm: nothing where there is one."""
    if layer.batch_norm and module.gamma is not None:
        return torch.zeros(layer.out_channels)
    return module.beta[: layer.out_channels]
