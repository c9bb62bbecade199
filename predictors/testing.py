"""What every latency predictor must do, as tests that a predictor's author runs too.

Subclass the suite and give it a fresh predictor with a table of known devices::

    class TestMine(LatencyPredictorContract):
        @pytest.fixture
        def table(self):
            return synthetic_table(architectures=260, devices=6, positions=6)

        @pytest.fixture
        def predictor(self, table):
            return Mine(table.space)
"""

from __future__ import annotations

import numpy as np
import pytest

from predictors.registry import LatencyPredictor
from search_spaces.tables.table import LatencyTable

MEASUREMENTS = 14
"""Of the new device; more than any predictor's references."""


class LatencyPredictorContract:
    """The promises of :class:`~predictors.registry.LatencyPredictor`."""

    @pytest.fixture
    def table(self) -> LatencyTable:
        """Latencies of at least one device for more architectures than are measured."""
        raise NotImplementedError("give the suite a fixture 'table'")

    @pytest.fixture
    def predictor(self, table: LatencyTable) -> LatencyPredictor:
        """A predictor of the table's space that was fitted to nothing yet."""
        raise NotImplementedError("give the suite a fixture 'predictor'")

    def test_a_new_device_is_predicted_with_its_uncertainty(
        self, table: LatencyTable, predictor: LatencyPredictor
    ) -> None:
        """What a search asks of a predictor: whom to measure, means, intervals, probabilities."""
        fitted = predictor.meta_fit(table)
        assert fitted is predictor
        pool = table.archs
        chosen = fitted.suggest(pool, MEASUREMENTS)
        assert len(set(chosen)) == len({str(a) for a in chosen}) == MEASUREMENTS
        place = {arch: i for i, arch in reversed(list(enumerate(table.archs)))}
        measured = [float(table.values[place[arch], 0]) for arch in chosen]
        adapted = fitted.adapt(chosen, measured)
        mean, std = adapted.predict(pool)
        assert mean.shape == std.shape == (len(pool),)
        assert np.isfinite(mean).all() and (std > 0).all()
        low, high = adapted.interval(pool, 0.9)
        inner_low, inner_high = adapted.interval(pool, 0.5)
        assert (low <= inner_low).all() and (inner_high <= high).all()
        budgets = np.linspace(measured[0] / 4, 4 * max(measured), 7)
        within = np.array([adapted.probability_within(pool, b) for b in budgets])
        assert ((within >= 0) & (within <= 1)).all()
        assert (np.diff(within, axis=0) >= -1e-9).all()
        again = fitted.adapt(chosen, measured).predict(pool)[0]
        np.testing.assert_allclose(again, mean)
