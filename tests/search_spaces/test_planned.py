"""What holds for every registered space that knows the layers of its networks."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces.errors import InputError
from search_spaces.planned import COST_NAMES, PlannedSpace
from search_spaces.spaces.registry import SPACES, build_space

NAMES = [name for name in SPACES if issubclass(SPACES.get(name), PlannedSpace)]
PRESETS = [(name, preset) for name in NAMES for preset in getattr(SPACES.get(name), "PRESETS", ())]
# The defaults, the smallest and the largest preset of every space; the others of mobilenet.
CASES = [
    *((name, None) for name in NAMES),
    *((n, p) for n, p in PRESETS if p == "8x8" or p.startswith("224") or n == "mobilenet"),
]
SMALL_STAGES = [
    {"channels": 8, "stride": 1, "depths": [1, 2]},
    {"channels": 12, "stride": 2, "depths": [1]},
]
TINY = {
    "plain": (
        "mobilenet",
        {"stages": SMALL_STAGES, "kernels": [3], "expands": [1, 2], "granularity": "block"},
    ),
    "kinds": (
        "mobilenet",
        {
            "stages": [{**SMALL_STAGES[0], "depths": [1], "blocks": ["mbconv", "fused"]}],
            "kernels": [3, 5],
            "expands": [1, 2],
        },
    ),
    "exits": (
        "mobilenet",
        {
            "stages": SMALL_STAGES,
            "kernels": [3],
            "expands": [2],
            "exits": [1],
            "granularity": "block",
        },
    ),
    "resnet": (
        "resnet",
        {
            "stages": [{**SMALL_STAGES[1], "blocks": ["basic", "bottleneck"]}],
            "kernels": [1, 3],
            "expands": [0.5, 1],
        },
    ),
    "vit": ("vit", {"depths": [1, 2], "granularity": "block"}),
    "hybrid": (
        "hybrid",
        {
            "stages": [{"kind": "attention", "channels": 8, "stride": 2, "depths": [1, 2],
                        "heads": [1, 2], "mlps": [1]}],
            "kernels": [3],
            "expands": [2],
            "granularity": "block",
        },
    ),
}  # fmt: skip
BITS = {"weight_bits": [2, 8], "activation_bits": [8]}


def tiny(case: str) -> PlannedSpace:
    name, config = TINY[case]
    return build_space(name, preset="8x8", input_channels=1, outputs=3, **BITS, **config)


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


@pytest.mark.parametrize("case", TINY)
def test_the_cardinality_is_that_of_an_enumeration(case):
    space = tiny(case)
    every = np.stack(np.meshgrid(*map(np.arange, space.option_counts), indexing="ij"), -1)
    rows = np.unique(space.canonical(every.reshape(-1, len(space.choices))), axis=0)
    assert space.cardinality() == len(rows) > 10
    assert len(np.unique(space.encode_genes(rows), axis=0)) == len(rows)
    networks = {(*space.plan(arch).blocks, arch["resolution"]) for arch in space.decode(rows)}
    assert len(networks) == len(rows)


@pytest.mark.parametrize("case", TINY)
def test_every_tiny_architecture_has_the_costs_of_its_plan(case):
    space = tiny(case)
    genes = sample(space, 40)
    plans = [space.plan(arch) for arch in space.decode(genes)]
    for name, values in space.costs(genes).items():
        np.testing.assert_allclose(values, [getattr(p, name) for p in plans], rtol=1e-12)


@settings(max_examples=20)
@given(case=st.sampled_from(CASES), seed=st.integers(0, 2**32 - 1))
def test_active_genes_change_the_encoding_and_inactive_ones_do_not(case, seed):
    space, rng = build(*case), np.random.default_rng(seed)
    genes = space.sample_genes(rng, 1)
    active = space.active(genes)[0]
    code = space.encode_genes(genes)
    for j in rng.permutation(np.flatnonzero(space.option_counts > 1))[:20]:
        other = genes.copy()
        other[0, j] = (genes[0, j] + rng.integers(1, space.option_counts[j])) % (
            space.option_counts[j]
        )
        assert (space.encode_genes(other) != code).any() == active[j], space.choices[j].name


def test_a_network_that_leaves_early_has_the_head_of_its_exit():
    space = tiny("exits")
    short, whole = (
        space.plan(space.arch({**dict(space.largest().items), "exit": stage})) for stage in (1, 2)
    )
    assert [block.name for block in short.blocks] == ["stem", "s1.b1", "s1.b2", "exit1"]
    assert [block.name for block in whole.blocks] == ["stem", "s1.b1", "s1.b2", "s2.b1", "head"]
    assert "s2.depth" not in space.smallest()
    assert short.macs < whole.macs
    with pytest.raises(InputError, match=r"exits=\[2\].*before the last, 2"):
        build_space("mobilenet", preset="8x8", stages=SMALL_STAGES, exits=[2])


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("vit", {"patch": 3}, "8 is no multiple of the patch, 3"),
        ("vit", {"heads": [2, 1]}, "heads.*ascending"),
        ("vit", {"embed": [8]}, "unknown parameter 'embed'.*did you mean 'embeds'"),
        ("resnet", {"stages": [{"channels": 8, "stride": 1, "depths": [1], "blocks": ["x"]}]},
         r"stages\[0\].blocks='x' is not one of"),
        ("resnet", {"expands": [0]}, "must be positive"),
        ("resnet", {"stem_kernel": 4}, "stem_kernel: kernel 4 is even"),
        ("hybrid", {"stages": [{"kind": "conv", "channels": 8, "stride": 1, "depths": [1]}]},
         r"stages\[0\].kind='conv' is not one of"),
        ("hybrid", {"stages": [{"kind": "attention", "channels": 8, "stride": 1, "depths": [1],
                                "heads": [0]}]}, "must be positive"),
        ("mobilenet", {"stages": [{"channels": 8, "stride": 1, "depths": [1], "fused": True,
                                   "blocks": ["fused"]}]}, "either fused or blocks"),
        ("mobilenet", {"preset": "7x7"}, "unknown preset '7x7'"),
    ],
)  # fmt: skip
def test_bad_values_of_every_space_are_named(name, changes, message):
    with pytest.raises(InputError, match=message):
        build_space(name, **{"preset": "8x8", **changes})
