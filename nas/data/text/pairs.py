"""The source ``text_pairs``: lines of two sides, one to be turned into the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nas.data.problems import Problems, whole_option
from nas.data.sources import DATA_SOURCES, ImageArrays, RawData
from nas.data.text.pair_lines import Pair, read_folder, read_pairs
from nas.data.text.pair_tokens import CHARACTERS, PairTokens, SideTokens, side_of
from search_spaces.errors import EnvironmentProblem, InputError
from search_spaces.seeds import derive_rng

if TYPE_CHECKING:
    from nas.job.sections.data import DataConfig


_UNKNOWN = (
    "Symbols are learnt from training lines alone: give such a line to the training set, take it "
    "out, or use tokens of bytes."
)


@dataclass(frozen=True)
class _Parts:
    train: list[Pair]
    validation: list[Pair]
    test: list[Pair]


@DATA_SOURCES.register("text_pairs")
def text_pairs(
    config: DataConfig,
    *,
    seed: int = 0,
    source_tokens: str = CHARACTERS,
    target_tokens: str = CHARACTERS,
    vocabulary: int = 512,
    source_length: int | None = None,
    target_length: int | None = None,
    columns: Sequence[str] | None = None,
    files: Sequence[str] | None = None,
    alternatives: str = "first",
    encoding: str = "utf-8",
) -> RawData:
    """Return pairs of sequences as numbers of symbols.

    ``path`` is a file of pairs (``.tsv``: a tab between them; ``.csv``), a folder with two files
    of lines that belong together, which ``files`` names, or a folder with ``train.tsv`` and perhaps
    ``validation.tsv`` and ``test.tsv`` (or ``.csv``). What has no file of its own is taken from
    the training lines by the job's seed; lines of one source are never divided among the sets.

    Args:
        config: the job's section.
        seed: of the job.
        source_tokens, target_tokens: ``characters``, ``symbols`` (that spaces divide), ``bytes``
            or ``bpe`` (byte pairs), learnt from the training lines alone.
        vocabulary: byte pairs to learn, from 257.
        source_length, target_length: most symbols of a side; by default those of the longest line.
        columns: names of source and target in files whose first line names columns.
        files: two files of a folder, sources and targets.
        alternatives: ``first`` leaves lines out whose source was there before (another
            pronunciation of a word, say); ``all`` keeps them as pairs of their own.
        encoding: of the files.

    Raises:
        InputError: what is wrong with the lines, all at once, each with its file and line: no pair,
            an empty side, another encoding, a side that is too long, a symbol that no training
            line has, a source of a test file that is in the training file.
        EnvironmentProblem: there is nothing at the path.
        MissingExtraError: byte pairs, and the library is not installed.
    """
    whole_option("vocabulary", vocabulary, least=257)
    for name, value in (("source_length", source_length), ("target_length", target_length)):
        if value is not None:
            whole_option(name, value, least=1)
    if alternatives not in ("first", "all"):
        raise InputError(f"data.options.alternatives: {alternatives!r} is neither first nor all")
    if config.path is None:
        raise InputError("data.path: text_pairs needs a file of pairs, or a folder")
    root = Path(config.path)
    if not root.exists():
        raise EnvironmentProblem(f"data.path: {root} is not there")
    if root.is_dir():
        given = read_folder(root, columns=columns, files=files, encoding=encoding)
    else:
        if files is not None:
            raise InputError(f"data.options.files: {root} is a file; name the folder as data.path")
        given = {"train": read_pairs(root, columns=columns, encoding=encoding)}
    if alternatives == "first":
        given = {part: first_of_each(pairs) for part, pairs in given.items()}
    return pairs_data(
        given,
        config,
        seed,
        origin=root,
        tokens=(source_tokens, target_tokens),
        vocabulary=vocabulary,
        lengths=(source_length, target_length),
    )


def pairs_data(
    given: dict[str, list[Pair]],
    config: DataConfig,
    seed: int,
    *,
    origin: Path,
    tokens: tuple[str, str],
    vocabulary: int = 512,
    lengths: tuple[int | None, int | None] = (None, None),
) -> RawData:
    """Return pairs of lines as a source delivers them.

    Args:
        given: by set, ``train`` at least; the sets that are missing are taken from it.
        config: the job's section.
        seed: of the job, which divides.
        origin: where the pairs are from.
        tokens: what source and target are made of, see :func:`text_pairs`.
        vocabulary: byte pairs to learn.
        lengths: most symbols of either side; None for those of the longest line.

    Raises:
        InputError: as :func:`text_pairs`.
        MissingExtraError: byte pairs, and the library is not installed.
    """
    parts = _divided(given, config, seed, origin)
    sides = tuple(
        side_of(
            kind,
            [getattr(pair, side) for pair in parts.train],
            vocabulary=vocabulary,
            option=f"{side}_tokens",
        )
        for side, kind in zip(("source", "target"), tokens, strict=True)
    )
    pairs, numbers = _encoded(parts, sides, lengths, origin)
    length = pairs.source_length + pairs.target_length
    return RawData(
        train=_arrays(numbers["train"], pairs),
        validation=_arrays(numbers["validation"], pairs),
        test=_arrays(numbers["test"], pairs),
        classes=("(end)", *pairs.target.names[1:]),
        channels=1,
        image_size=(1, length),
        origin=str(origin),
        targets="pairs",
        input_text=_input_text(pairs),
        pairs=pairs,
    )


def first_of_each(pairs: Sequence[Pair]) -> list[Pair]:
    """Return the first pair of each source, in order."""
    first: dict[str, Pair] = {}
    for pair in pairs:
        first.setdefault(pair.source, pair)
    return list(first.values())


def _divided(given: dict[str, list[Pair]], config: DataConfig, seed: int, root: Path) -> _Parts:
    """Return the pairs of each set; those of one source are in the same."""
    _refuse_shared(given, root)
    sources = sorted({pair.source for pair in given["train"]})
    order = derive_rng(seed, "pairs", "sources").permutation(len(sources)).tolist()
    taken: dict[str, str] = {}
    start = 0
    for part, wanted in (("test", config.test), ("validation", config.validation)):
        if part in given:
            continue
        count = round(wanted * len(sources)) if wanted < 1 else int(wanted)
        count = max(1, count)
        taken |= {sources[i]: part for i in order[start : start + count]}
        start += count
    if start >= len(sources):
        raise InputError(
            f"{root}: data.test and data.validation take {start} of {len(sources)} sources, and "
            "leave none for training"
        )
    found: dict[str, list[Pair]] = {"train": [], "validation": [], "test": []}
    for pair in given["train"]:
        found[taken.get(pair.source, "train")].append(pair)
    return _Parts(**{**found, **{k: v for k, v in given.items() if k != "train"}})


def _refuse_shared(given: dict[str, list[Pair]], root: Path) -> None:
    """Refuse a source of a file for validation or testing that training sees."""
    problems = Problems(root)
    known: dict[str, Pair] = {}
    for part in ("train", "validation", "test"):
        for pair in given.get(part, ()):
            earlier = known.get(pair.source)
            if earlier is not None and earlier.path != pair.path:
                place = f"{earlier.path.name}:{earlier.line}"
                told = f"the source {pair.source[:40]!r} is in {place}, too"
                problems.add(pair.path, told, line=pair.line)
        for pair in given.get(part, ()):
            known.setdefault(pair.source, pair)
    problems.raise_any("What a set is judged by must not be in another: take it out of one.")


def _encoded(
    parts: _Parts,
    sides: tuple[SideTokens, ...],
    most: tuple[int | None, int | None],
    root: Path,
) -> tuple[PairTokens, dict[str, list[tuple[list[int], list[int]]]]]:
    """Return vocabularies with lengths, and the numbers of each pair of each set."""
    problems = Problems(root)
    found: dict[str, list[tuple[list[int], list[int]]]] = {}
    longest, fix = [0, 0], ""
    for part in ("train", "validation", "test"):
        found[part] = []
        for pair in getattr(parts, part):
            both: list[list[int]] = []
            for i, (name, text) in enumerate((("source", pair.source), ("target", pair.target))):
                try:
                    numbers = sides[i].encode(text)
                except InputError as error:
                    fix = _UNKNOWN
                    problems.add(pair.path, f"the {name} {text[:40]!r}: {error}", line=pair.line)
                    continue
                limit = most[i]
                if limit is not None and len(numbers) > limit:
                    problems.add(
                        pair.path,
                        f"the {name} has {len(numbers)} symbols, and data.options.{name}_length "
                        f"is {limit}",
                        line=pair.line,
                    )
                longest[i] = max(longest[i], len(numbers))
                both.append(numbers)
            if len(both) == 2:
                found[part].append((both[0], both[1]))
    problems.raise_any(fix)
    lengths = [limit or long for limit, long in zip(most, longest, strict=True)]
    # A target ends with a symbol of its own.
    return PairTokens(sides[0], sides[1], max(2, lengths[0]), lengths[1] + 1), found


def _arrays(pairs: Sequence[tuple[list[int], list[int]]], tokens: PairTokens) -> ImageArrays:
    """Return inputs (n, 1, 1, source + target) and targets (n, target) of numbers."""
    many = max(tokens.source.count, tokens.target.count)
    split, length = tokens.source_length, tokens.source_length + tokens.target_length
    inputs = np.zeros((len(pairs), length), np.uint8 if many <= 256 else np.float32)
    targets = np.zeros((len(pairs), tokens.target_length), np.int64)
    for i, (source, target) in enumerate(pairs):
        inputs[i, : len(source)] = source
        # The decoder is given what came before: the beginning, then the target without its end.
        inputs[i, split + 1 : split + 1 + len(target)] = target
        targets[i, : len(target)] = target
    return ImageArrays(inputs[:, None, None], targets)


def _input_text(tokens: PairTokens) -> str:
    s, t = tokens.source_length, tokens.target_length
    return (
        f"{s} numbers of the source's {tokens.source.kind}, 0 after the last, then {t} numbers of "
        f"the target's {tokens.target.kind}: 0 first, then the target, 0 after its last; as "
        f"(1, 1, {s + t}) floats. The file's metadata `pairs` lists both vocabularies"
    )
