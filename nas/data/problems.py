"""Mistakes of data files, collected so that all are told at once, and those of options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from search_spaces.errors import InputError

MOST = 20
"""Mistakes told one by one; of more only the number is told."""


def whole_option(name: str, value: object, *, least: int) -> None:
    """Raise :class:`InputError` unless an option of the data is a whole number from ``least``."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InputError(f"data.options.{name}: {value!r} is no whole number from {least}")


class Problems:
    """Mistakes found in data files.

    Args:
        what: the data, for the head line.
    """

    def __init__(self, what: Path | str) -> None:
        self.what = what
        self._lines: list[str] = []
        self._count = 0

    def add(self, place: Path | str, message: str, *, line: int | None = None) -> None:
        """Note a mistake in a file, at a line where there is one."""
        self._count += 1
        if len(self._lines) < MOST:
            self._lines.append(f"{place}{'' if line is None else f':{line}'}: {message}")

    def __bool__(self) -> bool:
        return self._count > 0

    def raise_any(self, fix: str = "") -> None:
        """Raise what was found.

        Args:
            fix: what to do about it, said once at the end.

        Raises:
            InputError: there is at least one mistake.
        """
        if not self._count:
            return
        more = self._count - len(self._lines)
        head = [] if self._count == 1 else [f"{self.what} has {self._count} mistakes:"]
        lines = [*head, *self._lines, *([f"and {more} more"] if more else [])]
        raise InputError("\n".join(lines) + (f"\n{fix}" if fix else ""))


def class_numbers(labels: Sequence[str], known: Sequence[str]) -> tuple[list[int], set[str]]:
    """Return the place of each label among ``known`` (-1 for none), and those that are unknown."""
    index = {name: i for i, name in enumerate(known)}
    return [index.get(label, -1) for label in labels], set(labels) - set(known)


def class_names(labels: Sequence[str]) -> tuple[str, ...]:
    """Return the different labels in order: of numbers by value, otherwise by letter."""
    names = sorted(set(labels))
    try:
        return tuple(sorted(names, key=float))
    except ValueError:
        return tuple(names)


def classes_of(labels: Mapping[str, Sequence[str]], *, open_classes: bool) -> tuple[str, ...]:
    """Return the classes of data: those of the training set, or of all sets.

    Args:
        labels: by set, ``train`` at least.
        open_classes: whether other sets may have classes of their own.
    """
    parts = labels.values() if open_classes else [labels["train"]]
    return class_names([label for part in parts for label in part])


def class_targets(
    labels: Mapping[str, Sequence[str]], classes: Sequence[str], where: Path | str
) -> dict[str, np.ndarray]:
    """Return the number of each label's class, (n,) int64 by set.

    Raises:
        InputError: a label of a set is none of ``classes``.
    """
    numbers = {}
    for part, each in labels.items():
        found, unknown = class_numbers(each, classes)
        if unknown:
            raise InputError(
                f"{where}: class {min(unknown)!r} of the {part} set is not among the training "
                "classes"
            )
        numbers[part] = np.array(found, dtype=np.int64)
    return numbers
