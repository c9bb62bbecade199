"""Sources of signals: ``.ts`` files, NumPy arrays and CSV files.

A signal is (channels, length) of float values, which are kept as they are; the networks take
it as (channels, 1, length).
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.data.csv_table import Table, read_table, target_columns
from nas.data.problems import Problems, class_names, class_numbers
from nas.data.sources import DATA_SOURCES, ImageArrays, RawData
from nas.data.ts_file import Series, read_ts
from search_spaces.errors import EnvironmentProblem, InputError

if TYPE_CHECKING:
    from nas.job.sections.data import DataConfig

PARTS = ("train", "validation", "test")
NOISE, GAIN, SCALE = 0.05, 0.1, 0.9
"""Augmentation where a job asks for none: a little noise, other amplitudes, windows of 90 %."""

SMOOTH = 0.3
"""Largest error, in deviations, of the mean of two neighbours for the value between, at which a
window can be stretched: that of a sine of 8 values a period. What changes faster is lost between
the values of a stretched window, and networks learn from signals that they never meet (ACSF1 of
the UCR archive, whose error is 1.3: 44 % right with windows, 89 % without them)."""


@DATA_SOURCES.register("signal_ts")
def signal_ts(
    config: DataConfig, *, problem: str | None = None, kind: str | None = None
) -> RawData:
    """Return a problem of the UCR or UEA archive from ``NAME_TRAIN.ts`` and ``NAME_TEST.ts``.

    Args:
        config: ``path`` is the folder of the two files.
        problem: their NAME, where the folder has several.
        kind: ``classes`` or ``values``; the header says which it is.

    Raises:
        InputError: no files, or mistakes in them, each at its line.
        EnvironmentProblem: the folder is not there.
    """
    root = _folder(config)
    found = sorted(root.glob(f"{problem or '*'}_TRAIN.ts"))
    if not found:
        wanted = f"{problem or 'NAME'}_TRAIN.ts"
        raise EnvironmentProblem(f"data.path: {root} holds no {wanted}")
    if len(found) > 1:
        names = ", ".join(path.name.removesuffix("_TRAIN.ts") for path in found)
        raise InputError(f"data.path: {root} holds several problems ({names}); name one as "
                         "data.options.problem")  # fmt: skip
    train = read_ts(found[0])
    other = found[0].with_name(found[0].name.replace("_TRAIN.ts", "_TEST.ts"))
    parts: dict[str, Series] = {"train": train}
    if other.is_file():
        parts["test"] = read_ts(other)
        if parts["test"].values.shape[1:] != train.values.shape[1:]:
            raise InputError(
                f"{other}: series of {_shape(parts['test'].values)}, and {found[0].name} has "
                f"{_shape(train.values)}"
            )
    if train.classes:
        classes = class_names(train.classes)
        arrays = {
            name: ImageArrays(
                _rows(part.values), np.array(class_numbers(part.labels, classes)[0], np.int64)
            )
            for name, part in parts.items()
        }
        targets = "classes"
    else:
        classes, targets = ("target",), "values"
        arrays = {
            name: ImageArrays(_rows(part.values), _targets(found[0], part.labels))
            for name, part in parts.items()
        }
    return _raw(arrays, classes, targets, origin=str(found[0].with_suffix("")))


@DATA_SOURCES.register("signal_numpy")
def signal_numpy(config: DataConfig, *, kind: str | None = None) -> RawData:
    """Return signals from ``x_train``, ``y_train`` and more: ``.npy`` files, or one ``.npz``.

    ``x_train`` is (n, length) or (n, channels, length); ``y_train`` (n,) or (n, outputs). The
    same of ``validation`` and ``test``, and ``groups`` (n,) of the training examples, may follow.

    Args:
        config: ``path`` is the folder of the files.
        kind: ``classes``, ``labels`` or ``values``; by default the task's.

    Raises:
        InputError: arrays missing or of shapes that do not fit, values that are not finite.
        EnvironmentProblem: the folder is not there.
    """
    root = _folder(config)
    arrays = _arrays(root)
    problems = Problems(root)
    for name in ("x_train", "y_train"):
        if name not in arrays:
            problems.add(root, f"no {name}.npy, and no .npz with {name}")
    problems.raise_any()
    kind = kind or "classes"
    length = arrays["x_train"].shape[-1] if arrays["x_train"].ndim > 1 else 0
    values, labels = {}, {}
    for part in PARTS:
        if f"x_{part}" not in arrays:
            continue
        x = arrays[f"x_{part}"]
        if x.ndim not in (2, 3) or x.dtype.kind not in "fiu":
            problems.add(f"x_{part}", f"{x.dtype} of shape {x.shape}; numbers of shape "
                         "(n, length) or (n, channels, length) are needed")  # fmt: skip
            continue
        if f"y_{part}" not in arrays or len(arrays[f"y_{part}"]) != len(x):
            count = len(arrays[f"y_{part}"]) if f"y_{part}" in arrays else "no"
            problems.add(f"y_{part}", f"{count} targets for {len(x)} signals")
            continue
        x = x[:, None] if x.ndim == 2 else x
        if x.shape[-1] != length:
            problems.add(f"x_{part}", f"signals of {x.shape[-1]} values; x_train has {length}")
        for i in np.flatnonzero(~np.isfinite(x.astype(float)).all(axis=(1, 2))).tolist():
            problems.add(f"x_{part}", f"record {i} has a value that is not finite")
        values[part], labels[part] = _rows(x.astype(np.float32)), arrays[f"y_{part}"]
    problems.raise_any()
    classes, targets = _array_targets(labels, kind)
    groups = arrays.get("groups")
    if groups is not None and len(groups) != len(values["train"]):
        raise InputError(f"groups: {len(groups)} for {len(values['train'])} training signals")
    return _raw(
        {part: ImageArrays(values[part], targets[part]) for part in values},
        classes,
        kind,
        origin=str(root),
        groups=None if groups is None else np.unique(groups, return_inverse=True)[1],
    )


@DATA_SOURCES.register("signal_csv")
def signal_csv(
    config: DataConfig,
    *,
    targets: Sequence[str] | None = None,
    channels: int = 1,
    group: str | None = None,
    window: int | None = None,
    hop: int | None = None,
    kind: str | None = None,
) -> RawData:
    """Return signals from ``train.csv`` and, where they are, ``validation.csv`` and ``test.csv``.

    Without ``window`` a row is a signal: target columns by name, all others its values in order
    (channel after channel). With it a file is a recording whose rows are moments and whose other
    columns are channels; it is cut into windows, and ``train``, ``validation`` and ``test`` may be
    folders of recordings. The windows of one recording are never divided among the sets.

    Args:
        config: ``path`` is the folder of the files.
        targets: names of the target columns; by default ``label``, ``class`` or ``target``.
        channels: of a signal, where a row is one.
        group: a column whose values must not be divided among the sets, such as a patient.
        window: rows of a window. Its class is the most frequent one, its values their mean.
        hop: rows from one window to the next; by default half a window.
        kind: ``classes``, ``labels`` or ``values``; by default the task's.

    Raises:
        InputError: mistakes in the files, each at its line.
        EnvironmentProblem: the folder or ``train.csv`` is not there.
    """
    root = _folder(config)
    kind = kind or "classes"
    problems = Problems(root)
    tables = {part: _tables(root, part) for part in PARTS}
    if not tables["train"]:
        raise EnvironmentProblem(f"data.path: {root} holds no train.csv and no folder train")
    named = target_columns(tables["train"][0], targets)
    skip = [*named, *([group] if group else [])]
    rows: dict[str, tuple[list[np.ndarray], list[Any], list[str]]] = {}
    for part, each in tables.items():
        found: tuple[list[np.ndarray], list[Any], list[str]] = ([], [], [])
        for table in each:
            if [c for c in table.columns if c in skip] != [
                c for c in tables["train"][0].columns if c in skip
            ]:
                problems.add(table.path, f"lacks one of the columns {', '.join(skip)}", line=1)
                continue
            signals = table.numbers([c for c in table.columns if c not in skip], problems)
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
    lengths = {signal.shape[-1] for found in rows.values() for signal in found[0]}
    if len(lengths) > 1:
        told_lengths = ", ".join(map(str, sorted(lengths)))
        problems.add(root, f"signals of unequal length ({told_lengths}); the columns must agree")
    problems.raise_any()
    if not rows["train"][0]:
        raise InputError(f"{root}: no recording is as long as a window of {window} rows")
    classes, numbers = _text_targets(
        {part: found[1] for part, found in rows.items()}, kind, named, root
    )
    groups = None
    if group or window is not None:
        groups = np.unique(rows["train"][2], return_inverse=True)[1]
        groups = groups if len(np.unique(groups)) > 1 else None
    arrays = {
        part: ImageArrays(_rows(np.stack(found[0]).astype(np.float32)), numbers[part])
        for part, found in rows.items()
        if found[0]
    }
    return _raw(arrays, classes, kind, origin=str(root), groups=groups)


# ------------------------------------------------------------------------------- helpers


def _folder(config: DataConfig) -> Path:
    if config.path is None:
        raise InputError(f"data.path: {config.name} needs the folder of its files")
    root = Path(config.path)
    if not root.is_dir():
        raise EnvironmentProblem(f"data.path: {root} is not a folder")
    return root


def _raw(
    arrays: Mapping[str, ImageArrays],
    classes: tuple[str, ...],
    targets: str,
    *,
    origin: str,
    groups: np.ndarray | None = None,
) -> RawData:
    _, channels, _, length = arrays["train"].images.shape
    if targets == "classes" and len(classes) < 2:
        raise InputError(f"{origin}: at least two classes are needed, found {len(classes)}")
    return RawData(
        train=arrays["train"],
        test=arrays.get("test"),
        validation=arrays.get("validation"),
        classes=classes,
        channels=channels,
        image_size=(1, length),
        origin=origin,
        scale=SCALE if roughness(arrays["train"].images) <= SMOOTH else 1.0,
        noise=NOISE,
        gain=GAIN,
        targets=targets,
        groups=groups,
        input_text="A signal as (channels, 1, length), resampled to that length, its values as "
        "they were in training",
    )


def roughness(signals: np.ndarray) -> float:
    """Return how far values are from the mean of their neighbours: deviations, root mean square.

    Args:
        signals: (n, channels, 1, length); the channel that is worst counts.
    """
    if signals.shape[-1] < 3:
        return 0.0
    between = (signals[..., 2:] + signals[..., :-2]) / 2 - signals[..., 1:-1]
    error = np.sqrt(np.square(between).mean(axis=(0, 2, 3)))
    deviation = signals.std(axis=(0, 2, 3))
    # A channel that never changes has nothing to lose.
    return float(np.max(error / np.where(deviation > 0, deviation, 1.0)))


def _rows(values: np.ndarray) -> np.ndarray:
    """Return (n, channels, length) as (n, channels, 1, length)."""
    return np.ascontiguousarray(values)[:, :, None]


def _shape(values: np.ndarray) -> str:
    return f"{values.shape[1]} channels of {values.shape[2]} values"


def _targets(path: Path, labels: Sequence[str]) -> np.ndarray:
    problems = Problems(path)
    numbers = [_number(label) for label in labels]
    for i, (label, value) in enumerate(zip(labels, numbers, strict=True), start=1):
        if not math.isfinite(value):
            problems.add(path, f"case {i}: the target {label!r} is no number")
    problems.raise_any()
    return np.array(numbers, dtype=np.float32)[:, None]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _arrays(root: Path) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for path in sorted([*root.glob("*.npy"), *root.glob("*.npz")]):
        try:
            # Objects would be pickles, which are never read.
            loaded = np.load(path, allow_pickle=False)
            names = {path.stem: loaded} if path.suffix == ".npy" else dict(loaded)
        except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
            raise InputError(f"{path}: no NumPy file of numbers ({error})") from error
        found |= {name.lower(): np.asarray(array) for name, array in names.items()}
    return found


def _array_targets(
    labels: Mapping[str, np.ndarray], kind: str
) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    if kind == "classes":
        text = {part: [str(v) for v in np.asarray(y).reshape(len(y))] for part, y in labels.items()}
        return _text_targets(text, kind, ["y"], Path("y_train"))
    numbers, problems = {}, Problems("targets")
    for part, y in labels.items():
        if np.asarray(y).dtype.kind not in "fiub":
            problems.add(f"y_{part}", f"{np.asarray(y).dtype} are no numbers")
            continue
        numbers[part] = np.asarray(y, dtype=np.float32).reshape(len(y), -1)
        for i in np.flatnonzero(~np.isfinite(numbers[part]).all(axis=1)).tolist():
            problems.add(f"y_{part}", f"record {i} has a target that is not finite")
    problems.raise_any()
    count = numbers["train"].shape[1]
    return tuple(f"y{i}" for i in range(count)) if count > 1 else ("y",), numbers


def _text_targets(
    told: Mapping[str, Sequence[Any]], kind: str, names: Sequence[str], where: Path
) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Return names and targets of each part from texts, or from means where windows have them."""
    if kind == "classes":
        first = {part: [v[0] if isinstance(v, tuple) else v for v in each]
                 for part, each in told.items()}  # fmt: skip
        classes = class_names(first["train"])
        numbers = {}
        for part, each in first.items():
            found, unknown = class_numbers(each, classes)
            if unknown:
                raise InputError(
                    f"{where}: class {sorted(unknown)[0]!r} of the {part} set is not among the "
                    "training classes"
                )
            numbers[part] = np.array(found, dtype=np.int64)
        return classes, numbers
    values = {
        part: np.array([[_number(str(v)) for v in row] for row in each], dtype=np.float32)
        for part, each in told.items()
    }
    problems = Problems(where)
    for part, rows in values.items():
        for i in np.flatnonzero(~np.isfinite(rows).all(axis=1)).tolist():
            problems.add(where, f"record {i} of the {part} set: {told[part][i]} are no numbers")
    problems.raise_any()
    return tuple(names), values


def _tables(root: Path, part: str) -> list[Table]:
    files = [root / f"{part}.csv"] if (root / f"{part}.csv").is_file() else []
    return [read_table(path) for path in files or sorted((root / part).glob("*.csv"))]


Cut = tuple[list[np.ndarray], list[Any], list[str]]


def _whole_rows(
    signals: np.ndarray,
    told: Sequence[Sequence[str]],
    groups: Sequence[str],
    channels: int,
    table: Table,
    problems: Problems,
) -> Cut:
    if channels < 1 or signals.shape[1] % channels or not signals.shape[1]:
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
            cut[1].append(
                tuple(float(np.mean([_number(v) for v in column[here]])) for column in told)
            )
        cut[2].append(groups[start])
    return cut
