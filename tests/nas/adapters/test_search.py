"""A search of sub-adapters asks each once and finds what is worth its operations."""

import pytest

from nas.adapters.search import search_adapters
from search_spaces.errors import InputError
from search_spaces.spaces.adapters import AdaptedSizes, AdapterSpace

SPACE = AdapterSpace(
    AdaptedSizes(width=32, inner=64, queries=32, keys=32, blocks=3, vocabulary=64, gated=True),
    ranks=(2, 4, 8),
    shares=(0.5, 0.75, 1.0),
)


def bits(arch):
    """The last block hardly matters, so a good search makes it small first."""
    weights = (1.0, 0.5, 0.02)
    return 3.0 - sum(
        w * (arch[f"b{b}.inner"] / 64 + arch[f"b{b}.rank"] / 80)
        for b, w in enumerate(weights, start=1)
    )


@pytest.mark.parametrize("strategy", ["random", "evolution"])
def test_sub_adapters_are_evaluated_once_with_both_ends(strategy):
    asked = []

    def evaluate(arch):
        asked.append(arch)
        return bits(arch)

    found = search_adapters(SPACE, evaluate, evaluations=30, strategy=strategy, seed=1)
    assert len(found) == len(set(asked)) == len(asked) == 30
    assert found[0].arch == SPACE.largest() and found[1].arch == SPACE.smallest()
    for row in found:
        costs = SPACE.costs(SPACE.genes([row.arch]))
        assert row.macs == costs["macs"][0] and row.parameters == costs["parameters"][0]
        assert row.quality == bits(row.arch)
    again = search_adapters(SPACE, bits, evaluations=30, strategy=strategy, seed=1)
    assert again == found


def test_what_cannot_be_is_told():
    with pytest.raises(InputError, match="evaluations=1"):
        search_adapters(SPACE, bits, evaluations=1)
    with pytest.raises(InputError, match="unknown strategy 'best'"):
        search_adapters(SPACE, bits, strategy="best")
    with pytest.raises(InputError, match="unknown metric"):
        search_adapters(SPACE, bits, metric="beauty")
