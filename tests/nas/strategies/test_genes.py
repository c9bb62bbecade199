import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.strategies.genes import (
    GeneSet,
    crossover,
    enumerate_genes,
    mutate,
    sample_spread,
    unique_rows,
)
from search_spaces.space import Choice, Condition, SearchSpace


@st.composite
def spaces(draw):
    choices = []
    for i in range(draw(st.integers(1, 6))):
        count = draw(st.integers(1, 4))
        when = ()
        if choices and draw(st.booleans()):
            parent = draw(st.sampled_from(choices))
            values = draw(
                st.sets(st.sampled_from(parent.options), min_size=1, max_size=len(parent.options))
            )
            when = (Condition(parent.name, frozenset(values)),)
        choices.append(Choice(f"c{i}", tuple(range(count)), when))
    return SearchSpace("drawn", choices)


@settings(max_examples=60, deadline=None)
@given(spaces(), st.integers(0, 2**32 - 1))
def test_children_are_canonical_and_mutants_differ(space, seed):
    rng = np.random.default_rng(seed)
    a, b = space.sample_genes(rng, 20), sample_spread(space, rng, 20)
    child = crossover(space, a, b, rng)
    mutant = mutate(space, a, rng)
    for rows in (b, child, mutant):
        assert (rows == space.canonical(rows)).all()
        assert (rows >= 0).all()
        assert (rows < space.option_counts).all()
    movable = (space.active(a) & (space.option_counts > 1)).any(axis=1)
    assert ((mutant != a).any(axis=1) == movable).all()


@settings(max_examples=60, deadline=None)
@given(spaces(), st.integers(0, 2**32 - 1))
def test_crossover_takes_every_gene_that_both_parents_use_from_one_of_them(space, seed):
    rng = np.random.default_rng(seed)
    a, b = space.sample_genes(rng, 20), space.sample_genes(rng, 20)
    child = crossover(space, a, b, rng)
    both = space.active(a) & space.active(b) & space.active(child)
    assert ((child == a) | (child == b))[both].all()
    # A gene that only one parent uses comes from that parent, not from the other's filler 0.
    only_a = space.active(a) & ~space.active(b) & space.active(child)
    assert (child == a)[only_a].all()


@settings(max_examples=60, deadline=None)
@given(spaces())
def test_enumeration_meets_every_architecture_once(space):
    rows = enumerate_genes(space)
    assert len(rows) == space.cardinality() == len(set(space.decode(rows)))
    assert (rows == space.canonical(rows)).all()


def test_spread_sampling_covers_the_range_of_an_additive_cost():
    space = SearchSpace("flat", [Choice(f"c{i}", tuple(range(4))) for i in range(60)])
    rng = np.random.default_rng(0)
    plain = space.sample_genes(rng, 500).mean(axis=1)
    spread = sample_spread(space, rng, 500).mean(axis=1)
    assert np.ptp(plain) < 1.2 < 1.9 < np.ptp(spread)


def test_every_option_can_be_drawn_by_mutation():
    space = SearchSpace("flat", [Choice("c", tuple(range(5)))])
    drawn = mutate(space, np.zeros((400, 1), dtype=np.int64), np.random.default_rng(0))
    assert sorted(set(drawn.ravel().tolist())) == [1, 2, 3, 4]


def test_gene_set_and_unique_rows():
    rows = np.array([[1, 2], [0, 0], [1, 2], [2, 1]])
    assert unique_rows(rows).tolist() == [0, 1, 3]
    known = GeneSet(rows[:1])
    assert known.contains(rows).tolist() == [True, False, True, False]
    assert len(known) == 1
