"""Files of pairs of lines, read with the line of every mistake."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nas.data.problems import Problems
from nas.data.text.decoding import read_plain
from search_spaces.errors import EnvironmentProblem, InputError

PARTS = ("train", "validation", "test")
_ENDINGS = (".tsv", ".csv")
_FIX = "A line holds a source, a tab (or in a .csv a comma) and a target."


@dataclass(frozen=True)
class Pair:
    """A line of two sides.

    Attributes:
        source, target: as text, neither empty.
        path, line: where it stands.
    """

    source: str
    target: str
    path: Path
    line: int


def read_folder(
    root: Path, *, columns: Sequence[str] | None, files: Sequence[str] | None, encoding: str
) -> dict[str, list[Pair]]:
    """Return the pairs of a folder by set; ``train`` alone where no other has a file.

    Args:
        root: the folder.
        columns: see :func:`read_pairs`.
        files: two files of lines that belong together; None for files of pairs.
        encoding: of the files.

    Raises:
        InputError: see :func:`read_pairs`; or none of the files is there.
    """
    if files is not None:
        if isinstance(files, str) or len(files) != 2 or not all(isinstance(f, str) for f in files):
            raise InputError(f"data.options.files: {files!r} must name two files of {root}")
        if columns is not None:
            raise InputError("data.options.columns: files of lines have none; leave it out")
        return {"train": read_parallel(root / files[0], root / files[1], encoding=encoding)}
    found = {}
    for part in PARTS:
        there = [root / f"{part}{e}" for e in _ENDINGS if (root / f"{part}{e}").is_file()]
        if len(there) > 1:
            raise InputError(f"{root} holds both {there[0].name} and {there[1].name}; keep one")
        if there:
            found[part] = read_pairs(there[0], columns=columns, encoding=encoding)
    if "train" not in found:
        raise EnvironmentProblem(
            f"{root} holds no train.tsv or train.csv; name a file as data.path, or two files of "
            "lines as data.options.files"
        )
    return found


def read_pairs(path: Path, *, columns: Sequence[str] | None, encoding: str) -> list[Pair]:
    """Return the pairs of a file.

    Args:
        path: ``.csv`` for a comma between the sides (and quotes around them); a tab otherwise.
        columns: names of source and target, where the first line names columns.
        encoding: of the file.

    Raises:
        InputError: another encoding, lines without a pair or with an empty side, all of them at
            once; no such columns; no pair at all.
    """
    text = read_plain(path, encoding)
    places = (0, 1)
    cells = _cells(path, text)
    if columns is not None:
        places = _places(path, cells, columns)
    problems = Problems(path)
    found: list[Pair] = []
    for line, row in cells:
        if not row:
            problems.add(path, "an empty line holds no pair", line=line)
        elif columns is None and len(row) != 2:
            problems.add(path, f"{len(row)} cells are no pair", line=line)
        elif len(row) <= max(places):
            problems.add(path, f"{len(row)} cells, and the first line names more", line=line)
        else:
            _add(found, problems, path, line, row[places[0]], row[places[1]])
    problems.raise_any(_FIX)
    if not found:
        raise InputError(f"{path} holds no pairs. {_FIX}")
    return found


def read_parallel(source: Path, target: Path, *, encoding: str) -> list[Pair]:
    """Return pairs of the lines of two files.

    Raises:
        InputError: another encoding, files of unequal length, empty lines.
    """
    sides = []
    for path in (source, target):
        if not path.is_file():
            raise InputError(f"data.options.files: {path} is not there")
        lines = read_plain(path, encoding).split("\n")
        sides.append(lines[:-1] if lines[-1] == "" else lines)
    problems = Problems(source.parent)
    counts = [len(side) for side in sides]
    if counts[0] != counts[1]:
        longer = (source, target)[counts[1] > counts[0]]
        problems.add(longer, f"has no partner: the files have {counts[0]} and {counts[1]} lines",
                     line=min(counts) + 1)  # fmt: skip
    found: list[Pair] = []
    for line, (one, other) in enumerate(zip(*sides, strict=False), start=1):
        _add(found, problems, source, line, one.rstrip("\r"), other.rstrip("\r"), other=target)
    problems.raise_any("Line for line the second file holds what becomes of the first.")
    if not found:
        raise InputError(f"{source} and {target} hold no lines")
    return found


def _add(
    found: list[Pair],
    problems: Problems,
    path: Path,
    line: int,
    source: str,
    target: str,
    *,
    other: Path | None = None,
) -> None:
    empty = [name for name, side in (("source", source), ("target", target)) if not side.strip()]
    for name in empty:
        problems.add(
            other if other and name == "target" else path, f"the {name} is empty", line=line
        )
    if not empty:
        found.append(Pair(source, target, path, line))


def _cells(path: Path, text: str) -> list[tuple[int, list[str]]]:
    """Return number and cells of each line; an empty line has none."""
    if path.suffix == ".csv":
        return list(_csv_cells(path, text))
    lines = text.split("\n")
    if lines and lines[-1] == "":
        lines.pop()
    rows = [line.rstrip("\r") for line in lines]
    return [(i, row.split("\t") if row else []) for i, row in enumerate(rows, start=1)]


def _csv_cells(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise InputError(f"{path}:{reader.line_num}: is no CSV ({error})") from error


def _places(
    path: Path, cells: list[tuple[int, list[str]]], columns: Sequence[str]
) -> tuple[int, int]:
    """Return the places of source and target, and take the line of names out of ``cells``."""
    if isinstance(columns, str) or len(columns) != 2:
        raise InputError(f"data.options.columns: {columns!r} must name two, source and target")
    if not cells:
        raise InputError(f"{path} holds no pairs. {_FIX}")
    _, head = cells.pop(0)
    names = [name.strip() for name in head]
    for name in columns:
        if name not in names:
            raise InputError(f"{path}:1: no column {name!r} (columns: {', '.join(names[:20])})")
    return names.index(columns[0]), names.index(columns[1])
