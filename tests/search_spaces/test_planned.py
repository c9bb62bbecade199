"""What holds for every registered space that knows the layers of its networks."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest

from search_spaces.errors import InputError
from search_spaces.planned import PlannedSpace
from search_spaces.spaces.registry import SPACES, build_space
from search_spaces.testing import PlannedSpaceContract, sampled

NAMES = [name for name in SPACES if issubclass(SPACES.get(name), PlannedSpace)]
PRESETS = [(name, preset) for name in NAMES for preset in getattr(SPACES.get(name), "PRESETS", ())]
# The defaults, the smallest and the largest preset of every space; the others of mobilenet.
CASES = [
    *((name, None) for name in NAMES),
    *((n, p) for n, p in PRESETS if p == "8x8" or p.startswith("224") or n == "mobilenet"),
]
QUICK = ("8x8", "28x28-slim")
"""Presets that the quick tests look at beside the defaults."""
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
    channels = 1 if name in ("decoder", "encoder_decoder") else 3
    preset_of = {"preset": preset} if preset else {}
    return build_space(name, input_channels=channels, outputs=7, **preset_of)


class TestEverySpace(PlannedSpaceContract):
    @pytest.fixture(
        params=[
            pytest.param(case, marks=[pytest.mark.slow] if case[1] and case[1] not in QUICK else [])
            for case in CASES
        ],
        ids=["-".join(filter(None, case)) for case in CASES],
    )
    def space(self, request) -> PlannedSpace:
        return build(*request.param)


def test_some_space_is_registered():
    assert CASES[0][0] in SPACES


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
    genes = sampled(space, 40)
    plans = [space.plan(arch) for arch in space.decode(genes)]
    for name, values in space.costs(genes).items():
        np.testing.assert_allclose(values, [getattr(p, name) for p in plans], rtol=1e-12)


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
        ("decoder", {"preset": "60k", "heads": [2, 1]}, "heads.*ascending"),
        ("decoder", {"preset": "60k", "input_size": (32, 32)}, "the data is 1 x 32 x 32"),
        ("decoder", {"preset": "60k", "input_channels": 3}, "use the data source text"),
        ("decoder", {"preset": "60k", "edge_bits": 1}, "edge_bits=1"),
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
