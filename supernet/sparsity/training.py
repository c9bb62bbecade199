"""Zeros that stay zeros while a network is trained on.

One shot by magnitude, then fixed: pruned weights get no gradient. A weight of zero has the code
zero, so training at bits and in float keeps the same zeros, and so does every file.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from search_spaces.errors import InputError
from search_spaces.plan import FLOAT_BITS, NetworkPlan
from search_spaces.sparsity import Sparsity
from supernet.narrow import narrowed
from supernet.network import Supernet
from supernet.sparsity.masks import magnitude_mask


def pruned(supernet: Supernet, plan: NetworkPlan, patterns: Mapping[str, Sparsity]) -> Supernet:
    """Return the weights of ``plan`` cut out of ``supernet``, pruned; see :func:`prune`."""
    found = narrowed(supernet, plan)
    prune(found, plan, patterns)
    return found


@torch.no_grad()
def prune(network: Supernet, plan: NetworkPlan, patterns: Mapping[str, Sparsity]) -> None:
    """Set weights of ``network`` to zero by magnitude, and keep them there in training.

    Args:
        network: of ``plan`` alone (:func:`supernet.narrow.narrowed`), so that no weight is made
            from others; changed in place. Copies of it have the zeros, but may lose them again.
        plan: the architecture.
        patterns: of layers by name; others stay dense.

    Raises:
        InputError: a layer that cannot have its pattern, or whose quantiser has no code for zero.
    """
    for layer in plan.layers():
        pattern = patterns.get(layer.name)
        if pattern is None or pattern.dense:
            continue
        elastic = network.layer(layer.name)
        # The layout of a slice that uses all of it.
        if elastic.slice_of(layer).shape != elastic.weight.shape:
            raise InputError(
                f"{layer.name}: weights that several architectures share have no zeros of one of "
                "them; cut the architecture out first"
            )
        try:
            mask = magnitude_mask(elastic.weight, pattern)
        except InputError as error:
            raise InputError(f"{layer.name}: {error}") from None
        elastic.weight[~mask] = 0.0
        if layer.weight_bits < FLOAT_BITS and not _zero_stays(network, plan, layer.name, mask):
            raise InputError(
                f"{layer.name}: its quantiser at {layer.weight_bits} bits gives zero weights codes "
                "that are not zero, so they cannot be pruned; train it with another quantiser, "
                "such as lsq"
            )
        _hold(elastic.weight, mask)


def _zero_stays(network: Supernet, plan: NetworkPlan, name: str, mask: Tensor) -> bool:
    layer = next(each for each in plan.layers() if each.name == name)
    codes = network.layer(name).quantized_weight(layer)
    return not bool(codes[~mask].any())


def _hold(weight: Tensor, mask: Tensor) -> None:
    """Give the masked weights no gradient from here on, on whatever device they are by then."""
    held = mask.to(weight.dtype)

    def masked(gradient: Tensor) -> Tensor:
        return gradient * held.to(gradient.device)

    weight.register_hook(masked)
