"""Which choices of a space matter, from the evaluations of a search.

For each choice, the share of a metric's variance that the choice explains alone: the
epsilon-squared of a one-way analysis of variance (Kelley 1935, "An unbiased correlation
ratio measure"), which unlike eta-squared is 0 on average for a choice without effect. A
conditional choice is judged over the architectures where it is active. A family is all
choices of one kind, such as every kernel size; what counts is its mean over the active
choices, cut into quantiles, because one layer among dozens explains little by itself.
A search samples good regions more densely than others, so the figures describe the
evaluated architectures, not the whole space.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

SHUFFLES = 200
"""Permutations behind the chance level."""


@dataclass(frozen=True)
class Importance:
    """How much of a metric one choice, or family of choices, explains.

    Attributes:
        choice: name of the choice or family.
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
    values: Sequence[float | None],
    *,
    least: int = 8,
    seed: int = 0,
) -> list[Importance]:
    """Return the importance of every choice that varies, the largest first.

    Args:
        choices: of each architecture, values by name; an inactive choice is absent.
        values: metric of each architecture; rows that are not finite are left out.
        least: fewest architectures a figure may rest on.
        seed: of the shuffles.
    """
    y = _column(values)
    names = list(dict.fromkeys(name for row in choices for name in row))
    rng = np.random.default_rng(seed)
    found = [_explained(name, [row.get(name) for row in choices], y, least, rng) for name in names]
    return _ranked(found)


def family_importance(
    choices: Sequence[Mapping[str, Any]],
    values: Sequence[float | None],
    *,
    least: int = 8,
    levels: int = 4,
    seed: int = 0,
) -> list[Importance]:
    """Return the importance of every family of numeric choices, the largest first.

    The family of ``s1.b2.w.project`` is ``w``: the first part of a name that is no
    numbered position. Families with one choice only are that choice.

    Args:
        choices, values, least, seed: as for :func:`choice_importance`.
        levels: quantiles the mean of a family is cut into.
    """
    y = _column(values)
    members: dict[str, list[str]] = {}
    for name in dict.fromkeys(name for row in choices for name in row):
        members.setdefault(family(name), []).append(name)
    rng = np.random.default_rng(seed)
    found = []
    for name, names in members.items():
        means = np.full(len(choices), np.nan)
        for i, row in enumerate(choices):
            given = [row[member] for member in names if member in row]
            if given and all(isinstance(v, (int, float)) for v in given):
                means[i] = np.mean(given)
        found.append(_explained(name, _quantiles(means, levels), y, least, rng))
    return _ranked(found)


def family(name: str) -> str:
    """Return the kind of a choice: its name from the first part without a number on."""
    parts = name.split(".")
    kinds = [part for part in parts if not re.search(r"\d", part)]
    return kinds[0] if kinds else name


def _column(values: Sequence[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], dtype=float)


def _ranked(found: list[Importance | None]) -> list[Importance]:
    present = [item for item in found if item is not None]
    return sorted(present, key=lambda item: (-item.explained, item.choice))


def _quantiles(means: np.ndarray, levels: int) -> list[str | float | None]:
    """Name the interval each mean lies in; few distinct means stay themselves."""
    known = means[np.isfinite(means)]
    if len(np.unique(known)) <= levels:
        return [float(mean) if np.isfinite(mean) else None for mean in means]
    edges = np.unique(np.quantile(known, np.linspace(0, 1, levels + 1)))
    bins = np.clip(np.searchsorted(edges, means, side="right") - 1, 0, len(edges) - 2)
    # The number in front keeps the intervals in order when they are sorted as text.
    names = [f"{k + 1}: {edges[k]:.3g} to {edges[k + 1]:.3g}" for k in range(len(edges) - 1)]
    return [names[k] if np.isfinite(mean) else None for k, mean in zip(bins, means, strict=True)]


def _explained(
    name: str, given: Sequence[Any], values: np.ndarray, least: int, rng: np.random.Generator
) -> Importance | None:
    """Judge one assignment of levels; ``None`` where there is too little to judge."""
    rows = [i for i, level in enumerate(given) if level is not None and np.isfinite(values[i])]
    if len(rows) < least:
        return None
    options = sorted({given[i] for i in rows}, key=_order)
    if len(options) < 2 or len(options) >= len(rows):
        return None
    position = {option: k for k, option in enumerate(options)}
    codes = np.array([position[given[i]] for i in rows])
    y = values[rows]
    total = float(((y - y.mean()) ** 2).sum())
    if total <= 1e-18 * max(1.0, float((y**2).sum())):
        return None
    shuffles = rng.permuted(np.broadcast_to(y, (SHUFFLES, len(y))), axis=1)
    return Importance(
        choice=name,
        explained=max(0.0, float(_epsilon_squared(y[None], codes, total)[0])),
        chance=max(0.0, float(np.quantile(_epsilon_squared(shuffles, codes, total), 0.95))),
        active=len(rows),
        levels=tuple(
            (option, int((codes == k).sum()), float(y[codes == k].mean()))
            for k, option in enumerate(options)
        ),
    )


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
