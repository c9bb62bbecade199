"""Conditional spaces: counting, sampling, encoding and text agree with brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from search_spaces.errors import InputError
from search_spaces.space import Choice, Condition, SearchSpace


@st.composite
def spaces(draw) -> SearchSpace:
    """A small space with random options and conditions on earlier choices."""
    choices: list[Choice] = []
    for i in range(draw(st.integers(1, 6))):
        kind = draw(st.sampled_from(["int", "float", "str"]))
        count = draw(st.integers(1, 3))
        options = {
            "int": tuple(range(count)),
            "float": tuple(0.5 * k + 0.1 for k in range(count)),
            "str": tuple("abc"[:count]),
        }[kind]
        when = []
        for parent in draw(st.lists(st.sampled_from(choices), max_size=2)) if choices else []:
            values = draw(st.sets(st.sampled_from(parent.options)))
            when.append(Condition(parent.name, frozenset(values)))
        choices.append(Choice(f"c{i}", options, tuple(when)))
    return SearchSpace("random", choices)


def every_row(space: SearchSpace) -> np.ndarray:
    return np.array(list(itertools.product(*(range(len(c.options)) for c in space.choices))))


def active_by_hand(space: SearchSpace, row: np.ndarray) -> list[bool]:
    chosen = {}
    for j, choice in enumerate(space.choices):
        if all(c.parent in chosen and chosen[c.parent] in c.values for c in choice.when):
            chosen[choice.name] = choice.options[row[j]]
    return [choice.name in chosen for choice in space.choices]


@given(spaces())
def test_the_cardinality_is_the_number_of_distinct_architectures(space):
    assert space.cardinality() == len(set(space.decode(every_row(space))))


@given(spaces())
def test_activity_follows_the_conditions(space):
    rows = every_row(space)
    assert space.active(rows).tolist() == [active_by_hand(space, row) for row in rows]


@given(spaces())
def test_inactive_genes_never_change_anything_and_active_ones_always_do(space):
    rows = every_row(space)
    canonical = space.canonical(rows)
    archs = space.decode(rows)
    texts = [str(arch) for arch in archs]
    codes = [code.tobytes() for code in space.encode_genes(rows)]
    by_row: dict[bytes, int] = {}
    for i, row in enumerate(canonical):
        first = by_row.setdefault(row.tobytes(), i)
        assert archs[i] == archs[first] and hash(archs[i]) == hash(archs[first])
        assert texts[i] == texts[first] and codes[i] == codes[first]
        assert archs[i].id == archs[first].id
    # Different canonical rows differ in all of them.
    n = len(by_row)
    assert len(set(archs)) == len(set(texts)) == len(set(codes)) == n
    assert len({arch.id for arch in archs}) == n


@given(spaces())
def test_text_genes_and_values_round_trip(space):
    for arch in space.decode(every_row(space)):
        assert space.parse(str(arch)) == arch
        assert [type(v) for _, v in space.parse(str(arch)).items] == [
            type(v) for _, v in arch.items
        ]
        assert space.decode(space.genes([arch])) == [arch]
        assert space.arch(dict(arch.items)) == arch
        assert (space.genes([arch]) == space.canonical(space.genes([arch]))).all()


@given(spaces())
def test_the_encoding_is_one_hot_on_active_choices(space):
    rows = every_row(space)
    code = space.encode_genes(rows)
    assert code.shape == (len(rows), len(space.encoding_columns))
    assert code.sum(axis=1).tolist() == space.active(rows).sum(axis=1).tolist()
    named = [
        {name for name, on in zip(space.encoding_columns, row, strict=True) if on} for row in code
    ]
    assert named == [set(str(arch).split()) for arch in space.decode(rows)]


@given(spaces(), st.integers(0, 2**32 - 1))
def test_samples_are_valid_canonical_and_reproducible(space, seed):
    genes = space.sample_genes(np.random.default_rng(seed), 20)
    assert (genes == space.canonical(genes)).all()
    assert (genes >= 0).all() and (genes < space.option_counts).all()
    assert (genes == space.sample_genes(np.random.default_rng(seed), 20)).all()
    arch = space.sample(np.random.default_rng(seed))
    assert space.parse(str(arch)) == arch


@given(spaces(), st.integers(0, 2**32 - 1), st.sampled_from([None, 0.0, 0.3, 1.0]))
def test_mutants_are_valid_and_different(space, seed, rate):
    rng = np.random.default_rng(seed)
    arch = space.sample(rng)
    mutant = space.mutate(arch, rng, rate=rate)
    assert space.parse(str(mutant)) == mutant
    free = [c.name for c in space.choices if len(c.options) > 1 and c.name in arch]
    assert (mutant != arch) == bool(free)


def test_a_rate_of_zero_changes_one_choice():
    space = SearchSpace("flat", [Choice(f"c{i}", (1, 2, 3)) for i in range(8)])
    rng = np.random.default_rng(0)
    for _ in range(50):
        arch = space.sample(rng)
        mutant = space.mutate(arch, rng, rate=0.0)
        assert sum(arch[c.name] != mutant[c.name] for c in space.choices) == 1


def test_genes_that_a_mutation_switches_on_are_drawn_anew():
    space = SearchSpace(
        "deep",
        [Choice("depth", (1, 2)), Choice("k", (3, 5, 7), (Condition("depth", frozenset({2})),))],
    )
    rng = np.random.default_rng(0)
    shallow = space.parse("depth=1")
    assert {space.mutate(shallow, rng, rate=0.0)["k"] for _ in range(60)} == {3, 5, 7}


def test_sampling_reaches_every_option_equally():
    space = SearchSpace("flat", [Choice("c", (1, 2, 3, 4))])
    genes = space.sample_genes(np.random.default_rng(0), 4000)
    assert np.bincount(genes[:, 0]).min() > 850


@given(spaces(), st.data())
def test_largest_and_smallest_take_the_outer_options(space, data):
    choice = data.draw(st.sampled_from(space.choices))
    assert space.largest().get(choice.name, choice.options[-1]) == choice.options[-1]
    assert space.smallest().get(choice.name, choice.options[0]) == choice.options[0]


@given(spaces(), st.data())
def test_equal_choices_in_other_spaces_are_other_architectures(space, data):
    other = SearchSpace("other", space.choices)
    arch = data.draw(st.sampled_from(space.decode(every_row(space))))
    twin = other.arch(dict(arch.items))
    assert twin != arch and str(twin) == str(arch) and twin.id != arch.id


DEPTH = SearchSpace(
    "depth",
    [
        Choice("depth", (1, 2)),
        Choice("ratio", (0.5, 1.0)),
        Choice("k", (3, 5), (Condition("depth", frozenset({2})),)),
    ],
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("depth=1 ratio", "'ratio' is not of the form name=value"),
        ("depth=1 ratio=0.5 width=2", "'width' is not a choice of the space 'depth'"),
        ("depth=1 depth=2 ratio=0.5", "'depth' is given twice"),
        ("depth=3 ratio=0.5", r"depth=3 is not one of \['1', '2'\]"),
        ("depth=1 ratio=0.50", r"ratio=0.50 is not one of \['0.5', '1.0'\]"),
        ("depth=1", "'ratio' is active and has no value"),
        ("depth=2 ratio=0.5", "'k' is active and has no value"),
        ("depth=1 ratio=0.5 k=3", "'k' is given but inactive"),
    ],
)
def test_text_that_is_not_canonical_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        DEPTH.parse(text)


def test_values_may_be_given_in_another_numeric_type_and_for_inactive_choices():
    arch = DEPTH.arch({"depth": 1.0, "ratio": 1, "k": 5})
    assert str(arch) == "depth=1 ratio=1.0"
    assert "k" not in arch and arch.get("k") is None and arch.get("k", 7) == 7


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"depth": 1, "ratio": 0.5, "x": 1}, "'x' is not a choice"),
        ({"depth": 5, "ratio": 0.5}, r"depth=5 is not one of \[1, 2\]"),
        ({"depth": 2, "ratio": 0.5}, "'k' is active"),
    ],
)
def test_wrong_values_are_refused(values, message):
    with pytest.raises(InputError, match=message):
        DEPTH.arch(values)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("a", (), "has no options"),
        ("a", (1, 1), "lists an option twice"),
        ("a", (1, "1"), "lists an option twice"),
        ("a", (1, 1.0), "has equal options"),
        ("a", ("x y",), "must not contain white space"),
        ("a b", (1,), "must not contain '=' or white space"),
        ("a=b", (1,), "must not contain '=' or white space"),
    ],
)
def test_choices_that_have_no_canonical_text_are_refused(name, options, message):
    with pytest.raises(InputError, match=message):
        Choice(name, options)


def test_a_space_refuses_a_name_twice_and_children_before_parents():
    with pytest.raises(InputError, match="defines a more than once"):
        SearchSpace("s", [Choice("a", (1,)), Choice("a", (2,))])
    child = Choice("b", (1,), (Condition("a", frozenset({1})),))
    for choices in ([child, Choice("a", (1,))], [child]):
        with pytest.raises(InputError, match="'b' depends on 'a'"):
            SearchSpace("s", choices)


@given(st.integers(20, 60))
def test_independent_components_are_counted_without_enumeration(n):
    choices = []
    for i in range(n):
        choices.append(Choice(f"d{i}", (1, 2)))
        choices.append(Choice(f"k{i}", (3, 5), (Condition(f"d{i}", frozenset({2})),)))
    assert SearchSpace("s", choices).cardinality() == 3**n


@given(spaces())
def test_no_architectures_have_matrices_of_the_right_width(space):
    assume(len(space.choices) > 1)
    assert space.genes([]).shape == (0, len(space.choices))
    assert space.encode([]).shape == (0, len(space.encoding_columns))
    assert space.decode(space.genes([])) == []
