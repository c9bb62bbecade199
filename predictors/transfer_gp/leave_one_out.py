"""Practice on known devices, each left out in turn: what to believe of the next new one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from predictors.transfer_gp.device_functions import clip_outliers
from predictors.transfer_gp.kernels import (
    Features,
    Kernels,
    prior_shares,
    single_vectors,
)
from predictors.transfer_gp.mixture import evidences
from predictors.transfer_gp.transform import transform
from search_spaces.seeds import derive_rng
from search_spaces.tables.table import LatencyTable

MINIMUM_ROWS = 5
"""Devices with fewer measurements teach nothing."""

_CONSTANT = 1e-9  # range over the largest value

_DRAWS, _SIZE = 4, 30  # subsets of a left-out device, and measurements in each
_FLAT = 0.3  # share of the prior that does not listen to the known devices
_LOG_MARGIN = 4.0  # evidence for the logarithm before its shares count
_HELD = 200
_JUDGED_AT, _JUDGED = (10, 20), 3  # measurements, and draws of each


@dataclass(frozen=True)
class Task:
    """One device to practise on.

    Attributes:
        genes: (n, choices) architectures.
        values: (n,) ms, NaN where missing.
        device: its name if it is a known one, to be left out; None for others.
    """

    genes: np.ndarray
    values: np.ndarray
    device: str | None

    @cached_property
    def usable(self) -> np.ndarray:
        """Rows that were measured: (k,) int."""
        return np.flatnonzero(np.isfinite(self.values))

    @cached_property
    def clipped(self) -> np.ndarray:
        """The values with outliers pulled in: (n,)."""
        return clip_outliers(self.values)


@dataclass(frozen=True)
class Prior:
    """What known devices say about a new one.

    Attributes:
        log_weights: (thetas,) of the kernels' weight vectors.
        log_odds: evidence for modelling the logarithm.
        spreads: expected standard deviation over mean, and that of the logarithm.
    """

    log_weights: np.ndarray
    log_odds: float = 0.0
    spreads: tuple[float, float] = (0.4, 0.4)

    @classmethod
    def flat(cls, kernels: Kernels) -> Prior:
        """Every weight vector of a group alike."""
        return cls(prior_shares(kernels))

    def spread_of(self, target: np.ndarray, log: bool) -> float:
        """Expected standard deviation of a target (n,), in its own units."""
        return self.spreads[1] if log else self.spreads[0] * max(abs(target.mean()), 1e-9)


def unusable(values: np.ndarray) -> str | None:
    """Why a column (n,) teaches nothing, or None."""
    finite = values[np.isfinite(values)]
    if len(finite) < MINIMUM_ROWS:
        return f"{len(finite)} measurements, fewer than {MINIMUM_ROWS}"
    largest = float(finite.max())
    if largest <= 0:
        return "no measurement above zero"
    if float(np.ptp(finite)) <= _CONSTANT * largest:
        return f"every measurement is {finite[0]:g}"
    return None


def rows_to_learn_from(table: LatencyTable, most: int, rng: np.random.Generator) -> np.ndarray:
    """Return which rows to use, at most ``most`` of them: measured ones, every device in turn.

    A small table is used whole. Without any device the rows only say which architectures there
    are, and are drawn at random.
    """
    if len(table) <= most:
        return np.arange(len(table))
    order = rng.permutation(len(table))
    if not table.devices:
        return np.sort(order[:most])
    measured = np.isfinite(table.values[order])
    order = order[measured.any(axis=1)]
    measured = np.isfinite(table.values[order])
    if len(order) <= most:
        return np.sort(order)
    # Rank of each row among those its device has; a row is taken when its first device needs it.
    turn = np.where(measured, np.cumsum(measured, axis=0), len(order) + 1).min(axis=1)
    return np.sort(order[np.argsort(turn, kind="stable")[:most]])


def tasks_of(table: LatencyTable, valid: LatencyTable | None) -> list[Task]:
    """Every device of ``table``, to be left out, and the usable ones of ``valid``."""
    tasks = [Task(table.genes, table.column(d), d) for d in table.devices]
    if valid is not None:
        columns = [(d, valid.column(d)) for d in valid.devices]
        tasks += [
            Task(valid.genes, values, None) for _, values in columns if unusable(values) is None
        ]
    return tasks


def learn_prior(
    tasks: list[Task],
    features_of: Callable[[np.ndarray], Features],
    kernels_without: Callable[[str | None], Kernels],
    *,
    seed: int,
) -> Prior:
    """Weigh the weight vectors by how well they explain devices that were left out.

    Args:
        features_of: feature blocks of gene rows.
        kernels_without: the kernels with one known device missing.
    """
    shares, odds, spreads = [], [], []
    before = Prior(np.zeros(1))
    for number, task in enumerate(tasks):
        kernels = kernels_without(task.device)
        thetas = kernels.weights
        evidence = np.zeros((2, len(thetas)))
        rng = derive_rng(seed, "prior", number)
        for _ in range(_DRAWS):
            chosen = rng.permutation(task.usable)[:_SIZE]
            features = features_of(task.genes[chosen])
            for log in (False, True):
                target, jacobian = transform(task.clipped[chosen], log)
                grams = kernels.between(features, features, log=log)
                found = evidences(grams, target, thetas, before.spread_of(target, log))
                evidence[int(log)] += (found + jacobian) / _DRAWS
        best = evidence.max(axis=1)
        odds.append(best[1] - best[0])
        # On the scale that suits this device; on a tie, milliseconds.
        scale = int(best[1] > best[0] + _LOG_MARGIN)
        share = np.exp(evidence[scale] - best[scale] + prior_shares(kernels))
        single = single_vectors(kernels)
        # Which of the known devices stood in for this one says nothing of the next.
        share[single] = share[single].mean() if single.any() else 0.0
        shares.append(share / share.sum())
        values = task.clipped[task.usable]
        logs = transform(values, True)[0]
        spreads.append((values.std() / max(values.mean(), 1e-9), logs.std()))
    # Leaving a device out may drop a kernel, never reorder the weight vectors.
    share = np.mean(shares, axis=0)
    spread = np.maximum(np.median(spreads, axis=0), 1e-3)
    return Prior(
        np.log((1 - _FLAT) * share + _FLAT * np.exp(prior_shares(kernels))),
        float(np.clip(np.median(odds), -3.0, 3.0)),
        (float(spread[0]), float(spread[1])),
    )


def rank_correlations(
    tasks: list[Task],
    choose: Callable[[Task, np.ndarray, int, np.random.Generator], np.ndarray],
    predict: Callable[[Task, np.ndarray, np.ndarray], np.ndarray],
    seed: int,
) -> list[float]:
    """Spearman's correlation on left-out devices, by number of measurements, device and draw.

    Args:
        choose: picks which of a task's usable rows to measure.
        predict: adapts to a task's rows ``chosen`` and predicts the rows ``held``.
    """
    from scipy.stats import spearmanr

    out = []
    for count in _JUDGED_AT:
        for number, task in enumerate(tasks):
            if len(task.usable) < 2 * count:
                continue
            for draw in range(_JUDGED):
                rng = derive_rng(seed, "design", count, number, draw)
                chosen = task.usable[choose(task, task.usable, count, rng)]
                held = rng.permutation(np.setdiff1d(task.usable, chosen))[:_HELD]
                truth, guess = task.values[held], predict(task, chosen, held)
                if np.ptp(truth) > 0 and np.ptp(guess) > 0:
                    out.append(float(spearmanr(guess, truth)[0]))
    return out
