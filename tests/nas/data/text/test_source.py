"""Texts become windows that are divided by contiguous pieces, and mistakes are told before work."""

import numpy as np
import pytest
import torch

from nas.data.splits import load_splits
from nas.data.text.source import read_text
from nas.data.text.tokens import decoded
from nas.job.sections.data import DataConfig
from search_spaces.errors import EnvironmentProblem, InputError

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def config(path, **changes):
    options = {"length": 8, **changes.pop("options", {})}
    return DataConfig(name="text", path=str(path), options=options, **changes)


@pytest.fixture
def book(tmp_path):
    """Numbered words, so that every place of the text is known by what stands there."""
    path = tmp_path / "book.txt"
    path.write_text("".join(f"{n:05d}" for n in range(800)))
    return path


def places(splits, subset):
    """Return every place of the text that a set's inputs and targets hold."""
    whole = "".join(f"{n:05d}" for n in range(800))
    inputs, targets = subset.at(torch.arange(len(subset)))
    found = set()
    for x, y in zip(inputs.flatten(1).long().tolist(), targets.tolist(), strict=True):
        window = decoded(splits.tokens, [*x, y[-1]])
        assert x[1:] == y[:-1], "targets are the tokens that follow"
        starts = [i for i in range(len(whole)) if whole.startswith(window, i)]
        assert len(starts) == 1
        found |= set(range(starts[0], starts[0] + len(window)))
    return found


def test_sets_are_of_pieces_of_the_text_that_share_nothing(book):
    splits = load_splits(config(book, validation=0.2, test=0.2, calibration=16), 3)
    sets = [places(splits, s) for s in (splits.train, splits.validation, splits.test("a test"))]
    assert not (sets[0] & sets[1] or sets[0] & sets[2] or sets[1] & sets[2])
    for found, share in zip(sets, (0.6, 0.2, 0.2), strict=True):
        # What is left over at the ends of pieces is in none.
        assert 0.75 * share < len(found) / 4000 <= share + 0.02
    # Validation is of several stretches, each contiguous.
    ordered = np.array(sorted(sets[1]))
    runs = np.split(ordered, np.flatnonzero(np.diff(ordered) > 8) + 1)
    assert len(runs) > 5
    assert splits.input_shape == (1, 1, 8) and splits.targets == "tokens"
    assert places(splits, splits.calibration) <= sets[0] and len(splits.calibration) == 16
    other = load_splits(config(book, validation=0.2, test=0.2), 4)
    assert places(other, other.validation) != sets[1]


def test_tokens_reach_the_network_as_they_are(book):
    splits = load_splits(config(book), 0)
    inputs, targets = next(splits.evaluation_batches(splits.train, batch_size=4))
    assert inputs.dtype is torch.float32 and targets.dtype is torch.int64
    assert set(inputs.unique().tolist()) <= set(map(float, b"0123456789"))
    drawn, _ = next(splits.training_batches(4, seed=0).epoch(0))
    assert set(drawn.unique().tolist()) <= set(map(float, b"0123456789"))
    assert splits.warnings() == [] and len(splits.record()["classes"]) == 256


def test_byte_pairs_are_learnt_from_the_training_pieces(tmp_path):
    pytest.importorskip("tokenizers")
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list(LETTERS), 6)) for _ in range(40)]
    path = tmp_path / "words.txt"
    path.write_text(" ".join(rng.choice(words, 2000)))
    splits = load_splits(config(path, options={"tokens": "bpe", "vocabulary": 300}), 0)
    assert len(splits.classes) == 300
    inputs, _ = splits.train.at(torch.arange(len(splits.train)))
    assert inputs.dtype is torch.float32 and inputs.max() >= 256
    (tmp_path / "own.json").write_text(splits.tokens.to_text())
    own = load_splits(config(path, options={"tokens": "own.json"}), 0)
    assert own.tokens.spellings == splits.tokens.spellings


def test_folders_are_read_in_order_of_names(tmp_path):
    for name, text in (("b.txt", "second"), ("a.txt", "first "), ("c.md", "not"), (".x.txt", "no")):
        (tmp_path / name).write_text(text)
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "d.txt").write_text(" third")
    assert read_text(tmp_path) == "first second third"
    assert read_text(tmp_path, files="*.md") == "not"


def test_a_text_of_another_encoding_is_told_with_its_place(tmp_path):
    (tmp_path / "good.txt").write_text("naïve")
    (tmp_path / "old.txt").write_bytes("abc naïve".encode("latin-1"))
    (tmp_path / "worse.txt").write_bytes(b"\xff\xfea\x00")
    with pytest.raises(InputError) as error:
        read_text(tmp_path)
    told = str(error.value)
    assert "old.txt: byte 6 is no utf-8" in told and "worse.txt: byte 0" in told
    assert "worse.txt: byte 0 is no utf-8 (invalid start byte); the file looks like utf-16" in told
    assert "say data.options.encoding" in told and "good.txt" not in told
    assert read_text(tmp_path / "old.txt", encoding="latin-1") == "abc naïve"


@pytest.mark.parametrize(
    ("text", "changes", "message"),
    [
        ("short", {}, "5 letters, too few for 3 pieces .* about 96 are needed"),
        ("x" * 500, {"options": {"length": 1}}, "data.options.length: 1 is no whole number from 2"),
        (
            "x" * 500,
            {"options": {"vocabulary": 256}},
            "vocabulary: 256 is no whole number from 257",
        ),
        ("x" * 500, {"options": {"tokens": "words"}}, "'words' is neither bytes nor bpe"),
        ("x" * 500, {"options": {"encoding": "utf-9"}}, "'utf-9' is no encoding"),
        ("x" * 500, {"validation": 0.5, "test": 0.5}, "leave none for training"),
        ("x" * 500, {"validation": 100}, "data.validation: 100; .* a share below 1"),
        ("x" * 500, {"augment": {"flip": True}}, "data.augment: text gives tokens"),
        ("x" * 500, {"normalisation": "imagenet"}, "data.normalisation: text gives tokens"),
        ("", {}, "holds no text"),
    ],
)
def test_what_cannot_be_is_told_before_any_work(tmp_path, text, changes, message):
    path = tmp_path / "text.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        load_splits(config(path, **changes), 0)


def test_a_text_that_is_not_there_is_told(tmp_path):
    with pytest.raises(EnvironmentProblem, match="is not there"):
        load_splits(config(tmp_path / "none.txt"), 0)
    with pytest.raises(InputError, match=r"no file is called \*\.txt"):
        load_splits(config(tmp_path), 0)
    with pytest.raises(InputError, match="needs a file of text"):
        load_splits(DataConfig(name="text"), 0)
