"""Better bits for a candidate: one integer programme on the surrogates' marginal effects.

Evolution changes a few bit-widths at a time and needs many steps to trade bits between
layers. Around one candidate the surrogates say what every other option of every bit-width
would do to each metric on its own; if these effects add up (they do exactly for sizes and bit
operations, nearly for the rest) the best exchange at no higher cost is a multiple-choice
knapsack, which :func:`nas.bits.allocation.allocate` solves to a proven optimum (as OHQ and HAO do
for one network). The surrogates judge the result like any other candidate.
"""

from __future__ import annotations

import re

import numpy as np

from nas.bits.allocation import BitTable, allocate
from nas.strategies.genes import unique_rows
from nas.strategies.problem import Problem
from search_spaces.errors import NasError

BIT_CHOICES = r"(.*\.)?([wa]\..+|.*bits)"
"""Regular expression for the whole names of choices that are bit-widths."""

_SLACK = 1e-9
_TIME_LIMIT_S = 2.0


def polish(problem: Problem, rows: np.ndarray, *, choices: str = BIT_CHOICES) -> np.ndarray:
    """Return candidates with the bits that the surrogates like best at no higher cost.

    The objective that is bettered is the first one without a closed form (accuracy, as a
    rule), else the first one; no other objective and no constraint may get worse than the
    candidate's own, or than the bound where the candidate has room.

    Args:
        problem: its surrogates must be fitted.
        rows: (n, choices), canonical.
        choices: regular expression for the names of the choices that may change. Choices that
            decide whether others exist are never changed.

    Returns:
        (k, choices) distinct rows, only those that changed; none where no choice matches.
    """
    space = problem.space
    deciding = {condition.parent for choice in space.choices for condition in choice.when}
    free = [
        j
        for j, choice in enumerate(space.choices)
        if re.fullmatch(choices, choice.name)
        and choice.name not in deciding
        and len(choice.options) > 1
    ]
    if not free or not len(rows):
        return np.empty((0, len(space.choices)), dtype=np.int64)
    goal = _bettered(problem)
    active = space.active(rows)
    found = []
    variants, layout = _variants(space.option_counts, rows, active, free)
    judged = problem.judge(np.vstack([rows, variants]))
    effects = np.column_stack([judged.objectives, judged.constraints])
    own, other = effects[: len(rows)], effects[len(rows) :]
    for i, row in enumerate(rows):
        mine = [(j, at) for k, j, at in layout if k == i]
        if not mine:
            continue
        better = _reallocated(row, own[i], other, mine, space.option_counts, goal, problem)
        if better is not None:
            found.append(better)
    if not found:
        return np.empty((0, len(space.choices)), dtype=np.int64)
    changed = space.canonical(np.array(found))
    return changed[unique_rows(changed)]


def _bettered(problem: Problem) -> int:
    for i, goal in enumerate(problem.goals):
        if not problem.surrogates[str(goal.metric)].exact:
            return i
    return 0


def _variants(
    counts: np.ndarray, rows: np.ndarray, active: np.ndarray, free: list[int]
) -> tuple[np.ndarray, list[tuple[int, int, int]]]:
    """Return every row with one free choice at each option, and where each choice's begin."""
    out, layout = [], []
    at = 0
    for i, row in enumerate(rows):
        for j in free:
            if not active[i, j]:
                continue
            block = np.repeat(row[None], counts[j], axis=0)
            block[:, j] = np.arange(counts[j])
            out.append(block)
            layout.append((i, j, at))
            at += int(counts[j])
    if not out:
        return np.empty((0, rows.shape[1]), dtype=np.int64), layout
    return np.vstack(out), layout


def _reallocated(
    row: np.ndarray,
    own: np.ndarray,
    other: np.ndarray,
    mine: list[tuple[int, int]],
    counts: np.ndarray,
    goal: int,
    problem: Problem,
) -> np.ndarray | None:
    """Return ``row`` with the best options; None where they are its own."""
    spans = [other[at : at + counts[j]] - own for j, at in mine]
    goals = len(problem.goals)
    budgets, costs = {}, {}
    for m in range(len(own)):
        if m == goal:
            continue
        name = f"metric {m}"
        # A constraint may use up the room it has; an objective may not get worse.
        room = max(0.0, -float(own[m])) if m >= goals else 0.0
        scale = max(float(np.abs(span[:, m]).max()) for span in spans)
        if scale == 0.0:
            continue
        costs[name] = [span[:, m] / scale for span in spans]
        budgets[name] = room / scale + _SLACK
    table = BitTable.of(
        [str(j) for j, _ in mine],
        [tuple(range(int(counts[j]))) for j, _ in mine],
        [span[:, goal] for span in spans],
        costs,
    )
    try:
        best = allocate(table, budgets, time_limit_s=_TIME_LIMIT_S)
    except NasError:
        # Its own options are always within; rounding or the time limit left none, and a
        # candidate that is not bettered is simply not among the returned.
        return None
    if best.sensitivity >= 0.0:
        return None
    changed = row.copy()
    changed[[j for j, _ in mine]] = best.chosen
    return changed
