from __future__ import annotations

import numpy as np
import pytest

from search_spaces.spaces.tokens import TokensSpace
from search_spaces.tables.checks import names_without_meaning, table_warnings
from search_spaces.tables.table import LatencyTable


def _table(texts: list[str], ms: np.ndarray | None = None) -> LatencyTable:
    space = TokensSpace.infer(texts)
    values = np.arange(1.0, len(texts) + 1) if ms is None else ms
    return LatencyTable(
        space, space.genes([space.parse(t) for t in texts]), ("d",), values[:, None]
    )


@pytest.mark.parametrize(
    ("texts", "meaningless"),
    [
        ([f"net{i}" for i in range(20)], True),
        ([f"{1.5 * i}" for i in range(20)], False),  # numbers have an order
        ([f"net{i} r{128 * (1 + i % 3)}" for i in range(20)], False),  # resolutions are shared
        (["a b", "b a", "a a"] * 5, False),
    ],
)
def test_names_that_share_nothing_are_told_from_tokens(texts: list[str], meaningless: bool) -> None:
    table = _table(texts)
    assert names_without_meaning(table) is meaningless
    assert any("names" in line for line in table_warnings(table)) is meaningless


def test_constant_devices_are_named() -> None:
    table = _table(["a b", "b a", "a a", "b b"] * 5, np.full(20, 7.0))
    assert table_warnings(table) == ["'d' is constant (7): nothing can be learned from it"]
