"""Texts for an encoder that others trained: with masked words, or with labels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.data.problems import Problems
from nas.data.text.pair_lines import read_pairs
from nas.data.text.source import read_text
from search_spaces.errors import InputError, MissingExtraError
from search_spaces.seeds import derive_rng

if TYPE_CHECKING:
    from torch import Tensor

    from supernet.checkpoints.encoder_config import EncoderConfig

MASKED_SHARE = 0.15
"""Words of a text that are masked, as in BERT's training (Devlin et al., NAACL 2019, section 3.1).

All of them become the mask itself: what else training puts there has no place in a measurement."""

LONGEST = 128
"""Tokens of a text that are looked at, where the model could see more."""


@dataclass(frozen=True)
class Texts:
    """Texts as numbers of tokens, and what is to be told of them.

    Attributes:
        tokens: (texts, n) int64.
        there: (texts, n) bool, False for what fills a text up.
        wanted: of masked texts the token of each place that is masked and -1 elsewhere, (texts, n)
            int64; of labelled ones the number of the class, (texts,) int64.
    """

    tokens: Tensor
    there: Tensor
    wanted: Tensor


class WordPieces:
    """The tokenizer of an encoder's folder: ``tokenizer.json``, or ``vocab.txt`` of BERT's.

    Args:
        folder: of the checkpoint.
        vocabulary: of the model.

    Attributes:
        first, last, mask: numbers of the tokens that begin and end a text and stand for a word.

    Raises:
        InputError: neither file is there, one is damaged, or it does not fit the model.
        MissingExtraError: the library tokenizers is not installed.
    """

    def __init__(self, folder: Path, vocabulary: int) -> None:
        self._tokenizer = _tokenizer(folder)
        count = self._tokenizer.get_vocab_size()
        if count > vocabulary:
            raise InputError(
                f"{folder}: the tokenizer has {count} tokens, and the model {vocabulary}; give the "
                "tokenizer that it was trained with"
            )
        known = _special(folder)
        numbers = []
        for role, usual in (
            ("cls_token", "[CLS]"), ("sep_token", "[SEP]"), ("mask_token", "[MASK]"),
        ):  # fmt: skip
            name = known.get(role, usual)
            number = self._tokenizer.token_to_id(name)
            if number is None:
                raise InputError(f"{folder}: the tokenizer has no token {name!r} ({role})")
            numbers.append(int(number))
        self.first, self.last, self.mask = numbers

    def numbers(self, text: str) -> list[int]:
        """Return the numbers of a text's tokens, without those that begin and end it."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)


def read_masked(
    path: Path, folder: Path, config: EncoderConfig, *, windows: int = 16, seed: int = 0
) -> tuple[Texts, Texts]:
    """Return windows of a text with masked words: for calibration, and as many others held out.

    Args:
        path: a file, or a folder of ``*.txt``.
        folder: of the checkpoint.
        config: of the model.
        windows: at most, of either.
        seed: of the choice of what is masked.

    Raises:
        InputError: a tokenizer that does not fit the model, or too little text.
    """
    import torch

    words = WordPieces(folder, config.vocabulary)
    inner = min(config.length, LONGEST) - 2
    # Twice what is needed, of letters of which a token has six at most on average.
    numbers = words.numbers(read_text(path, option=None)[: 24 * inner * windows])
    cut = len(numbers) // inner
    if cut < 2:
        raise InputError(
            f"{path}: {len(numbers)} tokens are no two windows of {inner} (for calibration, and to "
            "be held out); give more text"
        )
    half = min(windows, cut // 2)
    rows = np.array(numbers[: 2 * half * inner]).reshape(2 * half, inner)
    ends = np.full((2 * half, 1), words.first), np.full((2 * half, 1), words.last)
    whole = np.concatenate([ends[0], rows, ends[1]], 1)
    random = derive_rng(seed, "masked words")
    hidden = random.random(whole.shape) < MASKED_SHARE
    hidden[:, [0, -1]] = False
    hidden[:, 1] |= ~hidden.any(1)
    wanted = np.where(hidden, whole, -1)
    tokens = torch.from_numpy(np.where(hidden, words.mask, whole))
    there = torch.ones_like(tokens, dtype=torch.bool)
    answers = torch.from_numpy(wanted)
    first, second = (
        Texts(tokens[part], there[part], answers[part])
        for part in (slice(half), slice(half, 2 * half))
    )
    return first, second


def read_labelled(
    path: Path,
    folder: Path,
    config: EncoderConfig,
    *,
    calibration: int = 64,
    most: int = 512,
    seed: int = 0,
) -> tuple[Texts, Texts]:
    """Return labelled texts: for calibration, and others held out.

    Args:
        path: a TSV or CSV of texts and labels, see :func:`nas.data.text.pair_lines.read_pairs`.
            Labels are names of the model's classes, or their numbers.
        folder: of the checkpoint.
        config: of the model.
        calibration: texts to calibrate with, at most half of all.
        most: others, at most.
        seed: of the order in which they are taken.

    Raises:
        InputError: lines without a pair, labels that the model does not know, each with its line;
            a tokenizer that does not fit the model, or fewer than two lines.
    """
    import torch

    words = WordPieces(folder, config.vocabulary)
    pairs = read_pairs(path, columns=None, encoding="utf-8")
    known = {name: number for number, name in enumerate(config.labels)}
    known |= {
        str(number): number for number in range(len(config.labels)) if str(number) not in known
    }
    problems = Problems(path)
    labels = []
    for pair in pairs:
        label = known.get(pair.target.strip())
        if label is None:
            problems.add(pair.path, f"{pair.target!r} is no class of the model", line=pair.line)
        labels.append(-1 if label is None else label)
    problems.raise_any(f"Its classes are {', '.join(config.labels[:20])}, or their numbers from 0.")
    if len(pairs) < 2:
        raise InputError(f"{path}: one line is too few; some calibrate, others are held out")
    inner = min(config.length, LONGEST) - 2
    order = derive_rng(seed, "labelled texts").permutation(len(pairs))
    count = min(calibration, len(pairs) // 2)
    rows = [words.numbers(pairs[i].source)[:inner] for i in order[: count + most]]
    length = 2 + max(len(row) for row in rows)
    tokens = np.zeros((len(rows), length), np.int64)
    there = np.zeros(tokens.shape, bool)
    for place, row in enumerate(rows):
        tokens[place, : len(row) + 2] = [words.first, *row, words.last]
        there[place, : len(row) + 2] = True
    wanted = np.array(labels)[order[: count + most]]
    first, second = (
        Texts(*(torch.from_numpy(values[part]) for values in (tokens, there, wanted)))
        for part in (slice(count), slice(count, None))
    )
    return first, second


def _tokenizer(folder: Path) -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise MissingExtraError("tokenizers", "language") from error
    path, words = folder / "tokenizer.json", folder / "vocab.txt"
    if path.is_file():
        try:
            return tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
        except Exception as error:  # the library raises nothing more precise
            raise InputError(
                f"{path} is no tokenizer of the library tokenizers: {error}"
            ) from error
    if not words.is_file():
        raise InputError(f"{folder} holds neither tokenizer.json nor vocab.txt")
    lower = bool(_settings(folder / "tokenizer_config.json").get("do_lower_case", True))
    try:
        lines = words.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{words} is no text in UTF-8: {error}") from error
    numbers = {line: number for number, line in enumerate(lines)}
    made = tokenizers.implementations.BertWordPieceTokenizer(numbers, lowercase=lower)
    return made._tokenizer


def _special(folder: Path) -> dict[str, str]:
    """Return the names of special tokens by their roles, where the folder says them."""
    found: dict[str, str] = {}
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        for role, token in _settings(folder / name).items():
            text = token.get("content") if isinstance(token, dict) else token
            if role.endswith("_token") and isinstance(text, str):
                found[role] = text
    return found


def _settings(path: Path) -> dict[str, Any]:
    """Return the settings of a file; none where it is not there.

    Raises:
        InputError: the file is no JSON, or no mapping.
    """
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} holds no mapping of settings")
    return value


def batches(texts: Texts, size: int = 32) -> Sequence[Texts]:
    """Return texts in parts of ``size``."""
    parts = zip(
        texts.tokens.split(size), texts.there.split(size), texts.wanted.split(size), strict=True
    )
    return [Texts(*part) for part in parts]
