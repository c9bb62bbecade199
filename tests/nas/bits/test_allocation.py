"""Bit allocation: optimal against brute force, baselines never better, budgets kept."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.bits.allocation import (
    Bits,
    BitTable,
    allocate,
    allocate_by_importance,
    allocate_greedily,
    budget_curve,
)
from search_spaces.errors import InfeasibleError, InputError

pytest.importorskip("scipy")

BITS = (2, 4, 8)


def random_table(seed, layers=4, options=3):
    rng = np.random.default_rng(seed)
    return BitTable.of(
        [f"l{i}" for i in range(layers)],
        [[Bits(BITS[k], 8) for k in range(options)]] * layers,
        [np.sort(rng.gamma(1.0, 1.0, options))[::-1] for _ in range(layers)],
        {
            "weights_kib": [np.array(BITS[:options]) * rng.uniform(1, 9) for _ in range(layers)],
            "bops": [np.array(BITS[:options]) * rng.uniform(1e9, 9e9) for _ in range(layers)],
        },
        {"weights_kib": 3.0},
    )


def brute_force(table, budgets):
    best = np.inf
    for chosen in itertools.product(*(range(len(o)) for o in table.options)):
        if all(table.cost(n, chosen) <= b for n, b in budgets.items()):
            best = min(best, table.total(chosen))
    return best


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), share=st.floats(0.05, 0.95), second=st.floats(0.3, 1.0))
def test_the_optimum_is_that_of_brute_force_and_no_baseline_beats_it(seed, share, second):
    table = random_table(seed)
    budgets = {}
    for name, part in (("weights_kib", share), ("bops", second)):
        low, high = table.range(name)
        budgets[name] = low + part * (high - low)
    expected = brute_force(table, budgets)
    if not np.isfinite(expected):
        with pytest.raises(InfeasibleError):
            allocate(table, budgets)
        return
    found = allocate(table, budgets)
    assert found.optimal
    assert found.sensitivity == pytest.approx(expected, rel=1e-6)
    for method in (allocate_by_importance, allocate_greedily):
        try:
            other = method(table, budgets)
        except InfeasibleError:
            continue
        assert other.sensitivity >= expected - 1e-9
        assert other.proven_gap is None and not other.optimal
        assert all(other.costs[n] <= b * (1 + 1e-6) for n, b in budgets.items())
    assert all(found.costs[n] <= b * (1 + 1e-6) for n, b in budgets.items())


def test_sixty_layers_with_weights_and_activations_are_solved_to_the_optimum():
    rng = np.random.default_rng(1)
    pairs = [Bits(w, a) for w in (2, 3, 4, 8) for a in (2, 3, 4, 8)]
    macs, weights = rng.uniform(1e6, 5e7, 60), rng.uniform(1e3, 3e5, 60)
    hurt = rng.gamma(0.5, 1.0, 60)
    table = BitTable.of(
        [str(i) for i in range(60)],
        [pairs] * 60,
        [[h * (4.0**-p.weight + 4.0**-p.activation) for p in pairs] for h in hurt],
        {
            "bops": [[m * p.weight * p.activation for p in pairs] for m in macs],
            "weights_kib": [[w * p.weight / 8192 for p in pairs] for w in weights],
        },
    )
    budgets = {"bops": 16 * macs.sum(), "weights_kib": 4 * weights.sum() / 8192}
    found = allocate(table, budgets)
    assert found.optimal
    baseline = allocate_by_importance(table, budgets)
    assert found.sensitivity < baseline.sensitivity


def test_layers_with_few_options_are_kept_at_them():
    table = BitTable.of(
        ["stem", "middle", "head"],
        [[Bits(8, 8)], [Bits(8, 8), Bits(4, 4), Bits(2, 2)], [Bits(8, 8)]],
        [[0.0], [0.0, 1.0, 5.0], [0.0]],
        {"weights_kib": [[1.0], [8.0, 4.0, 2.0], [1.0]]},
    )
    for method in (allocate, allocate_by_importance, allocate_greedily):
        assert method(table, {"weights_kib": 6.0}).chosen == (0, 1, 0)
        assert method(table, {}).chosen == (0, 0, 0)


def test_an_importance_of_the_callers_orders_the_layers():
    table = BitTable.of(
        ["a", "b"],
        [["high", "low"]] * 2,
        [[0.0, 1.0], [0.0, 3.0]],
        {"weights_kib": [[2.0, 1.0]] * 2},
    )
    assert allocate_by_importance(table, {"weights_kib": 3.0}).chosen == (1, 0)
    reverse = allocate_by_importance(table, {"weights_kib": 3.0}, importance=[5.0, 1.0])
    assert reverse.chosen == (0, 1)


def test_infeasible_budgets_say_what_the_cheapest_needs():
    table = random_table(0)
    low, _ = table.range("weights_kib")
    with pytest.raises(InfeasibleError, match=rf"needs {low:.6g} KiB.*\(budget 1\)"):
        allocate(table, {"weights_kib": 1.0})
    with pytest.raises(InfeasibleError, match="cheapest allocation needs"):
        allocate_greedily(table, {"weights_kib": 1.0})
    with pytest.raises(InputError, match="no cost 'watts'"):
        allocate(table, {"watts": 1.0})


def test_a_curve_falls_and_ends_at_the_unbounded_optimum():
    table = random_table(3)
    curve = budget_curve(table, "weights_kib", 6)
    assert len(curve) == 6
    sensitivities = [a.sensitivity for a in curve]
    assert all(b <= a + 1e-9 for a, b in itertools.pairwise(sensitivities))
    assert sensitivities[-1] == pytest.approx(allocate(table, {}).sensitivity)


def test_tables_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="sensitivity of layer 'a' must have 2 values"):
        BitTable.of(["a"], [[1, 2]], [[0.0]], {})
    with pytest.raises(InputError, match="not finite"):
        BitTable.of(["a"], [[1]], [[np.nan]], {})
    with pytest.raises(InputError, match="at least one option"):
        BitTable.of(["a"], [[]], [[]], {})


def test_the_solvers_own_lines_do_not_reach_the_output(capfd, monkeypatch):
    import ctypes

    import scipy.optimize

    solve = scipy.optimize.milp

    def chatty(*args, **options):
        ctypes.CDLL(None).puts(b"a line of the solver's debugging")
        return solve(*args, **options)

    monkeypatch.setattr(scipy.optimize, "milp", chatty)
    table = random_table(0)
    print("before")
    allocate(table, {"weights_kib": table.range("weights_kib")[1]})
    print("after")
    assert capfd.readouterr().out.split() == ["before", "after"]
