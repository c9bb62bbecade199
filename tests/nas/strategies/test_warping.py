import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from nas.strategies import Learned
from nas.strategies.warping import NormalScores
from predictors.accuracy import AccuracyPredictor
from search_spaces.space import Choice, SearchSpace

values = st.lists(
    st.floats(-1e3, 1e3, allow_subnormal=False).map(lambda v: round(v, 4)), min_size=1, max_size=40
)


@given(values)
def test_the_map_is_monotone_and_its_inverse_undoes_it(found):
    warp = NormalScores(np.array(found))
    probes = np.linspace(min(found) - 5, max(found) + 5, 50)
    scores = warp.scores(probes)
    assert (np.diff(scores) > 0).all()
    assert warp.values(scores) == pytest.approx(probes, abs=1e-6, rel=1e-6)


def test_scores_of_many_values_are_normal():
    skewed = -np.exp(np.random.default_rng(0).normal(size=2000) * 2)
    scores = NormalScores(skewed).scores(skewed)
    assert abs(scores.mean()) < 0.01 and scores.std() == pytest.approx(1, abs=0.02)


def test_the_best_of_a_saturated_metric_are_told_apart():
    """Raw values bury the differences among the best under a few that are far worse."""
    space = SearchSpace("saturated", [Choice(f"c{i}", (0, 1, 2, 3)) for i in range(6)])
    rng = np.random.default_rng(0)
    genes = space.sample_genes(rng, 60)
    others = space.sample_genes(rng, 1000)

    def accuracy(rows):
        return 1 - np.exp(-0.6 * (rows * np.arange(1, 7)).sum(axis=1))

    best = np.argsort(-accuracy(others))[:500]
    truth = accuracy(others[best])
    correlation = {}
    for warp in (True, False):
        surrogate = Learned(AccuracyPredictor(space, trees=10), warp=warp)
        surrogate.fit(genes, accuracy(genes))
        mean, std = surrogate.predict(others[best])
        assert (std > 0).all() and (mean < 1.5).all()
        correlation[warp] = spearmanr(mean, truth).statistic
    assert correlation[True] > 0.9
    assert correlation[True] > correlation[False]


def test_scores_are_used_where_they_order_left_out_values_better():
    space = SearchSpace("choice", [Choice(f"c{i}", (0, 1, 2, 3)) for i in range(6)])
    genes = space.sample_genes(np.random.default_rng(0), 60)
    total = (genes * np.arange(1, 7)).sum(axis=1).astype(float)
    # A few collapsed networks far below a crowd of good ones, and a plain sum.
    for values, as_scores in ((1 - np.exp(-0.6 * total), True), (total, False)):
        chosen = Learned(AccuracyPredictor(space, trees=10))
        same = Learned(AccuracyPredictor(space, trees=10), warp=as_scores)
        for surrogate in (chosen, same):
            surrogate.fit(genes, values)
        assert chosen.predict(genes)[0] == pytest.approx(same.predict(genes)[0])
        fitted, left_out = chosen.left_out()
        assert fitted.tolist() == values.tolist() and left_out.shape == (60,)
