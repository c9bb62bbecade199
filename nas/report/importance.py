"""Which choices of a space matter, from the evaluations of a search.

For each choice, the share of a metric's variance that the choice explains alone: the
epsilon-squared of a one-way analysis of variance (Kelley 1935, "An unbiased correlation
ratio measure"), which unlike eta-squared is 0 on average for a choice without effect. A
conditional choice is judged over the architectures where it is active. A search samples
good regions more densely than others, so the figures describe the evaluated
architectures, not the whole space.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

SHUFFLES = 200
"""Permutations behind the chance level."""


@dataclass(frozen=True)
class ChoiceImportance:
    """How much of a metric one choice explains.

    Attributes:
        choice: name.
        explained: share of the variance where the choice is active, 0..1.
        chance: the share that 95 % of shuffled assignments stay under.
        active: architectures the figures are based on.
        levels: ``(option, architectures, mean of the metric)`` in order of the options.
    """

    choice: str
    explained: float
    chance: float
    active: int
    levels: tuple[tuple[Any, int, float], ...]


def choice_importance(
    choices: Sequence[Mapping[str, Any]],
    values: Sequence[float],
    *,
    least: int = 8,
    seed: int = 0,
) -> list[ChoiceImportance]:
    """Return the importance of every choice that varies, the largest first.

    Args:
        choices: of each architecture, values by name; an inactive choice is absent.
        values: metric of each architecture; rows that are not finite are left out.
        least: fewest architectures a figure may rest on.
        seed: of the shuffles.
    """
    y_all = np.array([np.nan if v is None else v for v in values], dtype=float)
    names = list(dict.fromkeys(name for row in choices for name in row))
    rng = np.random.default_rng(seed)
    found = []
    for name in names:
        rows = [i for i, row in enumerate(choices) if name in row and np.isfinite(y_all[i])]
        if len(rows) < least:
            continue
        given = [choices[i][name] for i in rows]
        options = sorted(set(given), key=_order)
        if len(options) < 2 or len(options) >= len(rows):
            continue
        codes = np.array([options.index(value) for value in given])
        y = y_all[rows]
        total = float(((y - y.mean()) ** 2).sum())
        if total <= 1e-18 * max(1.0, float((y**2).sum())):
            continue
        counts = np.bincount(codes, minlength=len(options))
        shuffles = rng.permuted(np.broadcast_to(y, (SHUFFLES, len(y))), axis=1)
        shuffled = _epsilon_squared(shuffles, codes, total)
        found.append(
            ChoiceImportance(
                choice=name,
                explained=max(0.0, float(_epsilon_squared(y[None], codes, total)[0])),
                chance=max(0.0, float(np.quantile(shuffled, 0.95))),
                active=len(rows),
                levels=tuple(
                    (option, int(counts[k]), float(y[codes == k].mean()))
                    for k, option in enumerate(options)
                ),
            )
        )
    return sorted(found, key=lambda item: (-item.explained, item.choice))


def _epsilon_squared(y: np.ndarray, codes: np.ndarray, total: float) -> np.ndarray:
    """Share of the variance between groups, corrected for chance: (m, n), (n,) -> (m,)."""
    groups = np.eye(codes.max() + 1)[codes]  # (n, k)
    n, k = groups.shape
    centred = y - y.mean(axis=1, keepdims=True)
    between = ((centred @ groups) ** 2 / groups.sum(axis=0)).sum(axis=1)
    noise = (total - between) / (n - k)
    return (between - (k - 1) * noise) / total


def _order(value: Any) -> tuple[int, float, str]:
    if isinstance(value, (int, float)):
        return (0, float(value), "")
    return (1, 0.0, str(value))
