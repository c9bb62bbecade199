"""One front of each device, and one of all."""

from __future__ import annotations

from nas.fronts.metrics import Constraint, Goal, Metric
from nas.fronts.spec import JOINT, job_fronts

ACCURACY = Goal(Metric("accuracy"))
A, B = Goal(Metric("latency_ms", "a")), Goal(Metric("latency_ms", "b"))
ON_A = Constraint(Metric("latency_ms", "a"), 2.0)
ON_B = Constraint(Metric("latency_ms", "b"), 3.0)
SMALL = Constraint(Metric("weights_kib"), 50.0)


def test_each_device_has_its_own_objectives_and_budgets_and_what_concerns_all():
    joint, a, b = job_fronts([ACCURACY, A, B], [SMALL, ON_A, ON_B], ["a", "b"])
    assert (joint.name, joint.goals, joint.constraints) == (
        JOINT,
        (ACCURACY, A, B),
        (SMALL, ON_A, ON_B),
    )
    assert (a.name, a.goals, a.constraints) == ("a", (ACCURACY, A), (SMALL, ON_A))
    assert (b.name, b.goals, b.constraints) == ("b", (ACCURACY, B), (SMALL, ON_B))


def test_one_device_has_one_front():
    assert [f.name for f in job_fronts([ACCURACY, A], [ON_A], ["a"])] == [JOINT]
    assert [f.name for f in job_fronts([ACCURACY, A], [], ["a"], joint=False)] == [JOINT]


def test_objectives_of_no_device_make_one_front():
    size = Goal(Metric("weights_kib"))
    assert [f.name for f in job_fronts([ACCURACY, size], [SMALL], ["a", "b"])] == [JOINT]


def test_a_device_that_nothing_names_has_no_front_of_its_own():
    assert [f.name for f in job_fronts([ACCURACY, A], [], ["a", "b"])] == [JOINT]
    assert [f.name for f in job_fronts([ACCURACY, A], [], ["b", "a"], joint=False)] == ["a"]
    assert [f.name for f in job_fronts([ACCURACY, A], [ON_B], ["a", "b"])] == [JOINT, "a", "b"]


def test_kinds_that_are_not_wanted_are_left_out():
    goals = [ACCURACY, A, B]
    assert [f.name for f in job_fronts(goals, [], ["a", "b"], per_device=False)] == [JOINT]
    assert [f.name for f in job_fronts(goals, [], ["a", "b"], joint=False)] == ["a", "b"]


def test_a_member_of_a_devices_front_may_miss_the_joint_one():
    joint, a, b = job_fronts([ACCURACY, A, B], [ON_A, ON_B], ["a", "b"])
    metrics = [
        {"accuracy": 0.9, "latency_ms[a]": 1.0, "latency_ms[b]": 9.0},
        {"accuracy": 0.8, "latency_ms[a]": 1.5, "latency_ms[b]": 1.0},
    ]
    assert joint.members(metrics).tolist() == [False, True]
    assert a.members(metrics).tolist() == [True, False]
    assert b.members(metrics).tolist() == [False, True]
    assert joint.members([]).tolist() == []
