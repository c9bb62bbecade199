"""Drawings as JSON. Columns that several drawings share are written once.

A front is drawn against many costs, and most of its columns, such as what is told of each mark,
are the same in all of these charts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from nas.report.rows import rounded


class Pool:
    """Encodes drawings; ``columns`` are what ``{"$": index}`` in them stands for.

    A dataclass becomes an object, with its ``kind`` where it has one. A tuple of dataclasses that
    hold plain values alone becomes ``{"rows": [...], "of": {"$": index of the names}}``, a mapping
    with tuples as keys a list of pairs. Numbers keep six significant digits.
    """

    def __init__(self) -> None:
        self.columns: list[list[Any]] = []
        self._index: dict[tuple[Any, ...], int] = {}

    def encode(self, value: Any) -> Any:
        """Return a value as JSON holds it.

        Args:
            value: a drawing, a panel, or a part of one.
        """
        if is_dataclass(value) and not isinstance(value, type):
            found = {one.name: self.encode(getattr(value, one.name)) for one in fields(value)}
            kind = getattr(type(value), "kind", None)
            return {"kind": kind, **found} if isinstance(kind, str) else found
        if isinstance(value, tuple) and value:
            return self._tuple(value)
        if isinstance(value, (tuple, list)):
            return [self.encode(one) for one in value]
        if isinstance(value, Mapping):
            return [[list(key), self.encode(one)] for key, one in value.items()]
        return _plain(value)

    def record(self, value: Mapping[str, Any]) -> dict[str, Any]:
        """Return a mapping as ``{"row": [...], "of": {"$": index of the names}}``."""
        return {
            "row": [self.encode(one) for one in value.values()],
            "of": self._column(tuple(value)),
        }

    def _tuple(self, value: tuple[Any, ...]) -> Any:
        if all(_is_plain(one) for one in value):
            return self._column(tuple(_plain(one) for one in value))
        first = type(value[0])
        if is_dataclass(first) and not isinstance(getattr(first, "kind", None), str):
            names = tuple(one.name for one in fields(first))
            rows = [[getattr(one, name) for name in names] for one in value]
            if all(_is_plain(one) for row in rows for one in row):
                return {"rows": rows, "of": self._column(names)}
        return [self.encode(one) for one in value]

    def _column(self, column: tuple[Any, ...]) -> dict[str, int]:
        # True == 1 == 1.0 as keys, but not in JSON.
        key = (tuple(map(type, column)), column)
        if key not in self._index:
            self._index[key] = len(self.columns)
            self.columns.append(list(column))
        return {"$": self._index[key]}


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (str, int, float))


def _plain(value: Any) -> Any:
    return value if isinstance(value, (str, bool)) else rounded(value)
