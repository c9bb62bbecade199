"""Which kind of targets data holds, and targets that are none of the kind that a task asks for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nas.data.problems import Problems
from search_spaces.errors import InputError

TRUTH = {"true": 1.0, "false": 0.0}
"""Words in small letters that are numbers in tables, as pandas writes them."""

OF_EXAMPLES = ("classes", "labels", "values")
"""Kinds that a table of examples can hold; which of them it is, its values say."""


def expect_kind(source: str, kind: str, own: Sequence[str]) -> str:
    """Return ``kind``, which is asked of a data source, if it is among its ``own``.

    Raises:
        InputError: it is not.
    """
    if kind not in own:
        raise InputError(f"data.name: {source} holds {', '.join(own[:-1])} or {own[-1]}, no {kind}")
    return kind


def are_measured(labels: Sequence[str]) -> bool:
    """Whether texts are measured and no names of classes.

    They are where all are numbers, some with a fraction, and most are there once only.
    """
    numbers = [number_or_nan(label) for label in labels]
    if not numbers or not all(map(math.isfinite, numbers)):
        return False
    return any(value % 1 for value in numbers) and 2 * len(set(numbers)) > len(numbers)


def refuse_measured(labels: Sequence[str], where: Path | str) -> None:
    """Raise :class:`InputError` where numbers that were measured are taken for classes.

    Each would be a class of its own, of which nothing can be learned.
    """
    if are_measured(labels):
        raise InputError(
            f"{where}: {len(set(labels))} different numbers in {len(labels)} examples, such as "
            f"{labels[0]}, are values to predict and no classes; use task: image_regression or "
            "signal_regression"
        )


def refuse_constant(values: np.ndarray, names: Sequence[str], where: Path | str) -> None:
    """Raise :class:`InputError` where a number to predict, of (examples, numbers), never varies."""
    # Squares of tiny numbers are 0 in the network's precision.
    varies = np.ptp(values, axis=0).astype(np.float32) ** 2 > 0
    constant = [name for name, does in zip(names, varies, strict=True) if not does]
    if not constant:
        return
    others = [name for name in names if name not in constant]
    fix = f"leave it out; of a table name the others as data.options.targets: [{', '.join(others)}]"
    raise InputError(
        f"{where}: {', '.join(constant)} has the same value in every training example; "
        + (fix if others else "there is nothing to predict")
    )


def kind_of_columns(columns: Sequence[Sequence[str]]) -> str | None:
    """Return the kind of targets in columns of text; None if they are none of one kind.

    One column holds classes, or values where its numbers were measured. Several hold labels
    where all are 0 or 1, and otherwise values.
    """
    if len(columns) == 1:
        return "values" if are_measured(columns[0]) else "classes"
    numbers = {number_or_nan(cell) for column in columns for cell in column}
    if not all(map(math.isfinite, numbers)):
        return None
    return "labels" if numbers <= {0.0, 1.0} else "values"


def kind_of_array(targets: np.ndarray) -> str:
    """Return the kind of targets in an array: (n,) or (n, outputs)."""
    if targets.ndim != 2 or targets.shape[1] < 2:
        return "values" if are_measured([str(value) for value in targets.ravel()]) else "classes"
    if is_one_hot(targets):
        return "classes"
    return "labels" if np.isin(targets, (0, 1)).all() else "values"


def is_one_hot(targets: np.ndarray) -> bool:
    """Whether each row of (n, classes) has one 1 and otherwise zeros."""
    numbers = targets.ndim == 2 and targets.shape[1] > 1 and targets.dtype.kind in "fiub"
    return bool(numbers and np.isin(targets, (0, 1)).all() and (targets.sum(axis=1) == 1).all())


def class_texts(targets: np.ndarray, where: str) -> list[str]:
    """Return the class of each example of an array as text: (n,), (n, 1), or one-hot rows.

    Raises:
        InputError: several numbers an example that are not one-hot, or numbers that were measured.
    """
    if is_one_hot(targets):
        targets = targets.argmax(axis=1)
    if targets.size != len(targets):
        raise InputError(
            f"{where}: {targets.shape[1:]} numbers an example are no class; give (n,) classes or "
            "one-hot rows, or use task: multi_label_classification or signal_regression"
        )
    flat = targets.reshape(len(targets))
    if flat.dtype.kind == "f" and np.isfinite(flat).all() and not (flat % 1).any():
        flat = flat.astype(np.int64)
    texts = [str(value) for value in flat]
    refuse_measured(texts, where)
    return texts


def number_targets(targets: np.ndarray, kind: str, where: str, problems: Problems) -> np.ndarray:
    """Return labels or values as (n, outputs) float32; what is none of them is noted.

    Args:
        targets: (n,) or (n, outputs).
        kind: ``labels`` or ``values``.
        where: the name of the array.
        problems: where mistakes are noted.
    """
    if targets.dtype.kind not in "fiub":
        problems.add(where, f"{targets.dtype} are no numbers")
        return np.zeros((len(targets), 1), np.float32)
    numbers = np.asarray(targets, dtype=np.float32).reshape(len(targets), -1)
    for i in np.flatnonzero(~np.isfinite(numbers).all(axis=1)).tolist():
        problems.add(where, f"record {i} has a target that is not finite")
    if kind == "labels":
        for i in np.flatnonzero(~np.isin(numbers, (0, 1)).all(axis=1)).tolist():
            problems.add(where, f"record {i}: labels are 0 or 1 each, not {numbers[i].tolist()}")
    return numbers


def number_or_nan(text: str) -> float:
    """Return the number that a text is, 1 and 0 of true and false; NaN where it is none."""
    try:
        return float(text)
    except ValueError:
        return TRUTH.get(text.lower(), math.nan)
