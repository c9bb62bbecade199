"""Which layers a device trains, and how many of their channels, within a budget of memory.

What training a layer contributes adds up over layers to first order, and so does most of what it
takes: activations that it keeps, its weights in memory that can be written, and the optimiser's
numbers. What does not, the gradients and masks behind the earliest layer that is trained, follows
from how far back that is. So for each depth the integer programme of :mod:`nas.bits.allocation`
chooses among the layers behind it, the exact peak of memory (:mod:`search_spaces.training`) judges,
and exchanges of single layers mend what did not add up (Lin et al., On-Device Training Under 256KB
Memory, NeurIPS 2022, section 3.2, search by evolution).
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

_TRIES = 10
"""Budgets that are tried for what adds up, of each depth and size of gradients."""

_SIZES = 5
"""Largest gradients of weights that are tried."""

_PASSES, _MOST_MOVED = 3, 12
"""Times that exchanges are tried, and layers that take part in them."""


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
    bench = _Bench(plan, contributions, budget_kib, update)
    best: ChosenUpdate | None = None
    within = 0
    for start in range(len(names)):
        least = bench.judged({names[start]: 0.0})
        if least.peak_kib > budget_kib:
            continue
        within += 1
        best = least if best is None or least.contribution > best.contribution else best
        best = bench.better(names[start:], best)
    if best is None:
        last = bench.judged({names[-1]: 0.0})
        raise InfeasibleError(
            f"infeasible: training the bias of {names[-1]} alone needs {last.peak_kib:.4g} KiB "
            f"(budget {budget_kib:.4g}); raise the budget, or take a smaller batch or network"
        )
    return replace(bench.exchanged(names, best), depths=within, of_depths=len(names))


class _Bench:
    """Judges updates of one network by their exact peak, and looks for better ones."""

    def __init__(
        self,
        plan: NetworkPlan,
        contributions: Mapping[str, Mapping[float, float]],
        budget_kib: float,
        update: Update,
    ) -> None:
        self.plan, self.worth, self.budget_kib = plan, contributions, budget_kib
        self.update = update
        self._known: dict[tuple[tuple[str, float], ...], ChosenUpdate] = {}
        # Bytes that add up, and those of a gradient of weights, of which one is alive at once.
        self.added: dict[tuple[str, float], float] = {}
        self.gradient: dict[tuple[str, float], float] = {}
        for name in (layer.name for layer in plan.layers() if layer.name in contributions):
            bias = self.judged({name: 0.0}).memory
            for share in contributions[name]:
                one = self.judged({name: share}).memory
                kept = float(one.kept[0] - bias.kept[0])
                self.added[name, share] = kept + float(one.weights[0] + one.optimizer[0])
                self.gradient[name, share] = float(one.weight_gradients[0])

    def judged(self, shares: Mapping[str, float]) -> ChosenUpdate:
        """Return an update with its contribution and its exact memory."""
        chosen = {name: share for name, share in shares.items() if share != NOTHING}
        key = tuple(sorted(chosen.items()))
        if key not in self._known:
            one = replace(self.update, shares=chosen)
            total = sum(self.worth[name][share] for name, share in chosen.items())
            memory = plan_training_memory(self.plan, one)
            self._known[key] = ChosenUpdate(one, total, memory, 0, 0)
        return self._known[key]

    def better(self, names: Sequence[str], best: ChosenUpdate) -> ChosenUpdate:
        """Return the best of ``best`` and of updates whose earliest layer is the first name."""
        sizes = sorted({self.gradient[n, s] for n in names for s in self.worth[n]}, reverse=True)
        # A few sizes of the largest gradient of weights, from the largest down.
        places = {round(i * (len(sizes) - 1) / (_SIZES - 1)) for i in range(_SIZES)}
        for size in (sizes[place] for place in sorted(places)):
            options = {
                n: [s for s in sorted(self.worth[n]) if self.gradient[n, s] <= size] for n in names
            }
            if not options[names[0]]:
                continue
            most = sum(max((self.worth[n][s] for s in own), default=0.0)
                       for n, own in options.items())  # fmt: skip
            if most > best.contribution:
                best = self._within(names, options, best)
        return best

    def _within(
        self, names: Sequence[str], options: Mapping[str, Sequence[float]], best: ChosenUpdate
    ) -> ChosenUpdate:
        table = _table(names, options, self.worth, self.added)
        low, high = 0.0, table.range("bytes")[1]
        middle = high
        for _ in range(_TRIES):
            # What adds up is no bound on the peak, nor bounded by it: the largest that fits is
            # sought.
            try:
                allocation = allocate(table, {"bytes": middle})
            except InfeasibleError:
                low = middle
            else:
                found = self.judged(dict(zip(names, allocation.options, strict=True)))
                if found.peak_kib <= self.budget_kib:
                    low = middle
                    best = max(best, found, key=lambda one: one.contribution)
                else:
                    high = min(middle, allocation.costs["bytes"])
                over = found.peak_kib > self.budget_kib
                if over and found.contribution <= best.contribution:
                    break  # with fewer bytes nothing better is to be had
            if high - low < 1:
                break
            middle = (low + high) / 2
        return best

    def exchanged(self, names: Sequence[str], best: ChosenUpdate) -> ChosenUpdate:
        """Return ``best`` with layers exchanged for others while that contributes more.

        Whether a gradient passes a branch does not add up, so the programme cannot see it: each of
        the layers that are worth least for their bytes is left out in turn, and what that makes
        room for is filled anew.
        """
        best = self._filled(names, best)
        for _ in range(_PASSES):
            before = best
            chosen = sorted(best.update.shares, key=self._by_byte)[:_MOST_MOVED]
            for name in chosen:
                rest = {n: s for n, s in best.update.shares.items() if n != name}
                if not rest:
                    continue
                others = [n for n in names if n != name]
                found = self._filled(others, self.judged(rest))
                if found.peak_kib <= self.budget_kib and found.contribution > best.contribution:
                    best = self._filled(names, found)
            if best is before:
                break
        return best

    def _by_byte(self, name: str) -> float:
        share = max(self.worth[name])
        return self.worth[name][share] / max(1.0, self.added[name, share])

    def _filled(self, names: Sequence[str], best: ChosenUpdate) -> ChosenUpdate:
        """Return ``best`` with single layers trained more while the memory allows it."""
        worthwhile = sorted(names, key=self._by_byte, reverse=True)[:_MOST_MOVED]
        while True:
            now = dict(best.update.shares)
            tries = [
                {**now, name: share}
                for name in worthwhile
                for share in self.worth[name]
                if self.worth[name][share] > (self.worth[name][now[name]] if name in now else 0.0)
            ]
            fitting = [one for one in map(self.judged, tries) if one.peak_kib <= self.budget_kib]
            if not fitting:
                return best
            best = max(fitting, key=lambda one: one.contribution)


def _table(
    names: Sequence[str],
    options: Mapping[str, Sequence[float]],
    worth: Mapping[str, Mapping[float, float]],
    added: Mapping[tuple[str, float], float],
) -> BitTable:
    """Return what options lose of the best contribution, and the bytes that add up."""
    every, hurt, sizes = [], [], []
    for place, name in enumerate(names):
        # The earliest is trained by definition.
        own = list(options[name]) if place == 0 else [NOTHING, *options[name]]
        every.append(own)
        most = max(worth[name].values())
        hurt.append([most - (0.0 if s == NOTHING else worth[name][s]) for s in own])
        sizes.append([0.0 if s == NOTHING else added[name, s] for s in own])
    return BitTable.of(names, every, hurt, {"bytes": sizes})
