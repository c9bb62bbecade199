"""What every space of networks must do, as tests that a space's author runs too.

Subclass the suite and give it a space::

    class TestMySpace(PlannedSpaceContract):
        @pytest.fixture
        def space(self):
            return MySpace.from_config(input_channels=3, outputs=7)
"""

from __future__ import annotations

import numpy as np
import pytest

from search_spaces.planned import COST_NAMES, PlannedSpace


def sampled(space: PlannedSpace, n: int, seed: int = 0) -> np.ndarray:
    """Return ``n`` random gene rows, then the largest and the smallest: (n + 2, choices)."""
    genes = space.sample_genes(np.random.default_rng(seed), n)
    return np.concatenate([genes, space.genes([space.largest(), space.smallest()])])


def _another(space: PlannedSpace, genes: np.ndarray, j: int, rng: np.random.Generator) -> int:
    """Return another option of choice ``j`` than the one row of ``genes`` has."""
    count = int(space.option_counts[j])
    return (int(genes[0, j]) + int(rng.integers(1, count))) % count


class PlannedSpaceContract:
    """The promises of :class:`~search_spaces.planned.PlannedSpace`."""

    @pytest.fixture
    def space(self) -> PlannedSpace:
        """The space under test."""
        raise NotImplementedError("give the suite a fixture 'space'")

    def test_vectorised_costs_are_those_of_the_plans(self, space: PlannedSpace) -> None:
        """Costs of many rows at once are sums over the layers of each plan."""
        genes = sampled(space, 30)
        costs = space.costs(genes)
        plans = [space.plan(arch) for arch in space.decode(genes)]
        assert tuple(costs) == COST_NAMES
        for name in COST_NAMES:
            found = [getattr(p, name) for p in plans]
            np.testing.assert_allclose(costs[name], found, rtol=1e-12)

    def test_inactive_genes_do_not_change_plans_or_costs(self, space: PlannedSpace) -> None:
        """Whatever stands in genes of blocks that are left out, the architecture is the same."""
        rng = np.random.default_rng(1)
        genes = sampled(space, 20)
        any_gene = rng.integers(0, space.option_counts, genes.shape)
        noisy = np.where(space.active(genes), genes, any_gene)
        if any(choice.when for choice in space.choices):
            assert (noisy != genes).any()
        for name, values in space.costs(noisy).items():
            np.testing.assert_array_equal(values, space.costs(genes)[name], err_msg=name)
        assert space.decode(noisy) == space.decode(genes)
        assert (space.cost_features_genes(noisy) == space.cost_features_genes(genes)).all()

    def test_every_active_gene_changes_the_network(self, space: PlannedSpace) -> None:
        """Equal architectures are those that build the same network: no active choice is idle."""
        rng = np.random.default_rng(2)
        genes = sampled(space, 1, seed=3)[:1]
        plan = space.plan(space.decode(genes)[0])
        free = np.flatnonzero(space.active(genes)[0] & (space.option_counts > 1))
        for j in rng.permutation(free)[:25]:
            other = genes.copy()
            other[0, j] = _another(space, genes, j, rng)
            assert space.plan(space.decode(other)[0]) != plan, space.choices[j].name

    def test_the_layers_of_a_plan_fit_together(self, space: PlannedSpace) -> None:
        """From input to outputs; plans are plain numbers and texts, to be written as JSON."""
        for arch in space.decode(sampled(space, 20)):
            plan = space.plan(arch)
            assert plan.space == space.name and plan.outputs == space.outputs
            layers = list(plan.layers())
            assert len({layer.name for layer in layers}) == len(layers)
            assert plan.input_shape[0] == space.input_channels
            if plan.blocks[0].layers:  # a language model begins with an embedding
                assert layers[0].in_channels == plan.input_shape[0]
                assert layers[0].in_size == plan.input_shape[2]
                assert layers[0].in_pixels == plan.input_shape[1] * plan.input_shape[2]
            assert layers[-1].out_channels == space.outputs
            for layer in layers:
                assert layer.in_channels % layer.groups == layer.out_channels % layer.groups == 0
                assert layer.out_size == -(-layer.in_size // layer.stride)
                for parts, channels in (
                    (layer.in_parts, layer.in_channels),
                    (layer.out_parts, layer.out_channels),
                ):
                    if parts:
                        assert channels == sum(kept for kept, _ in parts)
                        assert all(type(kept) is int and 0 < kept <= full for kept, full in parts)
                for name, value in vars(layer).items():
                    assert type(value) in (int, str, bool) or name in ("in_parts", "out_parts")

    def test_block_columns_cover_every_row(self, space: PlannedSpace) -> None:
        """Nothing of a block that a row leaves out is active."""
        genes = sampled(space, 7)
        for block in space.block_columns(genes):
            assert block.active.shape == block.residual.shape == (len(genes),)
            assert not (block.residual & ~block.active).any()
            for column in block.layers:
                assert not (column.active & ~block.active).any()

    def test_the_largest_costs_most_and_the_smallest_least(self, space: PlannedSpace) -> None:
        """They bound what any architecture costs."""
        costs = space.costs(sampled(space, 40))
        for name in ("macs", "bops", "parameters", "weights_kib"):
            assert costs[name][40] == costs[name].max(), name
            assert costs[name][41] == costs[name].min(), name

    def test_cost_features_are_finite_and_one_row_an_architecture(
        self, space: PlannedSpace
    ) -> None:
        """A row does not depend on the others that are asked for with it."""
        genes = sampled(space, 10)
        features = space.cost_features_genes(genes)
        assert len(features) == len(genes) and np.isfinite(features).all()
        alone = np.concatenate([space.cost_features_genes(row[None]) for row in genes])
        np.testing.assert_allclose(features, alone)

    def test_a_plan_is_remembered_and_the_same_when_worked_out_anew(
        self, space: PlannedSpace
    ) -> None:
        """Plans are asked for again and again."""
        arch = space.sample(np.random.default_rng(9))
        plan = space.plan(arch)
        assert space.plan(arch) is plan
        space._plans.clear()
        assert space.plan(arch) == plan and space.plan(arch) is not plan

    @pytest.mark.parametrize("seed", range(3))
    def test_samples_and_mutants_are_canonical_text(self, space: PlannedSpace, seed: int) -> None:
        """A text is one architecture's, and a mutant is another architecture."""
        rng = np.random.default_rng(seed)
        arch = space.sample(rng)
        for _ in range(3):
            assert space.parse(str(arch)) == arch
            code = space.encode([arch])
            mutant = space.mutate(arch, rng)
            assert mutant != arch and (space.encode([mutant]) != code).any()
            arch = mutant

    @pytest.mark.parametrize("seed", range(3))
    def test_active_genes_change_the_encoding_and_inactive_ones_do_not(
        self, space: PlannedSpace, seed: int
    ) -> None:
        """Predictors tell architectures apart by it."""
        rng = np.random.default_rng(seed)
        genes = space.sample_genes(rng, 1)
        active = space.active(genes)[0]
        code = space.encode_genes(genes)
        for j in rng.permutation(np.flatnonzero(space.option_counts > 1))[:20]:
            other = genes.copy()
            other[0, j] = _another(space, genes, j, rng)
            changed = (space.encode_genes(other) != code).any()
            assert changed == active[j], space.choices[j].name

    def test_no_architectures_cost_nothing(self, space: PlannedSpace) -> None:
        """No rows give columns without entries."""
        costs = space.costs(space.genes([]))
        assert all(values.shape == (0,) for values in costs.values())
