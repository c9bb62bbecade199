"""The default latency predictor: a Gaussian process with a prior learned from known devices.

Latency is close to additive over the operations of a network, and devices resemble each
other. So the latency of a new device is modelled, in ms, as a constant plus a Gaussian
process whose kernel is a weighted sum of

* linear kernels on feature blocks (how often each operation occurs, where, analytic costs),
* linear and radial kernels on the predicted latencies of the known devices
  (:mod:`predictors.device_functions`), which carry what the devices have in common,
* radial kernels on the architecture itself, for what is left.

The weights are not optimised on the few measurements of the new device: a fixed set of
weight vectors is averaged by its marginal likelihood, times a prior that says how well each
explained known devices when they were left out. A scale is integrated out in closed form
(Student's t), and each single measurement may be a glitch. Adaptation is a handful of
Cholesky factors. Where latency is better described as multiplicative, the logarithm is
modelled instead; marginal likelihood decides.

Without known devices the feature kernels stand alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from predictors.conformal import LEVELS, Calibration
from predictors.device_functions import DeviceFunctions, clip_outliers, detail_matrix
from predictors.features import FeatureScaler, degenerate, role, squared_distances
from predictors.registry import LATENCY_PREDICTORS, Adapted, SavedPredictor, check_pool
from search_spaces.errors import InputError
from search_spaces.seeds import derive_rng
from search_spaces.space import SearchSpace
from search_spaces.table import LatencyTable

Features = dict[str, np.ndarray]

_REFERENCE_ROWS = 512
_TABLE_ROWS = 1000
_MINIMUM_ROWS = 5
_THETAS = 64  # of each of the two halves of the prior
_KEPT = 16  # weight vectors that survive the first look at the measurements
_AVERAGED = 10  # hypotheses the predictions average over
_KEPT_WITH_GLITCH = 4
_GLITCH = 0.02  # prior probability that one given measurement is a glitch
_GLITCH_VARIANCE = 100.0  # times the usual noise
_SCALE_STRENGTH = 1.0  # pseudo-measurements behind the prior of the scale
_CALIBRATED_AT = (5, 10, 20, 40)  # numbers of measurements

# Largest weights of the kernels, by role; weights are log-uniform over three decades below.
# "Sparse" believes in counts and devices; "broad" lets every kernel matter.
_SPARSE = {
    "counts": 1.0,
    "onehot": 0.01,
    "detail": 0.01,
    "costs": 0.03,
    "radial_counts": 0.05,
    "radial_detail": 0.03,
    "radial_devices": 0.03,
    "common": 1.0,
    "devices": 1.0,
}
_BROAD = {
    "counts": 3.0,
    "onehot": 0.5,
    "detail": 0.2,
    "costs": 1.0,
    "radial_counts": 0.5,
    "radial_detail": 0.5,
    "radial_devices": 0.5,
    "common": 1.0,
    "devices": 1.0,
}
_NOISE = 0.3

_PRIOR_DRAWS, _PRIOR_SIZE = 4, 30  # subsets of a left-out device, and measurements in each
_PRIOR_FLAT = 0.3  # share of the prior that does not listen to the known devices
_CHUNK = 512
_CALIBRATION_ROWS = 200
_CANDIDATES = 300
_TRIM = 0.03
_LOG_MARGIN = 4.0  # evidence needed before the logarithm is preferred
_CALIBRATION_DRAWS = 2
# Belief in the two signs of noise before any device was left out, and its strength.
_BELIEF = np.array([0.8, 0.0])
_BELIEF_RIDGE = 3.0


class Kernels:
    """The kernels of one choice of known devices, over scaled feature blocks.

    Args:
        reference: features of the architectures distances are measured against.
        columns: which known devices are features; empty for none.
    """

    def __init__(self, reference: Features, columns: np.ndarray) -> None:
        self.columns = columns
        self.blocks = [name for name in reference if name not in ("devices", "log_devices")]
        self.names = [*self.blocks, "radial_detail"]
        rng = np.random.default_rng(0)
        rows = rng.permutation(len(next(iter(reference.values()))))[:200]
        sample = {name: block[rows] for name, block in reference.items()}
        self._rates = {"radial_detail": 0.75 / _mean_distance(detail_matrix(sample))}
        if any(role(name) == "counts" for name in self.blocks):
            self.names.append("radial_counts")
            self._rates["radial_counts"] = 1.0 / _mean_distance(_counts(sample))
        if columns.size:
            self.names += ["devices", "radial_devices"]
            self._rates["radial_devices"] = 1.0 / _mean_distance(sample["devices"][:, columns])
        if columns.size > 1:
            self.names.append("common")
            common = reference["devices"][:, columns].mean(axis=1)
            self._common = 1.0 / max(common.std(), 1e-9)

    def bounds(self, limits: dict[str, float]) -> np.ndarray:
        """Largest weight of each kernel, then of the noise: (kernels + 1,)."""
        largest = [limits[n if n in limits else role(n)] for n in self.names]
        return np.array([*largest, _NOISE])

    def between(self, a: Features, b: Features, *, log: bool) -> np.ndarray:
        """Kernel matrices: (kernels, n, m). ``log``: device features as logarithms."""
        out = []
        for name in self.names:
            if name == "radial_detail":
                d = squared_distances(detail_matrix(a), detail_matrix(b))
                out.append(np.exp(-self._rates[name] * d))
            elif name == "radial_counts":
                d = squared_distances(_counts(a), _counts(b))
                out.append(np.exp(-self._rates[name] * d))
            elif name in ("devices", "radial_devices", "common"):
                fa, fb = self._devices(a, log), self._devices(b, log)
                if name == "devices":
                    out.append(fa @ fb.T / self.columns.size)
                elif name == "radial_devices":
                    out.append(np.exp(-self._rates[name] * squared_distances(fa, fb)))
                else:
                    common = self._common**2
                    out.append(common * np.outer(fa.mean(axis=1), fb.mean(axis=1)))
            else:
                out.append(a[name] @ b[name].T)
        return np.stack(out)

    def diagonal(self, a: Features, *, log: bool) -> np.ndarray:
        """Prior variances: (kernels, n)."""
        out = []
        for name in self.names:
            if name.startswith("radial"):
                out.append(np.ones(len(a["onehot"])))
            elif name == "devices":
                out.append((self._devices(a, log) ** 2).mean(axis=1))
            elif name == "common":
                out.append((self._common * self._devices(a, log).mean(axis=1)) ** 2)
            else:
                out.append((a[name] ** 2).sum(axis=1))
        return np.stack(out)

    def _devices(self, a: Features, log: bool) -> np.ndarray:
        return a["log_devices" if log else "devices"][:, self.columns]


def _counts(features: Features) -> np.ndarray:
    return np.concatenate(
        [block for name, block in sorted(features.items()) if role(name) == "counts"], axis=1
    )


def _mean_distance(points: np.ndarray) -> float:
    return max(float(squared_distances(points, points).mean()), 1e-9)


def prior_weights(kernels: Kernels) -> np.ndarray:
    """Weight vectors the posterior averages over: (2 * 64, kernels + 1), noise last.

    Scrambled Sobol points, so that the set is fixed and fills the box evenly.
    """
    from scipy.stats import qmc

    out = []
    for seed, limits in enumerate((_SPARSE, _BROAD)):
        high = np.log(kernels.bounds(limits))
        # The noise takes the first coordinate, so that a kernel fewer (one known device
        # left) leaves the other coordinates of every vector as they were.
        unit = np.roll(qmc.Sobol(len(high), seed=seed).random(_THETAS), -1, axis=1)
        # Some runtimes are exact to a thousandth and some glitch: the noise spans the most.
        span = np.append(np.full(len(high) - 1, 3.0), 5.0)
        out.append(np.exp(high - np.log(10) * span * (1 - unit)))
    return np.concatenate(out)


@dataclass(frozen=True)
class _Posterior:
    """A mixture of Gaussian processes after the measurements, in units of the target.

    ``weights`` (m,), ``thetas`` (m, kernels + 1), ``inverse`` (m, n, n), ``alpha`` (m, n),
    ``constant`` (m,), ``variance`` (m,) the posterior mean of the scale.
    """

    weights: np.ndarray
    thetas: np.ndarray
    inverse: np.ndarray
    alpha: np.ndarray
    constant: np.ndarray
    variance: np.ndarray
    evidence: float

    def moments(self, cross: np.ndarray, diagonal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance of new measurements. ``cross``: (kernels, q, n)."""
        kernel = self.thetas[:, :-1]
        between = np.tensordot(kernel, cross, axes=1)  # (m, q, n)
        means = (between @ self.alpha[:, :, None])[..., 0] + self.constant[:, None]  # (m, q)
        mean = self.weights @ means
        prior = kernel @ diagonal + self.thetas[:, -1:]  # (m, q), noise included
        explained = ((between @ self.inverse) * between).sum(axis=2)
        ones = self.inverse.sum(axis=1)  # (m, n)
        lack = 1.0 - (between @ ones[:, :, None])[..., 0]
        lack = lack**2 / ones.sum(axis=1)[:, None]  # the constant is unknown
        total = np.maximum(prior - explained, 1e-12) + lack
        variance = (self.weights * self.variance) @ total + self.weights @ (means - mean) ** 2
        return mean, variance

    def typical_spread(self) -> float:
        """Standard deviation of a measurement predicted from the others, on average."""
        diagonal = np.diagonal(self.inverse, axis1=1, axis2=2)
        return float(self.weights @ np.sqrt(self.variance[:, None] / diagonal).mean(axis=1))

    def left_out(self) -> np.ndarray:
        """Standardised errors of each measurement predicted from the others: (n,)."""
        diagonal = np.diagonal(self.inverse, axis1=1, axis2=2)
        error = self.alpha / diagonal
        spread = np.sqrt(self.variance[:, None] / diagonal)
        return (self.weights[:, None] * error).sum(0) / (self.weights[:, None] * spread).sum(0)


def _posterior(
    grams: np.ndarray,
    target: np.ndarray,
    thetas: np.ndarray,
    log_prior: np.ndarray,
    relative_spread: float,
) -> _Posterior:
    """Average weight vectors and glitch hypotheses. ``grams``: (kernels, n, n)."""
    n = len(target)
    plain = np.ones((1, n))
    found = _solve(grams, target, thetas, plain, relative_spread)
    keep = np.argsort(-(found[0][:, 0] + log_prior))[:_KEPT]
    # Each part: evidence (t, h), inverse (t, h, n, n), alpha (t, h, n), constant, scale (t, h).
    parts = [(keep, np.log(max(1 - n * _GLITCH, 0.3)), [array[keep] for array in found])]
    if n >= 5:
        likely = keep[:_KEPT_WITH_GLITCH]
        noise = 1 + (_GLITCH_VARIANCE - 1) * np.eye(n)
        glitched = _solve(grams, target, thetas[likely], noise, relative_spread)
        parts.append((likely, np.log(_GLITCH), list(glitched)))
    index = np.concatenate([np.repeat(at, out[0].shape[1]) for at, _, out in parts])
    evidence = np.concatenate(
        [(out[0] + log_prior[at][:, None] + belief).ravel() for at, belief, out in parts]
    )
    inverse, alpha, constant, variance = (
        np.concatenate([out[k].reshape(-1, *out[k].shape[2:]) for _, _, out in parts])
        for k in (1, 2, 3, 4)
    )
    weights = np.exp(evidence - evidence.max())
    total = float(evidence.max() + np.log(weights.sum()))
    weights /= weights.sum()
    order = np.argsort(-weights)
    # The rest of the mixture would move no prediction and cost time at every one.
    order = order[: min(int(np.searchsorted(np.cumsum(weights[order]), 0.97)) + 1, _AVERAGED)]
    return _Posterior(
        weights=weights[order] / weights[order].sum(),
        thetas=thetas[index[order]],
        inverse=inverse[order],
        alpha=alpha[order],
        constant=constant[order],
        variance=variance[order],
        evidence=total,
    )


def _solve(
    grams: np.ndarray,
    target: np.ndarray,
    thetas: np.ndarray,
    noise: np.ndarray,
    relative_spread: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Closed-form posterior of every weight vector (t) and noise hypothesis (h).

    Returns evidence (t, h), inverse (t, h, n, n), alpha (t, h, n), constant (t, h) and
    scale (t, h). The constant has a flat prior, the scale an inverse-gamma one centred
    where the kernel's variance matches ``relative_spread`` (the target's expected spread).
    """
    n = len(target)
    kernel = np.tensordot(thetas[:, :-1], grams, axes=1)
    diagonal = thetas[:, -1][:, None, None] * noise[None]
    covariance = kernel[:, None] + diagonal[..., None] * np.eye(n)
    inverse = np.linalg.inv(covariance)
    factor = np.linalg.cholesky(covariance)
    log_det = 2 * np.log(np.diagonal(factor, axis1=-2, axis2=-1)).sum(axis=-1)
    ones = inverse.sum(axis=-1)
    total = np.maximum(ones.sum(axis=-1), 1e-300)
    constant = (ones @ target) / total
    residual = target - constant[..., None]
    alpha = np.einsum("thij,thj->thi", inverse, residual)
    quadratic = np.maximum((alpha * residual).sum(axis=-1), 0)
    # Mean diagonals are 1 over the reference architectures, so the prior variance is the sum.
    centre = relative_spread**2 / thetas[:, :-1].sum(axis=1)
    freedom = n - 1 + _SCALE_STRENGTH
    mass = quadratic + _SCALE_STRENGTH * centre[:, None]
    evidence = (
        -0.5 * log_det
        - 0.5 * np.log(total)
        - 0.5 * freedom * np.log(mass)
        + 0.5 * _SCALE_STRENGTH * np.log(centre)[:, None]
    )
    return evidence, inverse, alpha, constant, mass / freedom


@LATENCY_PREDICTORS.register("transfer_gp")
class TransferGP(SavedPredictor):
    """Gaussian process with a prior over devices; see the module's text."""

    name = "transfer_gp"

    def __init__(self, space: SearchSpace, *, seed: int = 0) -> None:
        super().__init__(space, seed=seed)
        reference = space.sample_genes(derive_rng(seed, "reference"), _REFERENCE_ROWS)
        self._start(FeatureScaler(space, reference), reference, None)

    def _start(
        self, scaler: FeatureScaler, reference: np.ndarray, functions: DeviceFunctions | None
    ) -> None:
        self._scaler = scaler
        self._reference = reference
        self._functions = functions
        self._references = self.features(reference)
        columns = np.arange(len(functions.devices) if functions else 0)
        self._kernels = Kernels(self._references, columns)
        self._thetas = prior_weights(self._kernels)
        self._log_prior = np.full(len(self._thetas), -np.log(len(self._thetas)))
        self._log_odds = 0.0  # for the logarithm, from the known devices
        self._spreads = (0.4, 0.4)  # expected std / mean, and std of the logarithm
        self._belief = _BELIEF
        self._calibrations: dict[int, Calibration] = {}

    # ---------------------------------------------------------------- learning

    @property
    def devices(self) -> tuple[str, ...]:
        """Known devices."""
        return self._functions.devices if self._functions else ()

    def features(self, genes: np.ndarray) -> Features:
        """Everything the kernels need to know of gene rows."""
        blocks = self._scaler(genes)
        if self._functions is not None:
            functions = self._functions
            standard = functions(blocks)
            blocks["devices"] = standard
            floor = 0.05 * functions.mean
            ms = np.maximum(functions.mean + functions.spread * standard, floor)
            relative = functions.spread / functions.mean
            blocks["log_devices"] = np.log(ms / functions.mean) / relative
        return blocks

    def meta_fit(self, table: LatencyTable, *, valid: LatencyTable | None = None) -> TransferGP:
        """Learn the device functions, the prior of the weights and the interval widths.

        Devices with fewer than five measurements teach nothing and are left out; with no
        device left the predictor stands on the features of the architectures alone.
        Devices of ``valid`` only weigh the prior and calibrate the intervals.
        """
        rng = derive_rng(self.seed, "meta fit")
        rows = np.sort(rng.permutation(len(table))[:_TABLE_ROWS])
        table = table.rows(rows)
        table = table.select([d for d in table.devices if _usable(table.column(d))])
        reference = table.genes if len(table) >= _MINIMUM_ROWS else self._reference
        scaler = FeatureScaler(self.space, reference)
        functions = None
        if table.devices:
            functions = DeviceFunctions.fit(scaler(table.genes), table.values, table.devices, rng)
        self._start(scaler, reference, functions)
        tasks = [_Task(table.genes, table.column(d), d) for d in table.devices]
        if valid is not None:
            tasks += [
                _Task(valid.genes, valid.column(d), None)
                for d in valid.devices
                if _usable(valid.column(d))
            ]
        if len(table.devices) >= 2:
            self._learn_prior(tasks)
            self._calibrate(tasks)
        return self

    def _learn_prior(self, tasks: list[_Task]) -> None:
        """Weigh the weight vectors by how well they explain devices that were left out."""
        shares, odds, spreads = [], [], []
        for number, task in enumerate(tasks):
            kernels = self._kernels_without(task.device)
            thetas = prior_weights(kernels)
            evidence = np.zeros((2, len(thetas)))
            rng = derive_rng(self.seed, "prior", number)
            for _ in range(_PRIOR_DRAWS):
                chosen = rng.permutation(task.usable)[:_PRIOR_SIZE]
                features = self.features(task.genes[chosen])
                for log in (False, True):
                    target, jacobian = _transform(task.clipped[chosen], log)
                    grams = kernels.between(features, features, log=log)
                    one = np.ones((1, len(chosen)))
                    found = _solve(grams, target, thetas, one, self._spread_of(target, log))
                    evidence[int(log)] += (found[0][:, 0] + jacobian) / _PRIOR_DRAWS
            best = evidence.max(axis=1)
            odds.append(best[1] - best[0])
            linear = np.exp(evidence[0] - best[0])
            shares.append(linear / linear.sum())
            values = task.clipped[task.usable]
            logs = _transform(values, True)[0]
            spreads.append((values.std() / max(values.mean(), 1e-9), logs.std()))
        # Leaving a device out may drop a kernel, never reorder the weight vectors.
        share = np.mean(shares, axis=0)
        flat = 1 / len(share)
        self._log_prior = np.log((1 - _PRIOR_FLAT) * share + _PRIOR_FLAT * flat)
        self._log_odds = float(np.clip(np.median(odds), -3.0, 3.0))
        self._spreads = tuple(float(v) for v in np.median(spreads, axis=0))

    def _calibrate(self, tasks: list[_Task]) -> None:
        """Learn interval widths from the errors on devices that were left out.

        A device that is noisier, or cleaner, than the prior expects shows it in the
        leave-one-out errors of its few measurements and in the spread the model settles on.
        How far to believe these signs is learned by regression, over left-out devices, of
        the true spread of the errors on them.
        """
        signs: dict[int, list[np.ndarray]] = {count: [] for count in _CALIBRATED_AT}
        scores: dict[int, list[np.ndarray]] = {count: [] for count in _CALIBRATED_AT}
        for count in _CALIBRATED_AT:
            for number, task in enumerate(tasks):
                usable = task.usable
                if len(usable) < 2 * count:
                    continue
                kernels = self._kernels_without(task.device)
                for draw in range(_CALIBRATION_DRAWS):
                    rng = derive_rng(self.seed, "calibration", count, number, draw)
                    chosen = usable[self._design(task.genes[usable], count, rng, kernels)]
                    held = rng.permutation(np.setdiff1d(usable, chosen))[:_CALIBRATION_ROWS]
                    adapted = self._adapt(
                        task.genes[chosen], task.values[chosen], kernels, None, np.zeros(2)
                    )
                    signs[count].append(adapted.noise_signs)
                    scores[count].append(adapted.scores(task.genes[held], task.values[held]))
        counts = [count for count in _CALIBRATED_AT if signs[count]]
        if not counts:
            return
        x = np.concatenate([signs[c] - np.mean(signs[c], axis=0) for c in counts])
        spread = {
            c: [np.log(np.quantile(np.abs(z), 0.85) + 1e-3) for z in scores[c]] for c in counts
        }
        y = np.concatenate([spread[c] - np.mean(spread[c]) for c in counts])
        ridge = _BELIEF_RIDGE * np.eye(2)
        self._belief = np.linalg.solve(x.T @ x + ridge, x.T @ y + ridge @ _BELIEF)
        for count in counts:
            widths = [
                Calibration.from_scores(z / np.exp(self._belief @ sign)).widths
                for z, sign in zip(scores[count], signs[count], strict=True)
            ]
            # The typical device: pooled scores would be ruled by the most erratic one.
            self._calibrations[count] = Calibration(LEVELS, np.median(widths, axis=0))

    def _kernels_without(self, device: str | None) -> Kernels:
        columns = self._kernels.columns
        if device is None:
            return self._kernels
        return Kernels(self._references, columns[columns != self.devices.index(device)])

    def _spread_of(self, target: np.ndarray, log: bool) -> float:
        return self._spreads[1] if log else self._spreads[0] * max(abs(target.mean()), 1e-9)

    # --------------------------------------------------------------- adaptation

    def adapt_genes(self, genes: np.ndarray, latencies_ms: np.ndarray) -> AdaptedGP:
        """Adapt in closed form; the same architecture may be measured several times."""
        return self._adapt(
            np.asarray(genes),
            np.asarray(latencies_ms, dtype=np.float64),
            self._kernels,
            self._calibration(len(genes)),
            self._belief,
        )

    def _adapt(
        self,
        genes: np.ndarray,
        latencies: np.ndarray,
        kernels: Kernels,
        calibration: Calibration | None,
        belief: np.ndarray,
    ) -> AdaptedGP:
        features = self.features(genes)
        own = kernels is self._kernels
        thetas = self._thetas if own else prior_weights(kernels)
        latencies = clip_outliers(latencies, reach=5.0)
        fits = []
        for log in (False, True):
            target, jacobian = _transform(latencies, log)
            grams = kernels.between(features, features, log=log)
            posterior = _posterior(
                grams, target, thetas, self._log_prior, self._spread_of(target, log)
            )
            fits.append((posterior, posterior.evidence + jacobian))
        # One measurement says nothing about the transform.
        gain = fits[1][1] - fits[0][1] if len(genes) > 2 else 0.0
        log = gain + self._log_odds > _LOG_MARGIN
        spread = float(_transform(latencies, log)[0].std())
        return AdaptedGP(
            self,
            kernels,
            features,
            fits[int(log)][0],
            log,
            calibration,
            len(genes),
            spread,
            belief,
        )

    def _calibration(self, count: int) -> Calibration:
        if not self._calibrations:
            return Calibration.student(max(count - 1, 2))
        nearest = min(self._calibrations, key=lambda n: abs(np.log(n / count)))
        return self._calibrations[nearest]

    def suggest_genes(self, genes: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
        """Choose measurements that reduce uncertainty most, away from the extremes.

        Greedy D-optimal design (largest determinant of the predictive covariance) under the
        prior, averaged over its weight vectors, over a random part of the pool: extremes are
        where models and runtimes misbehave, and a mean over many kernels is not fooled by one.
        """
        genes = np.asarray(genes)
        check_pool(len(genes), n)
        return self._design(genes, n, rng, self._kernels)

    def _design(
        self, genes: np.ndarray, n: int, rng: np.random.Generator, kernels: Kernels
    ) -> np.ndarray:
        candidates = rng.permutation(len(genes))[: max(_CANDIDATES, 3 * n)]
        features = self.features(genes[candidates])
        inside = ~degenerate(self.space, genes[candidates]) & self._interior(features, kernels)
        order = np.argsort(~inside, kind="stable")  # the interior first
        enough = max(int(inside.sum()), min(n, len(candidates)))
        picked = order[:enough]
        candidates = candidates[picked]
        features = {name: block[picked] for name, block in features.items()}
        top = np.argsort(-self._log_prior, kind="stable")[:: max(1, len(self._thetas) // 64)][:24]
        thetas = (self._thetas if kernels is self._kernels else prior_weights(kernels))[top]
        belief = np.exp(self._log_prior[top] - self._log_prior[top].max())
        belief = 0.5 * belief / belief.sum() + 0.5 / len(top)
        grams = kernels.between(features, features, log=False)
        return candidates[_greedy(grams, thetas, belief, n)]

    def _interior(self, features: Features, kernels: Kernels) -> np.ndarray:
        """Which candidates are ordinary on the known devices, or in their features: (n,)."""
        if kernels.columns.size:
            known = features["devices"][:, kernels.columns]
            table = self._references["devices"][:, kernels.columns]
        else:
            name = "counts" if "counts" in features else "onehot"
            known = -(features[name] ** 2).sum(axis=1)[:, None]
            table = -(self._references[name] ** 2).sum(axis=1)[:, None]
        low, high = np.quantile(table, [_TRIM, 1 - _TRIM], axis=0)
        return ((known >= low) & (known <= high)).mean(axis=1) > 0.8

    # ---------------------------------------------------------------- embedding

    def resemblance(self, adapted: AdaptedGP, genes: np.ndarray | None = None) -> dict[str, float]:
        """Correlation of an adapted device's predictions with each known device.

        Args:
            genes: where to compare; default: the architectures of the meta-training table.
        """
        genes = self._reference if genes is None else genes
        features = self.features(genes)
        mean, _ = adapted.predict_genes(genes)
        return {
            device: float(np.corrcoef(mean, features["devices"][:, j])[0, 1])
            for j, device in enumerate(self.devices)
        }

    def embedding(self, adapted: dict[str, AdaptedGP]) -> tuple[list[str], np.ndarray]:
        """Two coordinates a device: known ones first, then those of ``adapted``.

        Principal components of standardised predictions over the reference architectures;
        devices that rank architectures alike lie close together.

        Returns:
            names, and coordinates (devices, 2).
        """
        rows = [column for column in self._references.get("devices", np.zeros((0, 0))).T]
        for device in adapted.values():
            mean, _ = device.predict_genes(self._reference)
            rows.append(mean)
        if not rows:
            raise InputError("no device to embed: meta-train on a table or adapt to a device first")
        matrix = np.array([(r - r.mean()) / max(r.std(), 1e-12) for r in rows])
        left, sizes, _ = np.linalg.svd(matrix - matrix.mean(axis=0), full_matrices=False)
        points = np.zeros((len(rows), 2))
        wide = min(2, len(sizes))
        points[:, :wide] = left[:, :wide] * sizes[:wide] / np.sqrt(matrix.shape[1])
        return [*self.devices, *adapted], points

    # -------------------------------------------------------------------- files

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Everything learned."""
        arrays = {f"scaler.{k}": v for k, v in self._scaler.arrays().items()}
        arrays["reference"] = self._reference
        arrays["log_prior"] = self._log_prior
        arrays["scalars"] = np.array([self._log_odds, *self._spreads, *self._belief])
        if self._functions is not None:
            arrays |= {f"functions.{k}": v for k, v in self._functions.arrays().items()}
        for count, calibration in self._calibrations.items():
            arrays |= calibration.arrays(f"calibration.{count}.")
        return arrays, {"devices": list(self.devices), "seed": self.seed}

    def restore(self, arrays: dict[str, np.ndarray], settings: dict[str, Any]) -> None:
        """Take over what :meth:`state` returned."""
        self.seed = settings["seed"]
        functions = None
        if settings["devices"]:
            functions = DeviceFunctions(tuple(settings["devices"]), _part(arrays, "functions."))
        scaler = FeatureScaler.from_arrays(self.space, _part(arrays, "scaler."))
        self._start(scaler, arrays["reference"], functions)
        self._log_prior = arrays["log_prior"]
        self._log_odds, *spreads = (float(v) for v in arrays["scalars"][:3])
        self._spreads = (spreads[0], spreads[1])
        self._belief = arrays["scalars"][3:]
        for count in _CALIBRATED_AT:
            found = _part(arrays, f"calibration.{count}.")
            if found:
                self._calibrations[count] = Calibration(found["levels"], found["widths"])


class AdaptedGP(Adapted):
    """The posterior for one device; made by :meth:`TransferGP.adapt`.

    Attributes:
        predictor: the predictor that was adapted.
    """

    def __init__(
        self,
        predictor: TransferGP,
        kernels: Kernels,
        measured: Features,
        posterior: _Posterior,
        log: bool,
        calibration: Calibration | None,
        count: int,
        target_spread: float,
        belief: np.ndarray,
    ) -> None:
        self.space = predictor.space
        self.predictor = predictor
        self._kernels = kernels
        self._measured = measured
        self._posterior = posterior
        self._log = log
        self._calibration = calibration
        # How noisy the device looks: errors of each measurement predicted from the others,
        # in the model's own units, and the model's spread as a fraction of all variation.
        left_out = np.clip(posterior.left_out(), -4, 4) if count > 3 else np.ones(1)
        relative = posterior.typical_spread() / max(target_spread, 1e-12)
        self.noise_signs = np.array(
            [0.5 * np.log(0.02 + (left_out**2).mean()), np.log(np.clip(relative, 1e-3, 1.0))]
        )
        self._inflation = float(np.exp(belief @ self.noise_signs))

    def location_scale(self, genes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Centre and standard deviation in units of the target (ms, or its logarithm)."""
        genes = np.asarray(genes)
        mean, variance = np.empty(len(genes)), np.empty(len(genes))
        # Parts that fit the processor's cache; whole, the time goes into fetching memory.
        for start in range(0, len(genes), _CHUNK):
            part = slice(start, start + _CHUNK)
            features = self.predictor.features(genes[part])
            cross = self._kernels.between(features, self._measured, log=self._log)
            diagonal = self._kernels.diagonal(features, log=self._log)
            mean[part], variance[part] = self._posterior.moments(cross, diagonal)
        return mean, np.sqrt(variance) * self._inflation

    def scores(self, genes: np.ndarray, latencies_ms: np.ndarray) -> np.ndarray:
        """Errors of known latencies in predicted standard deviations: (n,)."""
        mean, std = self.location_scale(genes)
        return (_transform(latencies_ms, self._log)[0] - mean) / std

    def predict_genes(self, genes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation in ms of gene rows (n, choices)."""
        mean, std = self.location_scale(genes)
        if not self._log:
            return np.maximum(mean, 0.0), std
        # The median: the mean of a log-normal explodes where little is known.
        centre = np.exp(mean)
        return centre, centre * np.minimum(std, 2.0)

    def interval_genes(self, genes: np.ndarray, coverage: float) -> tuple[np.ndarray, np.ndarray]:
        """Interval in ms with the widths learned on left-out devices."""
        if not 0 < coverage < 1:
            raise InputError(f"coverage {coverage} is not between 0 and 1")
        mean, std = self.location_scale(genes)
        width = self._widths.width(coverage) * std
        if self._log:
            return np.exp(mean - width), np.exp(mean + width)
        return np.maximum(mean - width, 0.0), np.maximum(mean + width, 0.0)

    def probability_within_genes(self, genes: np.ndarray, budget_ms: float) -> np.ndarray:
        """P(latency <= ``budget_ms``), with the same widths as the intervals."""
        mean, std = self.location_scale(genes)
        budget = np.log(max(budget_ms, 1e-12)) if self._log else budget_ms
        return self._widths.probability_below((budget - mean) / std)

    @property
    def _widths(self) -> Calibration:
        return self._calibration or Calibration.student(4)


@dataclass(frozen=True)
class _Task:
    """One device to practise on; ``device`` is its name if it is a known one."""

    genes: np.ndarray
    values: np.ndarray
    device: str | None

    @cached_property
    def usable(self) -> np.ndarray:
        return np.flatnonzero(np.isfinite(self.values))

    @cached_property
    def clipped(self) -> np.ndarray:
        return clip_outliers(self.values)


def _usable(values: np.ndarray) -> bool:
    return int(np.isfinite(values).sum()) >= _MINIMUM_ROWS and float(np.nanmax(values)) > 0


def _transform(latencies: np.ndarray, log: bool) -> tuple[np.ndarray, float]:
    """The modelled quantity, and the log-Jacobian that makes evidences comparable.

    With the flat priors of the constants both are densities of the latencies in ms.
    """
    positive = latencies[latencies > 0]
    floor = 0.05 * float(np.median(positive)) if positive.size else 1e-3
    mean = max(float(latencies.mean()), 1e-9)
    if not log:
        return latencies, -np.log(mean)
    clipped = np.maximum(latencies, floor)
    return np.log(clipped), -float(np.log(clipped).sum())


def _greedy(grams: np.ndarray, thetas: np.ndarray, belief: np.ndarray, n: int) -> np.ndarray:
    """Pivoted Cholesky of every weight vector's covariance, one common pivot a step.

    ``grams``: (kernels, m, m) -> indices (n,).
    """
    covariance = np.tensordot(thetas[:, :-1], grams, axes=1)  # (t, m, m)
    scale = np.trace(covariance, axis1=1, axis2=2) / covariance.shape[1]
    covariance = covariance / scale[:, None, None] + 10.0  # the constant is unknown
    noise = thetas[:, -1] / scale
    variance = np.diagonal(covariance, axis1=1, axis2=2) + noise[:, None]
    variance = variance.copy()
    factors = np.zeros((len(thetas), n, covariance.shape[1]))
    chosen: list[int] = []
    for step in range(n):
        score = belief @ np.log(np.maximum(variance, 1e-12))
        score[chosen] = -np.inf
        pivot = int(np.argmax(score))
        column = covariance[:, pivot] - np.einsum(
            "tk,tkm->tm", factors[:, :step, pivot], factors[:, :step]
        )
        factors[:, step] = column / np.sqrt(np.maximum(variance[:, pivot], 1e-12))[:, None]
        variance -= factors[:, step] ** 2
        chosen.append(pivot)
    return np.array(chosen)


def _part(tensors: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
