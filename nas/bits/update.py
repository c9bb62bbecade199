"""Which layers a device trains, and how many of their channels, within a budget of memory.

What training a layer contributes adds up over layers to first order, and so does most of what it
takes: activations that it keeps, its weights in memory that can be written, and the optimiser's
numbers. What does not, the gradients and masks behind the earliest layer that is trained, follows
from how far back that is. So for each depth the integer programme of :mod:`nas.bits.allocation`
chooses among the layers behind it, and the exact peak of memory (:mod:`search_spaces.training`)
judges (Lin et al., On-Device Training Under 256KB Memory, NeurIPS 2022, section 3.2, who search
by evolution).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from nas.bits.allocation import BitTable, allocate
from search_spaces.errors import InfeasibleError, InputError
from search_spaces.plan import NetworkPlan
from search_spaces.training.memory import plan_training_memory
from search_spaces.training.tape import StepMemory
from search_spaces.training.update import Update

NOTHING = -1.0
"""The option of a layer that is not trained at all; 0 is its bias alone."""

_TRIES = 12
"""Budgets that are tried for what adds up, of each depth."""


@dataclass(frozen=True)
class ChosenUpdate:
    """What a budget buys.

    Attributes:
        update: the layers and shares.
        contribution: in total, in the unit of the caller.
        memory: bytes of a step, arrays of one row.
        depths: how many depths were within the budget, of ``of_depths``.
    """

    update: Update
    contribution: float
    memory: StepMemory
    depths: int
    of_depths: int

    @property
    def peak_kib(self) -> float:
        """KiB at once."""
        return float(self.memory.peak[0]) / 1024

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-compatible data, sizes in bytes."""
        return {
            "layers": dict(self.update.shares),
            "contribution": self.contribution,
            "bytes": memory_json(self.memory),
            "depths": [self.depths, self.of_depths],
        }


def memory_json(memory: StepMemory) -> dict[str, float]:
    """Return the bytes of a step by what they are of."""
    return {name: float(value[0]) for name, value in vars(memory).items() if name != "kept_values"}


def choose_update(
    plan: NetworkPlan,
    contributions: Mapping[str, Mapping[float, float]],
    budget_kib: float,
    *,
    update: Update,
) -> ChosenUpdate:
    """Return the update that contributes most within a peak of memory.

    Args:
        plan: of the network.
        contributions: layer -> share of its input channels -> what training them contributes; 0 is
            the bias alone. Layers that are not there cannot be trained.
        budget_kib: most KiB at once in a step.
        update: gives optimiser, batch and bits of gradients.

    Raises:
        InfeasibleError: not even the bias of the last layer fits; the message says what it needs.
        InputError: a budget that is none, or no layer that could be trained.
    """
    if not budget_kib > 0:
        raise InputError(f"a budget of {budget_kib:g} KiB; give one above 0")
    names = [layer.name for layer in plan.layers() if layer.name in contributions]
    if not names:
        raise InputError("no layer of the network can be trained")
    best: ChosenUpdate | None = None
    within = 0
    costs = {
        name: {share: _bytes(plan, name, share, update) for share in contributions[name]}
        for name in names
    }
    for start in range(len(names)):
        found = _from(plan, names[start:], contributions, costs, budget_kib, update)
        if found is None:
            continue
        within += 1
        if best is None or found.contribution > best.contribution:
            best = found
    if best is None:
        least = plan_training_memory(plan, replace(update, shares={names[-1]: 0.0}))
        raise InfeasibleError(
            f"infeasible: training the bias of {names[-1]} alone needs "
            f"{least.peak[0] / 1024:.4g} KiB (budget {budget_kib:.4g}); raise the budget, or take "
            "a smaller batch or network"
        )
    return replace(best, depths=within, of_depths=len(names))


def _from(
    plan: NetworkPlan,
    names: Sequence[str],
    contributions: Mapping[str, Mapping[float, float]],
    costs: Mapping[str, Mapping[float, float]],
    budget_kib: float,
    update: Update,
) -> ChosenUpdate | None:
    """Return the best of updates whose earliest layer is the first of ``names``."""

    def judged(shares: Mapping[str, float]) -> ChosenUpdate:
        chosen = replace(update, shares={n: s for n, s in shares.items() if s != NOTHING})
        total = sum(contributions[n][s] for n, s in chosen.shares.items())
        return ChosenUpdate(chosen, total, plan_training_memory(plan, chosen), 0, 0)

    least = judged({names[0]: 0.0})
    if least.peak_kib > budget_kib:
        return None
    table = _table(names, contributions, costs)
    best, low, high = least, 0.0, table.range("bytes")[1]
    middle = high
    for _ in range(_TRIES):
        # What adds up is no bound on the peak, nor bounded by it: the largest that fits is sought.
        try:
            allocation = allocate(table, {"bytes": middle})
        except InfeasibleError:
            low = middle
        else:
            found = judged(dict(zip(names, allocation.options, strict=True)))
            if found.peak_kib <= budget_kib:
                low = middle
                best = max(best, found, key=lambda one: one.contribution)
            else:
                high = min(middle, allocation.costs["bytes"])
        if high - low < 1:
            break
        middle = (low + high) / 2
    return best


def _table(
    names: Sequence[str],
    contributions: Mapping[str, Mapping[float, float]],
    costs: Mapping[str, Mapping[float, float]],
) -> BitTable:
    """Return what options lose of the best contribution, and the bytes that add up."""
    options, hurt, sizes = [], [], []
    for place, name in enumerate(names):
        shares = sorted(contributions[name])
        # The earliest is trained by definition.
        own = shares if place == 0 else [NOTHING, *shares]
        options.append(own)
        most = max(contributions[name].values())
        hurt.append([most - contributions[name].get(share, 0.0) for share in own])
        sizes.append([costs[name].get(share, 0.0) for share in own])
    return BitTable.of(names, options, hurt, {"bytes": sizes})


def _bytes(plan: NetworkPlan, name: str, share: float, update: Update) -> float:
    # Kept activations of this layer alone: those that its gradient of weights reads.
    one = plan_training_memory(plan, replace(update, shares={name: share}))
    bias = plan_training_memory(plan, replace(update, shares={name: 0.0}))
    kept = float(one.kept[0] - bias.kept[0])
    return kept + float(one.weights[0] + one.optimizer[0])
