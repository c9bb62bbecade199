"""What is no text is told with its place, what it looks like, and what to do."""

import pytest

from nas.data.csv_table import read_table
from nas.data.text.decoding import NoText, decoded_text, read_plain, utf8
from nas.data.text.pair_lines import read_pairs
from nas.data.text.source import read_text
from search_spaces.errors import InputError

WORDS = "the river walks under the bridge\n" * 20


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1"])
def test_a_text_in_its_own_encoding_is_read_without_its_mark(encoding):
    assert decoded_text(WORDS.encode(encoding), encoding) == WORDS
    assert decoded_text(WORDS.encode("utf-8-sig")) == WORDS


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("read_as", ["utf-8", "latin-1"])
def test_text_in_wide_characters_is_recognised_whatever_it_is_read_as(encoding, read_as):
    # In UTF-16 without a mark every byte is UTF-8 too: letters with zeros between them.
    found = decoded_text(WORDS.encode(encoding), read_as)
    assert isinstance(found, NoText)
    assert f"say data.options.encoding: {encoding}, or save it as UTF-8" in found.fix()
    assert found.fix(None).endswith("save it as UTF-8") and "data.options" not in found.fix(None)


@pytest.mark.parametrize("data", [b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\1\0", b"\0" * 500])
@pytest.mark.parametrize("read_as", ["utf-8", "latin-1"])
def test_what_is_no_text_in_any_encoding_is_refused(data, read_as):
    found = decoded_text(data, read_as)
    assert isinstance(found, NoText) and found.fix() == "give a file of text"


def test_a_single_zero_is_told_with_its_place():
    found = decoded_text(b"one\ntwo\n" + WORDS.encode() * 200 + b"thr\0ee\n")
    assert isinstance(found, NoText) and found.reason == "is a zero, which no text holds"
    assert found.line == 3 + WORDS.count("\n") * 200
    assert found.byte == 8 + len(WORDS) * 200 + 3


@pytest.mark.parametrize(
    "read",
    [
        read_text,
        read_table,
        lambda path: read_pairs(path, columns=None, encoding="utf-8"),
        read_plain,
    ],
    ids=["text", "table", "pairs", "plain"],
)
def test_every_source_of_text_says_what_a_file_looks_like(tmp_path, read):
    path = tmp_path / "data.csv"
    path.write_bytes("a,b\n1,2\n3,4\n".encode("utf-16-le"))
    with pytest.raises(InputError, match=r"data\.csv.*looks like utf-16-le: say data.options.enc"):
        read(path)
    path.write_bytes("a,b\n1,2\n3,é\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"byte 10 .*say data.options.encoding, such as latin-1"):
        read(path)


def test_half_a_character_is_told_with_its_byte():
    # What Python makes of an argument that is no UTF-8.
    with pytest.raises(InputError, match=r"'caf\\udce9!' has byte 0xE9 after 3 letters"):
        utf8(b"caf\xe9!".decode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=r"U\+D800"):
        utf8("\ud800")
    assert utf8("naïve") == "naïve".encode()
