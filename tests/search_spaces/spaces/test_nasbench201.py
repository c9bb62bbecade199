from __future__ import annotations

import numpy as np
import pytest

from search_spaces.errors import InputError
from search_spaces.spaces.nasbench201 import NasBench201

TEXT = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|none~1|nor_conv_1x1~2|"


@pytest.fixture(scope="module")
def space() -> NasBench201:
    return NasBench201()


def test_text_and_canonical_string_both_parse_back(space: NasBench201) -> None:
    arch = space.parse(TEXT)
    assert space.text(arch) == TEXT
    assert space.parse(str(arch)) == arch


def test_the_space_has_the_published_size(space: NasBench201) -> None:
    assert space.cardinality() == 15625


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("|none~0|+|none~0|none~1|", "three groups"),
        (TEXT.replace("nor_conv_3x3", "conv"), "'conv~0'"),
        (TEXT.replace("skip_connect~1", "skip_connect~0"), "node 1"),
    ],
)
def test_malformed_strings_are_named(space: NasBench201, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        space.parse(text)


def _paths_by_hand(genes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Live and needed edges of one cell by walking the graph."""
    edges = [(0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)]
    opened = [e for e, g in zip(edges, genes, strict=True) if g]
    from_input, to_output = {0}, {3}
    for _ in range(4):
        from_input |= {t for s, t in opened if s in from_input}
        to_output |= {s for s, t in opened if t in to_output}
    live = [e in opened and e[0] in from_input and e[1] in to_output for e in edges]
    needed = [e in opened and e[1] in to_output for e in edges]
    return np.array(live), np.array(needed)


def test_live_and_needed_edges_agree_with_a_walk_of_the_graph(space: NasBench201) -> None:
    genes = space.sample_genes(np.random.default_rng(0), 400)
    live, needed = space.live_genes(genes), space.needed_genes(genes)
    for row, is_live, is_needed in zip(genes, live, needed, strict=True):
        by_hand = _paths_by_hand(row)
        assert (is_live == by_hand[0]).all()
        assert (is_needed == by_hand[1]).all()


def test_costs_match_the_published_flops_and_parameters(space: NasBench201) -> None:
    # The cell of six 3x3 convolutions has 220.12 MFLOPs and 1.5318 MB parameters in the
    # benchmark, which counts batch norm besides; the plain network must lie just below.
    costs = space.costs(np.full((1, 6), 3))
    assert 0.97 * 220.12e6 < costs["macs"][0] <= 220.12e6
    assert 0.98 * 1.5318e6 < costs["parameters"][0] <= 1.5318e6
    assert costs["live_macs"][0] == costs["macs"][0]


def test_graph_rows_list_what_a_node_receives_from(space: NasBench201) -> None:
    nodes, adjacency = space.graph_genes(space.genes([space.parse(TEXT)]))
    assert nodes.shape == (1, 9, 8)
    assert (nodes.sum(axis=2) == 1).all()
    assert adjacency[0, 8].all()  # the global node sees all
    assert adjacency[0, 3, 1] == 1  # edge 1-2 receives from edge 0-1
    assert adjacency[0, 1, 3] == 0


def test_closed_cells_are_degenerate(space: NasBench201) -> None:
    genes = np.array([[3, 3, 3, 0, 0, 0], [0, 0, 0, 1, 0, 0]])
    assert space.degenerate_genes(genes).tolist() == [True, False]
