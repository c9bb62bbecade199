from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.errors import InputError
from search_spaces.spaces.registry import build_space
from search_spaces.spaces.tokens import TokensSpace

WORDS = st.sampled_from(["a", "b", "k3_e6", "7", "x=1", "t0=a"])


@given(st.lists(st.lists(WORDS, min_size=1, max_size=5), min_size=1, max_size=8))
def test_every_row_of_the_column_parses_back(rows: list[list[str]]) -> None:
    texts = [" ".join(row) for row in rows]
    space = TokensSpace.infer(texts)
    for text in texts:
        assert space.text(space.parse(text)) == text


def test_canonical_strings_parse_too() -> None:
    space = TokensSpace.infer(["a b", "a c"])
    arch = space.parse("a c")
    assert space.parse(str(arch)) == arch


def test_rows_of_different_length_have_inactive_positions() -> None:
    space = TokensSpace.infer(["a b c", "a"])
    short = space.parse("a")
    assert "t1" not in short
    assert space.encode([short]).sum() == 2  # the length and one token


def test_numeric_tokens_are_in_numeric_order() -> None:
    space = TokensSpace.infer(["128", "96", "224"])
    assert space.choices[0].options == ("96", "128", "224")


def test_numbers_inside_tokens_are_found() -> None:
    space = TokensSpace.infer(["k3_e6"])
    assert space.numbers("k3_e6") == ("k#_e#", (3.0, 6.0))
    assert space.numbers("-2.5") == ("#", (-2.5,))
    assert space.numbers("skip") == ("skip", ())


@pytest.mark.parametrize("text", ["[0, 3, skip]", "(0,3,'skip')", '["0", "3", "skip"]'])
def test_lists_of_tokens_are_read_as_their_tokens(text: str) -> None:
    space = TokensSpace.infer(["0 3 skip", text])
    assert space.cardinality() == 1
    assert space.text(space.parse(text)) == "0 3 skip"


@pytest.mark.parametrize(
    ("text", "message"), [("a", "1 tokens"), ("a z", "token 1 is 'z'"), ("a b c", "3 tokens")]
)
def test_foreign_texts_are_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        TokensSpace.infer(["a b", "b b"]).parse(text)


@pytest.mark.parametrize(
    ("config", "message"),
    [({}, "positions"), ({"positions": ["ab"]}, "positions"), ({"width": 3}, "'width'"),
     ({"positions": [["a"]], "lengths": "one"}, "lengths")],
)  # fmt: skip
def test_bad_parameters_of_a_registered_space_are_named(config: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_space("tokens", **config)


def test_spaces_of_tables_are_registered() -> None:
    space = build_space("tokens", positions=[["a", "b"], ["c"]])
    assert str(space.parse("b c")) == "t0=b t1=c"
    assert build_space("nasbench201").name == "nasbench201"
    with pytest.raises(InputError, match="no parameter 'depth'"):
        build_space("nasbench201", depth=3)
