"""Tables in CSV files, read with the line of every mistake."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nas.data.problems import Problems
from search_spaces.errors import InputError

TARGETS = ("label", "class", "target")
"""Columns that are targets where a job names none."""


@dataclass(frozen=True)
class Table:
    """A CSV file with a line of column names.

    Attributes:
        path: of the file.
        columns: their names.
        rows: the cells of each row, as text.
        lines: of the file, by row.
    """

    path: Path
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]

    def column(self, name: str) -> list[str]:
        """Return the cells of one column.

        Raises:
            InputError: there is no such column.
        """
        if name not in self.columns:
            raise InputError(
                f"{self.path}:1: no column {name!r} (columns: {', '.join(self.columns[:20])})"
            )
        place = self.columns.index(name)
        return [row[place] for row in self.rows]

    def numbers(self, names: Sequence[str], problems: Problems) -> np.ndarray:
        """Return the cells of columns as numbers, (rows, names) float64; mistakes are noted."""
        places = [self.columns.index(name) for name in names]
        out = np.zeros((len(self.rows), len(names)))
        for i, (row, line) in enumerate(zip(self.rows, self.lines, strict=True)):
            for j, place in enumerate(places):
                text = row[place].strip()
                try:
                    value = float(text)
                except ValueError:
                    told = f"{text!r} is no number" if text else "a value is missing"
                    problems.add(self.path, f"column {names[j]}: {told}", line=line)
                    continue
                if not math.isfinite(value):
                    problems.add(self.path, f"column {names[j]} is {text}", line=line)
                    continue
                out[i, j] = value
        return out


def read_table(path: Path) -> Table:
    """Read a CSV file.

    Raises:
        InputError: it is no text, has no rows, a column name twice, or rows of another length
            than its first line: all of these at once.
    """
    problems = Problems(path)
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            found = [(reader.line_num, row) for row in reader if row]
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: is no CSV text in UTF-8 ({error})") from error
    if len(found) < 2:
        raise InputError(f"{path}: needs a line of column names and at least one row")
    (_, head), *rest = found
    columns = tuple(name.strip() for name in head)
    for name in sorted({name for name in columns if columns.count(name) > 1}):
        problems.add(path, f"column {name!r} is there twice", line=1)
    for line, row in rest:
        if len(row) != len(columns):
            problems.add(
                path, f"{len(row)} cells, and the first line names {len(columns)}", line=line
            )
    problems.raise_any()
    return Table(
        path, columns, tuple(tuple(row) for _, row in rest), tuple(line for line, _ in rest)
    )


def target_columns(table: Table, named: Sequence[str] | None) -> list[str]:
    """Return the target columns of a table.

    Raises:
        InputError: a named one is not there, or none is named and none is called as usual.
    """
    if named is not None:
        for name in named:
            table.column(name)
        return list(named)
    found = [name for name in TARGETS if name in table.columns]
    if not found:
        raise InputError(
            f"{table.path}:1: no column is called {', '.join(TARGETS)}; name the target columns as "
            f"data.options.targets (columns: {', '.join(table.columns[:20])})"
        )
    return found[:1]
