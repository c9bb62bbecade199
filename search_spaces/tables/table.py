"""Latency tables: one row an architecture, one column a device.

A table is a CSV or Parquet file. One column holds the architecture as its space writes
it; every other column is a device (or another cost), in the unit the file declares.
Empty cells are missing measurements. In a CSV, lines of the form ``# key: value`` before
the header declare what the numbers are; Parquet files carry the same keys as metadata::

    # space: tokens
    # metric: latency_ms
    # metric of board_energy: energy_mj
    # metric of macs: macs
    arch,raspi4,pixel3,board_energy,macs
    k3e6 k5e3 skip,25.1,9.7,13.2,310e6

Without a declaration a column is ``latency_ms``, unless its name is a metric's own.
Columns of ``macs`` and ``parameters`` are no devices: they are known before anything is
measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from search_spaces.errors import InputError
from search_spaces.space import Arch, SearchSpace
from search_spaces.tables.files import RawTable, raise_problems, read_raw, with_point, write_raw

METRICS = {
    "latency_ms": "latency in milliseconds",
    "energy_mj": "energy in millijoules",
    "luts": "look-up tables of an FPGA",
    "dsps": "DSP slices of an FPGA",
    "bytes": "bytes of memory or storage",
}
"""Costs a column of a device may hold, with their units."""

KNOWN_COSTS = {
    "macs": "multiply-accumulates of the architecture",
    "parameters": "weights of the architecture",
}
"""Costs of the architecture itself, on any device."""

ARCH_COLUMNS = ("arch", "arch_str", "architecture")
"""Header names taken for the architecture when none is given."""

INDEX_COLUMNS = ("", "index", "id", "unnamed: 0", "__index_level_0__")
"""Header names of row numbers, which are no device."""

LARGEST = 1e30
"""Larger numbers are no cost of anything, and their squares leave what a number can hold."""

_MISSING = {"", "na", "nan", "null", "none"}


@dataclass(frozen=True)
class LatencyTable:
    """Costs of architectures on devices.

    Attributes:
        space: the space the architectures belong to.
        genes: (n, choices) int, one canonical gene row an architecture.
        devices: column names.
        values: (n, devices) float64; NaN where nothing was measured.
        metrics: column name -> key of :data:`METRICS`; columns not named are ``latency_ms``.
        costs: key of :data:`KNOWN_COSTS` -> (n,) float64, NaN where unknown.
    """

    space: SearchSpace
    genes: np.ndarray
    devices: tuple[str, ...]
    values: np.ndarray
    metrics: Mapping[str, str] = field(default_factory=dict)
    costs: Mapping[str, np.ndarray] = field(default_factory=dict)

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
        for name, values in self.costs.items():
            if name not in KNOWN_COSTS:
                raise InputError(f"cost {name!r} is not one of {', '.join(KNOWN_COSTS)}")
            if np.shape(values) != (len(self.genes),):
                raise InputError(
                    f"cost {name!r} has shape {np.shape(values)}, not ({len(self.genes)},)"
                )

    def __len__(self) -> int:
        return len(self.genes)

    @classmethod
    def from_archs(
        cls,
        space: SearchSpace,
        archs: Sequence[Arch],
        columns: Mapping[str, Sequence[float] | np.ndarray],
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
        return LatencyTable(self.space, self.genes, tuple(devices), values, metrics, self.costs)

    def rows(self, index: Sequence[int] | np.ndarray) -> LatencyTable:
        """Return the table with these rows, in this order."""
        at = np.asarray(index, dtype=np.int64)
        costs = {name: np.asarray(v)[at] for name, v in self.costs.items()}
        return LatencyTable(
            self.space, self.genes[at], self.devices, self.values[at], self.metrics, costs
        )


def read_table(
    path: Path | str,
    space: SearchSpace | Callable[[Sequence[str]], SearchSpace],
    *,
    arch_column: str | None = None,
    need_devices: bool = True,
    missing: Sequence[str] = (),
    only: Callable[[Sequence[str]], Sequence[str]] | None = None,
) -> LatencyTable:
    """Read and validate a CSV or Parquet table.

    Args:
        path: ``.parquet`` or ``.pq`` is Parquet, anything else CSV.
        space: the space of the architectures, or a function that makes one from the
            texts of the architecture column (``TokensSpace.infer``).
        arch_column: its header; default: the one of :data:`ARCH_COLUMNS` that is there. Several,
            with commas between them, are read as one architecture, a token each.
        need_devices: whether a table of architectures alone is an error.
        missing: further cells that stand for no measurement, such as ``-1``; numbers are
            compared as numbers.
        only: headers of all columns -> those of devices to read, whatever others hold; known costs
            are read anyway. All are by default.

    Raises:
        InputError: the table is malformed; the message lists each bad cell with its row.
        EnvironmentProblem: the file cannot be read, or pyarrow is missing for Parquet.
    """
    path = Path(path)
    raw = read_raw(path)
    arch_at = _find_arch_columns(path, raw.header, arch_column)
    texts = _texts(raw, arch_at)
    if callable(space):
        blank = [n for n, text in zip(raw.numbers, texts, strict=True) if not text.strip()]
        if blank:
            raise InputError(f"{path}: {raw.label} {blank[0]}: the architecture is empty")
        space = space(texts)
    archs, problems = _parse_all(path, space, texts, raw)
    at = [
        j
        for j, name in enumerate(raw.header)
        if j not in arch_at and name.lower() not in INDEX_COLUMNS
    ]
    if only is not None:
        at = _asked(path, raw, at, only(raw.header))
    absent = _Absent.of(missing)
    values = np.full((len(raw.rows), len(at)), np.nan)
    bad: list[list[str]] = [[] for _ in at]
    for i, row in enumerate(raw.rows):
        for k, j in enumerate(at):
            value, problem = _number(row[j], absent, raw.decimal_commas)
            if problem:
                place = f"{path}: {raw.label} {raw.numbers[i]}"
                bad[k].append(f"{place}: column {raw.header[j]!r}: {problem}")
            else:
                values[i, k] = value
    for k, j in enumerate(at):
        words = all(one.endswith("is not a number") for one in bad[k])
        if len(bad[k]) > 1 and words and np.isnan(values[:, k]).all():
            bad[k] = [
                f"{path}: column {raw.header[j]!r} holds no numbers, in {len(bad[k])} rows (such "
                f"as {raw.rows[0][j]!r}); take it out, or name the columns to read (--devices)"
            ]
        problems += bad[k]
    raise_problems(problems)
    columns = [raw.header[j] for j in at]
    metrics = _metrics(path, columns, raw.declared, () if only is None else raw.header)
    costs = {metrics[name]: values[:, k] for k, name in enumerate(columns) if _known(metrics, name)}
    kept = [k for k, name in enumerate(columns) if not _known(metrics, name)]
    devices = tuple(columns[k] for k in kept)
    if not devices and need_devices:
        raise InputError(f"{path}: no device column beside {raw.header[arch_at[0]]!r}")
    measured = {d: metrics[d] for d in devices if metrics[d] != "latency_ms"}
    return LatencyTable(space, space.genes(archs), devices, values[:, kept], measured, costs)


def _asked(path: Path, raw: RawTable, at: Sequence[int], names: Sequence[str]) -> list[int]:
    """Return the places of the columns to read: those asked for, and known costs."""
    for name in names:
        if name not in raw.header:
            raise InputError(f"{path}: no column {name!r} (it has {', '.join(raw.header)})")
    costs = {
        name for name in raw.header if raw.declared.get(f"metric of {name}", name) in KNOWN_COSTS
    }
    return [j for j in at if raw.header[j] in costs | set(names)]


def read_declarations(
    path: Path | str, space: SearchSpace, *, arch_column: str | None = None
) -> LatencyTable:
    """Read the architectures and the costs declared for them; other columns are ignored.

    Returns:
        a table without devices.

    Raises:
        InputError, EnvironmentProblem: as :func:`read_table`.
    """
    path = Path(path)
    raw = read_raw(path)
    arch_at = _find_arch_columns(path, raw.header, arch_column)
    archs, problems = _parse_all(path, space, _texts(raw, arch_at), raw)
    named = {
        key[len("metric of ") :]: value
        for key, value in raw.declared.items()
        if key.startswith("metric of ") and value in KNOWN_COSTS
    }
    costs: dict[str, np.ndarray] = {}
    for j, column in enumerate(raw.header):
        cost = named.get(column, column)
        if j in arch_at or cost not in KNOWN_COSTS:
            continue
        if cost in costs:
            raise InputError(f"{path}: two columns hold {cost}")
        costs[cost] = np.full(len(raw.rows), np.nan)
        for i, row in enumerate(raw.rows):
            costs[cost][i], problem = _number(row[j], _Absent.of(()), raw.decimal_commas)
            if problem:
                place = f"{path}: {raw.label} {raw.numbers[i]}"
                problems.append(f"{place}: column {column!r}: {problem}")
    raise_problems(problems)
    genes = space.genes(archs)
    return LatencyTable(space, genes, (), np.zeros((len(genes), 0)), {}, costs)


def write_table(table: LatencyTable, path: Path | str) -> None:
    """Write a table as :func:`read_table` reads it; the suffix picks CSV or Parquet.

    Architectures are written as the space's own ``text`` where it has one.
    """
    text = getattr(table.space, "text", str)
    columns = {device: table.column(device) for device in table.devices}
    declared = {"space": table.space.name, "metric": "latency_ms"}
    for device in table.devices:
        if table.metric(device) != "latency_ms":
            declared[f"metric of {device}"] = table.metric(device)
    for name, values in table.costs.items():
        if name in columns:
            raise InputError(f"the table has a device and a cost that are both called {name!r}")
        columns[name] = values
        declared[f"metric of {name}"] = name
    write_raw(Path(path), [text(arch) for arch in table.archs], columns, declared)


def declared_space(path: Path | str) -> str | None:
    """Return the name of the space a table declares, or None."""
    return read_raw(Path(path)).declared.get("space")


def duplicate_rows(table: LatencyTable) -> list[tuple[int, int]]:
    """Return (first row, repeated row) of architectures that occur again, counted from 0."""
    first: dict[bytes, int] = {}
    out = []
    for i, row in enumerate(np.ascontiguousarray(table.genes)):
        j = first.setdefault(row.tobytes(), i)
        if j != i:
            out.append((j, i))
    return out


def _find_arch_columns(path: Path, header: list[str], wanted: str | None) -> list[int]:
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise InputError(f"{path}: column {twice[0]!r} occurs more than once")
    if wanted is not None:
        several = [wanted] if wanted in header else [part.strip() for part in wanted.split(",")]
        for name in several:
            if name not in header:
                raise InputError(f"{path}: no column {name!r} (it has {', '.join(header)})")
        return [header.index(name) for name in dict.fromkeys(several)]
    for name in ARCH_COLUMNS:
        if name in header:
            return [header.index(name)]
    raise InputError(
        f"{path}: no architecture column ({', '.join(ARCH_COLUMNS)}); name it, for instance "
        f"with --arch-column {header[0]}, or all columns that describe an architecture with commas "
        f"between them (it has {', '.join(header[:20])})"
    )


def _texts(raw: RawTable, arch_at: Sequence[int]) -> list[str]:
    """Return the architecture of each row; of several columns, a token each."""
    if len(arch_at) == 1:
        return [row[arch_at[0]] for row in raw.rows]
    return [" ".join("_".join(row[j].split()) or "none" for j in arch_at) for row in raw.rows]


def _parse_all(
    path: Path, space: SearchSpace, texts: Sequence[str], raw: RawTable
) -> tuple[list[Arch], list[str]]:
    archs, problems = [], []
    for number, text in zip(raw.numbers, texts, strict=True):
        try:
            archs.append(space.parse(text))
        except InputError as error:
            problems.append(f"{path}: {raw.label} {number}: {error}")
    return archs, problems


@dataclass(frozen=True)
class _Absent:
    """Cells that stand for no measurement: words, in lower case, and numbers."""

    words: frozenset[str]
    numbers: frozenset[float]

    @classmethod
    def of(cls, missing: Sequence[str]) -> _Absent:
        """Return the cells that ``missing`` names, beside those that always stand for nothing."""
        numbers = set()
        for text in missing:
            try:
                numbers.add(float(text))
            except ValueError:
                continue  # a word
        words = {text.strip().lower() for text in missing} | _MISSING
        return cls(frozenset(words), frozenset(numbers))


def _number(cell: str, absent: _Absent, commas: bool) -> tuple[float, str | None]:
    text = cell.strip()
    if text.lower() in absent.words:
        return math.nan, None
    try:
        value = float(with_point(text) if commas else text)
    except ValueError:
        return math.nan, f"{cell!r} is not a number"
    if value in absent.numbers:
        return math.nan, None
    if not math.isfinite(value):
        return math.nan, f"{cell!r} is not finite (leave the cell empty if it is missing)"
    if value < 0:
        return math.nan, (
            f"{cell!r} is negative (leave the cell empty if it is missing, or say --missing={text})"
        )
    if value > LARGEST:
        return math.nan, f"{cell!r} is larger than any cost ({LARGEST:g})"
    return value, None


def _metrics(
    path: Path, columns: Sequence[str], declared: Mapping[str, str], header: Sequence[str]
) -> dict[str, str]:
    """What each column holds: a key of METRICS or KNOWN_COSTS."""
    known = {**METRICS, **KNOWN_COSTS}
    default = declared.get("metric")
    metrics = {c: default or (c if c in known else "latency_ms") for c in columns}
    for key, value in declared.items():
        if key.startswith("metric of "):
            column = key[len("metric of ") :]
            if column not in columns and column in header:
                continue  # not read
            if column not in columns:
                raise InputError(f"{path}: a metric is declared for {column!r}, which is no column")
            metrics[column] = value
    for column, metric in metrics.items():
        if metric not in known:
            raise InputError(
                f"{path}: metric {metric!r} of {column!r} is not one of {', '.join(known)}"
            )
    costs = [metric for metric in metrics.values() if metric in KNOWN_COSTS]
    for cost in costs:
        if costs.count(cost) > 1:
            raise InputError(f"{path}: two columns hold {cost}")
    return metrics


def _known(metrics: Mapping[str, str], column: str) -> bool:
    return metrics[column] in KNOWN_COSTS
