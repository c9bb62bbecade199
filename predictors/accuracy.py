"""Accuracy of an architecture from few evaluations, with an honest uncertainty.

Two models over one encoding that share no weakness: a Gaussian process (the sum of a linear
kernel, that is Bayesian ridge regression, and a Matern kernel for interactions) and a
forest of extremely randomised trees (Geurts et al. 2006). Their weights minimise the
squared error of left-out predictions, and the spread is scaled until left-out residuals
have unit variance in units of it.

The encoding is the space's one-hot encoding, in which every active choice, bit-widths
included, has its columns and an inactive one has none; beside it stand the counts of each
option over like choices.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import linalg
from scipy.stats import kendalltau
from sklearn.tree import ExtraTreeRegressor

from search_spaces.errors import InputError
from search_spaces.space import SearchSpace

FEWEST = 4
"""Evaluations that a predictor learns from at least."""

_TUNING_POINTS = 300
_CHUNK = 1024
_COMMON_NOISE = 0.02
"""Noise variance assumed of every evaluation (of standardised targets) when weighing them."""


@dataclass(frozen=True)
class FitQuality:
    """How good left-out predictions are.

    Attributes:
        kendall_tau: rank correlation with the truth; NaN for fewer than three distinct values.
        rmse: in the unit of the accuracy.
        points: evaluations fitted.
        forest_weight: share of the forest in the mean, 0..1.
    """

    kendall_tau: float
    rmse: float
    points: int
    forest_weight: float


class AccuracyPredictor:
    """Predicts accuracy (or any smooth metric) over the gene rows of a space.

    Args:
        space: whose encoding is used.
        features: further columns from gene rows, (n, choices) -> (n, f), for instance the
            logarithm of the MACs; standardised over the fitted rows.
        trees: size of the forest.
        seed: of the forest and of the choice of tuning points.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        features: Callable[[np.ndarray], np.ndarray] | None = None,
        trees: int = 60,
        seed: int = 0,
    ) -> None:
        self.space = space
        self.features = features
        self.trees = trees
        self.seed = seed
        self._quality: FitQuality | None = None
        self._pooling = _pooling(space)
        sampled = space.encode_genes(space.sample_genes(np.random.default_rng(0), 1000))
        self._centre_of_space = sampled.mean(axis=0)
        sampled = sampled - self._centre_of_space
        pooled = sampled @ self._pooling
        # Both views of an architecture get the same weight.
        share = np.sqrt(np.square(sampled).sum() / max(float(np.square(pooled).sum()), 1e-9))
        self._pooling *= share

    def fit(
        self, genes: np.ndarray, accuracy: np.ndarray, noise: np.ndarray | None = None
    ) -> AccuracyPredictor:
        """Learn from evaluations, from scratch.

        Args:
            genes: (n, choices) int.
            accuracy: (n,), finite.
            noise: standard error of each accuracy (n,), where known; a common noise is
                estimated besides.

        Raises:
            InputError: fewer than 4 evaluations, or shapes or values that do not fit.
        """
        genes = np.asarray(genes)
        y = np.asarray(accuracy, dtype=float)
        if y.shape != (len(genes),) or not np.isfinite(y).all():
            raise InputError(f"accuracy must be {len(genes)} finite numbers, not shape {y.shape}")
        if len(y) < FEWEST:
            raise InputError(f"{len(y)} evaluations are too few to fit ({FEWEST} are needed)")
        extra_noise = np.zeros(len(y)) if noise is None else np.asarray(noise, dtype=float)
        if extra_noise.shape != y.shape or not (extra_noise >= 0).all():
            raise InputError("noise must be one non-negative number for each accuracy")
        self._prepare(genes)
        x = self._encode(genes)
        self._centre, self._scale = float(y.mean()), float(y.std())
        if self._scale <= 1e-12 * max(1.0, abs(self._centre)):
            # Equal values, up to rounding: nothing to learn, and nothing to divide by.
            self._scale = 1.0
        z = (y - self._centre) / self._scale
        extra = (extra_noise / self._scale) ** 2
        # What a point counts beside one that was measured without error.
        trust = _COMMON_NOISE / (_COMMON_NOISE + extra)
        self._process = _Process.tuned(x, z, extra, trust, seed=self.seed)
        self._forest = _Forest(x, z, trust, trees=self.trees, seed=self.seed)
        process_mean, process_var = self._process.left_out()
        forest_mean, forest_var = self._forest.left_out()
        forest_var = forest_var + extra
        gap = forest_mean - process_mean
        spread = float(gap @ (trust * gap))
        best = gap @ (trust * (z - process_mean)) / spread if spread > 0 else 0.0
        weight = float(np.clip(best, 0, 1))
        # A forest that hardly counts is not worth its time.
        self._weight = weight if weight >= 0.05 else 0.0
        mean, var = _mix(process_mean, process_var, forest_mean, forest_var, self._weight)
        self._left_out = self._centre + self._scale * mean
        residual = z - mean
        self._inflation = float(np.clip(np.sqrt(np.mean(residual**2 / var)), 0.3, 5.0))
        tau = kendalltau(mean, z).statistic if len(np.unique(z)) > 2 else np.nan
        self._quality = FitQuality(
            kendall_tau=float(tau),
            rmse=float(np.sqrt(np.mean(residual**2)) * self._scale),
            points=len(y),
            forest_weight=self._weight,
        )
        return self

    def predict(self, genes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation of gene rows: (n, choices) -> (n,), (n,).

        The standard deviation is that of the accuracy itself, evaluation noise left out.

        Raises:
            InputError: the predictor was not fitted.
        """
        if self._quality is None:
            raise InputError("the accuracy predictor was not fitted")
        x = self._encode(np.asarray(genes))
        mean, var = self._process.predict(x)
        if self._weight:
            mean, var = _mix(mean, var, *self._forest.predict(x), self._weight)
        return (
            self._centre + self._scale * mean,
            self._scale * self._inflation * np.sqrt(var),
        )

    @property
    def fitted(self) -> bool:
        """Whether :meth:`fit` was called."""
        return self._quality is not None

    @property
    def quality(self) -> FitQuality:
        """Figures of left-out predictions (leave-one-out process, out-of-bag forest).

        Hyperparameters saw every point, so the figures are slightly flattering.
        """
        if self._quality is None:
            raise InputError("the accuracy predictor was not fitted")
        return self._quality

    @property
    def left_out(self) -> np.ndarray:
        """What each fitted evaluation would have been predicted as without it, (n,)."""
        if self._quality is None:
            raise InputError("the accuracy predictor was not fitted")
        return self._left_out

    def _prepare(self, genes: np.ndarray) -> None:
        self._feature_scaling = None
        if self.features is not None:
            columns = np.asarray(self.features(genes), dtype=float).reshape(len(genes), -1)
            spread = columns.std(axis=0)
            self._feature_scaling = columns.mean(axis=0), np.where(spread > 0, spread, 1.0)

    def _encode(self, genes: np.ndarray) -> np.ndarray:
        x = self.space.encode_genes(genes) - self._centre_of_space
        if self._pooling.shape[1]:
            x = np.hstack([x, x @ self._pooling])
        if self.features is None or self._feature_scaling is None:
            return x
        columns = np.asarray(self.features(genes), dtype=float).reshape(len(genes), -1)
        mean, spread = self._feature_scaling
        return np.hstack([x, ((columns - mean) / spread).astype(np.float32)])


def _pooling(space: SearchSpace) -> np.ndarray:
    """Return the matrix that counts each option over like choices: (columns, pools) float32.

    Choices are alike when their names differ in numbers only (``stages.0.1.kernel`` and
    ``stages.2.0.kernel``). What they have in common (fewer bits cost accuracy wherever they
    are) is learned from far fewer evaluations than what each does on its own.
    """
    families: dict[tuple[str, tuple[str, ...]], list[int]] = {}
    start = 0
    for choice in space.choices:
        key = re.sub(r"\d+", "#", choice.name), tuple(map(str, choice.options))
        families.setdefault(key, []).append(start)
        start += len(choice.options)
    columns = []
    for (_, options), starts in families.items():
        if len(starts) > 1:
            for k in range(len(options)):
                column = np.zeros(start, dtype=np.float32)
                column[[first + k for first in starts]] = 1.0
                columns.append(column)
    return np.stack(columns, axis=1) if columns else np.zeros((start, 0), dtype=np.float32)


def _mix(
    mean_a: np.ndarray, var_a: np.ndarray, mean_b: np.ndarray, var_b: np.ndarray, weight: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and variance of the mixture (1 - weight) a + weight b."""
    mean = (1 - weight) * mean_a + weight * mean_b
    second = (1 - weight) * (var_a + mean_a**2) + weight * (var_b + mean_b**2)
    return mean, np.maximum(second - mean**2, 1e-12)


class _Process:
    """Gaussian-process regression of standardised targets: constant + linear + Matern 5/2.

    Rows come centred on the mean of the *space*, never of the data: rows that sum to zero
    would let a linear kernel work out a left-out target from the others. The kernels have
    about unit diagonal; share, length scale and noise are chosen on a grid by marginal
    likelihood with the output scale in closed form (Rasmussen and Williams 2006, chapter 5).
    """

    def __init__(
        self, x: np.ndarray, z: np.ndarray, extra: np.ndarray, kernel: _Kernel, noise: float
    ) -> None:
        self._kernel = kernel
        self._x = x
        covariance = kernel(x.astype(float), x.astype(float))
        # The error of a measured mean is known; the common noise comes on top of it.
        covariance[np.diag_indices_from(covariance)] += noise + extra
        self._factor = linalg.cholesky(covariance, lower=True)
        self._z = z
        self._alpha = linalg.cho_solve((self._factor, True), z)
        # Multiplying by the inverse factor in single precision is ten times as fast as
        # solving, and the noise keeps the factor well conditioned.
        eye = np.eye(len(z))
        self._inverse = linalg.solve_triangular(self._factor, eye, lower=True).astype(np.float32)

    @classmethod
    def tuned(
        cls, x: np.ndarray, z: np.ndarray, extra: np.ndarray, trust: np.ndarray, *, seed: int
    ) -> _Process:
        """Choose hyperparameters on at most 300 points, then fit all of them."""
        if len(z) > _TUNING_POINTS:
            some = np.random.default_rng(seed).choice(len(z), _TUNING_POINTS, replace=False)
        else:
            some = np.arange(len(z))
        xs, zs = x[some].astype(float), z[some]
        gram = xs @ xs.T
        unit = float(np.trace(gram)) / len(zs) or 1.0
        gram /= unit
        diagonal = np.diag(gram)
        distance = np.sqrt(np.maximum(diagonal[:, None] + diagonal[None] - 2 * gram, 0.0))
        # Rows scaled by the root of their trust have a common noise, so that one
        # decomposition serves every noise level.
        root = np.sqrt(trust[some])
        whitener, whitened = np.outer(root, root), root * zs
        noises = np.geomspace(1e-3, 3.0, 12)
        best: tuple[float, _Kernel, float] | None = None
        for linear, length in [(1.0, 1.0)] + [
            (share, scale) for share in (0.0, 0.3, 0.6, 0.9) for scale in (0.7, 1.4, 2.8, 5.6)
        ]:
            kernel = linear * gram + 1.0
            if linear < 1.0:
                kernel += (1 - linear) * _matern(distance / length)
            values, vectors = linalg.eigh(kernel * whitener, check_finite=False)
            projected = (vectors.T @ whitened) ** 2
            for noise in noises:
                spectrum = np.maximum(values, 0.0) + noise
                output = float(np.mean(projected / spectrum)) + 1e-9
                # The last term is a weak prior on the output scale, so that a handful of
                # points does not end in an extreme.
                score = 0.5 * (
                    len(zs) * np.log(output) + np.log(spectrum).sum() + np.log(output) ** 2 / 4
                )
                if best is None or score < best[0]:
                    best = (score, _Kernel(linear, length, unit, output), noise * output)
        assert best is not None, "every score was NaN"
        return cls(x, z, extra, best[1], best[2])

    def predict(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and variance of rows (n, d), noise left out."""
        mean, var = np.empty(len(x)), np.empty(len(x))
        for at in range(0, len(x), _CHUNK):
            rows = x[at : at + _CHUNK]
            cross = self._kernel(rows, self._x)
            mean[at : at + _CHUNK] = cross @ self._alpha
            explained = np.square(cross @ self._inverse.T).sum(axis=1)
            var[at : at + _CHUNK] = self._kernel.diagonal(rows) - explained
        return mean, np.maximum(var, 1e-6)

    def left_out(self) -> tuple[np.ndarray, np.ndarray]:
        """Leave-one-out mean and variance in closed form, noise included in the variance."""
        inverse = linalg.cho_solve((self._factor, True), np.eye(len(self._z)))
        diagonal = np.diag(inverse)
        return self._z - self._alpha / diagonal, 1.0 / diagonal


@dataclass(frozen=True)
class _Kernel:
    """``output * (1 + linear * a.b / unit + (1 - linear) * Matern(|a - b| / length))``."""

    linear: float
    length: float
    unit: float
    output: float

    def __call__(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        gram = a @ b.T
        gram /= gram.dtype.type(self.unit)
        out = self.linear * gram
        if self.linear < 1.0:
            square = gram
            square *= -2
            square += (np.square(a).sum(axis=1) / self.unit)[:, None].astype(gram.dtype)
            square += (np.square(b).sum(axis=1) / self.unit)[None].astype(gram.dtype)
            distance = np.sqrt(np.maximum(square, 0, out=square), out=square)
            distance /= gram.dtype.type(self.length)
            out += (1 - self.linear) * _matern(distance)
        out += 1.0
        out *= self.output
        return out

    def diagonal(self, a: np.ndarray) -> np.ndarray:
        """Return the kernel of each row with itself, (rows,)."""
        linear = self.linear * np.square(a).sum(axis=1) / self.unit
        return self.output * (linear + 2.0 - self.linear)


def _matern(distance: np.ndarray) -> np.ndarray:
    scaled = distance * distance.dtype.type(np.sqrt(5.0))
    decay = np.exp(-scaled)
    # 1 + s + s^2 / 3 by Horner, in place: this is the hot spot of prediction.
    polynomial = scaled / 3
    polynomial += 1
    polynomial *= scaled
    polynomial += 1
    polynomial *= decay
    return polynomial


class _Forest:
    """Extremely randomised trees on bootstrap samples, with out-of-bag predictions."""

    def __init__(
        self, x: np.ndarray, z: np.ndarray, trust: np.ndarray, *, trees: int, seed: int
    ) -> None:
        # The trees themselves: an ensemble's own loop of cloning and checking takes three
        # times as long as growing them does on so few rows.
        x, z = np.ascontiguousarray(x, dtype=np.float32), z.astype(float)
        rng = np.random.default_rng(seed)
        self._trees = []
        self._out = np.zeros((trees, len(z)), dtype=bool)
        for k in range(trees):
            drawn = np.bincount(rng.integers(0, len(z), len(z)), minlength=len(z))
            inside = drawn > 0
            tree = ExtraTreeRegressor(
                max_features=0.5, min_samples_leaf=2, random_state=int(rng.integers(2**31))
            )
            tree.fit(x[inside], z[inside], (drawn * trust)[inside], check_input=False)
            self._trees.append(tree.tree_)
            self._out[k] = ~inside
        self._every = np.stack([tree.predict(x)[:, 0] for tree in self._trees])

    def predict(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and variance over the trees, (rows,) each."""
        x = np.ascontiguousarray(x, dtype=np.float32)
        every = np.stack([tree.predict(x)[:, 0] for tree in self._trees])
        return every.mean(axis=0), every.var(axis=0) + 1e-9

    def left_out(self) -> tuple[np.ndarray, np.ndarray]:
        """Out-of-bag mean and variance; a point that every tree saw gets the overall mean."""
        count = self._out.sum(axis=0)
        mean = np.where(count, (self._every * self._out).sum(axis=0) / np.maximum(count, 1), 0.0)
        square = (self._every**2 * self._out).sum(axis=0) / np.maximum(count, 1)
        var = np.where(count > 1, square - mean**2, 1.0)
        return mean, np.maximum(var, 1e-6)
