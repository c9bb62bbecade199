import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.fronts.metrics import (
    METRICS,
    Constraint,
    Goal,
    Metric,
    infeasible,
    require_feasible,
    violations,
)
from search_spaces.errors import InfeasibleError, InputError

LATENCY = Metric("latency_ms", "cpu")
# Bounds are counts, sizes and times: none is so small that its inverse is infinite.
FINITE = st.floats(-1e6, 1e6, allow_subnormal=False).filter(lambda x: x == 0 or abs(x) > 1e-12)


@pytest.mark.parametrize("name", METRICS.names())
def test_metrics_are_written_and_parsed(name):
    metric = Metric(name, "pixel-7" if METRICS.get(name).per_device else None)
    assert Metric.parse(str(metric)) == metric


def test_metrics_that_make_no_sense():
    with pytest.raises(InputError, match="did you mean 'latency_ms'"):
        Metric("latency_m", "cpu")
    with pytest.raises(InputError, match=r"needs a device, for example latency_ms\[cpu\]"):
        Metric("latency_ms")
    with pytest.raises(InputError, match=r"drop \[cpu\]"):
        Metric.parse("macs[cpu]")
    with pytest.raises(InputError, match="not of the form"):
        Metric.parse("latency_ms[cpu")


@given(FINITE, FINITE, st.booleans())
def test_violation_is_feasible_exactly_within_the_bound_and_invertible(value, bound, upper):
    constraint = Constraint(LATENCY, bound, upper=upper)
    violation = float(constraint.violation(value))
    assert (violation <= 0) == (value <= bound if upper else value >= bound)
    assert float(constraint.value(violation)) == pytest.approx(value, rel=1e-6, abs=1e-6)


def test_violation_is_a_share_of_the_bound():
    assert Constraint(LATENCY, 2.0).violation(np.array([3.0, 2.0, 1.0])).tolist() == [0.5, 0, -0.5]
    minimum = Constraint(Metric("accuracy"), 0.8, upper=False)
    assert minimum.violation(0.6) == pytest.approx(0.25)
    assert Constraint(LATENCY, 0.0).violation(3.0) == 3.0


@pytest.mark.parametrize("upper", [True, False])
def test_confidence_is_the_share_of_values_within_the_bound(upper):
    constraint = Constraint(LATENCY, 2.0, upper=upper, confidence=0.9)
    draws = np.random.default_rng(0).normal(size=200_000)
    # The mean at which the constraint is just satisfied, for a deviation of 0.3.
    shift = float(constraint.violation(2.0, 0.3)) * 2.0
    mean = 2.0 - shift if upper else 2.0 + shift
    values = mean + 0.3 * draws
    inside = (values <= 2.0) if upper else (values >= 2.0)
    assert inside.mean() == pytest.approx(0.9, abs=0.005)
    # A measurement has no deviation and needs no margin.
    assert constraint.violation(2.0) == 0


@pytest.mark.parametrize(("bound", "confidence"), [(float("nan"), None), (1, 0.0), (1, 1.0)])
def test_bad_constraints(bound, confidence):
    with pytest.raises(InputError):
        Constraint(LATENCY, bound, confidence=confidence)


def test_goals_point_the_right_way():
    assert (Goal(Metric("accuracy")).sign, Goal(Metric("accuracy")).direction) == (-1, "maximize")
    assert (Goal(LATENCY).sign, Goal(LATENCY).direction) == (1, "minimize")


def test_every_constraint_is_judged_or_it_is_an_error():
    """A bound that is passed and never applied is worse than none."""
    constraints = [Constraint(LATENCY, 2.0), Constraint(Metric("weights_kib"), 30.0)]
    judged = violations(constraints, {"latency_ms[cpu]": 1.0, "weights_kib": 45.0})
    assert judged == {"latency_ms[cpu] max": -0.5, "weights_kib max": 0.5}
    with pytest.raises(InputError, match="weights_kib was not evaluated"):
        violations(constraints, {"latency_ms[cpu]": 1.0})


def test_infeasible_message():
    constraints = [
        Constraint(LATENCY, 2.0),
        Constraint(Metric("weights_kib"), 30.0),
        Constraint(Metric("accuracy"), 0.9, upper=False),
    ]
    error = infeasible(constraints, [3.1, 20.0, 0.85], "depth=1")
    assert isinstance(error, InfeasibleError)
    assert "needs 3.1 ms on cpu (budget 2 ms)" in str(error)
    assert "reaches 0.85 accuracy (at least 0.9 is asked)" in str(error)
    assert "weights" not in str(error)
    assert error.violations == {"latency_ms[cpu] max": (3.1, 2.0), "accuracy min": (0.85, 0.9)}
    assert error.closest == "depth=1"
    assert error.exit_code == 3


def test_require_feasible():
    constraints = [Constraint(LATENCY, 2.0)]
    evaluated = {"a": {"latency_ms[cpu]": 4.0}, "b": {"latency_ms[cpu]": 2.5}}
    with pytest.raises(InfeasibleError, match=r"needs 2\.5 ms on cpu \(budget 2 ms\)") as caught:
        require_feasible(constraints, evaluated)
    assert caught.value.closest == "b"
    require_feasible(constraints, {**evaluated, "c": {"latency_ms[cpu]": 2.0}})
    with pytest.raises(InfeasibleError, match="no architecture was evaluated"):
        require_feasible(constraints, {})


def test_what_another_reaches_alone_is_told_of_each_bound_that_is_missed():
    constraints = [
        Constraint(LATENCY, 2.0),
        Constraint(Metric("accuracy"), 0.9, upper=False),
    ]
    evaluated = {
        "small": {"latency_ms[cpu]": 2.1, "accuracy": 0.85},
        "large": {"latency_ms[cpu]": 9.0, "accuracy": 0.97},
        "odd": {"latency_ms[cpu]": 2.05, "accuracy": 0.2},
    }
    with pytest.raises(InfeasibleError) as caught:
        require_feasible(constraints, evaluated)
    assert caught.value.closest == "small"
    assert "the nearest latency_ms on cpu of any is 2.05 ms; " in str(caught.value)
    assert "the nearest accuracy of any is 0.97; " in str(caught.value)
    with pytest.raises(InfeasibleError) as caught:
        require_feasible(constraints[:1], {"large": evaluated["large"]})
    assert "nearest" not in str(caught.value)
