"""Which layers to train within a budget of memory, against all combinations."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from nas.bits.update import choose_update
from search_spaces import build_space
from search_spaces.errors import InfeasibleError, InputError
from search_spaces.training.memory import plan_training_memory
from search_spaces.training.update import Update


@pytest.fixture(scope="module")
def plan():
    space = build_space("resnet", preset="8x8", input_channels=1)
    return space.plan(space.smallest())


def worth(plan, shares, seed=0):
    rng = np.random.default_rng(seed)
    found = {}
    for layer in plan.layers():
        most = rng.uniform(0.1, 1.0)
        found[layer.name] = {0.0: 0.01 * most, **{s: most * s**0.5 for s in shares}}
    return found


@pytest.mark.parametrize("budget_kib", [3.0, 5.0, 8.0])
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_the_choice_is_about_the_best_of_all(plan, budget_kib, seed):
    names = [layer.name for layer in plan.layers()][-4:]
    known = {n: row for n, row in worth(plan, (1.0,), seed).items() if n in names}
    update = Update()
    found = choose_update(plan, known, budget_kib, update=update)
    assert found.peak_kib <= budget_kib
    assert found.contribution == pytest.approx(
        sum(known[n][s] for n, s in found.update.shares.items())
    )
    best = 0.0
    for options in itertools.product((None, 0.0, 1.0), repeat=len(names)):
        shares = {n: s for n, s in zip(names, options, strict=True) if s is not None}
        if not shares:
            continue
        peak = plan_training_memory(plan, replace(update, shares=shares)).peak[0] / 1024
        if peak <= budget_kib:
            best = max(best, sum(known[n][s] for n, s in shares.items()))
    assert found.contribution >= 0.97 * best


@pytest.mark.slow
def test_more_memory_contributes_no_less(plan):
    known = worth(plan, (0.25, 1.0))
    found = [choose_update(plan, known, kib, update=Update()) for kib in (3, 6, 12, 1000)]
    values = [one.contribution for one in found]
    assert values == sorted(values)
    # With room for all of it, everything is trained.
    assert values[-1] == pytest.approx(sum(max(row.values()) for row in known.values()))
    assert found[-1].depths == found[-1].of_depths == len(known)


def test_budgets_that_buy_nothing_are_refused(plan):
    known = worth(plan, (1.0,))
    with pytest.raises(InfeasibleError, match="alone needs"):
        choose_update(plan, known, 0.1, update=Update())
    with pytest.raises(InputError, match="give one above 0"):
        choose_update(plan, known, 0.0, update=Update())
    with pytest.raises(InputError, match="no layer"):
        choose_update(plan, {}, 10.0, update=Update())
