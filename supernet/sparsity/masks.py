"""Which weights of a layer stay, by their size.

One shot: the smallest weights of a layer go (Han et al., NeurIPS 2015), or, of every M weights that
follow each other along the inputs, all but the N largest (Mishra et al., 2021, section 3).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from search_spaces.errors import InputError
from search_spaces.sparsity import NO_SPARSITY, Sparsity, refusal
from supernet.plain import PlainNetwork
from supernet.ptq.graph import FloatGraph


@torch.no_grad()
def magnitude_mask(weight: Tensor, sparsity: Sparsity) -> Tensor:
    """Return which weights stay: bool, in the shape of ``weight``.

    Args:
        weight: (out, in / groups, ...), with the kernel's sides behind.
        sparsity: how many go. Of equal weights the later ones go.

    Raises:
        InputError: the inputs are no whole number of groups of M.
    """
    if sparsity.dense:
        return torch.ones_like(weight, dtype=torch.bool)
    why = refusal(sparsity, inputs=weight.shape[1], weight_bits=32)
    if why is not None:
        raise InputError(f"weights of shape {tuple(weight.shape)} cannot be {sparsity}: {why}")
    if not sparsity.of:
        order = weight.abs().flatten().argsort(descending=True, stable=True)
        mask = torch.ones(weight.numel(), dtype=torch.bool, device=weight.device)
        mask[order[weight.numel() - sparsity.zeros(weight.numel()) :]] = False
        return mask.view_as(weight)
    # Inputs last, so that M neighbours are a row.
    rows = weight.abs().movedim(1, -1)
    groups = rows.reshape(-1, sparsity.of)
    order = groups.argsort(dim=1, descending=True, stable=True)
    mask = torch.zeros_like(groups, dtype=torch.bool)
    mask.scatter_(1, order[:, : sparsity.kept], True)
    return mask.view_as(rows).movedim(-1, 1).contiguous()


def graph_sparsity(
    graph: FloatGraph,
    sparsity: Sparsity | Mapping[str, Sparsity] | None,
    weights: Mapping[str, int | str],
) -> dict[str, Sparsity]:
    """Return the pattern of every layer of a traced network.

    Args:
        graph: of the float network.
        sparsity: one for every layer but the first and the last, where those that cannot have it
            stay dense; or of layers by their names, the others staying dense; None leaves all.
        weights: bits, or number formats, of each layer's weights.

    Raises:
        InputError: a name of no layer, or a layer that cannot have the pattern named for it.
    """
    names = list(graph.layers)
    found = dict.fromkeys(names, NO_SPARSITY)
    if sparsity is None:
        return found
    if isinstance(sparsity, Sparsity):
        wanted = {name: sparsity for name in names[1:-1]}
    else:
        wanted = dict(sparsity)
        for name in wanted:
            if name not in found:
                raise InputError(f"sparsity of {name!r}: no such layer; there are {names}")
    for name, chosen in wanted.items():
        why = layer_refusal(graph.layer(name), chosen, weights.get(name, 32))
        if why is None:
            found[name] = chosen
        elif not isinstance(sparsity, Sparsity):
            raise InputError(f"{name} cannot have the sparsity {chosen}: {why}")
    return found


def layer_refusal(layer: nn.Module, sparsity: Sparsity, number: int | str = 32) -> str | None:
    """Return why a convolution or linear layer cannot have a pattern; None where it can.

    Args:
        layer: with weights (out, in / groups, ...).
        sparsity: the pattern.
        number: bits of its weights, or their number format.
    """
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return refusal(
        sparsity,
        inputs=weight.shape[1],
        weight_bits=number if isinstance(number, int) else 32,
        weight_format=number if isinstance(number, str) else "",
    )


def zero_shares(network: PlainNetwork) -> dict[str, float]:
    """Return the share of weights that are zero in each layer, as they are, by name."""
    return {
        layer.layer.name: float((layer.op.weight == 0).double().mean())
        for layer in network.plain_layers()
    }
