"""Sources of signals: ``.ts`` files and NumPy arrays, and what all sources of signals share.

A signal is (channels, length) of float values, which are kept as they are; the networks take
it as (channels, 1, length).
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nas.data.folders import folder_of
from nas.data.problems import Problems, class_targets, classes_of
from nas.data.signals.ts_file import UNEQUAL, Series, read_ts
from nas.data.sources import DATA_SOURCES, ImageArrays, RawData
from nas.data.targets import (
    OF_EXAMPLES,
    class_texts,
    expect_kind,
    kind_of_array,
    number_or_nan,
    number_targets,
)
from search_spaces.errors import EnvironmentProblem, InputError

if TYPE_CHECKING:
    from nas.job.sections.data import DataConfig

NEEDED = "the folder of its files"
"""What a job has to name."""

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
    config: DataConfig,
    *,
    problem: str | None = None,
    unequal: str | None = None,
    kind: str | None = None,
    open_classes: bool = False,
) -> RawData:
    """Return a problem of the UCR or UEA archive from ``NAME_TRAIN.ts`` and ``NAME_TEST.ts``.

    Args:
        config: ``path`` is the folder of the two files.
        problem: their NAME, where the folder has several.
        unequal: what is done with series of unequal length, ``pad`` or ``stretch``, see
            :func:`nas.data.signals.ts_file.read_ts`; by default they are mistakes.
        kind: ``classes`` or ``values``; the header says which it is.
        open_classes: whether validation and test may have classes that training has not, as
            anomalies; said by the task.

    Raises:
        InputError: no files, or mistakes in them, each at its line.
        EnvironmentProblem: the folder is not there.
    """
    if unequal is not None and unequal not in UNEQUAL:
        raise InputError(f"data.options.unequal: {unequal!r} is none of {', '.join(UNEQUAL)}")
    root = folder_of(config, NEEDED)
    found = sorted(root.glob(f"{problem or '*'}_TRAIN.ts"))
    if not found:
        wanted = f"{problem or 'NAME'}_TRAIN.ts"
        raise EnvironmentProblem(f"data.path: {root} holds no {wanted}")
    if len(found) > 1:
        names = ", ".join(path.name.removesuffix("_TRAIN.ts") for path in found)
        raise InputError(f"data.path: {root} holds several problems ({names}); name one as "
                         "data.options.problem")  # fmt: skip
    train = read_ts(found[0], unequal=unequal)
    other = found[0].with_name(found[0].name.replace("_TRAIN.ts", "_TEST.ts"))
    parts: dict[str, Series] = {"train": train}
    if other.is_file():
        length = train.values.shape[-1]
        parts["test"] = read_ts(other, unequal=unequal, length=length)
        if parts["test"].values.shape[1:] != train.values.shape[1:]:
            raise InputError(
                f"{other}: series of {_shape(parts['test'].values)}, and {found[0].name} has "
                f"{_shape(train.values)}"
            )
    if train.classes:
        headed = {name: part.classes for name, part in parts.items()}
        classes = classes_of(headed, open_classes=open_classes)
        numbers = class_targets({n: p.labels for n, p in parts.items()}, classes, found[0])
        arrays = {n: ImageArrays(as_rows(p.values), numbers[n]) for n, p in parts.items()}
        targets = "classes"
    else:
        classes, targets = ("target",), "values"
        arrays = {
            name: ImageArrays(as_rows(part.values), _targets(found[0], part.labels))
            for name, part in parts.items()
        }
    raw = raw_signals(arrays, classes, targets, origin=str(found[0].with_suffix("")))
    if unequal is None:
        return raw
    how = {
        "pad": "shorter ones holding their last value and longer ones cut at their end",
        "stretch": "stretched to that length",
    }
    return replace(raw, input_text=f"{raw.input_text}; signals {how[unequal]}")


@DATA_SOURCES.register("signal_numpy")
def signal_numpy(
    config: DataConfig, *, kind: str | None = None, open_classes: bool = False
) -> RawData:
    """Return signals from ``x_train``, ``y_train`` and more: ``.npy`` files, or one ``.npz``.

    ``x_train`` is (n, length) or (n, channels, length); ``y_train`` (n,), one-hot (n, classes) or
    (n, outputs). The same of ``validation`` and ``test``, and ``groups`` (n,) of the training
    examples, may follow.

    Args:
        config: ``path`` is the folder of the files.
        kind: ``classes``, ``labels`` or ``values``; by default the task's, or told by ``y_train``.
        open_classes: whether validation and test may have classes that training has not, as
            anomalies; said by the task.

    Raises:
        InputError: arrays missing or of shapes that do not fit, values that are not finite, targets
            that are not of the kind.
        EnvironmentProblem: the folder is not there.
    """
    root = folder_of(config, NEEDED)
    arrays = _arrays(root)
    problems = Problems(root)
    for name in ("x_train", "y_train"):
        if name not in arrays:
            problems.add(root, f"no {name}.npy, and no .npz with {name}")
    problems.raise_any()
    kind = expect_kind("signal_numpy", kind or kind_of_array(arrays["y_train"]), OF_EXAMPLES)
    shape = arrays["x_train"].shape[1:]
    shape = (1, *shape) if len(shape) == 1 else shape
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
        if x.shape[1:] != shape:
            problems.add(
                f"x_{part}", f"signals of {_shape(x)}; x_train has {shape[0]} of {shape[1]}"
            )
        for i in np.flatnonzero(~np.isfinite(x.astype(float)).all(axis=(1, 2))).tolist():
            problems.add(f"x_{part}", f"record {i} has a value that is not finite")
        values[part], labels[part] = as_rows(x.astype(np.float32)), arrays[f"y_{part}"]
    problems.raise_any()
    classes, targets = _array_targets(labels, kind, open_classes)
    groups = arrays.get("groups")
    if groups is not None and len(groups) != len(values["train"]):
        raise InputError(f"groups: {len(groups)} for {len(values['train'])} training signals")
    return raw_signals(
        {part: ImageArrays(values[part], targets[part]) for part in values},
        classes,
        kind,
        origin=str(root),
        groups=None if groups is None else np.unique(groups, return_inverse=True)[1],
    )


# ------------------------------------------------------------------------------- helpers


def raw_signals(
    arrays: Mapping[str, ImageArrays],
    classes: tuple[str, ...],
    targets: str,
    *,
    origin: str,
    groups: np.ndarray | None = None,
) -> RawData:
    """Return signals as a source delivers them.

    Args:
        arrays: by set, ``train`` at least.
        classes: names of the classes, labels or values.
        targets: their kind.
        origin: where they are from.
        groups: see :class:`~nas.data.sources.RawData`.

    Raises:
        InputError: there are fewer than two classes.
    """
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


def as_rows(values: np.ndarray) -> np.ndarray:
    """Return (n, channels, length) as (n, channels, 1, length)."""
    return np.ascontiguousarray(values)[:, :, None]


def _shape(values: np.ndarray) -> str:
    return f"{values.shape[1]} channels of {values.shape[2]} values"


def _targets(path: Path, labels: Sequence[str]) -> np.ndarray:
    problems = Problems(path)
    numbers = [number_or_nan(label) for label in labels]
    for i, (label, value) in enumerate(zip(labels, numbers, strict=True), start=1):
        if not math.isfinite(value):
            problems.add(path, f"case {i}: the target {label!r} is no number")
    problems.raise_any()
    return np.array(numbers, dtype=np.float32)[:, None]


def _arrays(root: Path) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for path in sorted([*root.glob("*.npy"), *root.glob("*.npz")]):
        try:
            # Objects would be pickles, which are never read.
            loaded = np.load(path, allow_pickle=False)
            names = {path.stem: loaded} if path.suffix == ".npy" else dict(loaded)
        except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
            raise InputError(f"{path}: no NumPy file of numbers ({error})") from error
        found |= {name.lower(): np.atleast_1d(array) for name, array in names.items()}
    return found


def _array_targets(
    labels: Mapping[str, np.ndarray], kind: str, open_classes: bool
) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    if kind == "classes":
        text = {part: class_texts(y, f"y_{part}") for part, y in labels.items()}
        classes = classes_of(text, open_classes=open_classes)
        return classes, class_targets(text, classes, "y_train")
    problems = Problems("targets")
    numbers = {part: number_targets(y, kind, f"y_{part}", problems) for part, y in labels.items()}
    count = numbers["train"].shape[1]
    for part, found in numbers.items():
        if found.shape[1] != count:
            problems.add(f"y_{part}", f"{found.shape[1]} targets a signal; y_train has {count}")
    problems.raise_any()
    return tuple(f"y{i}" for i in range(count)) if count > 1 else ("y",), numbers
