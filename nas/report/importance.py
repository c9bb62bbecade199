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
    names = list(dict.fromkeys(name for row in choices for name in row))
    given = {name: [row.get(name) for row in choices] for name in names}
    return _ranked(given, _column(values), least, seed)


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
    members: dict[str, list[str]] = {}
    for name in dict.fromkeys(name for row in choices for name in row):
        members.setdefault(family(name), []).append(name)
    families = {}
    for name, names in members.items():
        means = np.full(len(choices), np.nan)
        for i, row in enumerate(choices):
            given = [row[member] for member in names if member in row]
            if given and all(isinstance(v, (int, float)) for v in given):
                means[i] = sum(given) / len(given)
        families[name] = _quantiles(means, levels)
    return _ranked(families, _column(values), least, seed)


def family(name: str) -> str:
    """Return the kind of a choice: its name from the first part without a number on."""
    parts = name.split(".")
    kinds = [part for part in parts if not re.search(r"\d", part)]
    return kinds[0] if kinds else name


def _column(values: Sequence[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], dtype=float)


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


@dataclass(frozen=True)
class _Levels:
    """One choice as the evaluations that can be judged have it.

    Attributes:
        choice: its name.
        rows: which evaluations those are: (n,) int.
        options: the levels, in order.
        codes: which of them each row has: (n,) int.
    """

    choice: str
    rows: np.ndarray
    options: list[Any]
    codes: np.ndarray


def _levels(name: str, given: Sequence[Any], values: np.ndarray, least: int) -> _Levels | None:
    """Code the levels of one choice; ``None`` where there is too little to judge."""
    known = np.array([level is not None for level in given], dtype=bool)
    rows = np.flatnonzero(known & np.isfinite(values))
    if len(rows) < least:
        return None
    levels = [given[i] for i in rows.tolist()]
    options = sorted(set(levels), key=_order)
    if len(options) < 2 or len(options) >= len(rows):
        return None
    position = {option: k for k, option in enumerate(options)}
    return _Levels(name, rows, options, np.array([position[level] for level in levels]))


def _ranked(
    given: Mapping[str, Sequence[Any]], values: np.ndarray, least: int, seed: int
) -> list[Importance]:
    """Judge choices, each as a level of every evaluation; the largest share first."""
    alike: dict[bytes, list[_Levels]] = {}
    for name, levels in given.items():
        one = _levels(name, levels, values, least)
        if one is not None:
            alike.setdefault(one.rows.tobytes(), []).append(one)
    rng = np.random.default_rng(seed)
    found = [item for group in alike.values() for item in _explained(group, values, rng)]
    return sorted(found, key=lambda item: (-item.explained, item.choice))


def _explained(
    group: Sequence[_Levels], values: np.ndarray, rng: np.random.Generator
) -> list[Importance]:
    """Judge choices that the same evaluations have; they are held against the same shuffles."""
    y = values[group[0].rows]
    centred = y - y.mean()
    total = float((centred**2).sum())
    if total <= 1e-18 * max(1.0, float((y**2).sum())):
        return []
    shuffles = rng.permuted(np.broadcast_to(centred, (SHUFFLES, len(y))), axis=1)
    shares = _epsilon_squared(np.concatenate([centred[None], shuffles]), group, total)
    found = []
    for one, share in zip(group, shares, strict=True):
        counts = np.bincount(one.codes)
        means = np.bincount(one.codes, weights=y) / counts
        found.append(
            Importance(
                choice=one.choice,
                explained=max(0.0, float(share[0])),
                chance=max(0.0, float(np.quantile(share[1:], 0.95))),
                active=len(y),
                levels=tuple(zip(one.options, counts.tolist(), means.tolist(), strict=True)),
            )
        )
    return found


def _epsilon_squared(centred: np.ndarray, group: Sequence[_Levels], total: float) -> np.ndarray:
    """Share of the variance between levels, corrected for chance: (m, n) -> (choices, m)."""
    # One product for all choices: (m, n) with a column a level of each of them.
    columns = np.concatenate([np.eye(len(one.options))[one.codes] for one in group], axis=1)
    starts = np.cumsum([0, *(len(one.options) for one in group[:-1])])
    squares = (centred @ columns) ** 2 / columns.sum(axis=0)
    between = np.add.reduceat(squares, starts, axis=1).T
    levels = np.array([[len(one.options)] for one in group])
    noise = (total - between) / (centred.shape[1] - levels)
    return (between - (levels - 1) * noise) / total


def _order(value: Any) -> tuple[int, float, str]:
    if isinstance(value, (int, float)):
        return (0, float(value), "")
    return (1, 0.0, str(value))
