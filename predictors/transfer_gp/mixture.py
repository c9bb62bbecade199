"""A mixture of Gaussian processes given a few measurements, in closed form.

Weight vectors of the kernels and hypotheses "this measurement is a glitch" are averaged by
their marginal likelihood. Each constant has a flat prior and is integrated out, each scale an
inverse-gamma one (Student's t), as in Bayesian linear models (Gelman et al., *Bayesian Data
Analysis*, 3rd edition, section 14.2).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_KEPT = 16  # weight vectors that survive the first look at the measurements
_AVERAGED = 10  # hypotheses the predictions average over
_KEPT_WITH_GLITCH = 4
_GLITCH = 0.02  # prior probability that one given measurement is a glitch
_GLITCH_VARIANCE = 100.0  # times the usual noise
_SCREENED = 100  # measurements on which all weight vectors are tried
_FINALISTS = 24  # weight vectors that are tried on more
_CELLS = 2_000_000  # numbers in one batch of covariances
_BEYOND = 1e200  # larger than any product that is taken from it, so that its root exists
_SCALE_STRENGTH = 1.0  # pseudo-measurements behind the prior of the scale


@dataclass(frozen=True)
class Posterior:
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

    @property
    def used(self) -> np.ndarray:
        """Which kernels any weight vector makes use of, in order: (used,) int."""
        return np.flatnonzero((self.thetas[:, :-1] > 0).any(axis=0))

    def moments(self, cross: np.ndarray, diagonal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance of new measurements. ``cross``: (used, q, n); (used, q)."""
        kernel = self.thetas[:, self.used]
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


def posterior_of(
    grams: np.ndarray,
    target: np.ndarray,
    thetas: np.ndarray,
    log_prior: np.ndarray,
    relative_spread: float,
) -> Posterior:
    """Average weight vectors and glitch hypotheses. ``grams``: (kernels, n, n)."""
    n = len(target)
    evidence = evidences(grams, target, thetas, relative_spread) + log_prior
    keep = np.argsort(-evidence, kind="stable")[:_KEPT]
    solutions: dict[int, Solved] = {}

    def solved_with(i: int) -> Solved:
        # Several hypotheses of one weight vector begin with the same solution.
        if i not in solutions:
            solutions[i] = Solved.of(grams, target, thetas[i], relative_spread)
        return solutions[i]

    beliefs = [(int(i), -1, evidence[i] + np.log(max(1 - n * _GLITCH, 0.3))) for i in keep]
    if n >= 5:
        for i in keep[:_KEPT_WITH_GLITCH]:
            glitched = solved_with(int(i)).glitch_evidence(target) + log_prior[i] + np.log(_GLITCH)
            beliefs += [(int(i), row, value) for row, value in enumerate(glitched)]
    logs = np.array([value for _, _, value in beliefs])
    weights = np.exp(logs - logs.max())
    total = float(logs.max() + np.log(weights.sum()))
    weights /= weights.sum()
    order = np.argsort(-weights, kind="stable")
    # The rest of the mixture would move no prediction and cost time at every one.
    order = order[: min(int(np.searchsorted(np.cumsum(weights[order]), 0.97)) + 1, _AVERAGED)]
    kept = []
    for at in order:
        i, row, _ = beliefs[at]
        solved = solved_with(i)
        kept.append(solved if row < 0 else solved.with_glitch(target, row))
    return Posterior(
        weights=weights[order] / weights[order].sum(),
        thetas=thetas[[beliefs[at][0] for at in order]],
        inverse=np.stack([one.inverse for one in kept]),
        alpha=np.stack([one.alpha(target) for one in kept]),
        constant=np.array([one.constant for one in kept]),
        variance=np.array([one.mass / one.freedom for one in kept]),
        evidence=total,
    )


@dataclass(frozen=True)
class LeftOut:
    """Each measurement predicted from the others, in units of the target.

    ``errors`` (n,), and ``deviations`` (n,) that were predicted for them; empty where nothing
    could be left out.
    """

    errors: np.ndarray
    deviations: np.ndarray

    @classmethod
    def none(cls) -> LeftOut:
        """Nothing left out."""
        return cls(np.zeros(0), np.zeros(0))


def left_out_errors(
    grams: np.ndarray,
    target: np.ndarray,
    thetas: np.ndarray,
    log_prior: np.ndarray,
    relative_spread: float,
) -> LeftOut:
    """Errors of each measurement predicted from the others, and the deviations predicted.

    Everything is found again without it, weights of the vectors, constant and scale, in closed
    form from one inverse a vector (Rasmussen and Williams, *Gaussian Processes for Machine
    Learning*, section 5.4.2). With the weights of all measurements the errors were a tenth too
    small where few vectors explain them. Below three measurements nothing can be left out.
    """
    n = len(target)
    if n < 3:
        return LeftOut.none()
    if n > _SCREENED:
        found = evidences(grams, target, thetas, relative_spread) + log_prior
        best = np.argsort(-found, kind="stable")[:_AVERAGED]
        thetas, log_prior = thetas[best], log_prior[best]
    covariance = np.tensordot(thetas[:, :-1], grams, axes=1)
    covariance += thetas[:, -1][:, None, None] * np.eye(n)
    log_det = np.linalg.slogdet(covariance)[1][:, None]
    inverse = np.linalg.inv(covariance)
    precision = np.diagonal(inverse, axis1=1, axis2=2)  # (t, n)
    sums, own = inverse.sum(axis=2), inverse @ target
    ones = np.maximum(sums.sum(axis=1, keepdims=True) - sums**2 / precision, 1e-300)
    cross = (sums @ target)[:, None] - sums * own / precision
    square = (own @ target)[:, None] - own**2 / precision
    centre = _centre(thetas, relative_spread)[:, None]
    log_det = log_det + np.log(precision)
    evidence, mass = _evidence(log_det, square, cross, ones, n - 1, centre)
    evidence = evidence + log_prior[:, None]
    weights = np.exp(evidence - evidence.max(axis=0))
    weights /= weights.sum(axis=0)
    errors = (own - cross / ones * sums) / precision
    scale = mass / (n - 2 + _SCALE_STRENGTH)
    variance = scale * (1 / precision + (sums / precision) ** 2 / ones)
    error = (weights * errors).sum(axis=0)
    spread = (weights * (variance + (errors - error) ** 2)).sum(axis=0)
    return LeftOut(error, np.sqrt(np.maximum(spread, 1e-300)))


def evidences(
    grams: np.ndarray, target: np.ndarray, thetas: np.ndarray, relative_spread: float
) -> np.ndarray:
    """Log marginal likelihood of every weight vector: (t,).

    Beyond :data:`_SCREENED` measurements the vectors are screened on an even part of them, and
    only the best are tried on all.
    """
    n = len(target)
    if n <= _SCREENED:
        return _evidences(grams, target, thetas, relative_spread)
    part = np.round(np.linspace(0, n - 1, _SCREENED)).astype(int)
    rough = _evidences(grams[:, part[:, None], part], target[part], thetas, relative_spread)
    best = np.argsort(-rough, kind="stable")[:_FINALISTS]
    out = np.full(len(thetas), -np.inf)
    for i in best:
        out[i] = _evidences(grams, target, thetas[i : i + 1], relative_spread)[0]
    return out


def _evidences(
    grams: np.ndarray, target: np.ndarray, thetas: np.ndarray, relative_spread: float
) -> np.ndarray:
    n = len(target)
    out = np.empty(len(thetas))
    step = max(1, _CELLS // (n * n))
    # The target and ones as two more rows below the covariance: the factor's rows there are both
    # of them solved with the factor above, so no second, general solver has to run.
    edge = np.zeros((n + 2, n + 2))
    edge[n, :n], edge[n + 1, :n] = target, 1.0
    edge[n, n] = edge[n + 1, n + 1] = _BEYOND
    noise = np.diag(np.append(np.ones(n), np.zeros(2)))
    wide = np.pad(grams, ((0, 0), (0, 2), (0, 2)))
    for start in range(0, len(thetas), step):
        part = thetas[start : start + step]
        covariance = np.tensordot(part[:, :-1], wide, axes=1)
        covariance += part[:, -1][:, None, None] * noise + edge
        factor = np.linalg.cholesky(covariance)
        log_det = 2 * np.log(np.diagonal(factor[:, :n], axis1=-2, axis2=-1)).sum(axis=-1)
        white = factor[:, n:, :n]
        inner = white @ np.swapaxes(white, 1, 2)  # (t, 2, 2)
        centre = _centre(part, relative_spread)
        own, cross, ones = inner[:, 0, 0], inner[:, 0, 1], inner[:, 1, 1]
        out[start : start + step] = _evidence(log_det, own, cross, ones, n, centre)[0]
    return out


def _centre(thetas: np.ndarray, relative_spread: float) -> np.ndarray:
    # Mean diagonals are 1 over the reference architectures, so the prior variance is the sum.
    return relative_spread**2 / thetas[..., :-1].sum(axis=-1)


def _evidence(
    log_det: np.ndarray,
    own: np.ndarray,
    cross: np.ndarray,
    ones: np.ndarray,
    n: int,
    centre: np.ndarray | float,
) -> tuple[np.ndarray, np.ndarray]:
    """Evidence, and the mass of the scale's posterior.

    The constant has a flat prior, the scale an inverse-gamma one around ``centre``.

    Args:
        log_det: of the covariance.
        own, cross, ones: products of the target and of ones with its inverse: y'Ay, y'A1, 1'A1.
    """
    ones = np.maximum(ones, 1e-300)
    quadratic = np.maximum(own - cross**2 / ones, 0)
    mass = quadratic + _SCALE_STRENGTH * centre
    freedom = n - 1 + _SCALE_STRENGTH
    evidence = (
        -0.5 * log_det
        - 0.5 * np.log(ones)
        - 0.5 * freedom * np.log(mass)
        + 0.5 * _SCALE_STRENGTH * np.log(centre)
    )
    return evidence, mass


@dataclass(frozen=True)
class Solved:
    """One weight vector given the measurements.

    ``inverse`` (n, n) of the covariance, ``log_det`` of it, ``constant``, ``mass`` and
    ``freedom`` of the scale's posterior, ``centre`` of its prior, ``noise`` variance.
    """

    inverse: np.ndarray
    log_det: float
    constant: float
    mass: float
    freedom: float
    centre: float
    noise: float

    @classmethod
    def of(
        cls, grams: np.ndarray, target: np.ndarray, theta: np.ndarray, relative_spread: float
    ) -> Solved:
        """Solve for one weight vector (kernels + 1,). ``grams``: (kernels, n, n)."""
        n = len(target)
        covariance = np.tensordot(theta[:-1], grams, axes=1) + theta[-1] * np.eye(n)
        log_det = 2 * float(np.log(np.diagonal(np.linalg.cholesky(covariance))).sum())
        inverse = np.linalg.inv(covariance)
        centre = float(_centre(theta, relative_spread))
        return cls._from(inverse, log_det, target, centre, float(theta[-1]))

    @classmethod
    def _from(
        cls, inverse: np.ndarray, log_det: float, target: np.ndarray, centre: float, noise: float
    ) -> Solved:
        n = len(target)
        sums = inverse.sum(axis=1)
        ones = max(float(sums.sum()), 1e-300)
        constant = float(sums @ target) / ones
        residual = target - constant
        mass = max(float(residual @ inverse @ residual), 0.0) + _SCALE_STRENGTH * centre
        return cls(inverse, log_det, constant, mass, n - 1 + _SCALE_STRENGTH, centre, noise)

    def alpha(self, target: np.ndarray) -> np.ndarray:
        """Weights of the measurements in predictions: (n,)."""
        return self.inverse @ (target - self.constant)

    def glitch_evidence(self, target: np.ndarray) -> np.ndarray:
        """Evidence if one measurement is a glitch, for each: (n,).

        More noise on one measurement is a rank-one change of the covariance: the determinant
        and the three products that the evidence needs follow from the inverse that is there
        (Sherman and Morrison), so all hypotheses together cost no more than one.
        """
        more = (_GLITCH_VARIANCE - 1) * self.noise
        sums, own = self.inverse.sum(axis=1), self.inverse @ target
        grown = 1 + more * np.diagonal(self.inverse)
        ones = float(sums.sum()) - more * sums**2 / grown
        cross = float(sums @ target) - more * sums * own / grown
        square = float(own @ target) - more * own**2 / grown
        log_det = self.log_det + np.log(grown)
        return _evidence(log_det, square, cross, ones, len(target), self.centre)[0]

    def with_glitch(self, target: np.ndarray, row: int) -> Solved:
        """The same with measurement ``row`` a glitch."""
        more = (_GLITCH_VARIANCE - 1) * self.noise
        column = self.inverse[:, row]
        grown = 1 + more * column[row]
        inverse = self.inverse - (more / grown) * np.outer(column, column)
        log_det = self.log_det + float(np.log(grown))
        return self._from(inverse, log_det, target, self.centre, self.noise)
