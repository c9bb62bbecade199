from __future__ import annotations

import numpy as np
import pytest

from predictors.transfer_gp.features import FeatureScaler
from predictors.transfer_gp.kernels import Kernels, prior_weights
from search_spaces.tables.synthetic import synthetic_table


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
        return set(Kernels(features, np.array(columns, dtype=int)).names)

    assert not names([]) & {"devices", "radial_devices", "common"}
    assert names([0]) - names([]) == {"devices", "radial_devices"}
    assert names([0, 1]) - names([0]) == {"common"}


def test_linear_kernels_have_mean_diagonal_one(features: dict[str, np.ndarray]) -> None:
    kernels = Kernels(features, np.zeros(0, dtype=int))
    np.testing.assert_allclose(kernels.diagonal(features, log=False).mean(axis=1), 1.0)


def test_a_device_fewer_leaves_the_rest_of_every_weight_vector(
    features: dict[str, np.ndarray],
) -> None:
    both, one = (prior_weights(Kernels(features, np.arange(n))) for n in (2, 1))
    assert both.shape[1] == one.shape[1] + 1
    np.testing.assert_allclose(np.delete(both, -2, axis=1), one)
    assert (both > 0).all()
