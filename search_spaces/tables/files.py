"""CSV and Parquet files of tables as rows of text, and back; what cells mean is decided above."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from search_spaces.atomic import write_atomic, write_text_atomic
from search_spaces.errors import EnvironmentProblem, InputError, MissingExtraError


@dataclass(frozen=True)
class RawTable:
    """A file as it stands.

    Attributes:
        header: column names.
        rows: cells as text, as many a row as there are columns; empty where missing.
        numbers: of each row, as ``label`` counts them, for messages.
        declared: ``key: value`` declarations of the file.
        label: ``line`` (CSV) or ``row`` (Parquet), counted from 1.
        decimal_commas: whether ``1,5`` is a number: where no commas divide the columns.
    """

    header: list[str]
    rows: list[list[str]]
    numbers: list[int]
    declared: dict[str, str]
    label: str
    decimal_commas: bool = False


SEPARATORS = (",", ";", "\t")
"""What divides the columns of a CSV file; where several divide its first line as often, the first.
Spreadsheets of countries with decimal commas write semicolons."""

_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?")


def separator_of(header: str) -> str:
    """Return what divides the columns of the first line of a CSV file."""
    try:
        cells = {mark: len(next(csv.reader([header], delimiter=mark), [])) for mark in SEPARATORS}
    except csv.Error:
        return SEPARATORS[0]  # Whoever reads the file meets it, and tells the line.
    return max(SEPARATORS, key=lambda mark: cells[mark])


def with_point(cell: str) -> str:
    """Return a cell as it is, or a number in it that has a decimal comma with a point."""
    return cell.replace(",", ".") if _DECIMAL_COMMA.fullmatch(cell.strip()) else cell


_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}([.,])\d{3}")
_FRACTION = re.compile(r"[+-]?\d*([.,])\d+([eE][+-]?\d+)?")


def two_marks(numbered_rows: Iterable[tuple[int, Sequence[str]]]) -> tuple[int, str] | None:
    """Tell a number that another cell makes ambiguous: ``1.234`` beside ``12,5``.

    Spreadsheets divide thousands with the mark that is not their decimal one. Where no comma
    divides the columns and both marks stand in numbers, one before exactly three digits may be
    either, unless its column has fractions with this mark: ``0.503``, ``-2.5``.

    Args:
        numbered_rows: numbers of the lines, and the cells of each.

    Returns:
        The line of the first such number, and what is wrong with it; None if there is none.
    """
    marks: dict[str, tuple[int, str]] = {}  # the first number with each mark
    doubtful: dict[tuple[int, str], tuple[int, str]] = {}  # the first of each column and mark
    fractions: set[tuple[int, str]] = set()
    for line, row in numbered_rows:
        for place, cell in enumerate(map(str.strip, row)):
            if not (found := _FRACTION.fullmatch(cell)):
                continue
            marks.setdefault(found[1], (line, cell))
            if _THOUSANDS.fullmatch(cell):
                doubtful.setdefault((place, found[1]), (line, cell))
            else:
                fractions.add((place, found[1]))
    left = [(*found, key[1]) for key, found in doubtful.items() if key not in fractions]
    if len(marks) < 2 or not left:
        return None
    line, cell, mark = min(left)
    other_line, other = marks["," if mark == "." else "."]
    meanings = f"{cell!r} is {cell.replace(mark, '')} or {cell.replace(',', '.')}"
    return line, (
        f"{meanings}: line {other_line} has {other!r}; write all numbers with one mark, and "
        "thousands without any"
    )


def read_raw(path: Path) -> RawTable:
    """Read a file; ``.parquet`` and ``.pq`` are Parquet, anything else is CSV.

    Raises:
        InputError: it is no such file, has no rows, or a row has too few or too many cells.
        EnvironmentProblem: it cannot be read, or pyarrow is missing for Parquet.
    """
    return _read_parquet(path) if is_parquet(path) else _read_csv(path)


def write_raw(
    path: Path, texts: Sequence[str], columns: Mapping[str, np.ndarray], declared: Mapping[str, str]
) -> None:
    """Write architectures (n,) and columns of (n,) float64, NaN as missing, atomically."""
    if is_parquet(path):
        _write_parquet(path, texts, columns, declared)
        return
    buffer = io.StringIO()
    for key, value in declared.items():
        buffer.write(f"# {key}: {value}\n")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["arch", *columns])
    for text, *cells in zip(texts, *columns.values(), strict=True):
        writer.writerow([text, *("" if math.isnan(v) else repr(float(v)) for v in cells)])
    write_text_atomic(path, buffer.getvalue())


def is_parquet(path: Path) -> bool:
    """Whether the suffix says Parquet."""
    return path.suffix.lower() in (".parquet", ".pq")


MAX_BYTES = 2**30
"""Of a table file, and of what it holds unpacked."""
MAX_CELLS = 50_000_000
MAX_CELL = 100_000
"""Characters of one cell."""


def _read_csv(path: Path) -> RawTable:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path}: larger than {MAX_BYTES // 2**20} MiB; give a part of it")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise EnvironmentProblem(f"cannot read the table {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a UTF-8 text file ({error}); save it as UTF-8") from error
    declared = {}
    skipped = 0
    rest = io.StringIO(text, newline="")
    position = 0
    for line in rest:
        if not line.startswith("#") and line.strip():
            break
        key, colon, value = line.lstrip("#").partition(":")
        if colon:
            declared[key.strip()] = value.strip()
        skipped += 1
        position += len(line)
    first = text[position:].partition("\n")[0].rstrip("\r")
    separator = separator_of(first) if first else ","
    reader = csv.reader(io.StringIO(text[position:], newline=""), delimiter=separator)
    header = [name.strip() for name in next(_whole_rows(path, reader, skipped), [])]
    if not header:
        raise InputError(f"{path}: the table is empty")
    rows, numbers, problems = [], [], []
    for row in _whole_rows(path, reader, skipped):
        if not row:
            continue
        number = skipped + reader.line_num
        if len(row) != len(header):
            problems.append(
                f"{path}: line {number}: {len(row)} cells where the header has {len(header)}"
            )
        rows.append(row)
        numbers.append(number)
    if separator != "," and (doubt := two_marks(zip(numbers, rows, strict=True))):
        problems.append(f"{path}: line {doubt[0]}: {doubt[1]}")
    raise_problems(problems)
    if not rows:
        raise InputError(f"{path}: the table has a header and no rows")
    return RawTable(header, rows, numbers, declared, "line", separator != ",")


def _whole_rows(path: Path, reader: Any, skipped: int) -> Iterator[list[str]]:
    """Yield the rows of a CSV reader; what it cannot read is named with its line."""
    try:
        yield from reader
    except csv.Error as error:
        raise InputError(
            f"{path}: line {skipped + reader.line_num}: {error} (is a quote left open?)"
        ) from error


def _read_parquet(path: Path) -> RawTable:
    pyarrow, parquet = _pyarrow()
    try:
        with parquet.ParquetFile(path) as file:
            _refuse_inflated(path, file)
            texts = [field.name for field in file.schema_arrow if _is_text(pyarrow, field.type)]
        # As dictionaries: a text that a small file repeats a million times is held once.
        table = parquet.read_table(path, read_dictionary=texts)
        _refuse_long_texts(path, table)
    except OSError as error:
        raise EnvironmentProblem(f"cannot read the table {path}: {error}") from error
    except pyarrow.ArrowInvalid as error:
        raise InputError(f"{path}: not a Parquet file ({error})") from error
    columns = [column.to_pylist() for column in table.columns]
    rows = [[_cell(v) for v in row] for row in zip(*columns, strict=True)]
    if not rows:
        raise InputError(f"{path}: the table has no rows")
    metadata = table.schema.metadata or {}
    foreign = (b"ARROW", b"pandas")
    declared = {k.decode(): v.decode() for k, v in metadata.items() if not k.startswith(foreign)}
    numbers = list(range(1, len(rows) + 1))
    return RawTable(list(table.column_names), rows, numbers, declared, "row")


def _is_text(pyarrow: Any, kind: Any) -> bool:
    types = pyarrow.types
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind))


def _refuse_inflated(path: Path, file: Any) -> None:
    """Refuse a Parquet file that unpacks to more than a table may be, before it is unpacked."""
    meta = file.metadata
    unpacked = sum(meta.row_group(i).total_byte_size for i in range(meta.num_row_groups))
    cells = meta.num_rows * meta.num_columns
    if unpacked > MAX_BYTES or cells > MAX_CELLS:
        raise InputError(
            f"{path}: {meta.num_rows} rows of {meta.num_columns} columns, {unpacked / 2**20:.0f} "
            f"MiB unpacked, are more than a table may have ({MAX_CELLS} cells, "
            f"{MAX_BYTES // 2**20} MiB)"
        )


def _refuse_long_texts(path: Path, table: Any) -> None:
    """Refuse columns whose texts are, written out, longer than a table may be."""
    import pyarrow.compute as compute

    total = 0
    for name, column in zip(table.column_names, table.columns, strict=True):
        for chunk in column.chunks:
            if not hasattr(chunk, "dictionary"):
                continue
            lengths = compute.fill_null(compute.binary_length(chunk.dictionary), 0)
            longest = compute.max(lengths).as_py() or 0
            if longest > MAX_CELL:
                raise InputError(
                    f"{path}: column {name!r} has a cell of {longest} characters; at most "
                    f"{MAX_CELL} are read"
                )
            total += compute.sum(lengths.take(compute.drop_null(chunk.indices))).as_py() or 0
    if total > MAX_BYTES:
        raise InputError(f"{path}: texts of {total / 2**20:.0f} MiB are more than a table may have")


def _cell(value: object) -> str:
    if isinstance(value, list):  # an architecture as a list of tokens
        return " ".join(map(str, value))
    return "" if value is None else str(value)


def _write_parquet(
    path: Path, texts: Sequence[str], columns: Mapping[str, np.ndarray], declared: Mapping[str, str]
) -> None:
    pyarrow, parquet = _pyarrow()
    arrays = {"arch": pyarrow.array(texts)}
    for name, values in columns.items():
        arrays[name] = pyarrow.array(values, from_pandas=True)
    out = pyarrow.table(arrays).replace_schema_metadata(dict(declared))
    write_atomic(path, lambda temporary: parquet.write_table(out, temporary))


def _pyarrow():
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow", "search") from error
    return pyarrow, pyarrow.parquet


_SHOWN_PROBLEMS = 20


def raise_problems(problems: list[str]) -> None:
    """Raise InputError with the first problems, one a line, if there are any."""
    if problems:
        shown = problems[:_SHOWN_PROBLEMS]
        if len(problems) > len(shown):
            shown.append(f"... and {len(problems) - len(shown)} more")
        raise InputError("\n".join(shown))
