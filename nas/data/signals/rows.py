"""The source ``signal_csv``: signals, or recordings to be cut into windows, from CSV files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.data.csv_table import TARGETS, Table, read_table, target_columns
from nas.data.folders import folder_of
from nas.data.problems import Problems, class_targets, classes_of, whole_option
from nas.data.signals.source import NEEDED, PARTS, as_rows, raw_signals
from nas.data.sources import DATA_SOURCES, ImageArrays, RawData
from nas.data.targets import (
    OF_EXAMPLES,
    expect_kind,
    kind_of_columns,
    number_or_nan,
    refuse_measured,
)
from search_spaces.errors import EnvironmentProblem, InputError

if TYPE_CHECKING:
    from nas.job.sections.data import DataConfig

_FIX = (
    "Fill what is missing; columns that are no values are left out by data.options.leave_out: "
    "[NAME, ...]."
)

Cut = tuple[list[np.ndarray], list[Any], list[str]]
"""Signals (channels, length), their targets, and what each is of."""


@DATA_SOURCES.register("signal_csv")
def signal_csv(
    config: DataConfig,
    *,
    targets: Sequence[str] | None = None,
    leave_out: Sequence[str] | None = None,
    channels: int = 1,
    group: str | None = None,
    window: int | None = None,
    hop: int | None = None,
    encoding: str = "utf-8",
    kind: str | None = None,
    open_classes: bool = False,
) -> RawData:
    """Return signals from ``train.csv`` and, where they are, ``validation.csv`` and ``test.csv``.

    Where there is neither ``train.csv`` nor a folder ``train``, all CSV files of the folder are the
    training set, of which validation and test are shares. In folders of files without a column
    of targets, such as ``train/walk/1.csv`` or ``walk/1.csv``, the name of a file's folder is its
    class, called ``label``.

    Without ``window`` a row is a signal: target columns by name, all others its values in order
    (channel after channel). With it a file is a recording whose rows are moments and whose other
    columns are channels; it is cut into windows, and ``train``, ``validation`` and ``test`` may be
    folders of recordings. The windows of one recording are never divided among the sets.

    Columns are divided by commas, semicolons or tabs; with the latter two ``1,5`` is a number, too.
    Row numbers in a first column without a name are left out.

    Args:
        config: ``path`` is the folder of the files.
        targets: names of the target columns; by default ``label``, ``class`` or ``target``.
        leave_out: columns that are neither targets nor values, such as the time. By default none,
            and a column that only counts the rows or tells the time is an error; an empty list
            keeps such columns as values.
        channels: of a signal, where a row is one.
        group: a column whose values must not be divided among the sets, such as a patient.
        window: rows of a window. Its class is the most frequent one, its values their mean, a
            label is there where it is in half of the rows.
        hop: rows from one window to the next; by default half a window.
        encoding: of the files.
        kind: ``classes``, ``labels`` or ``values``; by default the task's, or told by the targets.
        open_classes: whether validation and test may have classes that training has not, as
            anomalies; said by the task.

    Raises:
        InputError: mistakes in the files, each at its line; targets that are not of the kind.
        EnvironmentProblem: the folder or ``train.csv`` is not there.
    """
    for name, value in (("window", window), ("hop", hop), ("channels", channels)):
        if value is not None:
            whole_option(name, value, least=1)
    root = folder_of(config, NEEDED)
    problems = Problems(root)
    tables = {part: _tables(root, part, encoding, targets, problems) for part in PARTS}
    if not tables["train"]:
        raise EnvironmentProblem(
            f"data.path: {root} holds no train.csv, no folder train and no other CSV files"
        )
    first = tables["train"][0]
    named = target_columns(first, targets)
    kind = expect_kind("signal_csv", kind or _kind(tables["train"], named), OF_EXAMPLES)
    if kind == "classes" and len(named) > 1:
        raise InputError(
            f"data.options.targets: {', '.join(named)} are several, and a class is one column"
        )
    skip = [*named, *([group] if group else []), *(leave_out or [])]
    for name in skip:
        first.column(name)
    values = [name for name in first.columns if name not in skip]
    if leave_out is None:
        _refuse_counters(tables["train"], values, recordings=window is not None)
    rows: dict[str, Cut] = {}
    for part, each in tables.items():
        found: Cut = ([], [], [])
        for table in each:
            lacking = [name for name in first.columns if name not in table.columns]
            if lacking:
                problems.add(
                    table.path, f"lacks columns of {first.path.name}: {', '.join(lacking)}", line=1
                )
                continue
            signals = table.numbers(values, problems)
            told = [table.column(name) for name in named]
            own = table.column(group) if group else [str(table.path)] * len(signals)
            cut = (
                _whole_rows(signals, told, own, channels, table, problems)
                if window is None
                else _windows(signals, told, own, window, hop or max(1, window // 2), kind)
            )
            found[0].extend(cut[0])
            found[1].extend(cut[1])
            found[2].extend(cut[2])
        if each:
            rows[part] = found
    problems.raise_any(_FIX)
    if not rows["train"][0]:
        raise InputError(f"{root}: no recording is as long as a window of {window} rows")
    classes, numbers = _text_targets(
        {part: found[1] for part, found in rows.items()}, kind, named, root, open_classes
    )
    groups = None
    if group or window is not None:
        groups = np.unique(rows["train"][2], return_inverse=True)[1]
        groups = groups if len(np.unique(groups)) > 1 else None
    arrays = {
        part: ImageArrays(as_rows(np.stack(found[0]).astype(np.float32)), numbers[part])
        for part, found in rows.items()
        if found[0]
    }
    return raw_signals(arrays, classes, kind, origin=str(root), groups=groups)


def _tables(
    root: Path,
    part: str,
    encoding: str,
    targets: Sequence[str] | None = None,
    problems: Problems | None = None,
) -> list[Table]:
    """Return the files of a set.

    Args:
        root: folder of the data.
        part: the set.
        encoding: of the files.
        targets: columns of targets where they are named.
        problems: where rows of another length are noted; by default they are raised.

    Raises:
        InputError: mistakes in the files; a folder without a training set whose files seem to be
            divided already.
    """
    own = root / f"{part}.csv"
    if own.is_file():
        return [read_table(own, encoding=encoding, problems=problems)]
    folder = root / part
    if part == "train" and not folder.is_dir():
        folder = root
        _refuse_divided(root)
    files = _csv_files(folder)
    if files:
        return [read_table(path, encoding=encoding, problems=problems) for path in files]
    found = []
    for place in sorted(each for each in folder.glob("*/") if not each.name.startswith(".")):
        for path in _csv_files(place):
            table = read_table(path, encoding=encoding, problems=problems)
            told = {*TARGETS, *(targets or ())} & set(table.columns)
            found.append(table if told else table.beside(TARGETS[0], place.name))
    return found


def _csv_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.csv") if not path.name.startswith("."))


_OF_A_SET = re.compile(r"(?:^|[^a-z])(?:train(?:ing)?|val(?:id|idation)?|test(?:ing)?)(?:$|[^a-z])")
"""Names, in small letters, of files and folders of one set."""


def _refuse_divided(root: Path) -> None:
    """Refuse a folder without ``train`` in which a name says that it is of one set."""
    if any((root / f"{part}.csv").is_file() for part in PARTS[1:]):
        raise EnvironmentProblem(f"data.path: {root} holds no train.csv and no folder train")
    named = [
        path for path in sorted(root.glob("*"))
        if (path.is_dir() or path.suffix == ".csv") and _OF_A_SET.search(path.stem.lower())
    ]  # fmt: skip
    if named:
        raise InputError(
            f"data.path: {root} has no train.csv and no folder train, and {named[0].name} seems to "
            "be of one set; call files train.csv, validation.csv and test.csv, or folders train, "
            "validation and test"
        )


def _kind(tables: Sequence[Table], named: Sequence[str]) -> str:
    cells = [[cell for table in tables for cell in table.column(name)] for name in named]
    return kind_of_columns(cells) or "values"  # whose words are told, each at its line


def _refuse_counters(tables: Sequence[Table], values: Sequence[str], *, recordings: bool) -> None:
    """Refuse columns that count rows or tell the time.

    Networks would learn from the place of an example in the file.
    """
    for clocks in (True,) if recordings else (False, True):
        counters = _counters(tables, values, clocks=clocks)
        if not counters:
            continue
        names = ", ".join(counters)
        moments = (
            ""
            if recordings or not clocks
            else " Where rows are moments of a recording, say data.options.window, too: so many "
            "rows of it are an example."
        )
        raise InputError(
            f"{tables[0].path}:1: column {counters[0]} only counts the rows or tells the time, and "
            f"is no value; say data.options.leave_out: [{names}], or leave_out: [] to keep it as "
            f"one.{moments}"
        )


def _counters(tables: Sequence[Table], values: Sequence[str], *, clocks: bool) -> list[str]:
    """Return the columns that count rows, or rise from each row to the next, in every file."""
    found = set(values)
    for table in tables:
        found &= set(table.counters([*found], clocks=clocks))
    return [name for name in values if name in found]


_FEW_COLUMNS = 12
"""Columns of a recording; a signal of so few values would hardly be one."""
_ROWS_A_CLASS = 10
"""Rows for which a class lasts on average, at least, in a file of moments."""
_WINDOWS = (16, 256)
"""Rows of a window where nobody says how many."""


def recorded(root: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options with which files of recordings are cut into windows.

    Rows are moments where a column tells the time, or where several files have few columns and a
    class that hardly ever changes. Taken for examples they would be learnt from neighbours that
    the validation set holds.

    Args:
        root: folder of the files.
        options: of the job, which stay as they are.

    Returns:
        ``window`` and ``leave_out``; nothing where a row is an example, or ``options`` say it.

    Raises:
        InputError: mistakes in the files.
    """
    if "window" in options and (options["window"] is None or "leave_out" in options):
        return {}
    encoding = str(options.get("encoding", "utf-8"))
    tables = _tables(root, "train", encoding, options.get("targets"))
    if not tables:
        return {}
    named = target_columns(tables[0], options.get("targets"))
    skip = {*named, str(options.get("group")), *(options.get("leave_out") or ())}
    values = [name for name in tables[0].columns if name not in skip]
    if any(name not in table.columns for table in tables for name in [*values, *named]):
        return {}
    rows = min(len(table.rows) for table in tables)
    clocks = _counters(tables, values, clocks=True)
    left_out = {"leave_out": clocks} if clocks else {}
    if "window" in options:
        return left_out
    if not clocks and "leave_out" not in options:
        several = len(tables) > 1 and len(values) <= _FEW_COLUMNS
        if not several or not all(_lasts(table, named[0]) for table in tables):
            return {}
    elif not clocks:
        # What was left out may be the clock.
        left = [name for name in options.get("leave_out") or () if name in tables[0].columns]
        if not _counters(tables, left, clocks=True):
            return {}
    if rows < 2 * _WINDOWS[0]:
        return {}
    window = _WINDOWS[0]
    while 2 * window <= min(rows // 4, _WINDOWS[1]):
        window *= 2
    return {"window": window, **left_out}


def _lasts(table: Table, target: str) -> bool:
    """Whether a target stays the same for many rows."""
    cells = table.column(target)
    changes = sum(before != after for before, after in pairwise(cells))
    return len(cells) >= _ROWS_A_CLASS * (changes + 2)


def _text_targets(
    told: Mapping[str, Sequence[Any]],
    kind: str,
    names: Sequence[str],
    where: Path,
    open_classes: bool,
) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Return names and targets of each part from texts, or from means where windows have them."""
    if kind == "classes":
        first = {part: [row[0] for row in each] for part, each in told.items()}
        refuse_measured(first["train"], where)
        classes = classes_of(first, open_classes=open_classes)
        return classes, class_targets(first, classes, where)
    values = {
        part: np.array([[number_or_nan(str(v)) for v in row] for row in each], dtype=np.float32)
        for part, each in told.items()
    }
    problems = Problems(where)
    for part, rows in values.items():
        for i in np.flatnonzero(~np.isfinite(rows).all(axis=1)).tolist():
            problems.add(where, f"record {i} of the {part} set: {told[part][i]} are no numbers")
        if kind == "labels":
            for i in np.flatnonzero(~np.isin(rows, (0, 1)).all(axis=1)).tolist():
                problems.add(where, f"record {i} of the {part} set: labels are 0 or 1 each, not "
                             f"{rows[i].tolist()}")  # fmt: skip
    problems.raise_any()
    return tuple(names), values


def _whole_rows(
    signals: np.ndarray,
    told: Sequence[Sequence[str]],
    groups: Sequence[str],
    channels: int,
    table: Table,
    problems: Problems,
) -> Cut:
    if signals.shape[1] % channels or not signals.shape[1]:
        problems.add(
            table.path,
            f"{signals.shape[1]} values a row cannot be {channels} channels of one length",
            line=1,
        )
        return [], [], []
    shaped = signals.reshape(len(signals), channels, -1)
    return list(shaped), list(zip(*told, strict=True)), list(groups)


def _windows(
    signals: np.ndarray,
    told: Sequence[Sequence[str]],
    groups: Sequence[str],
    window: int,
    hop: int,
    kind: str,
) -> Cut:
    cut: Cut = ([], [], [])
    for start in range(0, len(signals) - window + 1, hop):
        here = slice(start, start + window)
        cut[0].append(signals[here].T)
        if kind == "classes":
            names, counts = np.unique(list(told[0][here]), return_counts=True)
            cut[1].append((str(names[np.argmax(counts)]),))
        else:
            cut[1].append(tuple(_mean(column[here], kind) for column in told))
        cut[2].append(groups[start])
    return cut


def _mean(cells: Sequence[str], kind: str) -> float:
    numbers = np.array([number_or_nan(cell) for cell in cells])
    if kind == "labels" and np.isin(numbers, (0, 1)).all():
        return float(numbers.mean() >= 0.5)
    return float(numbers.mean())
