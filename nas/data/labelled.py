"""Images with their targets in a CSV file: classes, labels or values."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.data.csv_table import TARGETS, Table, read_table, target_columns
from nas.data.pictures import suited_crops, suited_shift
from nas.data.problems import Problems, class_names, class_numbers
from nas.data.sources import DATA_SOURCES, IMAGE_SUFFIXES, ImageFiles, RawData
from nas.data.targets import OF_EXAMPLES, expect_kind, kind_of_columns, refuse_measured
from search_spaces.errors import EnvironmentProblem, InputError

if TYPE_CHECKING:
    from nas.job.sections.data import DataConfig

FILE_COLUMNS = (
    "file", "image", "filename", "path", "file_name", "filepath", "file_path", "image_path",
    "image_id", "img",
)  # fmt: skip
PARTS = {"train": "train", "validation": "validation", "val": "validation", "valid": "validation",
         "test": "test"}  # fmt: skip


@DATA_SOURCES.register("image_csv")
def image_csv(
    config: DataConfig,
    *,
    labels: str = "labels.csv",
    targets: Sequence[str] | None = None,
    group: str | None = None,
    whole: bool | None = None,
    encoding: str = "utf-8",
    kind: str | None = None,
) -> RawData:
    """Return images whose targets are columns of a CSV file.

    The file has a column ``file`` (or ``image``, ``filename``, ``path``, ``image_id``, ...) with
    paths relative to ``path`` or to one folder in it, with or without their ending, the target
    columns, and where it is wished ``split`` (train, validation or test).
    Several labels an image are columns of 0 and 1, or one column ``labels`` with names divided
    by ``;`` or ``|``. Columns are divided by commas, semicolons or tabs; with the latter two
    ``1,5`` is a number, too. Row numbers in a first column without a name are left out.

    Args:
        config: ``path`` is the folder of the images.
        labels: the CSV file, relative to ``path``.
        targets: names of the target columns; by default all others for labels and values, and
            ``label``, ``class``, ``target`` or the only other one for classes.
        group: a column whose values must not be divided among the sets, such as a patient.
        whole: whether images are scaled as a whole to a square; otherwise the square in their
            middle is cut out. By default labels and values have whole images: what they count or
            name may be anywhere.
        encoding: of the file.
        kind: ``classes``, ``labels`` or ``values``; by default the task's, or told by the columns.

    Raises:
        InputError: mistakes in the file, each at its line: an image that is not there or no
            image, a cell that is no number or no 0 or 1, an unknown split; targets that are not of
            the kind, or only count the rows.
        EnvironmentProblem: the folder or the file is not there.
    """
    if config.path is None:
        raise InputError("data.path: image_csv needs the folder of the images")
    root = Path(config.path)
    if not (root / labels).is_file():
        raise EnvironmentProblem(f"data.path: {root / labels} is not there")
    table = read_table(root / labels, encoding=encoding)
    problems = Problems(table.path)
    name = next((column for column in FILE_COLUMNS if column in table.columns), None)
    if name is None:
        raise InputError(
            f"{table.path}:1: no column is called {', '.join(FILE_COLUMNS)}, so the images have "
            "no names"
        )
    paths = _images(root, table, name, problems)
    rest = [c for c in table.columns if c not in (name, "split", group)]
    kind = expect_kind("image_csv", kind or _kind(table, targets, rest), OF_EXAMPLES)
    classes, values = _values(table, kind, targets, rest, problems)
    parts = parts_of(table, problems)
    problems.raise_any()
    whole = kind != "classes" if whole is None else whole
    found = {
        part: ImageFiles(tuple(paths[i] for i in rows), values[rows], whole=whole)
        for part, rows in parts.items()
        if len(rows)
    }
    if "train" not in found:
        raise InputError(f"{table.path}: no row is of the split train")
    groups = None
    if group is not None:
        groups = group_numbers(table, group, parts)[parts["train"]]
    side = config.image_size or 224
    return RawData(
        train=found["train"],
        test=found.get("test"),
        validation=found.get("validation"),
        classes=classes,
        channels=config.channels or 3,
        image_size=side,
        origin=str(table.path),
        **_crops(kind, side),
        flip=kind != "values",
        targets=kind,
        groups=groups,
    )


def _images(root: Path, table: Table, name: str, problems: Problems) -> list[Path]:
    """Return the image of each row; what is not there is noted."""
    inside = sorted(p for p in root.glob("*/") if not p.name.startswith("."))
    found = []
    for cell, line in zip(table.column(name), table.lines, strict=True):
        path = root / cell
        if not path.is_file():
            places = [place / cell for place in (root, *inside)]
            if path.suffix.lower() not in IMAGE_SUFFIXES:
                places = [Path(f"{p}{suffix}") for p in places for suffix in IMAGE_SUFFIXES]
            there = [place for place in places if place.is_file()]
            path = there[0] if len(there) == 1 else path
            if len(there) > 1:
                told = f"{cell!r} may be {there[0]} or {there[1]}; say which"
                problems.add(table.path, told, line=line)
            elif not there and path.suffix.lower() in IMAGE_SUFFIXES:
                problems.add(table.path, f"{path} is not there", line=line)
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            problems.add(table.path, f"{path.name!r} has no ending of an image file", line=line)
        found.append(path)
    return found


def _crops(kind: str, side: int) -> dict[str, Any]:
    """Return how training images are cut: none that could lose what a target is about."""
    if kind == "values":
        return {}
    return suited_shift(side) if kind == "labels" else suited_crops(side)


def _values(
    table: Table,
    kind: str,
    targets: Sequence[str] | None,
    rest: Sequence[str],
    problems: Problems,
) -> tuple[tuple[str, ...], np.ndarray]:
    if kind == "classes":
        (column, *others) = target_columns(table, targets, rest)
        if others:
            raise InputError(
                f"data.options.targets: {', '.join(targets or [])} are several, and a class is one "
                "column"
            )
        text = table.column(column)
        refuse_measured(text, f"{table.path}, column {column}")
        classes = class_names(text)
        return classes, np.array(class_numbers(text, classes)[0], dtype=np.int64)
    if kind == "labels" and (list(targets or ["labels"]) == ["labels"]) and "labels" in rest:
        cells = [cell.replace("|", ";").split(";") for cell in table.column("labels")]
        sets = [{word.strip() for word in words if word.strip()} for words in cells]
        names = class_names([word for words in sets for word in words])
        return names, np.array([[n in words for n in names] for words in sets], dtype=np.float32)
    columns = list(targets) if targets is not None else list(rest)
    counters = [] if targets is not None else table.counters(columns)
    if counters:
        others = [name for name in columns if name not in counters]
        raise InputError(
            f"{table.path}:1: column {counters[0]} only counts the rows; name the targets as "
            f"data.options.targets: [{', '.join(others or columns)}]"
        )
    if not columns:
        raise InputError(f"{table.path}:1: no column is left for targets")
    for column in columns:
        table.column(column)
    numbers = table.numbers(columns, problems)
    if kind == "labels":
        for i, j in np.argwhere(~np.isin(numbers, (0, 1))).tolist():
            problems.add(
                table.path,
                f"column {columns[j]}: {numbers[i, j]:g} is neither 0 nor 1",
                line=table.lines[i],
            )
    return tuple(columns), numbers.astype(np.float32)


def _kind(table: Table, targets: Sequence[str] | None, rest: Sequence[str]) -> str:
    """Return the kind of the targets by their names and values."""
    if targets is None and not set(TARGETS) & set(rest):
        if "labels" in rest:
            return "labels"
        columns = list(rest)
    else:
        columns = target_columns(table, targets)
    # Words in several columns are told where classes are read, with what those are called.
    return kind_of_columns([table.column(name) for name in columns]) or "classes"


def parts_of(table: Table, problems: Problems) -> dict[str, np.ndarray]:
    """Return the rows of each set, by a column ``split``; all are for training without one."""
    rows: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    if "split" not in table.columns:
        rows["train"] = list(range(len(table.rows)))
    else:
        for i, cell in enumerate(table.column("split")):
            part = PARTS.get(cell.lower())
            if part is None:
                problems.add(
                    table.path,
                    f"split {cell!r} is none of train, validation, test",
                    line=table.lines[i],
                )
            else:
                rows[part].append(i)
    return {part: np.array(found, dtype=np.int64) for part, found in rows.items()}


def group_numbers(table: Table, group: str, parts: dict[str, np.ndarray]) -> np.ndarray:
    """Return a number for each row, the same for what must not be divided: (rows,) int64.

    Raises:
        InputError: no such column; splits of the file divide a group.
    """
    cells = table.column(group)
    seen: dict[str, str] = {}
    problems = Problems(table.path)
    for part, rows in parts.items():
        for i in rows.tolist():
            before = seen.setdefault(cells[i], part)
            if before != part:
                problems.add(
                    table.path,
                    f"{group} {cells[i]!r} is in the {part} set and in the {before} set",
                    line=table.lines[i],
                )
    problems.raise_any()
    return np.unique(cells, return_inverse=True)[1]
