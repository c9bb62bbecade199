"""Cutting one architecture out of the shared weights, to be trained on its own."""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn

from search_spaces.plan import LayerPlan, NetworkPlan
from supernet.elastic import ElasticLayer
from supernet.network import Supernet


@torch.no_grad()
def narrowed(supernet: Supernet, plan: NetworkPlan) -> Supernet:
    """Return a copy of ``supernet`` that holds the layers of ``plan`` at its widths and kernels.

    It computes for ``plan`` what ``supernet`` does, but gradients, optimiser steps and checkpoints
    cost what the architecture costs: the gradient of a slice is as large as what it is cut from.
    Kernels that are made from larger ones become weights of their own.

    Args:
        supernet: left as it is.
        plan: of the one architecture that the copy can run.
    """
    if not supernet.fully_initialized():
        # Steps that training never met follow from the widest weights, which the copy lacks.
        supernet = copy.deepcopy(supernet)
        for each in plan.layers():
            supernet.layer(each.name).quantized_weight(each)
    used = {layer.name: layer for layer in plan.layers()}
    # What a copy is to have in the place of a parameter.
    instead: dict[int, Any] = {}
    for module in supernet.layers.values():
        layer = cast(ElasticLayer, module)
        for parameter, cut in _cuts(layer, used.get(layer.name)):
            instead[id(parameter)] = nn.Parameter(cut.detach().clone(), parameter.requires_grad)
    return copy.deepcopy(supernet, instead)


def _cuts(layer: ElasticLayer, plan: LayerPlan | None) -> list[tuple[nn.Parameter, Tensor]]:
    """Return each parameter that follows the width, and the part of it that ``plan`` uses."""
    weight = layer.weight[:0] if plan is None else layer.slice_of(plan)
    cuts = [(layer.weight, weight)]
    for value in (layer.beta, layer.gamma):
        if value is not None:
            cuts.append((value, value[:0] if plan is None else layer.channels_of(value, plan)))
    if plan is not None and plan.out_parts:
        # Steps of channels are those of the first: of others, they are cut likewise.
        for step in layer.weight_quantizer.parameters():
            if step.dim() and step.shape[-1] == len(layer.weight) > 1:
                rows = step.movedim(-1, 0)
                cuts.append((step, layer.channels_of(rows, plan).movedim(0, -1)))
    return cuts + [(transform, transform[:0]) for transform in layer.transforms.values()]
