"""The default predictor, and the contract every latency predictor keeps."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from predictors.benchmark import LATENCY_PREDICTORS
from predictors.registry import LatencyPredictor
from predictors.testing import LatencyPredictorContract
from predictors.transfer_gp.predictor import TransferGP
from search_spaces.errors import InputError
from search_spaces.spaces.nasbench201 import NasBench201
from search_spaces.spaces.tokens import TokensSpace
from search_spaces.tables.synthetic import synthetic_table
from search_spaces.tables.table import LatencyTable

QUICK = {"help": {"episodes": 3, "width": 8, "query": 20, "draws": 2}}


@pytest.fixture(scope="module")
def table() -> LatencyTable:
    return synthetic_table(architectures=260, devices=6, positions=6)


@pytest.fixture(scope="module")
def fitted(table: LatencyTable) -> TransferGP:
    known = table.rows(range(160)).select([f"device{i}" for i in range(4)])
    return TransferGP(table.space).meta_fit(known)


def _rank(predictor: LatencyPredictor, table: LatencyTable, device: str, n: int) -> float:
    chosen = predictor.suggest_genes(table.genes[:160], n, np.random.default_rng(0))
    values = table.column(device)
    adapted = predictor.adapt_genes(table.genes[chosen], values[chosen])
    return float(spearmanr(adapted.predict_genes(table.genes[160:])[0], values[160:])[0])


class TestEveryPredictor(LatencyPredictorContract):
    @pytest.fixture(params=LATENCY_PREDICTORS.names())
    def method(self, request: pytest.FixtureRequest) -> str:
        return request.param

    @pytest.fixture
    def table(self, method: str) -> LatencyTable:
        if method != "macs":
            return synthetic_table(architectures=260, devices=6, positions=6)
        space = NasBench201()
        genes = space.sample_genes(np.random.default_rng(0), 60)
        values = np.column_stack([1 + genes.sum(1), 2 + genes[:, 0]]).astype(float)
        return LatencyTable(space, genes, ("a", "b"), values)

    @pytest.fixture
    def predictor(self, method: str, table: LatencyTable) -> LatencyPredictor:
        return LATENCY_PREDICTORS.get(method)(table.space, **QUICK.get(method, {}))


def test_ten_measurements_rank_a_new_device(fitted: TransferGP, table: LatencyTable) -> None:
    assert _rank(fitted, table, "device4", 10) > 0.97
    assert _rank(fitted, table, "device5", 10) > 0.97


def test_known_devices_help(fitted: TransferGP, table: LatencyTable) -> None:
    alone = TransferGP(table.space)
    assert _rank(fitted, table, "device4", 10) > _rank(alone, table, "device4", 10)


@pytest.mark.parametrize("devices", [[], ["device0"]])
def test_few_or_no_known_devices_are_enough_to_work(
    table: LatencyTable, devices: list[str]
) -> None:
    predictor = TransferGP(table.space).meta_fit(table.rows(range(160)).select(devices))
    assert _rank(predictor, table, "device4", 40) > 0.8


def test_missing_cells_and_an_empty_device_do_no_harm(table: LatencyTable) -> None:
    values = table.values[:, :4].copy()
    values[np.random.default_rng(0).random(values.shape) < 0.3] = np.nan
    values[:, 3] = np.nan
    holed = LatencyTable(table.space, table.genes, table.devices[:4], values)
    predictor = TransferGP(table.space).meta_fit(holed.rows(range(160)))
    assert predictor.devices == ("device0", "device1", "device2")
    assert _rank(predictor, table, "device4", 10) > 0.9


def test_one_glitch_does_not_ruin_the_ranking(fitted: TransferGP, table: LatencyTable) -> None:
    chosen = fitted.suggest_genes(table.genes[:160], 12, np.random.default_rng(1))
    values = table.column("device4").copy()
    measured = values[chosen].copy()
    measured[3] *= 5
    adapted = fitted.adapt_genes(table.genes[chosen], measured)
    mean, _ = adapted.predict_genes(table.genes[160:])
    assert spearmanr(mean, values[160:])[0] > 0.9


def test_repeated_and_constant_measurements_are_accepted(
    fitted: TransferGP, table: LatencyTable
) -> None:
    genes = np.repeat(table.genes[:3], 2, axis=0)
    mean, std = fitted.adapt_genes(genes, np.full(6, 4.0)).predict_genes(table.genes)
    assert np.isfinite(mean).all() and np.isfinite(std).all()
    mean, std = fitted.adapt_genes(table.genes[:1], np.array([4.0])).predict_genes(table.genes)
    assert np.isfinite(mean).all() and (std > 0).all()


def test_the_unit_of_the_measurements_does_not_matter(
    fitted: TransferGP, table: LatencyTable
) -> None:
    chosen = np.arange(10)
    values = table.column("device4")[chosen]
    small = fitted.adapt_genes(table.genes[chosen], values).predict_genes(table.genes)
    large = fitted.adapt_genes(table.genes[chosen], 1e3 * values).predict_genes(table.genes)
    np.testing.assert_allclose(large[0], 1e3 * small[0], rtol=1e-6)
    np.testing.assert_allclose(large[1], 1e3 * small[1], rtol=1e-6)


def test_single_predictions_equal_those_of_a_batch(fitted: TransferGP, table: LatencyTable) -> None:
    adapted = fitted.adapt_genes(table.genes[:10], table.column("device4")[:10])
    many = np.concatenate([table.genes] * 3)
    mean, std = adapted.predict_genes(many)
    one_mean, one_std = adapted.predict_genes(many[700:701])
    np.testing.assert_allclose(one_mean, mean[700:701], rtol=1e-4)
    np.testing.assert_allclose(one_std, std[700:701], rtol=1e-3)


def test_a_device_resembles_itself_most(fitted: TransferGP, table: LatencyTable) -> None:
    adapted = fitted.adapt_genes(table.genes[:20], table.column("device2")[:20])
    known = fitted.resemblance(adapted)
    assert known["device2"] > 0.99
    names, points = fitted.embedding({"new": adapted})
    assert names[-1] == "new" and points.shape == (5, 2)
    distances = np.linalg.norm(points[:4] - points[4], axis=1)
    assert distances.argmin() == 2


@pytest.mark.parametrize("bad", [[1.0, float("nan")], [1.0, -1.0], [1.0], []])
def test_bad_measurements_are_refused(fitted: TransferGP, bad: list[float]) -> None:
    archs = fitted.space.decode(np.zeros((2 if bad else 0, 6), dtype=int))
    with pytest.raises(InputError):
        fitted.adapt(archs, bad)


def test_constant_known_devices_are_left_out_and_named(table: LatencyTable) -> None:
    values = table.values[:80, :3].copy()
    values[:, 1] = 5.0
    known = LatencyTable(table.space, table.genes[:80], table.devices[:3], values)
    predictor = TransferGP(table.space).meta_fit(known)
    assert predictor.devices == ("device0", "device2")
    assert predictor.left_out == {"device1": "every measurement is 5"}


def test_only_constant_known_devices_are_as_none(table: LatencyTable) -> None:
    known = LatencyTable(table.space, table.genes, ("a", "b"), np.full((len(table), 2), 3.0))
    predictor = TransferGP(table.space).meta_fit(known)
    adapted = predictor.adapt_genes(table.genes[:20], table.column("device4")[:20])
    low, high = adapted.interval_genes(table.genes[160:], 0.9)
    values = table.column("device4")[160:]
    assert ((values >= low) & (values <= high)).mean() > 0.6


def test_one_architecture_only_is_an_error() -> None:
    space = TokensSpace.infer(["a b c"])
    with pytest.raises(InputError, match="the same architecture"):
        TransferGP(space)
    space = TokensSpace([("a", "b")] * 3)
    same = LatencyTable(space, np.zeros((20, 3), dtype=int), ("d",), np.ones((20, 1)))
    with pytest.raises(InputError, match="the same architecture"):
        TransferGP(space).meta_fit(same)


@pytest.mark.parametrize("unit", [1e-25, 1e12, 1e27])
def test_values_of_any_size_are_told_apart(
    fitted: TransferGP, table: LatencyTable, unit: float
) -> None:
    chosen = np.arange(12)
    values = table.column("device4")
    adapted = fitted.adapt_genes(table.genes[chosen], unit * values[chosen])
    mean, std = adapted.predict_genes(table.genes[160:])
    low, high = adapted.interval_genes(table.genes[160:], 0.9)
    assert all(np.isfinite(x).all() for x in (mean, std, low, high))
    assert spearmanr(mean, values[160:])[0] > 0.9


def test_sizes_that_are_no_cost_are_refused(fitted: TransferGP, table: LatencyTable) -> None:
    for huge in (1e201, 1e301):
        with pytest.raises(InputError, match="not a latency"):
            fitted.adapt(table.archs[:2], [1.0, huge])


@pytest.mark.parametrize("budget", [-1.0, 0.0, float("nan")])
def test_budgets_that_nothing_can_keep_are_refused(
    fitted: TransferGP, table: LatencyTable, budget: float
) -> None:
    adapted = fitted.adapt_genes(table.genes[:10], table.column("device4")[:10])
    with pytest.raises(InputError, match="budget"):
        adapted.probability_within_genes(table.genes, budget)


def _with_declared_cost(rows: int, seed: int) -> tuple[LatencyTable, np.ndarray]:
    """Names that share nothing, a cost over three decades, and a device that follows it."""
    rng = np.random.default_rng(seed)
    macs = np.exp(rng.normal(0, 1.5, rows))
    ms = (0.3 + macs**0.9) * np.exp(rng.normal(0, 0.1, rows))
    space = TokensSpace.infer([f"model{i}" for i in range(rows)])
    genes = np.arange(rows)[:, None]
    return LatencyTable(space, genes, ("d",), ms[:, None], {}, {"macs": macs}), ms


def test_a_declared_cost_is_used_exactly_where_tokens_say_nothing() -> None:
    table, ms = _with_declared_cost(160, 0)
    predictor = TransferGP(table.space)
    predictor.declare(table)
    predictor.meta_fit(table.rows(range(80)).select([]))
    rows = predictor.suggest_genes(table.genes[:80], 10, np.random.default_rng(0))
    adapted = predictor.adapt_genes(table.genes[rows], ms[rows])
    alone = spearmanr(table.costs["macs"][80:], ms[80:])[0]
    assert spearmanr(adapted.predict_genes(table.genes[80:])[0], ms[80:])[0] > alone - 0.02


def test_costs_may_be_declared_after_the_fit_and_live_in_the_state() -> None:
    table, ms = _with_declared_cost(120, 1)
    predictor = TransferGP(table.space).meta_fit(table.rows(range(60)).select([]))
    copy = TransferGP(table.space)
    copy.restore(*predictor.state())
    found = []
    for one in (predictor, copy):
        adapted = one.adapt_genes(table.genes[:10], ms[:10])
        before, _ = adapted.predict_genes(table.genes[60:])
        adapted.declare(table)
        after, _ = adapted.predict_genes(table.genes[60:])
        assert spearmanr(after, ms[60:])[0] > 0.9 > abs(spearmanr(before, ms[60:])[0])
        found.append(after)
    np.testing.assert_allclose(found[0], found[1])


def test_numbers_in_tokens_act_by_their_order_and_logarithm() -> None:
    rng = np.random.default_rng(0)
    numbers = rng.uniform(1, 8, (200, 4)).round(2)
    ms = 0.1 * numbers[:, 0] * numbers[:, 1] ** 2 * numbers[:, 2] * np.exp(rng.normal(0, 0.02, 200))
    texts = [" ".join(f"{v:g}" for v in row) for row in numbers]
    space = TokensSpace.infer(texts)
    genes = space.genes([space.parse(text) for text in texts])
    table = LatencyTable(space, genes, ("d",), ms[:, None])
    predictor = TransferGP(space).meta_fit(table.rows(range(100)).select([]))
    rows = predictor.suggest_genes(genes[:100], 16, np.random.default_rng(0))
    mean, _ = predictor.adapt_genes(genes[rows], ms[rows]).predict_genes(genes[100:])
    assert spearmanr(mean, ms[100:])[0] > 0.97


def test_degenerate_cells_are_not_suggested() -> None:
    space = NasBench201()
    genes = space.sample_genes(np.random.default_rng(0), 300)
    genes[::2, 3:] = 0  # nothing reaches the output
    chosen = TransferGP(space).suggest_genes(genes, 10, np.random.default_rng(0))
    assert not space.degenerate_genes(genes[chosen]).any()


def test_too_many_suggestions_are_refused(fitted: TransferGP, table: LatencyTable) -> None:
    with pytest.raises(InputError, match="cannot choose 11 of 10"):
        fitted.suggest_genes(table.genes[:10], 11, np.random.default_rng(0))


def test_known_devices_are_told_apart_from_what_they_taught(fitted: TransferGP) -> None:
    known = fitted._reference[:20]
    seen, learned = fitted.features(known), fitted.features_to_learn_from(known)
    assert not np.allclose(seen["devices"], learned["devices"])
    np.testing.assert_array_equal(seen["onehot"], learned["onehot"])


def test_files_without_rows_left_out_still_work(fitted: TransferGP, table: LatencyTable) -> None:
    arrays, settings = fitted.state()
    kept = {k: v for k, v in arrays.items() if k != "functions.left_out"}
    # As an earlier version wrote them, widths that were learned by practice included.
    kept |= {"scale.10.slope": np.ones(1), "scale.10.levels": np.ones(2)}
    old = TransferGP(table.space)
    old.restore(kept, settings)
    mean, _ = old.adapt_genes(table.genes[:10], table.column("device4")[:10]).predict_genes(
        table.genes[160:]
    )
    assert spearmanr(mean, table.column("device4")[160:])[0] > 0.9
    with pytest.raises(ValueError, match="own rows"):
        old.restore(arrays | {"functions.left_out": np.zeros((3, 1))}, settings)
