"""What a finished run writes of what was asked."""

from __future__ import annotations

from types import SimpleNamespace

from nas.fronts.budgets import CostBudget
from nas.fronts.metrics import Goal, Metric
from nas.record.results import _budget

KIB = Metric("weights_kib")


def test_a_budget_names_the_best_model_within_it():
    members = [
        SimpleNamespace(
            arch=SimpleNamespace(id=f"{size:g}"), metrics={"weights_kib": size, "accuracy": right}
        )
        for size, right in ((20.0, 0.95), (9.0, 0.9), (5.0, 0.8))
    ]
    found = [
        _budget(CostBudget(KIB, limit, Goal(Metric("accuracy"))), members)
        for limit in (2.0, 9.0, 30.0)
    ]
    assert [(one.limit, one.model) for one in found] == [(2.0, None), (9.0, "9"), (30.0, "20")]
