"""Predictors that learn from the target device alone; shown beside every other one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from predictors.declared import gene_keys
from predictors.registry import (
    LATENCY_PREDICTORS,
    Adapted,
    LatencyPredictor,
    check_coverage,
)
from predictors.ridge import fit_ridge
from predictors.transfer_gp.features import FeatureScaler, raw_blocks
from predictors.transfer_gp.transform import positive
from predictors.transfer_gp.widths import Calibration
from search_spaces.errors import InputError
from search_spaces.seeds import derive_rng, derive_seed
from search_spaces.space import SearchSpace
from search_spaces.tables.table import LatencyTable

Mean = Callable[[np.ndarray], np.ndarray]


class AdaptedBaseline(Adapted):
    """A mean function with a spread: of leave-one-out errors, or the model's own.

    Args:
        mean: gene rows (n, choices) -> ms (n,).
        spread: gene rows -> standard deviation in ms (n,).
        degrees: degrees of freedom of Student's t around the mean.
        least_ms: smallest measurement; see :func:`predictors.transfer_gp.transform.positive`.
    """

    def __init__(
        self, space: SearchSpace, mean: Mean, spread: Mean, degrees: float, *, least_ms: float
    ) -> None:
        self.space = space
        self._mean = mean
        self._least = least_ms
        self._spread = spread
        self._calibration = Calibration.student(max(degrees, 1.0))

    def predict_genes(self, genes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation in ms of gene rows (n, choices)."""
        return positive(self._mean(genes), self._least), self._spread(genes)

    def interval_genes(self, genes: np.ndarray, coverage: float) -> tuple[np.ndarray, np.ndarray]:
        """Interval of Student's t around the mean, in ms."""
        check_coverage(coverage)
        mean, spread = self.predict_genes(genes)
        width = self._calibration.width(coverage) * spread
        return np.maximum(mean - width, 0), mean + width

    def probability_within_genes(self, genes: np.ndarray, budget_ms: float) -> np.ndarray:
        """Student's t probability that the latency is at most ``budget_ms``."""
        mean, spread = self.predict_genes(genes)
        return self._calibration.probability_below((budget_ms - mean) / np.maximum(spread, 1e-12))


class Baseline(LatencyPredictor):
    """Ignores known devices; subclasses fit a mean function to the measurements."""

    name: ClassVar[str]

    def meta_fit(self, table: LatencyTable, *, valid: LatencyTable | None = None) -> Baseline:
        """Learn nothing: a baseline sees the target device only."""
        return self

    @abstractmethod
    def fit_mean(self, genes: np.ndarray, latencies_ms: np.ndarray) -> Mean:
        """Return the mean function fitted to measurements."""

    def adapt_genes(self, genes: np.ndarray, latencies_ms: np.ndarray) -> Adapted:
        """Fit the mean, and the spread from leave-one-out errors (five folds beyond 20)."""
        n = len(genes)
        mean = self.fit_mean(genes, latencies_ms)
        errors = latencies_ms - mean(genes)
        if n > 2:
            folds = np.arange(n) % min(n, 20 if n <= 20 else 5)
            for fold in np.unique(folds):
                out = folds == fold
                part = self.fit_mean(genes[~out], latencies_ms[~out])
                errors[out] = latencies_ms[out] - part(genes[out])
        spread = float(np.sqrt(np.mean(errors**2)))
        least = float(latencies_ms.min())
        return AdaptedBaseline(
            self.space, mean, lambda g: np.full(len(g), spread), n - 1, least_ms=least
        )


@LATENCY_PREDICTORS.register("macs")
class Macs(Baseline):
    """Latency proportional to multiply-accumulates, with an offset.

    Args:
        table: declares the MACs of its architectures, where the space cannot compute them.

    Raises:
        InputError: neither the space nor the table knows the MACs.
    """

    name = "macs"

    def __init__(
        self, space: SearchSpace, *, seed: int = 0, table: LatencyTable | None = None
    ) -> None:
        super().__init__(space, seed=seed)
        self._declared: dict[bytes, float] = {}
        if table is not None and "macs" in table.costs:
            pairs = zip(gene_keys(table.genes), table.costs["macs"], strict=True)
            self._declared = {key: float(macs) for key, macs in pairs if np.isfinite(macs)}
        # A space of cells or networks computes the costs of its architectures.
        self._costs: Any = getattr(space, "costs", None)
        if not self._declared and not hasattr(space, "costs"):
            raise InputError(
                f"the space {space.name!r} does not know the MACs of its architectures, so the "
                "baseline 'macs' is undefined; add a column of MACs to the table, declared with "
                "'# metric of COLUMN: macs', or leave macs out of --method"
            )

    def macs(self, genes: np.ndarray) -> np.ndarray:
        """Multiply-accumulates of gene rows (n, choices): (n,).

        Raises:
            InputError: the table declares none for an architecture.
        """
        genes = np.asarray(genes)
        if not self._declared:
            return self._costs(genes)["macs"]
        keys = gene_keys(genes)
        unknown = [i for i, key in enumerate(keys) if key not in self._declared]
        if unknown:
            arch = self.space.decode(genes[unknown[:1]])[0]
            raise InputError(f"the table declares no MACs for the architecture {arch}")
        return np.array([self._declared[key] for key in keys])

    def fit_mean(self, genes: np.ndarray, latencies_ms: np.ndarray) -> Mean:
        """Least squares with a slope of at least zero."""
        macs = self.macs(genes)
        centred = macs - macs.mean()
        norm = float(centred @ centred)
        slope = max(float(centred @ latencies_ms) / norm, 0.0) if norm > 0 else 0.0
        # A slope of zero would leave architectures unranked: MACs rank them all the same.
        least = max(float(latencies_ms.mean()), 1e-12) / max(float(macs.mean()), 1e-12)
        slope = max(slope, 1e-12 * least)
        offset = float(latencies_ms.mean()) - slope * float(macs.mean())
        return lambda g: offset + slope * self.macs(g)


@LATENCY_PREDICTORS.register("lookup")
class Lookup(Baseline):
    """Layer-wise look-up table: the latency is the sum of one entry a choice.

    The entries are what measured networks imply (non-negative least squares), since a few
    measurements of whole networks are given and not one of each layer.
    """

    name = "lookup"

    def fit_mean(self, genes: np.ndarray, latencies_ms: np.ndarray) -> Mean:
        """Non-negative least squares with a faint ridge towards equal shares."""
        from scipy.optimize import nnls

        design = self._design(genes)
        ridge = 0.05
        share = latencies_ms.mean() / max(design.sum(axis=1).mean(), 1e-9)
        system = np.concatenate([design, ridge * np.eye(design.shape[1])])
        target = np.concatenate([latencies_ms, np.full(design.shape[1], ridge * share)])
        entries, _ = nnls(system, target, maxiter=50 * design.shape[1])
        return lambda g: self._design(g) @ entries

    def _design(self, genes: np.ndarray) -> np.ndarray:
        one_hot = self.space.encode_genes(np.asarray(genes)).astype(np.float64)
        return np.column_stack([np.ones(len(one_hot)), one_hot])


@LATENCY_PREDICTORS.register("ridge")
class Ridge(Baseline):
    """Ridge regression on the one-hot encoding; the penalty by leave-one-out."""

    name = "ridge"

    def fit_mean(self, genes: np.ndarray, latencies_ms: np.ndarray) -> Mean:
        """Closed-form leave-one-out over a grid of penalties."""
        fit = fit_ridge(self.space.encode_genes(np.asarray(genes)).astype(np.float64), latencies_ms)
        return lambda g: fit(self.space.encode_genes(np.asarray(g)).astype(np.float64))


@LATENCY_PREDICTORS.register("trees")
class Trees(Baseline):
    """Extremely randomised trees on the one-hot encoding and counts."""

    name = "trees"

    def fit_mean(self, genes: np.ndarray, latencies_ms: np.ndarray) -> Mean:
        """A hundred trees."""
        from sklearn.ensemble import ExtraTreesRegressor

        seed = derive_seed(self.seed, "trees") % 2**32
        model = ExtraTreesRegressor(100, random_state=seed, n_jobs=1)
        model.fit(_plain(self.space, genes), latencies_ms)
        return lambda g: model.predict(_plain(self.space, g))

    def adapt_genes(self, genes: np.ndarray, latencies_ms: np.ndarray) -> Adapted:
        """Fit once; the spread comes from the out-of-bag errors of a bootstrapped twin."""
        from sklearn.ensemble import ExtraTreesRegressor

        mean = self.fit_mean(genes, latencies_ms)
        spread = float(np.std(latencies_ms))
        if len(genes) > 5:
            seed = derive_seed(self.seed, "out of bag") % 2**32
            twin = ExtraTreesRegressor(100, bootstrap=True, oob_score=True, random_state=seed)
            twin.fit(_plain(self.space, genes), latencies_ms)
            spread = float(np.sqrt(np.mean((twin.oob_prediction_ - latencies_ms) ** 2)))
        least = float(latencies_ms.min())
        return AdaptedBaseline(
            self.space, mean, lambda g: np.full(len(g), spread), len(genes) - 1, least_ms=least
        )


@LATENCY_PREDICTORS.register("target_gp")
class TargetGP(Baseline):
    """A Gaussian process on the target alone: radial kernel on the one-hot encoding.

    Length scale and noise by marginal likelihood on a grid, the scale in closed form.
    """

    name = "target_gp"

    def __init__(self, space: SearchSpace, *, seed: int = 0) -> None:
        super().__init__(space, seed=seed)
        reference = space.sample_genes(derive_rng(seed, "reference"), 256)
        self._scaler = FeatureScaler(space, reference)

    def fit_mean(self, genes: np.ndarray, latencies_ms: np.ndarray) -> Mean:
        """The posterior mean."""
        adapted = self.adapt_genes(genes, latencies_ms)
        return lambda g: adapted.predict_genes(g)[0]

    def adapt_genes(self, genes: np.ndarray, latencies_ms: np.ndarray) -> Adapted:
        """Fit by marginal likelihood."""
        from predictors.transfer_gp.features import squared_distances

        points = self._scaler(np.asarray(genes))["onehot"]
        offset = float(latencies_ms.mean())
        target = latencies_ms - offset
        distances = squared_distances(points, points)
        n = len(target)
        best = -np.inf
        chosen: tuple[float, float, np.ndarray, np.ndarray, float] | None = None
        for rate in (0.05, 0.15, 0.5, 1.5):
            for noise in (1e-3, 1e-2, 1e-1, 1.0):
                factor = np.linalg.cholesky(np.exp(-rate * distances) + noise * np.eye(n))
                white = np.linalg.solve(factor, target)
                scale = max(float(white @ white) / n, 1e-18)
                score = -0.5 * n * np.log(scale) - np.log(np.diag(factor)).sum()
                if score > best:
                    best = score
                    chosen = (rate, noise, factor, white, scale)
        assert chosen is not None, "every likelihood was NaN"
        rate, noise, factor, white, scale = chosen

        def whitened(g: np.ndarray) -> np.ndarray:
            cross = np.exp(-rate * squared_distances(points, self._scaler(np.asarray(g))["onehot"]))
            return np.linalg.solve(factor, cross)

        def spread(g: np.ndarray) -> np.ndarray:
            explained = (whitened(g) ** 2).sum(axis=0)
            return np.sqrt(scale * np.maximum(1 + noise - explained, 1e-12))

        return AdaptedBaseline(
            self.space,
            lambda g: offset + white @ whitened(g),
            spread,
            n - 1,
            least_ms=float(latencies_ms.min()),
        )


def _plain(space: SearchSpace, genes: np.ndarray) -> np.ndarray:
    blocks = raw_blocks(space, np.asarray(genes))
    return np.concatenate([blocks[n] for n in ("onehot", "counts") if n in blocks], axis=1)
