"""The source ``text``: files of text as windows of tokens, divided by contiguous pieces."""

from __future__ import annotations

import fnmatch
import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nas.data.problems import Problems, whole_option
from nas.data.sources import DATA_SOURCES, ImageArrays, RawData
from nas.data.text.decoding import OPTION, NoText, decoded_text
from nas.data.text.tokens import BYTES, BytePairs, ByteTokens, Tokens, printable
from search_spaces.errors import EnvironmentProblem, InputError
from search_spaces.seeds import derive_rng

if TYPE_CHECKING:
    from nas.job.sections.data import DataConfig

PIECES = 100
"""A text is cut into so many pieces, or fewer where they would be shorter than some windows."""

_WINDOWS_A_PIECE = 4
_LEAST_PIECES = 3


@DATA_SOURCES.register("text")
def text(
    config: DataConfig,
    *,
    seed: int = 0,
    length: int = 128,
    tokens: str = BYTES,
    vocabulary: int = 512,
    files: str = "*.txt",
    encoding: str = "utf-8",
) -> RawData:
    """Return a text as windows of tokens, each with the tokens that follow.

    The text is cut into up to 100 contiguous pieces of equal length; which of them are for
    validation and for testing is drawn by the job's seed. Windows do not overlap, and none reaches
    from one piece into another.

    Args:
        config: ``path`` is a file, or a folder whose files (those in folders within it, too) are
            read in the order of their names.
        seed: of the job.
        length: tokens of a window, which is all that a network sees, from 2.
        tokens: ``bytes``; ``bpe`` for byte pairs learnt from the training pieces; or the path of a
            byte-level ``tokenizer.json``, relative to the data.
        vocabulary: tokens to learn with ``bpe``, from 257.
        files: which files of a folder.
        encoding: of the files.

    Raises:
        InputError: files of another encoding, each with the byte that shows it; a text too short
            for the division; a tokenizer that does not fit; wrong options.
        EnvironmentProblem: there is nothing at the path.
        MissingExtraError: byte pairs, and the library is not installed.
    """
    whole_option("length", length, least=2)
    whole_option("vocabulary", vocabulary, least=257)
    if config.path is None:
        raise InputError("data.path: text needs a file of text, or a folder of such files")
    root = Path(config.path)
    own = _tokens_of(tokens, root)
    whole = read_text(root, files=files, encoding=encoding)
    pieces = _pieces(whole, length, own)
    parts = _divided(len(pieces), config, seed)
    if own is None:
        own = BytePairs.trained([pieces[i] for i in parts.train], vocabulary)
    numbers = [own.encode(piece) for piece in pieces]

    def windows(chosen: Sequence[int], part: str) -> ImageArrays:
        inputs, targets = [], []
        for i in chosen:
            count = (len(numbers[i]) - 1) // length
            cut = numbers[i][: count * length + 1]
            inputs.append(cut[:-1].reshape(-1, length))
            targets.append(cut[1:].reshape(-1, length))
        found = np.concatenate(inputs)
        if not len(found):
            raise InputError(
                f"{root}: the {part} pieces are shorter than a window of {length} tokens; give "
                "more text, or a smaller data.options.length"
            )
        small = np.uint8 if len(own.spellings) <= 256 else np.float32
        return ImageArrays(found[:, None, None].astype(small), np.concatenate(targets))

    return RawData(
        train=windows(parts.train, "training"),
        validation=windows(parts.validation, "validation"),
        test=windows(parts.test, "test"),
        classes=tuple(printable(spelling) for spelling in own.spellings),
        channels=1,
        image_size=(1, length),
        origin=str(root),
        targets="tokens",
        input_text=_input_text(tokens, length),
        tokens=own,
    )


def read_text(
    root: Path, *, files: str = "*.txt", encoding: str = "utf-8", option: str | None = OPTION
) -> str:
    """Return the text of a file, or of the files of a folder one after another.

    Args:
        root: the file or the folder.
        files: which files of a folder.
        encoding: of the files.
        option: where another encoding may be said; None for nowhere, as for what a command names.

    Raises:
        InputError: a file is not of the encoding, an unknown encoding, or no text at all.
        EnvironmentProblem: there is nothing at ``root``.
    """
    if root.is_file():
        paths = [root]
    elif root.is_dir():
        paths = sorted(
            Path(place) / name
            for place, _, names in os.walk(root)
            for name in fnmatch.filter(names, files)
            if not name.startswith(".")
        )
        if not paths:
            fix = "" if option is None else "; say data.options.files"
            raise InputError(f"{root}: no file is called {files}{fix}")
    else:
        raise EnvironmentProblem(f"{'' if option is None else 'data.path: '}{root} is not there")
    problems = Problems(root)
    found: list[str] = []
    for path in paths:
        text = decoded_text(path.read_bytes(), encoding, option or OPTION)
        if isinstance(text, NoText):
            problems.add(path, f"byte {text.byte} {text.reason}; {text.fix(option)}")
        else:
            found.append(text)
    problems.raise_any()
    whole = "".join(found)
    if not whole:
        raise InputError(f"{root}: holds no text")
    return whole


@dataclass(frozen=True)
class _Parts:
    train: list[int]
    validation: list[int]
    test: list[int]


def _tokens_of(named: str, root: Path) -> Tokens | None:
    """Return the tokens that an option names; None for those that are still to be learnt."""
    if named == BYTES:
        return ByteTokens()
    if named == "bpe":
        return None
    path = (root if root.is_dir() else root.parent) / str(named)
    if not path.is_file():
        raise InputError(
            f"data.options.tokens: {named!r} is neither bytes nor bpe, and {path} is no file"
        )
    return BytePairs.read(path)


def _pieces(whole: str, length: int, tokens: Tokens | None) -> list[str]:
    """Return the text cut into pieces of equal length."""
    # Byte pairs that are still to be learnt have four letters or fewer on average.
    letters = (
        4 * length if tokens is None or len(tokens.spellings) > 256 else length
    ) * _WINDOWS_A_PIECE
    count = min(PIECES, len(whole) // letters)
    if count < _LEAST_PIECES:
        raise InputError(
            f"the text has {len(whole)} letters, too few for {_LEAST_PIECES} pieces of "
            f"{_WINDOWS_A_PIECE} windows of {length} tokens (training, validation, test): about "
            f"{_LEAST_PIECES * letters} are needed; give more text, or a smaller "
            "data.options.length"
        )
    ends = np.linspace(0, len(whole), count + 1).round().astype(int)
    return [whole[a:b] for a, b in itertools.pairwise(ends)]


def _divided(count: int, config: DataConfig, seed: int) -> _Parts:
    order = derive_rng(seed, "text", "pieces").permutation(count).tolist()
    if config.validation >= 1:
        raise InputError(
            f"data.validation: {config.validation:g}; of a text whole pieces are set apart, so "
            "give a share below 1"
        )
    sizes = [max(1, round(share * count)) for share in (config.test, config.validation)]
    if sum(sizes) >= count:
        raise InputError(
            f"data.test and data.validation take {sum(sizes)} of {count} pieces of the text, and "
            "leave none for training"
        )
    test, rest = order[: sizes[0]], order[sizes[0] :]
    return _Parts(
        train=sorted(rest[sizes[1] :]), validation=sorted(rest[: sizes[1]]), test=sorted(test)
    )


def _input_text(tokens: str, length: int) -> str:
    what = {
        BYTES: "the bytes of a text in UTF-8",
        "bpe": "numbers of byte pairs, of the tokenizer in the file's metadata",
    }.get(tokens, f"numbers of the tokens of {tokens}")
    return f"{length} tokens as (1, 1, {length}) floats: {what}"
