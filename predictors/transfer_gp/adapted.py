"""The default predictor after adaptation: the posterior for one device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from predictors.registry import Adapted, check_budget
from predictors.transfer_gp.error_scale import ErrorScale
from predictors.transfer_gp.kernels import Features, Kernels
from predictors.transfer_gp.mixture import LeftOut, Posterior
from predictors.transfer_gp.transform import positive
from search_spaces.errors import InputError
from search_spaces.tables.table import LatencyTable

if TYPE_CHECKING:
    from predictors.transfer_gp.predictor import TransferGP

_CHUNK = 512
_ONE_SIGMA = 0.6827
_NINETY = 0.9
_LARGEST_LOG = 100.0


@dataclass(frozen=True)
class Fit:
    """A posterior in the units it was made in.

    Attributes:
        kernels: between architectures.
        features: of the measured architectures.
        posterior: given the measurements.
        left_out: the measurements, each predicted from the others.
        log: whether the logarithm of the latency is modelled.
        step: measurements are rounded to multiples of this, in ms; 0 if they are not.
        least: the smallest measurement, in ``unit``.
        unit: of the latencies that were modelled, in ms.
    """

    kernels: Kernels
    features: Features
    posterior: Posterior
    left_out: LeftOut
    log: bool
    step: float = 0.0
    least: float = 0.0
    unit: float = 1.0

    def moments(self, features: Features) -> tuple[np.ndarray, np.ndarray]:
        """Centre and variance of architectures given by features, in the model's units."""
        used = self.posterior.used
        cross = self.kernels.between(features, self.features, log=self.log, only=used)
        diagonal = self.kernels.diagonal(features, log=self.log)[used]
        return self.posterior.moments(cross, diagonal)

    def location_scale(
        self, genes: np.ndarray, features_of: Callable[[np.ndarray], Features]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Centre and standard deviation of gene rows (n, choices), in the model's units."""
        genes = np.asarray(genes)
        mean, variance = np.empty(len(genes)), np.empty(len(genes))
        # Parts that fit the processor's cache; whole, the time goes into fetching memory.
        for start in range(0, len(genes), _CHUNK):
            part = slice(start, start + _CHUNK)
            mean[part], variance[part] = self.moments(features_of(genes[part]))
        return mean, np.sqrt(variance)


class AdaptedGP(Adapted):
    """The posterior for one device; made by ``TransferGP.adapt``.

    Args:
        predictor: the predictor that was adapted.
        fit: the posterior.

    Attributes:
        predictor: the predictor that was adapted.
    """

    def __init__(self, predictor: TransferGP, fit: Fit) -> None:
        self.space = predictor.space
        self.predictor = predictor
        self._fit = fit
        self._errors = ErrorScale.of(fit.left_out)
        self._widths = self._errors.widths
        # A rounded measurement differs from what was rounded by up to half a step.
        self._rounding = 0.5 * fit.step / max(self._widths.width(_NINETY), 1e-12)

    def declare(self, table: LatencyTable) -> None:
        """Learn the declared costs of further architectures, for predictions of them."""
        self.predictor.declare(table)

    def location_scale(self, genes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Centre, and the deviation that widths are multiples of, in units of the fit's target."""
        mean, spread = self._fit.location_scale(genes, self.predictor.features)
        spread = self._errors.deviation(spread)
        if not self._rounding:
            return mean, spread
        rounding = self._rounding * np.exp(-mean) if self._fit.log else self._rounding
        return mean, np.hypot(spread, rounding)

    def predict_genes(self, genes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation in ms of gene rows (n, choices)."""
        mean, spread = self.location_scale(genes)
        std = self._widths.width(_ONE_SIGMA) * spread
        unit = self._fit.unit
        if not self._fit.log:
            return unit * positive(mean, self._fit.least), unit * std
        # The median: the mean of a log-normal explodes where little is known.
        centre = unit * _exponential(mean)
        return centre, centre * np.minimum(std, 2.0)

    def interval_genes(self, genes: np.ndarray, coverage: float) -> tuple[np.ndarray, np.ndarray]:
        """Interval in ms as wide as the errors on the measurements say."""
        if not 0 < coverage < 1:
            raise InputError(f"coverage {coverage} is not between 0 and 1")
        mean, spread = self.location_scale(genes)
        width = self._widths.width(coverage) * spread
        unit = self._fit.unit
        if self._fit.log:
            return unit * _exponential(mean - width), unit * _exponential(mean + width)
        high = np.maximum(mean + width, positive(mean, self._fit.least))
        return unit * np.maximum(mean - width, 0.0), unit * high

    def probability_within_genes(self, genes: np.ndarray, budget_ms: float) -> np.ndarray:
        """P(latency <= ``budget_ms``), with the same widths as the intervals."""
        check_budget(budget_ms)
        mean, spread = self.location_scale(genes)
        budget = budget_ms / self._fit.unit
        budget = np.log(max(budget, 1e-12)) if self._fit.log else budget
        return self._widths.probability_below((budget - mean) / spread)


def _exponential(logs: np.ndarray) -> np.ndarray:
    """Exponentials, bounded where they would leave all that a number can hold."""
    return np.exp(np.clip(logs, -_LARGEST_LOG, _LARGEST_LOG))
