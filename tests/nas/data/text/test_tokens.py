"""Tokens stand for fixed bytes, whatever the text is."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.data.text.tokens import (
    BytePairs,
    ByteTokens,
    decoded,
    printable,
    tokens_from_text,
)
from search_spaces.errors import InputError

TEXT = "In the beginning was the word; the word was in the beginning. Größe, 语言.\n" * 20


@pytest.fixture(scope="module")
def pairs():
    pytest.importorskip("tokenizers")
    return BytePairs.trained([TEXT], 280)


@given(st.text(max_size=60))
def test_bytes_are_those_of_utf_8(text):
    tokens = ByteTokens()
    numbers = tokens.encode(text)
    assert bytes(numbers.tolist()) == text.encode() and decoded(tokens, numbers) == text


@given(text=st.text(max_size=60))
def test_byte_pairs_spell_any_text(pairs, text):
    numbers = pairs.encode(text)
    assert decoded(pairs, numbers) == text
    assert b"".join(pairs.spellings[n] for n in numbers) == text.encode()


def test_learnt_pairs_are_fewer_than_bytes(pairs):
    assert len(pairs.spellings) == 280
    assert len(pairs.encode(TEXT)) < 0.7 * len(TEXT.encode())
    again = tokens_from_text(pairs.to_text())
    np.testing.assert_array_equal(again.encode(TEXT), pairs.encode(TEXT))
    assert again.spellings == pairs.spellings
    assert tokens_from_text("bytes").spellings == ByteTokens().spellings


def test_a_tokenizer_that_is_not_of_bytes_is_refused(tmp_path):
    library = pytest.importorskip("tokenizers")
    words = library.Tokenizer(library.models.WordLevel({"größe": 0, "[UNK]": 1}, unk_token="[UNK]"))
    words.save(str(tmp_path / "words.json"))
    with pytest.raises(InputError, match=r"words\.json: token 'größe' is not spelt in bytes"):
        BytePairs.read(tmp_path / "words.json")
    (tmp_path / "none.json").write_text("{}")
    with pytest.raises(InputError, match=r"none\.json is no tokenizer"):
        BytePairs.read(tmp_path / "none.json")
    with pytest.raises(InputError, match="cannot be read"):
        BytePairs.read(tmp_path / "absent.json")


def test_a_tokenizer_that_changes_the_text_is_refused(pairs):
    library = pytest.importorskip("tokenizers")
    described = json.loads(pairs.to_text())
    described["normalizer"] = {"type": "Lowercase"}
    lower = BytePairs(library.Tokenizer.from_str(json.dumps(described)))
    with pytest.raises(InputError, match="does not fit the text: it changes byte 4 of"):
        lower.encode("for God")


def test_special_tokens_are_no_text(pairs):
    library = pytest.importorskip("tokenizers")
    tokenizer = library.Tokenizer.from_str(pairs.to_text())
    tokenizer.add_special_tokens(["<|end|>"])
    with_end = BytePairs(tokenizer)
    assert with_end.spellings[280] == b"" and with_end.spellings[:280] == pairs.spellings


def test_spellings_can_be_shown():
    assert printable(b"\n") == "\\n" and printable(b"\xff") == "\\\\xff"
    assert printable("ö".encode()) == "ö"
