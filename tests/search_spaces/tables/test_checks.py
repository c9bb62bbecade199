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


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("time_us", "us"), ("latency (µs)", "us"), ("Pixel 4 [S]", "s"), ("energy (mJ)", "mj"),
        ("board_ms", None), ("latency (ms)", None), ("class", None), ("gpus", None), ("s", None),
        ("titan_rtx_256", None),
    ],
)  # fmt: skip
def test_other_units_in_a_header_are_told(name: str, unit: str | None) -> None:
    plain = _table(["a b", "b a", "a a", "b b"] * 5)
    told = table_warnings(LatencyTable(plain.space, plain.genes, (name,), plain.values))
    assert bool(told) == (unit is not None)
    if unit is not None:
        assert f"{name!r} names the unit {unit} and is read as latency_ms, unchanged" in told[0]
    declared = LatencyTable(
        plain.space, plain.genes, (name,), plain.values, {name: "energy_mj"}
    )  # fmt: skip
    assert table_warnings(declared) == []


def test_parts_of_architectures_are_told_from_measurements() -> None:
    texts = ["a b", "b a", "a a", "b b"] * 5
    (told,) = table_warnings(_table(texts, np.arange(20.0) % 4))
    assert "'d' holds 4 different whole numbers" in told and "--arch-column" in told
    assert table_warnings(_table(texts, np.arange(20.0) % 4 + 0.5)) == []  # measured
    assert table_warnings(_table(texts, np.round(np.arange(20.0) * 1.7))) == []  # whole ms
