"""What holds for every registered space that knows the layers of its networks."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces.mobilenet import PRESETS
from search_spaces.planned import COST_NAMES, PlannedSpace
from search_spaces.spaces import SPACES, build_space

CASES = [
    *((name, None) for name in SPACES if issubclass(SPACES.get(name), PlannedSpace)),
    *(("mobilenet", preset) for preset in PRESETS),
]


@lru_cache
def build(name: str, preset: str | None) -> PlannedSpace:
    return build_space(name, input_channels=3, outputs=7, **({"preset": preset} if preset else {}))


@pytest.fixture(params=CASES, ids=lambda case: "-".join(filter(None, case)))
def space(request) -> PlannedSpace:
    return build(*request.param)


def sample(space: PlannedSpace, n: int, seed: int = 0) -> np.ndarray:
    genes = space.sample_genes(np.random.default_rng(seed), n)
    return np.concatenate([genes, space.genes([space.largest(), space.smallest()])])


def test_some_space_is_registered():
    assert CASES[0][0] in SPACES


def test_vectorised_costs_are_those_of_the_plans(space):
    genes = sample(space, 30)
    costs = space.costs(genes)
    plans = [space.plan(arch) for arch in space.decode(genes)]
    assert tuple(costs) == COST_NAMES
    for name in COST_NAMES:
        np.testing.assert_allclose(costs[name], [getattr(p, name) for p in plans], rtol=1e-12)


def test_inactive_genes_do_not_change_plans_or_costs(space):
    rng = np.random.default_rng(1)
    genes = sample(space, 20)
    noisy = np.where(space.active(genes), genes, rng.integers(0, space.option_counts, genes.shape))
    assert (noisy != genes).any()
    for name, values in space.costs(noisy).items():
        assert (values == space.costs(genes)[name]).all(), name
    assert space.decode(noisy) == space.decode(genes)
    assert (space.cost_features_genes(noisy) == space.cost_features_genes(genes)).all()


def test_every_active_gene_changes_the_network(space):
    # Equal architectures are those that build the same network: no active choice is idle.
    rng = np.random.default_rng(2)
    genes = sample(space, 1, seed=3)[:1]
    plan = space.plan(space.decode(genes)[0])
    free = np.flatnonzero(space.active(genes)[0] & (space.option_counts > 1))
    for j in rng.permutation(free)[:25]:
        other = genes.copy()
        other[0, j] = (genes[0, j] + rng.integers(1, space.option_counts[j])) % (
            space.option_counts[j]
        )
        assert space.plan(space.decode(other)[0]) != plan, space.choices[j].name


def test_the_layers_of_a_plan_fit_together(space):
    for arch in space.decode(sample(space, 20)):
        plan = space.plan(arch)
        assert plan.space == space.name and plan.outputs == 7
        names = [layer.name for layer in plan.layers()]
        assert len(set(names)) == len(names)
        layers = list(plan.layers())
        assert layers[0].in_channels == plan.input_shape[0] == 3
        assert layers[0].in_size == plan.input_shape[1] == plan.input_shape[2]
        assert layers[-1].out_channels == 7
        for layer in layers:
            assert layer.in_channels % layer.groups == layer.out_channels % layer.groups == 0
            assert layer.out_size == -(-layer.in_size // layer.stride)
            for value in vars(layer).values():
                assert type(value) in (int, str, bool)


def test_block_columns_cover_every_row(space):
    genes = sample(space, 7)
    for block in space.block_columns(genes):
        assert block.active.shape == block.residual.shape == (len(genes),)
        assert not (block.residual & ~block.active).any()
        for column in block.layers:
            assert not (column.active & ~block.active).any()


def test_the_largest_costs_most_and_the_smallest_least(space):
    costs = space.costs(sample(space, 40))
    for name in ("macs", "bops", "parameters", "weights_kib"):
        assert costs[name][40] == costs[name].max(), name
        assert costs[name][41] == costs[name].min(), name


def test_cost_features_are_finite_and_one_row_an_architecture(space):
    genes = sample(space, 10)
    features = space.cost_features_genes(genes)
    assert len(features) == len(genes) and np.isfinite(features).all()
    alone = np.concatenate([space.cost_features_genes(row[None]) for row in genes])
    np.testing.assert_allclose(features, alone)


def test_a_plan_is_remembered_and_the_same_when_worked_out_anew(space):
    arch = space.sample(np.random.default_rng(9))
    plan = space.plan(arch)
    assert space.plan(arch) is plan
    fresh = space.plan(arch)
    space._plans.clear()
    assert space.plan(arch) == fresh and space.plan(arch) is not plan


@settings(max_examples=15)
@given(case=st.sampled_from(CASES), seed=st.integers(0, 2**32 - 1))
def test_samples_and_mutants_are_canonical_text(case, seed):
    space, rng = build(*case), np.random.default_rng(seed)
    arch = space.sample(rng)
    for _ in range(3):
        assert space.parse(str(arch)) == arch
        code = space.encode([arch])
        mutant = space.mutate(arch, rng)
        assert mutant != arch and (space.encode([mutant]) != code).any()
        arch = mutant


def test_no_architectures_cost_nothing(space):
    costs = space.costs(space.genes([]))
    assert all(values.shape == (0,) for values in costs.values())
