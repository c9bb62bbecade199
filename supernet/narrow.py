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
    width = 0 if plan is None else plan.out_channels
    weight = layer.weight[:0] if plan is None else layer.slice_of(plan)
    cuts = [(layer.weight, weight), (layer.beta, layer.beta[:width])]
    if layer.gamma is not None:
        cuts.append((layer.gamma, layer.gamma[:width]))
    return cuts + [(transform, transform[:0]) for transform in layer.transforms.values()]
