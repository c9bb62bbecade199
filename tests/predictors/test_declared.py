from __future__ import annotations

import numpy as np
import pytest

from predictors.declared import DeclaredCosts
from search_spaces.spaces.tokens import TokensSpace
from search_spaces.tables.table import LatencyTable

SPACE = TokensSpace([tuple("abcdefgh")] * 2)


def _table(costs: dict[str, np.ndarray], rows: int = 8) -> LatencyTable:
    genes = np.stack([np.arange(rows), np.zeros(rows, dtype=int)], axis=1)
    return LatencyTable(SPACE, genes, (), np.zeros((rows, 0)), {}, costs)


def test_declared_costs_come_back_exactly_and_others_are_estimated() -> None:
    macs = np.exp(np.arange(8.0))
    macs[7] = np.nan
    table = _table({"macs": macs})
    costs = DeclaredCosts.of(table)
    blocks = {"line": np.arange(8.0)[:, None]}
    costs.learn(blocks, table.genes)
    found = costs.logarithms(table.genes, blocks)
    np.testing.assert_allclose(found[:7, 0], np.arange(7))
    assert abs(found[7, 0] - 7) < 0.1
    assert costs.lacking(table.genes) == 1
    copy = DeclaredCosts.from_arrays(costs.names, costs.arrays())
    np.testing.assert_allclose(copy.logarithms(table.genes, blocks), found)
    features = costs.features(table.genes, blocks)
    again = copy.features(table.genes, blocks)
    for one, other in zip(features, again, strict=True):
        assert (one**2).sum(axis=1).mean() == pytest.approx(1)
        assert (np.diff(one[:, 0]) > 0).all()  # the order is the cost's
        np.testing.assert_allclose(other, one)


def test_costs_that_say_nothing_are_ignored() -> None:
    nothing = np.zeros(8)
    nothing[0] = 5.0
    assert not DeclaredCosts.of(_table({"macs": nothing}))
    assert not DeclaredCosts.of(_table({"macs": np.full(8, 3.0)}))
    assert not DeclaredCosts.of(_table({}))


def test_of_several_declarations_the_last_counts() -> None:
    table = _table({"macs": np.arange(1.0, 9.0)})
    costs = DeclaredCosts.of(table.rows(range(4)))
    other = _table({"macs": np.full(8, 100.0) + np.arange(8)})
    both = costs.and_those_of(DeclaredCosts.of(other))
    found = np.exp(both.logarithms(table.genes, {}))[:, 0]
    np.testing.assert_allclose(found, [100, 101, 102, 103, 104, 105, 106, 107])
    part = costs.and_those_of(DeclaredCosts.of(other.rows([2, 3, 5])))
    found = np.exp(part.logarithms(table.genes[[0, 1, 2, 3, 5]], {}))[:, 0]
    np.testing.assert_allclose(found, [1, 2, 102, 103, 105])
    one = other.rows([6])  # a cost of one architecture says nothing, but may be added
    assert not DeclaredCosts.of(one)
    more = costs.and_those_of(DeclaredCosts.of(one, costs.names))
    np.testing.assert_allclose(np.exp(more.logarithms(one.genes, {})), [[106]])
    again = LatencyTable(
        SPACE, table.genes[[0, 1, 0]], (), np.zeros((3, 0)), {}, {"macs": np.array([1.0, 2.0, 3.0])}
    )
    found = np.exp(DeclaredCosts.of(again).logarithms(table.genes[:2], {}))[:, 0]
    np.testing.assert_allclose(found, [3, 2])
    assert costs.and_those_of(DeclaredCosts.of(_table({"parameters": np.arange(1.0, 9)}))) is costs
