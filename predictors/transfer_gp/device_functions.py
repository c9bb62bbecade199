"""What is known of the known devices: one smooth function of the architecture a device.

Each training device gets a Gaussian process over the feature blocks, fitted to all its
measurements. Its mean function removes the noise and fills the gaps of the table, and can
be asked about architectures that are not in it. The kernel is shared (chosen by the
marginal likelihood of all devices together), the noise is each device's own.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from predictors.transfer_gp.features import role, squared_distances

_NOISE_GRID = 10.0 ** np.arange(-4.0, 1.01, 0.5)
_SEARCH_ROWS = 400
_MINIMUM = 5
_FLOOR = 0.05  # of the median: logarithms of cells that do next to nothing mean nothing
_LOG_ROWS = 200
_LOG_MARGIN = 0.15  # evidence a row before the logarithm is learned
_LARGEST_POWER = 8.0


class DeviceFunctions:
    """Latency on each known device as a function of the architecture.

    Latencies are relative to each device's median, so that units do not matter. Where the
    logarithm of a device's latencies is the smoother function (costs that multiply, latencies
    over decades), that is what is learned.

    Attributes:
        devices: names, in column order.
        log: whether the logarithm is learned: (devices,) bool.
        mean, spread: of each device's latencies over the table, over their median: (devices,).
    """

    def __init__(self, devices: tuple[str, ...], arrays: Mapping[str, np.ndarray]) -> None:
        self.devices = devices
        self._arrays = dict(arrays)
        self.mean = self._arrays["mean"]
        self.spread = self._arrays["spread"]
        self.log = self._arrays["log"].astype(bool)
        self._linear = {k[7:]: v for k, v in arrays.items() if k.startswith("linear.")}
        self._coefficients = self._arrays["coefficients"].astype(np.float32)
        points, rate = self._arrays["points"], float(self._arrays["rate"][0])
        norms = (points**2).sum(axis=1)
        columns = [2 * rate * points, np.full((len(points), 1), -rate), -rate * norms[:, None]]
        self._exponent = np.concatenate(columns, axis=1).T.astype(np.float32)

    @classmethod
    def fit(
        cls,
        features: dict[str, np.ndarray],
        values: np.ndarray,
        devices: tuple[str, ...],
        rng: np.random.Generator,
    ) -> DeviceFunctions:
        """Fit every device.

        Args:
            features: scaled blocks of the rows, from :class:`FeatureScaler`.
            values: (n, devices) ms, NaN where missing; at least five finite ones a device.
        """
        relative = np.column_stack([relative_to_median(column) for column in values.T])
        clipped = np.column_stack([clip_outliers(column) for column in relative.T])
        mean = np.nanmean(clipped, axis=0)
        spread = np.maximum(np.nanstd(clipped, axis=0), 1e-9)
        standard = (clipped - mean) / spread
        points = detail_matrix(features)
        distances = squared_distances(points, points)
        rate = 0.75 / max(distances.mean(), 1e-9)
        radial = np.exp(-rate * distances)
        linear = {name: block @ block.T for name, block in features.items()}
        weights = _choose_weights(linear, radial, standard, rng)
        kernel = _sum(weights, linear, radial)
        logs = np.log(np.maximum(clipped, _FLOOR))
        columns = zip(clipped.T, logs.T, strict=True)
        log = np.array([_prefers_log(kernel, *pair, rng) for pair in columns], dtype=bool)
        centre, width = mean.copy(), spread.copy()
        if log.any():
            centre[log] = np.nanmean(logs[:, log], axis=0)
            width[log] = np.maximum(np.nanstd(logs[:, log], axis=0), 1e-9)
            standard = (np.where(log, logs, clipped) - centre) / width
            weights = _choose_weights(linear, radial, standard, rng)
            kernel = _sum(weights, linear, radial)
        alpha, left_out = np.zeros(standard.shape), np.full(standard.shape, np.nan)
        for j in range(len(devices)):
            rows = np.flatnonzero(np.isfinite(standard[:, j]))
            solved = _solve(kernel[np.ix_(rows, rows)], standard[rows, j])
            alpha[rows, j], left_out[rows, j] = solved
        arrays = {
            "mean": mean,
            "spread": spread,
            "log": log.astype(np.uint8),
            "centre": centre,
            "width": width,
            "range": np.stack([np.nanmin(standard, axis=0), np.nanmax(standard, axis=0)]),
            "points": points,
            "coefficients": weights["radial"] * alpha,
            "rate": np.array([rate]),
        }
        for name, block in features.items():
            arrays[f"linear.{name}"] = weights[name] * (block.T @ alpha)
        functions = cls(devices, arrays)
        found = functions._standard_ms(left_out)
        # A cell that was not measured taught nothing: the function is what is known of it.
        return cls(
            devices, arrays | {"left_out": np.where(np.isfinite(found), found, functions(features))}
        )

    def __call__(self, features: dict[str, np.ndarray]) -> np.ndarray:
        """Return standardised latencies of scaled blocks: (n, devices)."""
        return self._standard_ms(self._learned(features))

    @property
    def left_out(self) -> np.ndarray | None:
        """What the other rows say of each row that was learned from: (n, devices).

        At its own rows a function is nearly what was measured there, elsewhere it is a
        prediction. Whoever learns from these rows how far known devices can be trusted must see
        them as rows elsewhere will be seen (stacking: Wolpert, *Stacked Generalization*, 1992).
        None in files that were written before these were kept.
        """
        return self._arrays.get("left_out")

    def _standard_ms(self, learned: np.ndarray) -> np.ndarray:
        """Standardised latencies of what was learned, logarithms or not: (n, devices)."""
        out = learned.copy()
        if self.log.any():
            log = self.log
            # Beyond what was seen an exponential would run away.
            low, high = self._arrays["range"][:, log]
            logs = np.clip(out[:, log], low - 1, high + 1)
            ms = np.exp(self._arrays["centre"][log] + self._arrays["width"][log] * logs)
            out[:, log] = (ms - self.mean[log]) / self.spread[log]
        return out

    def logarithms(self, standard: np.ndarray) -> np.ndarray:
        """Logarithms of standardised latencies (n, devices), in units of their spread."""
        ms = np.maximum(self.mean + self.spread * standard, _FLOOR * self.mean)
        width = np.where(self.log, self._arrays["width"], self.spread / self.mean)
        return np.log(ms / self.mean) / width

    def _learned(self, features: dict[str, np.ndarray]) -> np.ndarray:
        points = detail_matrix(features).astype(np.float32)
        # Single precision and one product for the exponent -rate * |a - b|^2 keep the one
        # large kernel cheap; the error is below 1e-5.
        norms = (points * points).sum(axis=1, keepdims=True)
        extended = np.concatenate([points, norms, np.ones_like(norms)], axis=1)
        radial = extended @ self._exponent
        np.exp(radial, out=radial)
        out = (radial @ self._coefficients).astype(np.float64)
        for name, weights in self._linear.items():
            out += features[name] @ weights
        return out

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the state, for a file."""
        return dict(self._arrays)


def detail_matrix(features: dict[str, np.ndarray]) -> np.ndarray:
    """The columns over which distances between architectures are measured: (n, k)."""
    names = [n for n in sorted(features) if role(n) in ("onehot", "detail", "numeric")]
    names = [n for n in names if n != "cost_details"]
    return np.concatenate([features[name] for name in names], axis=1)


def relative_to_median(values: np.ndarray) -> np.ndarray:
    """Divide by the median of what is above zero; NaN stays NaN."""
    positive = values[np.isfinite(values) & (values > 0)]
    return values / float(np.median(positive)) if positive.size else values


def clip_outliers(values: np.ndarray, *, reach: float = 2.5) -> np.ndarray:
    """Pull values beyond ``reach`` interquartile ranges from the quartiles back to there.

    Glitches of a measurement are far outside in milliseconds and in their logarithms; large
    networks of a table whose latencies span decades are so in milliseconds only, and stay. NaN
    stays NaN.
    """
    finite = values[np.isfinite(values)]
    if finite.size < _MINIMUM:
        return values
    low, high = np.percentile(finite, [25, 75])
    width = max(high - low, 1e-3 * abs(high), 1e-300)
    least, most = low - reach * width, high + reach * width
    if low > 0:
        ratio = (high / low) ** min(reach, _LARGEST_POWER)
        least, most = min(least, low / ratio), max(most, high * ratio)
    return np.clip(values, least, most)


def _sum(
    weights: dict[str, float], linear: dict[str, np.ndarray], radial: np.ndarray
) -> np.ndarray:
    kernel = weights["radial"] * radial
    for name, gram in linear.items():
        kernel = kernel + weights[name] * gram
    return kernel


def _prefers_log(
    kernel: np.ndarray, ms: np.ndarray, logs: np.ndarray, rng: np.random.Generator
) -> bool:
    """Whether the logarithms (n,) are the likelier function; NaN where missing."""
    rows = np.flatnonzero(np.isfinite(ms) & (ms > _FLOOR))
    rows = rng.permutation(rows)[:_LOG_ROWS]
    if len(rows) < 2 * _MINIMUM or not (np.ptp(ms[rows]) > 0):
        return False
    part = kernel[np.ix_(rows, rows)]
    scores = [_evidence(part, (y - y.mean())[:, None]) for y in (ms[rows], logs[rows])]
    # The density of the logarithms, as one of milliseconds.
    return scores[1] - float(logs[rows].sum()) - scores[0] > _LOG_MARGIN * len(rows)


def _choose_weights(
    linear: dict[str, np.ndarray],
    radial: np.ndarray,
    standard: np.ndarray,
    rng: np.random.Generator,
) -> dict[str, float]:
    """Coordinate search on the marginal likelihood, on a subset of complete rows."""
    complete = np.flatnonzero(np.isfinite(standard).all(axis=1))
    weights = {name: 1.0 for name in [*linear, "radial"]}
    if len(complete) < 2 * _MINIMUM:
        return weights
    rows = rng.permutation(complete)[:_SEARCH_ROWS]
    at = np.ix_(rows, rows)
    grams = {name: gram[at] for name, gram in linear.items()} | {"radial": radial[at]}
    targets = standard[rows]

    def score(candidate: dict[str, float]) -> float:
        kernel = sum(candidate[name] * gram for name, gram in grams.items())
        return _evidence(kernel, targets)

    best = score(weights)
    for factors in ((0.05, 20.0), (0.2, 5.0)):
        for name in weights:
            for factor in factors:
                trial = {**weights, name: weights[name] * factor}
                value = score(trial)
                if value > best:
                    best, weights = value, trial
    return weights


def _evidence(kernel: np.ndarray, targets: np.ndarray) -> float:
    """Log marginal likelihood summed over columns, scale and noise maximised for each."""
    values, vectors = np.linalg.eigh(kernel)
    projected = (vectors.T @ targets) ** 2
    d = np.maximum(values, 0)[None, :] + _NOISE_GRID[:, None]  # (noise, n)
    n = len(targets)
    scale = (projected[None] / d[:, :, None]).sum(axis=1) / n  # (noise, columns)
    score = -0.5 * n * np.log(np.maximum(scale, 1e-300)) - 0.5 * np.log(d).sum(axis=1)[:, None]
    return float(score.max(axis=0).sum())


def _solve(kernel: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights of the rows, and each target (n,) predicted from the others; the likeliest noise."""
    values, vectors = np.linalg.eigh(kernel)
    projected = vectors.T @ target
    d = np.maximum(values, 0)[None, :] + _NOISE_GRID[:, None]
    n = len(target)
    scale = (projected**2 / d).sum(axis=1) / n
    score = -0.5 * n * np.log(np.maximum(scale, 1e-300)) - 0.5 * np.log(d).sum(axis=1)
    likeliest = d[score.argmax()]
    alpha = vectors @ (projected / likeliest)
    precision = (vectors**2) @ (1 / likeliest)
    return alpha, target - alpha / precision
