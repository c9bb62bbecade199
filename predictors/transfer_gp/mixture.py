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

    def left_out(self) -> np.ndarray:
        """Standardised errors of each measurement predicted from the others: (n,).

        Kernel, scale, weights and the constant stay as they are (Rasmussen and Williams,
        *Gaussian Processes for Machine Learning*, section 5.4.2). Finding the constant again
        without an outlying measurement says much of the constant and little of the error
        elsewhere: on devices without noise it made the errors twice too large.
        """
        precision = np.diagonal(self.inverse, axis1=1, axis2=2)
        error = self.alpha / precision
        spread = np.sqrt(self.variance[:, None] / precision)
        return (self.weights[:, None] * error).sum(0) / (self.weights[:, None] * spread).sum(0)


def posterior_of(
    grams: np.ndarray,
    target: np.ndarray,
    thetas: np.ndarray,
    log_prior: np.ndarray,
    relative_spread: float,
) -> Posterior:
    """Average weight vectors and glitch hypotheses. ``grams``: (kernels, n, n)."""
    n = len(target)
    plain = np.ones((1, n))
    found = solve(grams, target, thetas, plain, relative_spread)
    keep = np.argsort(-(found[0][:, 0] + log_prior))[:_KEPT]
    # Each part: evidence (t, h), inverse (t, h, n, n), alpha (t, h, n), constant, scale (t, h).
    parts = [(keep, np.log(max(1 - n * _GLITCH, 0.3)), [array[keep] for array in found])]
    if n >= 5:
        likely = keep[:_KEPT_WITH_GLITCH]
        noise = 1 + (_GLITCH_VARIANCE - 1) * np.eye(n)
        glitched = solve(grams, target, thetas[likely], noise, relative_spread)
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
    return Posterior(
        weights=weights[order] / weights[order].sum(),
        thetas=thetas[index[order]],
        inverse=inverse[order],
        alpha=alpha[order],
        constant=constant[order],
        variance=variance[order],
        evidence=total,
    )


def solve(
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
