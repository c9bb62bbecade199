"""Sounds whose classes are a column of a CSV file, as in ESC-50 and UrbanSound8K."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nas.data.csv_table import Table, read_table
from nas.data.labelled import FILE_COLUMNS, group_numbers, parts_of
from nas.data.problems import Problems
from search_spaces.errors import EnvironmentProblem, InputError

FILES = (*FILE_COLUMNS, "slice_file_name", "fname", "wav", "audio")
"""Columns that name the sound of a row."""

CLASSES = ("category", "class", "label", "target", "class_name")
"""Columns that name its class, the first that is there."""

FOLD = "fold"
"""Column that says which sounds belong together: parts of one recording are in one fold."""

SUFFIXES = (".wav", ".flac")


@dataclass(frozen=True)
class Listed:
    """What a table says.

    Attributes:
        files: of the rows.
        labels: their classes, as text.
        parts: rows of the training, validation and test set, by its name; none is empty.
        groups: (rows,) numbers of what must not be divided; None for none.
    """

    files: tuple[Path, ...]
    labels: tuple[str, ...]
    parts: dict[str, np.ndarray]
    groups: np.ndarray | None


def table_of_sounds(root: Path) -> str | None:
    """Return the one CSV file in ``root``, or in a folder of it, whose rows name sounds there."""
    fitting = []
    for path in sorted([*root.glob("*.csv"), *root.glob("*/*.csv")]):
        try:
            table = read_table(path)
        except InputError:
            continue
        name = next((column for column in FILES if column in table.columns), None)
        named = name is not None and table.column(name)[0].lower().endswith(SUFFIXES)
        if named and any(column in table.columns for column in CLASSES):
            fitting.append(path.relative_to(root).as_posix())
    return fitting[0] if len(fitting) == 1 else None


def listed_sounds(
    root: Path, labels: str, *, target: str | None = None, group: str | None = None
) -> Listed:
    """Read a table of sounds.

    Args:
        root: under which the sounds lie, in any folder.
        labels: the CSV file, relative to ``root``.
        target: column of the class; by default the first of :data:`CLASSES`.
        group: column of what must not be divided among the sets; by default :data:`FOLD`.

    Raises:
        InputError: no column of names or of classes; sounds that are not there, or there twice,
            each at its line; an unknown split, or a group that splits divide.
        EnvironmentProblem: the table is not there.
    """
    path = root / labels
    if not path.is_file():
        raise EnvironmentProblem(f"data.options.labels: {path} is not there")
    table = read_table(path)
    name = _first(table, FILES, "so the sounds have no names")
    target = target or _first(table, CLASSES, "name that of the class as data.options.target")
    if group is None and FOLD in table.columns:
        group = FOLD
    problems = Problems(path)
    files = _files(root, table, name, problems)
    parts = parts_of(table, problems)
    problems.raise_any()
    if not len(parts["train"]):
        raise InputError(f"{path}: no row is of the split train")
    groups = None if group is None else group_numbers(table, group, parts)
    return Listed(
        tuple(files),
        tuple(table.column(target)),
        {part: rows for part, rows in parts.items() if len(rows)},
        groups,
    )


def _first(table: Table, names: Sequence[str], otherwise: str) -> str:
    found = next((column for column in names if column in table.columns), None)
    if found is None:
        raise InputError(
            f"{table.path}:1: no column is called {', '.join(names)}; {otherwise} "
            f"({table.some_columns()})"
        )
    return found


def _files(root: Path, table: Table, column: str, problems: Problems) -> list[Path]:
    """Return the sound of each row: at its path, or wherever under ``root`` one has its name."""
    by_name: dict[str, list[Path]] = {}
    for path in root.rglob("*"):
        if path.suffix.lower() in SUFFIXES:
            by_name.setdefault(path.name, []).append(path)
    found = []
    for cell, line in zip(table.column(column), table.lines, strict=True):
        there = [root / cell] if (root / cell).is_file() else by_name.get(Path(cell).name, [])
        if not there:
            problems.add(table.path, f"{cell!r} is not under {root}", line=line)
        elif len(there) > 1:
            told = f"{cell!r} may be {there[0]} or {there[1]}; say which"
            problems.add(table.path, told, line=line)
        found.append(there[0] if there else root / cell)
    return found
