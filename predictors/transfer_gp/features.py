"""Architectures as numbers: named feature blocks and the kernels over them.

A block is a group of columns that belong together (one-hot choices, how often each option
occurs, analytic costs). Each is centred and scaled over reference architectures so that its
linear kernel has mean diagonal 1; a weight on a block then means the same in every space.

A space may offer, all vectorised over gene rows (n, choices):

* ``feature_blocks_genes(genes) -> dict[str, (n, k) array]``: blocks of its own. A name that
  ends in ``counts`` is taken for counts, any other for details of position;
* ``costs(genes) -> dict[str, (n,) array]``: totals known in advance, such as MACs;
* ``cost_features_genes(genes) -> (n, k) array``: finer analytic costs, a column each;
* ``degenerate_genes(genes) -> (n,) bool``: networks nobody should measure to learn from.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from search_spaces.planned import MEMORY_COSTS
from search_spaces.space import Choice, SearchSpace
from search_spaces.spaces.tokens import TokensSpace


def raw_blocks(space: SearchSpace, genes: np.ndarray) -> dict[str, np.ndarray]:
    """Return every feature block of gene rows: name -> (n, k) float64, unscaled.

    ``onehot``: the space's encoding. ``counts``: occurrences of each option over the choices
    that share its set of options (for tokens: of each token over all positions).
    ``early_counts``, ``late_counts`` (tokens only): the same, positions weighted by
    :data:`TRENDS`.
    ``values``: the number each numeric choice stands for; ``log_values``: its logarithm, since
    widths, depths and resolutions multiply. ``totals``: sums of the numbers over choices of a
    kind. ``costs``: analytic costs and their logarithms, where the space knows them.
    """
    genes = np.asarray(genes)
    onehot = space.encode_genes(genes).astype(np.float64)
    matrix, places = _projection(space)
    projected = onehot @ matrix
    blocks = {"onehot": onehot} | {name: projected[:, at] for name, at in places.items()}
    if hasattr(space, "feature_blocks_genes"):
        for name, block in space.feature_blocks_genes(genes).items():
            blocks[name] = np.asarray(block, dtype=np.float64)
    if hasattr(space, "costs"):
        known = {n: v for n, v in space.costs(genes).items() if n not in MEMORY_COSTS}
        costs = np.column_stack(list(known.values())).astype(np.float64)
        blocks["costs"] = np.concatenate([costs, np.log1p(costs)], axis=1)
    if hasattr(space, "cost_features_genes"):
        blocks["cost_details"] = np.asarray(space.cost_features_genes(genes), dtype=np.float64)
    return blocks


TRENDS = {"early_counts": 0.02, "late_counts": 50.0}
"""Weight of the last position over that of the first, geometric in between.

Channels and sides of feature maps change by a factor from stage to stage, so the cost of an
operation often rises or falls along a chain; a table of tokens does not say which.
"""

_TREND_POSITIONS = 4  # fewer are no chain

_OWN_UNITS = ("costs", "cost_details", "values", "log_values", "totals")


def role(block: str) -> str:
    """Return the kind of a block: ``onehot, counts, costs, declared, numeric`` or ``detail``."""
    if block in ("onehot", "costs"):
        return block
    if block == "more_costs":
        return "costs"
    if block in ("declared", "log_declared"):
        return "declared"
    if block in ("values", "log_values"):
        return "numeric"
    if block == "totals" or block.endswith("counts"):
        return "counts"
    return "detail"


def degenerate(space: SearchSpace, genes: np.ndarray) -> np.ndarray:
    """Return which architectures the space calls degenerate: (n,) bool."""
    if hasattr(space, "degenerate_genes"):
        return np.asarray(space.degenerate_genes(genes), dtype=bool)
    return np.zeros(len(genes), dtype=bool)


class FeatureScaler:
    """Scales blocks so that each has mean squared norm 1 over reference architectures.

    Args:
        space: whose architectures are described.
        reference: gene rows (n, choices) that stand for the architectures of interest.
    """

    def __init__(self, space: SearchSpace, reference: np.ndarray) -> None:
        self.space = space
        self._scale: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for name, block in raw_blocks(space, reference).items():
            mean = block.mean(axis=0)
            # Columns of costs have units of their own; all others share one.
            spread = block.std(axis=0) if name in _OWN_UNITS else None
            if spread is None:
                spread = np.ones(block.shape[1])
            spread = np.where(spread > 1e-12, spread, np.inf)
            scaled = (block - mean) / spread
            norm = np.sqrt((scaled**2).sum(axis=1).mean())
            if norm > 1e-9:
                self._scale[name] = (mean, spread * norm)

    @classmethod
    def from_arrays(cls, space: SearchSpace, arrays: Mapping[str, np.ndarray]) -> FeatureScaler:
        """Rebuild a scaler from :meth:`arrays`."""
        scaler = cls.__new__(cls)
        scaler.space = space
        names = [key[len("mean.") :] for key in arrays if key.startswith("mean.")]
        scaler._scale = {n: (arrays[f"mean.{n}"], arrays[f"spread.{n}"]) for n in sorted(names)}
        return scaler

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the state, for a file."""
        out = {}
        for name, (mean, spread) in self._scale.items():
            out[f"mean.{name}"] = mean
            out[f"spread.{name}"] = spread
        return out

    @property
    def names(self) -> list[str]:
        """Blocks that vary at all, in alphabetical order."""
        return sorted(self._scale)

    def __call__(self, genes: np.ndarray) -> dict[str, np.ndarray]:
        """Return the scaled blocks of gene rows: name -> (n, k) float64."""
        raw = raw_blocks(self.space, genes)
        return {
            name: (raw[name] - mean) / spread
            for name, (mean, spread) in sorted(self._scale.items())
        }


def squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared Euclidean distances: (n, k), (m, k) -> (n, m)."""
    out = a @ b.T
    out *= -2
    out += (a * a).sum(axis=1)[:, None]
    out += (b * b).sum(axis=1)
    return np.maximum(out, 0, out=out)


def _groups(space: SearchSpace) -> list[list[int]]:
    """Choices whose options count together; groups of one say no more than the encoding."""
    if isinstance(space, TokensSpace):
        return [[i for i, c in enumerate(space.choices) if c.name != "length"]]
    by_options: dict[tuple, list[int]] = {}
    for i, choice in enumerate(space.choices):
        by_options.setdefault(choice.options, []).append(i)
    return [group for group in by_options.values() if len(group) > 1]


@lru_cache(maxsize=16)
def _projection(space: SearchSpace) -> tuple[np.ndarray, dict[str, slice]]:
    """The blocks that are sums over the one-hot encoding: a matrix (columns, k), and its parts.

    An inactive choice is all zeros in the encoding and so adds nothing.
    """
    blocks: dict[str, list[np.ndarray]] = {}
    for group in _groups(space):
        blocks.setdefault("counts", []).append(_count_matrix(space, group, np.ones(len(group))))
        if isinstance(space, TokensSpace) and len(group) >= _TREND_POSITIONS:
            along = np.linspace(0.0, 1.0, len(group))
            for name, factor in TRENDS.items():
                blocks[name] = [_count_matrix(space, group, factor**along)]
    values, log_values, totals = _numeric_matrices(space)
    if values:
        blocks["values"], blocks["totals"] = values, totals
        blocks["log_values"] = log_values
    places, start = {}, 0
    for name, parts in blocks.items():
        stop = start + sum(part.shape[1] for part in parts)
        places[name] = slice(start, stop)
        start = stop
    columns = [part for parts in blocks.values() for part in parts]
    empty = np.zeros((int(space.option_counts.sum()), 0))
    return np.concatenate([empty, *columns], axis=1), places


def _count_matrix(space: SearchSpace, group: list[int], weights: np.ndarray) -> np.ndarray:
    """Encoding -> weighted occurrences of each option over a group: (columns, options)."""
    options = sorted({o for i in group for o in space.choices[i].options}, key=str)
    column = {option: k for k, option in enumerate(options)}
    out = np.zeros((int(space.option_counts.sum()), len(options)))
    start = _starts(space)
    for i, weight in zip(group, weights, strict=True):
        for j, option in enumerate(space.choices[i].options):
            out[start[i] + j, column[option]] = weight
    return out


def _numeric_matrices(
    space: SearchSpace,
) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """Encoding -> numbers of each numeric choice, their logarithms, and sums over a kind."""
    rows = int(space.option_counts.sum())
    start = _starts(space)
    values: list[np.ndarray] = []
    log_values: list[np.ndarray] = []
    totals: dict[str, np.ndarray] = {}
    for i, choice in enumerate(space.choices):
        table, kinds = _numbers(space, choice)
        if table is None:
            continue
        block = np.zeros((rows, table.shape[1]))
        of_choice = slice(start[i], start[i] + len(table))
        block[of_choice] = table
        values.append(block)
        log_values.append(_logarithms(block, of_choice))
        for k, kind in enumerate(kinds):
            totals[kind] = totals.get(kind, 0) + block[:, k : k + 1]
    return values, log_values, list(totals.values())


def _logarithms(block: np.ndarray, of_choice: slice) -> np.ndarray:
    """Logarithms of the numbers of one choice, rows of other choices zero: (columns, fields).

    They are in units of the smallest number, so that a choice that is not there (zeros) is near
    the small ones. An option without the number (a layer that is skipped) counts as half of it.
    """
    out = np.zeros_like(block)
    for k, column in enumerate(block.T):
        positive = column[column > 0]
        if positive.size:
            least = float(positive.min())
            out[of_choice, k] = np.log(np.maximum(column[of_choice], 0.5 * least) / least)
    return out


def _starts(space: SearchSpace) -> np.ndarray:
    """First column of each choice in the encoding: (choices,)."""
    return np.concatenate([[0], np.cumsum(space.option_counts)[:-1]]).astype(int)


def _numbers(space: SearchSpace, choice: Choice) -> tuple[np.ndarray | None, list[str]]:
    """The numbers in each option, (options, fields), and a name of each field.

    Options without the numbers of the others (``skip`` among ``k3_e6``) count as zeros.
    """
    if isinstance(space, TokensSpace) and choice.name != "length":
        parsed = [space.numbers(str(option)) for option in choice.options]
        templates = sorted({template for template, found in parsed if found})
        fields = [(t, k) for t in templates for k in range(t.count("#"))]
        if not fields:
            return None, []
        table = np.zeros((len(parsed), len(fields)))
        for row, (template, found) in enumerate(parsed):
            for k, number in enumerate(found):
                table[row, fields.index((template, k))] = number
        return table, [f"{template}:{k}" for template, k in fields]
    if all(isinstance(o, (int, float)) for o in choice.options) and len(choice.options) > 1:
        # "stage2.kernel" and "s3_kernel_1" are of one kind: the name without its digits.
        kind = "".join(c for c in choice.name if not c.isdigit())
        return np.array(choice.options, dtype=np.float64)[:, None], [kind]
    return None, []
