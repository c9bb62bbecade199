import numpy as np
import pytest
from scipy.stats import kendalltau

from predictors.accuracy import AccuracyPredictor
from search_spaces.errors import InputError
from search_spaces.space import Choice, Condition, SearchSpace


def make_space(depth=6):
    choices = [Choice("depth", tuple(range(1, depth + 1)))]
    for b in range(depth):
        when = (Condition("depth", frozenset(range(b + 1, depth + 1))),) if b else ()
        choices.append(Choice(f"{b}.kernel", (3, 5, 7), when))
        choices.append(Choice(f"{b}.weight_bits", (2, 3, 4, 8), when))
        choices.append(Choice(f"{b}.activation_bits", (2, 4, 8), when))
    return SearchSpace("blocks", choices)


SPACE = make_space()


def truth(genes, interactions=0.5):
    rng = np.random.default_rng(7)
    x = SPACE.encode_genes(genes)
    bits = np.array([{"2": -1.0, "3": -0.3, "4": 0.0, "8": 0.2}[n.split("=")[1]]
                     if "bits" in n else 0.0 for n in SPACE.encoding_columns])  # fmt: skip
    weights = bits + 0.3 * rng.normal(size=len(bits))
    pairs = rng.normal(size=(len(bits), 3)) / np.sqrt(len(bits))
    z = x @ weights + interactions * ((x @ pairs) ** 2).sum(axis=1)
    return 0.9 - 0.4 / (1 + np.exp(z / 2 + 1))


def sample(n, seed):
    return SPACE.sample_genes(np.random.default_rng(seed), n)


@pytest.mark.parametrize(("points", "tau"), [(20, 0.4), (60, 0.6), (300, 0.8), (600, 0.85)])
def test_ranks_unseen_architectures(points, tau):
    train, unseen = sample(points, 0), sample(1000, 1)
    model = AccuracyPredictor(SPACE).fit(train, truth(train))
    mean, std = model.predict(unseen)
    assert kendalltau(mean, truth(unseen)).statistic > tau
    # The uncertainty is of the right size, and so are the figures it reports about itself.
    standardised = (mean - truth(unseen)) / std
    assert 0.5 < np.sqrt(np.mean(standardised**2)) < 2.0
    rmse = np.sqrt(np.mean((mean - truth(unseen)) ** 2))
    assert 0.5 < model.quality.rmse / rmse < 2.0
    assert abs(model.quality.kendall_tau - kendalltau(mean, truth(unseen)).statistic) < 0.25


def test_left_out_predictions_of_noise_show_no_skill():
    """Rows that sum to zero once let the left-out target be worked out from the others."""
    taus = []
    for seed in range(8):
        genes = sample(24, seed)
        noise = np.random.default_rng(seed).normal(size=24)
        taus.append(AccuracyPredictor(SPACE, trees=20).fit(genes, noise).quality.kendall_tau)
    assert np.mean(taus) < 0.25


def test_every_active_bit_width_can_change_the_prediction():
    train = sample(200, 0)
    model = AccuracyPredictor(SPACE).fit(train, truth(train))
    genes = SPACE.genes([SPACE.largest()])
    base = model.predict(genes)[0][0]
    for j, choice in enumerate(SPACE.choices):
        if "bits" in choice.name:
            changed = genes.copy()
            changed[0, j] = 0
            assert abs(model.predict(changed)[0][0] - base) > 1e-6, choice.name


def test_every_two_bit_widths_of_a_choice_are_told_apart():
    train = sample(200, 0)
    model = AccuracyPredictor(SPACE).fit(train, truth(train))
    genes = SPACE.genes([SPACE.largest()])
    for j, choice in enumerate(SPACE.choices):
        if "bits" in choice.name:
            options = np.repeat(genes, len(choice.options), axis=0)
            options[:, j] = np.arange(len(options))
            gaps = np.diff(np.sort(model.predict(options)[0]))
            assert (gaps > 1e-6).all(), choice.name


def test_the_layer_that_has_the_bits_matters():
    """The same bits on other layers are another architecture, with another accuracy."""
    train, unseen = sample(300, 0), sample(300, 1)
    at = [c.name for c in SPACE.choices].index("0.weight_bits")

    def first_layer(genes):
        return 0.5 + 0.1 * genes[:, at]

    model = AccuracyPredictor(SPACE).fit(train, first_layer(train))
    assert kendalltau(model.predict(unseen)[0], first_layer(unseen)).statistic > 0.7


def test_inactive_choices_never_change_it():
    train = sample(100, 0)
    model = AccuracyPredictor(SPACE).fit(train, truth(train))
    rng = np.random.default_rng(1)
    genes = sample(50, 2)
    filler = rng.integers(0, SPACE.option_counts, size=genes.shape)
    dirty = np.where(SPACE.active(genes), genes, filler)
    assert (dirty != genes).any()
    for clean, other in zip(model.predict(genes), model.predict(dirty), strict=True):
        assert np.allclose(clean, other)


def test_uncertainty_grows_away_from_the_data():
    train = sample(400, 0)
    train = train[train[:, 0] <= 1]
    model = AccuracyPredictor(SPACE).fit(train, truth(train))
    near, far = sample(400, 1), sample(400, 2)
    near, far = near[near[:, 0] <= 1], far[far[:, 0] >= 4]
    assert model.predict(far)[1].mean() > 1.3 * model.predict(near)[1].mean()


def test_noisy_points_count_less():
    genes = np.vstack([sample(80, 0), sample(80, 1)])
    y = truth(genes)
    noise = np.concatenate([np.zeros(80), np.full(80, 0.2)])
    y[80:] += np.random.default_rng(0).normal(size=80) * 0.2
    unseen = sample(500, 3)

    def error(**kwargs):
        mean, _ = AccuracyPredictor(SPACE, trees=20).fit(genes, y, **kwargs).predict(unseen)
        return np.sqrt(np.mean((mean - truth(unseen)) ** 2))

    assert error(noise=noise) < 0.8 * error()


def test_extra_features_are_used():
    rng = np.random.default_rng(0)
    secret = rng.normal(size=len(SPACE.choices))
    train, unseen = sample(40, 0), sample(500, 1)

    def feature(genes):
        return np.sin(genes @ secret)

    y, z = feature(train) * 0.1 + 0.8, feature(unseen) * 0.1 + 0.8

    def tau(features):
        model = AccuracyPredictor(SPACE, features=features).fit(train, y)
        return kendalltau(model.predict(unseen)[0], z).statistic

    assert tau(feature) > 0.85 > 0.4 > tau(None)


def test_batches_and_seeds_do_not_matter():
    train, unseen = sample(60, 0), sample(2500, 1)
    a = AccuracyPredictor(SPACE, seed=1).fit(train, truth(train))
    b = AccuracyPredictor(SPACE, seed=1).fit(train, truth(train))
    whole = a.predict(unseen)
    assert (whole[0] == b.predict(unseen)[0]).all()
    parts = [a.predict(unseen[at : at + 100]) for at in range(0, 2500, 100)]
    assert np.allclose(whole[0], np.concatenate([p[0] for p in parts]), atol=1e-5)
    assert np.allclose(whole[1], np.concatenate([p[1] for p in parts]), rtol=1e-2)


def test_constant_accuracy_is_no_error():
    genes = sample(10, 0)
    mean, std = AccuracyPredictor(SPACE).fit(genes, np.full(10, 0.1)).predict(sample(5, 1))
    assert np.allclose(mean, 0.1)
    assert np.isfinite(std).all()


def test_refusals():
    model = AccuracyPredictor(SPACE)
    genes = sample(10, 0)
    with pytest.raises(InputError, match="was not fitted"):
        model.predict(genes)
    with pytest.raises(InputError, match="too few"):
        model.fit(genes[:3], np.zeros(3))
    with pytest.raises(InputError, match="finite"):
        model.fit(genes, np.full(10, np.nan))
    with pytest.raises(InputError, match="noise"):
        model.fit(genes, np.zeros(10), noise=np.full(10, -1.0))
