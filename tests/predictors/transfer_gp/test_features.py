from __future__ import annotations

import numpy as np
import pytest

from predictors.transfer_gp.features import TRENDS, FeatureScaler, raw_blocks, role
from search_spaces.spaces.nasbench201 import NasBench201
from search_spaces.spaces.tokens import TokensSpace


def test_trends_of_tokens_weigh_the_ends_of_a_chain() -> None:
    space = TokensSpace([("a", "b")] * 5)
    genes = np.array([[1, 0, 0, 0, 0], [0, 0, 0, 0, 1]])
    blocks = raw_blocks(space, genes)
    assert set(TRENDS) <= set(blocks) and all(role(name) == "counts" for name in TRENDS)
    np.testing.assert_allclose(blocks["counts"], [[4, 1], [4, 1]])
    for name, factor in TRENDS.items():
        along = factor ** np.linspace(0, 1, 5)
        np.testing.assert_allclose(blocks[name][:, 1], [along[0], along[-1]])
        np.testing.assert_allclose(blocks[name].sum(axis=1), along.sum())


def test_positions_beyond_a_row_weigh_nothing() -> None:
    space = TokensSpace.infer(["a b a b", "a b"])
    blocks = raw_blocks(space, space.genes([space.parse("a b")]))
    along = TRENDS["late_counts"] ** np.linspace(0, 1, 4)
    np.testing.assert_allclose(blocks["late_counts"], [along[:2]])


@pytest.mark.parametrize("space", [TokensSpace([("a", "b")] * 3), NasBench201()])
def test_short_chains_and_other_spaces_have_no_trend(space) -> None:
    assert not set(TRENDS) & set(raw_blocks(space, np.zeros((2, len(space.choices)), int)))


def test_scaled_blocks_have_mean_squared_norm_one() -> None:
    space = TokensSpace([("k3_e1", "k5_e6", "skip")] * 6)
    genes = space.sample_genes(np.random.default_rng(0), 200)
    for name, block in FeatureScaler(space, genes)(genes).items():
        assert (block**2).sum(axis=1).mean() == pytest.approx(1), name


def test_sums_over_the_encoding_are_those_of_a_count_by_hand() -> None:
    space = TokensSpace.infer(["k3_e1 skip k5_e6", "k5_e6 k3_e1"])
    archs = [space.parse(text) for text in ("k3_e1 skip k5_e6", "k5_e6 k3_e1")]
    blocks = raw_blocks(space, space.genes(archs))
    np.testing.assert_array_equal(blocks["counts"], [[1, 1, 1], [1, 1, 0]])  # k3, k5, skip
    np.testing.assert_array_equal(blocks["totals"], [[3, 8, 7], [2, 8, 7]])  # length first
    assert blocks["values"][1, -2:].tolist() == [0, 0]  # the third token is not there


def test_logarithms_of_numbers_make_products_sums() -> None:
    space = TokensSpace.infer(["n r128 w1", "n r256 w2", "n r512 w4", "x r128 w4"])
    texts = ["n r128 w1", "n r256 w2", "n r512 w4"]
    block = raw_blocks(space, space.genes([space.parse(t) for t in texts]))["log_values"]
    steps = np.diff(block, axis=0)
    np.testing.assert_allclose(steps, np.log(2) * np.ones_like(steps))
    assert role("log_values") == role("values") == "numeric"


def test_a_zero_among_numbers_counts_as_half_the_smallest() -> None:
    space = TokensSpace([("k3_e1", "k3_e6", "skip")])
    block = raw_blocks(space, np.array([[0], [1], [2]]))["log_values"]
    np.testing.assert_allclose(block, np.log([[1, 1], [1, 6], [0.5, 0.5]]), atol=1e-12)
