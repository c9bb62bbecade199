"""Bit allocation for one network as an integer programme.

Every layer takes one option, a pair of weight and activation bits. An option has a
sensitivity (how much worse the network gets) and costs; both add up over layers. The least
total sensitivity within budgets on the costs is a multiple-choice knapsack, which HiGHS
solves to a proven optimum (as in OHQ, Huang et al. 2023, and HAO, Dong et al. 2021). Beside it
stand the baselines of the literature: layers ranked by importance and set to one of two
bit-widths (Layer-Wise Quantization, Dumitru et al. 2024; LUQ, Bhatnagar et al. 2025), and
greedy descent by sensitivity per unit of cost (HAWQ-V2, Dong et al. 2020).
"""

from __future__ import annotations

import ctypes
import itertools
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from search_spaces.errors import InfeasibleError, InputError, NasError
from search_spaces.number_formats import bits_of

COSTS = {
    "weights_kib": "KiB of packed weights, scales and biases",
    "bops": "bit operations",
    "latency_ms": "ms",
    "energy_mj": "mJ",
}
"""Costs that have a unit for messages; a table may have others."""


@dataclass(frozen=True)
class Bits:
    """One option of a layer.

    Attributes:
        weight, activation: bits of integers, 32 for float, or the name of a number format.
    """

    weight: int | str
    activation: int | str

    @property
    def weight_bits(self) -> int:
        """Bits of a weight's code."""
        return bits_of(self.weight)

    @property
    def activation_bits(self) -> int:
        """Bits of a code of the layer's input."""
        return bits_of(self.activation)

    def to_json(self) -> dict[str, Any]:
        """Return the option as JSON-compatible data."""
        named = {"weight_format": self.weight, "activation_format": self.activation}
        return {
            "weight_bits": self.weight_bits,
            "activation_bits": self.activation_bits,
            **{key: name for key, name in named.items() if isinstance(name, str)},
        }

    def __str__(self) -> str:
        if isinstance(self.weight, int) and isinstance(self.activation, int):
            return f"w{self.weight}a{self.activation}"
        return f"weights {self.weight}, inputs {self.activation}"


@dataclass(frozen=True)
class BitTable:
    """Layers x options: what each option costs and how much it hurts.

    Attributes:
        layers: names.
        options: of each layer, any number of them (one fixes the layer).
        sensitivity: of each layer's options, (options,), in the unit of the caller (added
            loss, noise power); smaller is better; may be negative.
        costs: name -> each layer's options, (options,).
        fixed: name -> cost of everything that no option changes.

    Raises:
        InputError: shapes that do not fit, or a value that is not finite.
    """

    layers: tuple[str, ...]
    options: tuple[tuple[Any, ...], ...]
    sensitivity: tuple[np.ndarray, ...]
    costs: Mapping[str, tuple[np.ndarray, ...]]
    fixed: Mapping[str, float]

    def __post_init__(self) -> None:
        if not self.layers:
            raise InputError("bit allocation needs at least one layer")
        counts = [len(o) for o in self.options]
        if len(counts) != len(self.layers) or not all(counts):
            raise InputError("every layer needs at least one option")
        for name, columns in {"sensitivity": self.sensitivity, **self.costs}.items():
            for k, (layer, count) in enumerate(zip(self.layers, counts, strict=True)):
                if k >= len(columns) or np.shape(columns[k]) != (count,):
                    raise InputError(f"{name} of layer {layer!r} must have {count} values")
                if not np.isfinite(columns[k]).all():
                    raise InputError(f"{name} of layer {layer!r} has a value that is not finite")

    @classmethod
    def of(
        cls,
        layers: Sequence[str],
        options: Sequence[Sequence[Any]],
        sensitivity: Sequence[Sequence[float]],
        costs: Mapping[str, Sequence[Sequence[float]]],
        fixed: Mapping[str, float] | None = None,
    ) -> BitTable:
        """Build a table from nested sequences."""
        return cls(
            tuple(layers),
            tuple(tuple(o) for o in options),
            tuple(np.asarray(s, dtype=float) for s in sensitivity),
            {n: tuple(np.asarray(c, dtype=float) for c in cost) for n, cost in costs.items()},
            {name: float((fixed or {}).get(name, 0.0)) for name in costs},
        )

    def only(self, keep: Sequence[Sequence[int]]) -> BitTable:
        """Return the table of some options of each layer, by their indices."""

        def kept(column: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
            return tuple(values[list(own)] for values, own in zip(column, keep, strict=True))

        return BitTable(
            self.layers,
            tuple(tuple(o[k] for k in own) for o, own in zip(self.options, keep, strict=True)),
            kept(self.sensitivity),
            {name: kept(column) for name, column in self.costs.items()},
            self.fixed,
        )

    def total(self, chosen: Sequence[int]) -> float:
        """Return the sensitivity of option indices, one for each layer."""
        return float(sum(s[k] for s, k in zip(self.sensitivity, chosen, strict=True)))

    def cost(self, name: str, chosen: Sequence[int]) -> float:
        """Return the cost ``name`` of option indices, one for each layer."""
        parts = zip(self.costs[name], chosen, strict=True)
        return self.fixed[name] + float(sum(c[k] for c, k in parts))

    def range(self, name: str) -> tuple[float, float]:
        """Return the smallest and the largest possible cost ``name``."""
        columns = self.costs[name]
        return (
            self.fixed[name] + sum(float(c.min()) for c in columns),
            self.fixed[name] + sum(float(c.max()) for c in columns),
        )


@dataclass(frozen=True)
class Allocation:
    """Options for every layer.

    Attributes:
        method: how they were found.
        chosen: index of each layer's option.
        options: the options themselves.
        sensitivity: in total.
        costs: in total, by name.
        bound: no allocation within the budgets has a smaller sensitivity than this; None for
            a method that proves nothing.
        seconds: time taken.
    """

    method: str
    chosen: tuple[int, ...]
    options: tuple[Any, ...]
    sensitivity: float
    costs: dict[str, float]
    bound: float | None
    seconds: float

    @property
    def proven_gap(self) -> float | None:
        """How far from the optimum this is at most, in units of sensitivity; None if unproven."""
        return None if self.bound is None else max(0.0, self.sensitivity - self.bound)

    @property
    def optimal(self) -> bool:
        """Whether it is proven that nothing better exists (to 1e-6 of the sensitivity)."""
        gap = self.proven_gap
        return gap is not None and gap <= 1e-6 * max(1.0, abs(self.sensitivity))

    def to_json(self, layers: Sequence[str]) -> dict[str, Any]:
        """Return everything but the indices as JSON-compatible data.

        ``layers``: names, in the order of the options.
        """
        return {
            "method": self.method,
            "sensitivity": self.sensitivity,
            "bound": self.bound,
            "proven_gap": self.proven_gap,
            "proven_optimal": self.optimal,
            "costs": self.costs,
            "seconds": self.seconds,
            "layers": {
                name: option.to_json() for name, option in zip(layers, self.options, strict=True)
            },
        }


def allocate(
    table: BitTable, budgets: Mapping[str, float], *, time_limit_s: float = 60.0
) -> Allocation:
    """Return the allocation of least sensitivity within ``budgets``, proven to be the best.

    Args:
        table: sensitivities and costs.
        budgets: cost name -> largest total.
        time_limit_s: after which the best allocation so far comes back with its bound.

    Raises:
        InfeasibleError: the budgets cannot be met together.
        InputError: a budget on a cost that the table does not have.
        NasError: the solver found nothing within the time limit.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array

    start = time.perf_counter()
    check_budgets(table, budgets)
    counts = np.array([len(o) for o in table.options])
    layer = np.repeat(np.arange(len(counts)), counts)
    n = len(layer)
    one_each = csr_array((np.ones(n), (layer, np.arange(n))), shape=(len(counts), n))
    constraints = [LinearConstraint(one_each, 1, 1)]
    for name, budget in budgets.items():
        row = np.concatenate(table.costs[name])
        # Rows of like size keep the solver's absolute tolerance meaningful (BOPs reach 1e12).
        scale = max(float(np.abs(row).max()), 1e-300)
        limit = (budget - table.fixed[name]) / scale
        constraints.append(LinearConstraint(csr_array((row / scale)[None]), -np.inf, limit))
    objective = np.concatenate(table.sensitivity)
    unit = max(float(np.abs(objective).max()), 1e-300)
    with _quiet_solver():
        result = milp(
            objective / unit,
            integrality=np.ones(n),
            bounds=Bounds(0, 1),
            constraints=constraints,
            options={"mip_rel_gap": 0.0, "time_limit": time_limit_s},
        )
    if result.status == 2:
        raise _infeasible(table, budgets)
    if result.x is None:
        raise NasError(f"the solver found no allocation within {time_limit_s:g} s")
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    chosen = [
        int(np.argmax(result.x[first : first + count]))
        for first, count in zip(starts, counts, strict=True)
    ]
    bound = float(result.mip_dual_bound) * unit
    return _allocation("integer programme", table, chosen, start, bound=bound)


@contextmanager
def _quiet_solver() -> Iterator[None]:
    """Keep the standard output clean, which commands write results to.

    HiGHS writes a line of its own debugging with C's printf when a rounded solution needs
    another linear programme, whatever its output options say.
    """
    if sys.stdout is not None:
        sys.stdout.flush()
    try:
        kept = os.dup(1)
    except OSError:
        # No standard output, so nothing to keep clean.
        yield
        return
    try:
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, 1)
        os.close(sink)
        yield
    finally:
        ctypes.CDLL(None).fflush(None)
        os.dup2(kept, 1)
        os.close(kept)


def allocate_by_importance(
    table: BitTable,
    budgets: Mapping[str, float],
    importance: Sequence[float] | np.ndarray | None = None,
) -> Allocation:
    """Return the best two-level allocation by a ranking of layers (Layer-Wise Quantization, LUQ).

    Layers are lowered from a high option to a low one, the least important first, until the
    budgets are met. Every pair (high, low) of options is tried and the least sensitivity
    kept, which is more than the methods themselves do.

    Args:
        table: layers may have different options; a pair counts for those that have both, the
            others take their best affordable single option (their most precise).
        budgets: cost name -> largest total.
        importance: of each layer; by default its sensitivity at its cheapest option.

    Raises:
        InfeasibleError: no two-level allocation meets the budgets.
    """
    start = time.perf_counter()
    check_budgets(table, budgets)
    if importance is None:
        importance = [float(s.max()) for s in table.sensitivity]
    if len(importance) != len(table.layers):
        raise InputError(f"importance has {len(importance)} values for {len(table.layers)} layers")
    order = np.argsort(np.asarray(importance, dtype=float), kind="stable")
    everything = list(dict.fromkeys(o for options in table.options for o in options))
    best: list[int] | None = None
    for high, low in itertools.product(everything, repeat=2):
        chosen = [
            options.index(high) if high in options else int(np.argmin(sensitivity))
            for options, sensitivity in zip(table.options, table.sensitivity, strict=True)
        ]
        for k in [None, *order]:
            if k is not None and low in table.options[k]:
                chosen[k] = table.options[k].index(low)
            if _within(table, budgets, chosen):
                if best is None or table.total(chosen) < table.total(best):
                    best = list(chosen)
                break
    if best is None:
        raise _infeasible(table, budgets)
    return _allocation("ranking by importance", table, best, start)


def allocate_greedily(table: BitTable, budgets: Mapping[str, float]) -> Allocation:
    """Return a greedy allocation: the step that hurts least for what it saves, until it fits.

    Raises:
        InfeasibleError: the greedy path ends outside the budgets.
    """
    start = time.perf_counter()
    check_budgets(table, budgets)
    chosen = [int(np.argmin(s)) for s in table.sensitivity]
    while not _within(table, budgets, chosen):
        over = {
            name: table.cost(name, chosen) - budget
            for name, budget in budgets.items()
            if table.cost(name, chosen) > budget
        }
        best: tuple[float, int, int] | None = None
        for k, now in enumerate(chosen):
            for option in range(len(table.options[k])):
                # What an option saves, as a share of what is still over in each budget.
                saved = sum(
                    min((table.costs[n][k][now] - table.costs[n][k][option]) / excess, 1.0)
                    for n, excess in over.items()
                )
                if saved <= 1e-12:
                    continue
                hurt = (table.sensitivity[k][option] - table.sensitivity[k][now]) / saved
                if best is None or hurt < best[0]:
                    best = (float(hurt), k, option)
        if best is None:
            raise _infeasible(table, budgets)
        chosen[best[1]] = best[2]
    return _allocation("greedy by ratio", table, chosen, start)


def allocations_within(tries: Mapping[str, Callable[[], Allocation]]) -> list[Allocation]:
    """Return what methods find, called by their names, of those that can meet the budgets."""
    found = []
    for name, method in tries.items():
        try:
            found.append(replace(method(), method=name))
        except InfeasibleError:
            continue
    return found


def budget_curve(
    table: BitTable, cost: str, points: int = 8, *, fixed: Mapping[str, float] | None = None
) -> list[Allocation]:
    """Return optimal allocations for ``points`` budgets on ``cost``, evenly from least to most.

    Args:
        table: sensitivities and costs.
        cost: name of the cost that is varied.
        points: budgets; at least 2.
        fixed: budgets on other costs that hold throughout; points that cannot meet them are
            left out.
    """
    if points < 2:
        raise InputError(f"a curve needs at least 2 points, not {points}")
    check_budgets(table, {cost: math.inf})
    low, high = table.range(cost)
    found = []
    for budget in np.linspace(low, high, points):
        # A hair above the least cost, which rounding could otherwise put out of reach.
        limit = budget + 1e-9 * max(abs(low), abs(high), 1.0)
        try:
            found.append(allocate(table, {**(fixed or {}), cost: limit}))
        except InfeasibleError:
            continue
    return found


def check_budgets(table: BitTable, budgets: Mapping[str, float]) -> None:
    """Refuse a budget on a cost that the table does not have, or that is not a number."""
    for name, budget in budgets.items():
        if name not in table.costs:
            raise InputError(
                f"there is no cost {name!r} to put a budget on; known are "
                f"{', '.join(sorted(table.costs))}"
            )
        if math.isnan(budget):
            raise InputError(f"the budget of {name} is not a number")


def _within(table: BitTable, budgets: Mapping[str, float], chosen: Sequence[int]) -> bool:
    return all(
        table.cost(name, chosen) <= budget + 1e-9 * max(1.0, abs(budget))
        for name, budget in budgets.items()
    )


def _allocation(
    method: str,
    table: BitTable,
    chosen: Sequence[int],
    start: float,
    *,
    bound: float | None = None,
) -> Allocation:
    return Allocation(
        method=method,
        chosen=tuple(chosen),
        options=tuple(o[k] for o, k in zip(table.options, chosen, strict=True)),
        sensitivity=table.total(chosen),
        costs={name: table.cost(name, chosen) for name in table.costs},
        bound=bound,
        seconds=time.perf_counter() - start,
    )


def _infeasible(table: BitTable, budgets: Mapping[str, float]) -> InfeasibleError:
    missed = {
        name: (table.range(name)[0], float(budget))
        for name, budget in budgets.items()
        if table.range(name)[0] > budget
    }
    if not missed:
        return InfeasibleError(
            "infeasible: each budget can be met, but not all of them together "
            f"({', '.join(f'{n} <= {b:.6g}' for n, b in budgets.items())}); loosen one"
        )
    told = " and ".join(
        f"needs {least:.6g} {COSTS.get(name, name)} (budget {budget:.6g})"
        for name, (least, budget) in missed.items()
    )
    return InfeasibleError(
        f"infeasible: the cheapest allocation {told}; loosen the budget or allow fewer bits",
        violations=missed,
    )
