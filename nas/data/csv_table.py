"""Tables in CSV files, read with the line of every mistake.

Columns are divided by commas, semicolons or tabs, whichever divides the first line most.
Spreadsheets of countries with decimal commas write semicolons: there, and between tabs, ``1,5`` is
a number.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nas.data.problems import Problems
from nas.data.targets import number_or_nan
from nas.data.text.decoding import read_plain
from search_spaces.errors import InputError
from search_spaces.tables.files import separator_of, two_marks, with_point

TARGETS = ("label", "class", "target")
"""Columns that are targets where a job names none."""

_ROW_NUMBERS = ("", "unnamed: 0")
"""Names, in small letters, of the column that pandas writes its row numbers in."""
_COUNTED_ROWS = 3
"""Rows from which a column that counts them is no chance."""
_SHOWN = 20
"""Names of columns that a message shows."""
_NAN = ("nan", "+nan", "-nan")
"""A number that is none, in small letters."""
_MOMENT = re.compile(
    r"(?:\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}(?:[T ]+|$))?"
    r"(?:\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?(?: ?[AaPp][Mm])?)?(?: ?(?:Z|UTC|[+-]\d{2}:?\d{2}))?"
)
"""A date, a time of day, or both."""
_CLOCK_ROWS = 20
"""Rows over which no measurement only rises, but a clock does."""


@dataclass(frozen=True)
class Table:
    """A CSV file with a line of column names.

    Attributes:
        path: of the file.
        columns: their names.
        rows: the cells of each row, as text, numbers with decimal points.
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
            raise InputError(f"{self.path}:1: no column {name!r} ({self.some_columns()})")
        place = self.columns.index(name)
        return [row[place] for row in self.rows]

    def beside(self, name: str, cell: str) -> Table:
        """Return the table with one more column, whose cells are all the same."""
        rows = tuple((*row, cell) for row in self.rows)
        return replace(self, columns=(*self.columns, name), rows=rows)

    def some_columns(self) -> str:
        """The names of the columns in words; of many the first, and the last, often the target."""
        names = self.columns
        shown = names if len(names) <= _SHOWN else (*names[: _SHOWN - 4], "...", *names[-3:])
        return f"columns: {', '.join(shown)}"

    def likely_target(self, among: Sequence[str]) -> str | None:
        """Return the only column whose words, no moments, come again, or the only one of numbers.

        None if there is neither.
        """
        words = [n for n in among if self._is_text(n) and not self._moments(n)]
        again = [n for n in words if 2 * len(set(self.column(n))) <= len(self.rows)]
        numbers = [n for n in among if not self._is_text(n)]
        return next((found[0] for found in (again, numbers) if len(found) == 1), None)

    def _is_text(self, name: str) -> bool:
        """Whether none of a column's cells is a number, and there are some."""
        cells = [cell for cell in self.column(name) if cell]
        return bool(cells) and all(map(_is_word, cells))

    def _moments(self, name: str) -> bool:
        """Whether all cells of a column are dates or times of day."""
        return self._is_text(name) and all(map(_MOMENT.fullmatch, self.column(name)))

    def numbers(self, names: Sequence[str], problems: Problems) -> np.ndarray:
        """Return the cells of columns as numbers, (rows, names) float64; mistakes are noted.

        A column without any number is one mistake, unless it has few rows.
        """
        out = np.zeros((len(self.rows), len(names)))
        places = []
        for j, name in enumerate(names):
            if len(self.rows) >= _COUNTED_ROWS and self._is_text(name):
                problems.add(self.path, f"column {name} holds text, such as "
                             f"{self.column(name)[0]!r}, and no numbers", line=1)  # fmt: skip
            else:
                places.append((j, self.columns.index(name)))
        for i, (row, line) in enumerate(zip(self.rows, self.lines, strict=True)):
            for j, place in places:
                text = row[place]
                value = number_or_nan(text)
                if math.isnan(value) and text.lower() not in _NAN:
                    told = f"{text!r} is no number" if text else "a value is missing"
                    problems.add(self.path, f"column {names[j]}: {told}", line=line)
                    continue
                if not math.isfinite(value):
                    problems.add(self.path, f"column {names[j]} is {text}", line=line)
                    continue
                out[i, j] = value
        return out

    def counters(self, names: Sequence[str], *, clocks: bool = False) -> list[str]:
        """Return those of the columns that count rows, one by one, and measure nothing.

        Args:
            names: of columns.
            clocks: whether the rows are moments: then a column that rises over all of at least 20
                rows tells the time, and so does one of dates or times of day.
        """
        least = _CLOCK_ROWS if clocks else _COUNTED_ROWS
        if len(self.rows) < least:
            return []
        return [n for n in names if self._rises(n, clocks) or (clocks and self._moments(n))]

    def _rises(self, name: str, clocks: bool) -> bool:
        try:
            values = np.array([float(cell) for cell in self.column(name)])
        except ValueError:
            return False
        steps = np.diff(values)
        return bool(np.all(steps > 0) if clocks else np.all(steps == 1) and not values[0] % 1)


def read_table(path: Path, *, encoding: str = "utf-8", problems: Problems | None = None) -> Table:
    """Read a CSV file.

    Row numbers, as pandas writes them in a first column without a name, are left out, and so are
    the empty cells of a separator at the end of every line. Spaces around cells count for nothing.

    Args:
        path: of the file.
        encoding: of its text.
        problems: where rows of another length are noted, and left out; by default they are raised.

    Raises:
        InputError: it is no text, has no rows, no names of columns, one without a name or there
            twice, or rows of another length than its first line: all of these at once.
    """
    noted, problems = problems, Problems(path)
    text = read_plain(path, encoding)
    first = next((line for line in text.splitlines() if line.strip()), "")
    separator = separator_of(first)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
        found = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if row]
        if separator != ",":
            if doubt := two_marks(found[1:]):
                problems.add(path, doubt[1], line=doubt[0])
            # Once, so that targets are numbers wherever the other cells are.
            found = [(line, [with_point(cell) for cell in row]) for line, row in found]
    except csv.Error as error:
        raise InputError(f"{path}: is no CSV text ({error})") from error
    if len(found) < 2:
        raise InputError(f"{path}: needs a line of column names and at least one row")
    (_, head), *rest = found
    for line, row in rest:
        if len(row) != len(head):
            told = problems if noted is None else noted
            told.add(path, f"{len(row)} cells, and the first line names {len(head)}", line=line)
    problems.raise_any()
    rest = [(line, row) for line, row in rest if len(row) == len(head)]
    if not rest:
        assert noted is not None
        noted.raise_any()
    kept = [place for place, _ in enumerate(head) if not _left_out(place, head, rest)]
    columns = tuple(head[place] for place in kept)
    if _holds_numbers(columns):
        problems.add(path, "holds numbers, where names of columns are needed; put a line such as "
                     "v0,v1,...,label above", line=1)  # fmt: skip
    for place, name in zip(kept, columns, strict=True):
        if not name:
            problems.add(path, f"column {place + 1} has no name and is no row number", line=1)
    for name in sorted({name for name in columns if name and columns.count(name) > 1}):
        problems.add(path, f"column {name!r} is there twice", line=1)
    problems.raise_any()
    return Table(
        path,
        columns,
        tuple(tuple(row[place] for place in kept) for _, row in rest),
        tuple(line for line, _ in rest),
    )


def _left_out(place: int, head: Sequence[str], rows: Sequence[tuple[int, list[str]]]) -> bool:
    """Whether a column holds row numbers, or has no name and no cells."""
    if head[place].lower() not in _ROW_NUMBERS:
        return False
    cells = [row[place] for _, row in rows]
    if not head[place] and not any(cells):
        return True
    return place == 0 and all(map(str.isdecimal, cells)) and len(set(cells)) == len(cells)


def _holds_numbers(names: Sequence[str]) -> bool:
    """Whether a first line is of values: numbers mostly, and not those of places in order."""
    numbers = []
    for name in names:
        try:
            numbers.append(float(name))
        except ValueError:
            continue  # a name
    steps = np.diff(numbers)
    ordered = bool(np.all(steps > 0) or np.all(steps < 0))  # wavelengths, say, or 0, 1, 2, ...
    return len(numbers) > 2 and 2 * len(numbers) > len(names) and not ordered


def _is_word(text: str) -> bool:
    return math.isnan(number_or_nan(text)) and text.lower() not in _NAN


def target_columns(
    table: Table, named: Sequence[str] | None, among: Sequence[str] | None = None
) -> list[str]:
    """Return the target columns of a table.

    Args:
        table: the table.
        named: as the job names them.
        among: columns that may be targets, by default all. A single one is.

    Raises:
        InputError: a named one is not there, or none is named and none is called as usual.
    """
    if named is not None:
        for name in named:
            table.column(name)
        return list(named)
    if among is not None and len(among) == 1:
        return list(among)
    found = [name for name in TARGETS if name in table.columns]
    if not found:
        likely = table.likely_target(among or table.columns) or "NAME"
        raise InputError(
            f"{table.path}:1: no column is called {', '.join(TARGETS)}; name the target columns as "
            f"data.options.targets: [{likely}] ({table.some_columns()})"
        )
    return found[:1]
