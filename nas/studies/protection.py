"""Which layers to protect against faults, within a share of the memory that may be protected.

Protecting a layer (parity that corrects, a second copy, sturdier cells) costs in proportion to its
bits. What an unprotected layer loses is measured with faults in it alone; the losses add up
approximately, so the best set within the budget is a knapsack, solved as the bits of layers are
(:mod:`nas.bits.allocation`; as Ethos-class accelerators protect parts of their memories).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from search_spaces.errors import InputError

METHODS = ("integer programme", "loss by bit", "largest first", "smallest first")
"""``loss by bit`` takes layers in the order of what they lose for their size."""


def protections(
    losses: Mapping[str, float], bits: Mapping[str, int], share: float
) -> dict[str, tuple[str, ...]]:
    """Return the layers that each of :data:`METHODS` protects.

    Args:
        losses: of each layer, what the network loses with faults in it alone; negative ones (by
            chance) count as nothing.
        bits: of each layer's codes.
        share: of all bits that may be protected, 0 to 1.

    Raises:
        InputError: layers that do not fit, or a share that is none.
    """
    from nas.bits.allocation import BitTable, allocate

    if set(losses) != set(bits) or not losses:
        raise InputError("every layer needs a loss and a number of bits")
    if not 0 <= share <= 1:
        raise InputError(f"a share of {share:g} of the bits; give one from 0 to 1")
    names = list(losses)
    budget = share * sum(bits.values())
    hurt = {name: max(0.0, losses[name]) for name in names}
    table = BitTable.of(
        names,
        [("bare", "protected")] * len(names),
        [[hurt[name], 0.0] for name in names],
        {"bits": [[0.0, float(bits[name])] for name in names]},
    )
    best = allocate(table, {"bits": budget})
    chosen = [n for n, option in zip(names, best.options, strict=True) if option == "protected"]
    # A layer that loses nothing is not worth its bits, whatever is left of the budget.
    found = {"integer programme": tuple(n for n in chosen if hurt[n] > 0)}
    orders: dict[str, Any] = {
        "loss by bit": lambda name: -hurt[name] / max(1, bits[name]),
        "largest first": lambda name: -bits[name],
        "smallest first": lambda name: bits[name],
    }
    for method, key in orders.items():
        found[method] = _filled(sorted(names, key=key), bits, budget)
    return found


def _filled(order: list[str], bits: Mapping[str, int], budget: float) -> tuple[str, ...]:
    """Take layers in order, leaving out those that no longer fit."""
    left, chosen = budget, []
    for name in order:
        if bits[name] <= left:
            chosen.append(name)
            left -= bits[name]
    return tuple(chosen)
