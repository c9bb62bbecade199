from __future__ import annotations

import numpy as np
import pytest

from predictors.transfer_gp.features import FeatureScaler
from predictors.transfer_gp.kernels import Kernels, prior_shares, prior_weights
from search_spaces.tables.synthetic import synthetic_table

DEVICE_KERNELS = {"devices", "radial_devices", "common"}


@pytest.fixture(scope="module")
def features() -> dict[str, np.ndarray]:
    table = synthetic_table(architectures=40, devices=2, positions=4)
    blocks = FeatureScaler(table.space, table.genes)(table.genes)
    known = np.random.default_rng(0).normal(size=(40, 3))
    return blocks | {"devices": known, "log_devices": 2 * known}


@pytest.mark.parametrize("columns", [[], [1], [0, 1, 2]])
@pytest.mark.parametrize("log", [False, True])
def test_every_kernel_is_a_covariance_with_the_diagonal_it_says(
    features: dict[str, np.ndarray], columns: list[int], log: bool
) -> None:
    kernels = Kernels(features, np.array(columns, dtype=int))
    grams = kernels.between(features, features, log=log)
    assert len(grams) == len(kernels.names)
    for name, gram, diagonal in zip(
        kernels.names, grams, kernels.diagonal(features, log=log), strict=True
    ):
        np.testing.assert_allclose(gram, gram.T, atol=1e-9, err_msg=name)
        np.testing.assert_allclose(np.diag(gram), diagonal, atol=1e-6, err_msg=name)
        assert np.linalg.eigvalsh(gram).min() > -1e-6 * max(np.trace(gram), 1), name


def test_kernels_of_devices_exist_only_with_devices(features: dict[str, np.ndarray]) -> None:
    def names(columns: list[int]) -> set[str]:
        kernels = Kernels(features, np.array(columns, dtype=int))
        return set(kernels.names) - set(kernels.singles)

    assert not names([]) & {"devices", "radial_devices", "common"}
    assert names([0]) - names([]) == {"devices", "radial_devices"}
    assert names([0, 1]) - names([0]) == {"common"}


def test_a_part_of_the_kernels_is_that_part(features: dict[str, np.ndarray]) -> None:
    kernels = Kernels(features, np.arange(3))
    whole = kernels.between(features, features, log=True)
    only = np.array([0, len(kernels.names) - 2])
    np.testing.assert_array_equal(
        kernels.between(features, features, log=True, only=only), whole[only]
    )


def test_a_device_that_is_left_out_has_no_weight(features: dict[str, np.ndarray]) -> None:
    kernels = Kernels(features, np.array([0, 2]))
    weights = prior_weights(kernels)
    assert len(weights) == len(prior_weights(Kernels(features, np.arange(3))))
    assert (weights[:, kernels.names.index("one1")] == 0).all()
    assert (weights[:, kernels.names.index("one2")] > 0).any()
    assert np.exp(prior_shares(kernels)).sum() == pytest.approx(1)


def test_some_weight_vectors_do_without_known_devices(features: dict[str, np.ndarray]) -> None:
    kernels = Kernels(features, np.arange(3))
    at = [i for i, n in enumerate(kernels.names) if n in kernels.singles or n in DEVICE_KERNELS]
    assert (prior_weights(kernels)[:, at] == 0).all(axis=1).any()


def test_linear_kernels_have_mean_diagonal_one(features: dict[str, np.ndarray]) -> None:
    kernels = Kernels(features, np.zeros(0, dtype=int))
    linear = len(kernels.names) - len(kernels.singles)
    diagonal = kernels.diagonal(features, log=False)[:linear]
    np.testing.assert_allclose(diagonal.mean(axis=1), 1.0)


def test_a_device_fewer_leaves_the_rest_of_every_weight_vector(
    features: dict[str, np.ndarray],
) -> None:
    two = {name: block[:, :2] if "devices" in name else block for name, block in features.items()}
    both, one = (Kernels(two, np.arange(n)) for n in (2, 1))
    kept = [both.names.index(name) for name in one.names] + [len(both.names)]
    mine, theirs = prior_weights(both)[:, kept], prior_weights(one)
    bare = both.names.index("one1")
    same = mine[:, bare] == 0  # those that do not believe in the device left out
    np.testing.assert_allclose(mine[same], theirs[same])
    assert (mine[:, -1] > 0).all()
