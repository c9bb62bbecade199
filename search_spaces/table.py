"""Latency tables: one row an architecture, one column a device.

A table is a CSV or Parquet file. One column holds the architecture as its space writes
it; every other column is a device (or another cost), in the unit the file declares.
Empty cells are missing measurements. In a CSV, lines of the form ``# key: value`` before
the header declare what the numbers are; Parquet files carry the same keys as metadata::

    # space: tokens
    # metric: latency_ms
    # metric of board_energy: energy_mj
    arch,raspi4,pixel3,board_energy
    k3e6 k5e3 skip,25.1,9.7,13.2

Without a declaration a column is ``latency_ms``.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from search_spaces.atomic import write_atomic, write_text_atomic
from search_spaces.errors import EnvironmentProblem, InputError, MissingExtraError
from search_spaces.space import Arch, SearchSpace

METRICS = {
    "latency_ms": "latency in milliseconds",
    "energy_mj": "energy in millijoules",
    "luts": "look-up tables of an FPGA",
    "dsps": "DSP slices of an FPGA",
    "bytes": "bytes of memory or storage",
}
"""Costs a column may hold, with their units."""

ARCH_COLUMNS = ("arch", "arch_str", "architecture")
"""Header names taken for the architecture when none is given."""

INDEX_COLUMNS = ("", "index", "id")
"""Header names of row numbers, which are no device."""

_MISSING = {"", "na", "nan", "null", "none"}
_SHOWN_PROBLEMS = 20


@dataclass(frozen=True)
class LatencyTable:
    """Costs of architectures on devices.

    Attributes:
        space: the space the architectures belong to.
        genes: (n, choices) int, one canonical gene row an architecture.
        devices: column names.
        values: (n, devices) float64; NaN where nothing was measured.
        metrics: column name -> key of :data:`METRICS`; columns not named are ``latency_ms``.
    """

    space: SearchSpace
    genes: np.ndarray
    devices: tuple[str, ...]
    values: np.ndarray
    metrics: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.values.shape != (len(self.genes), len(self.devices)):
            raise InputError(
                f"values have shape {self.values.shape}; {len(self.genes)} architectures and "
                f"{len(self.devices)} devices need {(len(self.genes), len(self.devices))}"
            )
        if len(set(self.devices)) != len(self.devices):
            twice = sorted({d for d in self.devices if self.devices.count(d) > 1})
            raise InputError(f"device {twice[0]!r} occurs more than once")
        unknown = set(self.metrics.values()) - set(METRICS)
        if unknown:
            raise InputError(f"metric {min(unknown)!r} is not one of {', '.join(METRICS)}")

    def __len__(self) -> int:
        return len(self.genes)

    @classmethod
    def from_archs(
        cls,
        space: SearchSpace,
        archs: Sequence[Arch],
        columns: Mapping[str, Sequence[float]],
        *,
        metrics: Mapping[str, str] | None = None,
    ) -> LatencyTable:
        """Build a table from architectures and one sequence of costs a device."""
        values = np.array([np.asarray(c, dtype=np.float64) for c in columns.values()])
        values = values.reshape(len(columns), len(archs)).T
        return cls(space, space.genes(archs), tuple(columns), values, dict(metrics or {}))

    @cached_property
    def archs(self) -> list[Arch]:
        """The architectures, in row order."""
        return self.space.decode(self.genes)

    def metric(self, device: str) -> str:
        """What the column ``device`` holds: a key of :data:`METRICS`."""
        self.column_index(device)
        return self.metrics.get(device, "latency_ms")

    def column_index(self, device: str) -> int:
        """Return the position of a column.

        Raises:
            InputError: there is none of that name.
        """
        if device not in self.devices:
            raise InputError(
                f"the table has no device {device!r} (it has {', '.join(self.devices)})"
            )
        return self.devices.index(device)

    def column(self, device: str) -> np.ndarray:
        """Return the costs on one device: (n,) float64, NaN where missing."""
        return self.values[:, self.column_index(device)]

    def select(self, devices: Sequence[str]) -> LatencyTable:
        """Return the table with these columns, in this order."""
        at = [self.column_index(device) for device in devices]
        metrics = {d: m for d, m in self.metrics.items() if d in devices}
        values = self.values[:, at].reshape(len(self), len(at))
        return LatencyTable(self.space, self.genes, tuple(devices), values, metrics)

    def rows(self, index: Sequence[int] | np.ndarray) -> LatencyTable:
        """Return the table with these rows, in this order."""
        at = np.asarray(index, dtype=np.int64)
        return LatencyTable(self.space, self.genes[at], self.devices, self.values[at], self.metrics)


def read_table(
    path: Path | str,
    space: SearchSpace | Callable[[Sequence[str]], SearchSpace],
    *,
    arch_column: str | None = None,
) -> LatencyTable:
    """Read and validate a CSV or Parquet table.

    Args:
        path: ``.parquet`` or ``.pq`` is Parquet, anything else CSV.
        space: the space of the architectures, or a function that makes one from the
            texts of the architecture column (``TokensSpace.infer``).
        arch_column: its header; default: the one of :data:`ARCH_COLUMNS` that is there.

    Raises:
        InputError: the table is malformed; the message lists each bad cell with its row.
        EnvironmentProblem: the file cannot be read, or pyarrow is missing for Parquet.
    """
    path = Path(path)
    if path.suffix.lower() in (".parquet", ".pq"):
        header, lines, numbers, declared = _read_parquet(path)
        label = "row"
    else:
        header, lines, numbers, declared = _read_csv(path)
        label = "line"
    arch_at = _find_arch_column(path, header, arch_column)
    texts = [row[arch_at] for row in lines]
    if callable(space):
        blank = [numbers[i] for i, text in enumerate(texts) if not text.strip()]
        if blank:
            raise InputError(f"{path}: {label} {blank[0]}: the architecture is empty")
        space = space(texts)
    archs, problems = _parse_all(path, space, texts, numbers, label)
    at = [j for j, name in enumerate(header) if j != arch_at and name.lower() not in INDEX_COLUMNS]
    devices = tuple(header[j] for j in at)
    if not devices:
        raise InputError(f"{path}: no device column beside {header[arch_at]!r}")
    values = np.full((len(lines), len(at)), np.nan)
    for i, row in enumerate(lines):
        for k, j in enumerate(at):
            value, problem = _number(row[j])
            if problem:
                problems.append(f"{path}: {label} {numbers[i]}: column {header[j]!r}: {problem}")
            else:
                values[i, k] = value
    _raise_problems(problems)
    metrics = _metrics(path, devices, declared)
    return LatencyTable(space, space.genes(archs), devices, values, metrics)


def read_architectures(
    path: Path | str, space: SearchSpace, *, arch_column: str | None = None
) -> np.ndarray:
    """Read the architecture column alone; other columns are ignored.

    Returns:
        gene rows (n, choices) int64.

    Raises:
        InputError, EnvironmentProblem: as :func:`read_table`.
    """
    path = Path(path)
    parquet = path.suffix.lower() in (".parquet", ".pq")
    header, lines, numbers, _ = (_read_parquet if parquet else _read_csv)(path)
    arch_at = _find_arch_column(path, header, arch_column)
    label = "row" if parquet else "line"
    archs, problems = _parse_all(path, space, [row[arch_at] for row in lines], numbers, label)
    _raise_problems(problems)
    return space.genes(archs)


def write_table(table: LatencyTable, path: Path | str) -> None:
    """Write a table as :func:`read_table` reads it; the suffix picks CSV or Parquet.

    Architectures are written as the space's own ``text`` where it has one.
    """
    path = Path(path)
    text = getattr(table.space, "text", str)
    texts = [text(arch) for arch in table.archs]
    declared = {"space": table.space.name, "metric": "latency_ms"}
    for device in table.devices:
        if table.metric(device) != "latency_ms":
            declared[f"metric of {device}"] = table.metric(device)
    if path.suffix.lower() in (".parquet", ".pq"):
        _write_parquet(table, texts, declared, path)
        return
    buffer = io.StringIO()
    for key, value in declared.items():
        buffer.write(f"# {key}: {value}\n")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["arch", *table.devices])
    for line, row in zip(texts, table.values, strict=True):
        writer.writerow([line, *("" if math.isnan(v) else repr(float(v)) for v in row)])
    write_text_atomic(path, buffer.getvalue())


def declared_space(path: Path | str) -> str | None:
    """Return the name of the space a table declares, or None."""
    path = Path(path)
    read = _read_parquet if path.suffix.lower() in (".parquet", ".pq") else _read_csv
    return read(path)[3].get("space")


def duplicate_rows(table: LatencyTable) -> list[tuple[int, int]]:
    """Return (first row, repeated row) of architectures that occur again, counted from 0."""
    first: dict[bytes, int] = {}
    out = []
    for i, row in enumerate(np.ascontiguousarray(table.genes)):
        j = first.setdefault(row.tobytes(), i)
        if j != i:
            out.append((j, i))
    return out


def _read_csv(path: Path) -> tuple[list[str], list[list[str]], list[int], dict[str, str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise EnvironmentProblem(f"cannot read the table {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a UTF-8 text file ({error})") from error
    declared = {}
    skipped = 0
    rest = io.StringIO(text, newline="")
    position = 0
    for line in rest:
        if not line.startswith("#") and line.strip():
            break
        key, separator, value = line.lstrip("#").partition(":")
        if separator:
            declared[key.strip()] = value.strip()
        skipped += 1
        position += len(line)
    reader = csv.reader(io.StringIO(text[position:], newline=""))
    header = [name.strip() for name in next(reader, [])]
    if not header:
        raise InputError(f"{path}: the table is empty")
    lines, numbers = [], []
    for row in reader:
        if not row:
            continue
        number = skipped + reader.line_num
        if len(row) != len(header):
            raise InputError(
                f"{path}: line {number}: {len(row)} cells where the header has {len(header)}"
            )
        lines.append(row)
        numbers.append(number)
    if not lines:
        raise InputError(f"{path}: the table has a header and no rows")
    return header, lines, numbers, declared


def _read_parquet(path: Path) -> tuple[list[str], list[list[str]], list[int], dict[str, str]]:
    pyarrow, parquet = _pyarrow()
    try:
        table = parquet.read_table(path)
    except OSError as error:
        raise EnvironmentProblem(f"cannot read the table {path}: {error}") from error
    except pyarrow.ArrowInvalid as error:
        raise InputError(f"{path}: not a Parquet file ({error})") from error
    columns = [column.to_pylist() for column in table.columns]
    lines = [["" if v is None else str(v) for v in row] for row in zip(*columns, strict=True)]
    if not lines:
        raise InputError(f"{path}: the table has no rows")
    metadata = table.schema.metadata or {}
    declared = {k.decode(): v.decode() for k, v in metadata.items() if not k.startswith(b"ARROW")}
    return list(table.column_names), lines, list(range(1, len(lines) + 1)), declared


def _write_parquet(
    table: LatencyTable, texts: list[str], declared: dict[str, str], path: Path
) -> None:
    pyarrow, parquet = _pyarrow()
    arrays = {"arch": pyarrow.array(texts)}
    for device in table.devices:
        arrays[device] = pyarrow.array(table.column(device), from_pandas=True)
    out = pyarrow.table(arrays).replace_schema_metadata(declared)
    write_atomic(path, lambda temporary: parquet.write_table(out, temporary))


def _pyarrow():
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow", "search") from error
    return pyarrow, pyarrow.parquet


def _find_arch_column(path: Path, header: list[str], wanted: str | None) -> int:
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise InputError(f"{path}: column {twice[0]!r} occurs more than once")
    if wanted is not None:
        if wanted not in header:
            raise InputError(f"{path}: no column {wanted!r} (it has {', '.join(header)})")
        return header.index(wanted)
    for name in ARCH_COLUMNS:
        if name in header:
            return header.index(name)
    raise InputError(
        f"{path}: no architecture column ({', '.join(ARCH_COLUMNS)}); name it, for instance "
        f"with --arch-column {header[0]}"
    )


def _parse_all(
    path: Path, space: SearchSpace, texts: Sequence[str], numbers: Sequence[int], label: str
) -> tuple[list[Arch], list[str]]:
    archs, problems = [], []
    for number, text in zip(numbers, texts, strict=True):
        try:
            archs.append(space.parse(text))
        except InputError as error:
            problems.append(f"{path}: {label} {number}: {error}")
    return archs, problems


def _raise_problems(problems: list[str]) -> None:
    if problems:
        shown = problems[:_SHOWN_PROBLEMS]
        if len(problems) > len(shown):
            shown.append(f"... and {len(problems) - len(shown)} more")
        raise InputError("\n".join(shown))


def _number(cell: str) -> tuple[float, str | None]:
    text = cell.strip()
    if text.lower() in _MISSING:
        return math.nan, None
    try:
        value = float(text)
    except ValueError:
        return math.nan, f"{cell!r} is not a number"
    if not math.isfinite(value):
        return math.nan, f"{cell!r} is not finite (leave the cell empty if it is missing)"
    if value < 0:
        return math.nan, f"{cell!r} is negative"
    return value, None


def _metrics(path: Path, devices: Sequence[str], declared: Mapping[str, str]) -> dict[str, str]:
    default = declared.get("metric", "latency_ms")
    metrics = {device: default for device in devices} if default != "latency_ms" else {}
    for key, value in declared.items():
        if key.startswith("metric of "):
            device = key[len("metric of ") :]
            if device not in devices:
                raise InputError(f"{path}: a metric is declared for {device!r}, which is no column")
            metrics[device] = value
    for device, metric in metrics.items():
        if metric not in METRICS:
            raise InputError(
                f"{path}: metric {metric!r} of {device!r} is not one of {', '.join(METRICS)}"
            )
    return metrics
