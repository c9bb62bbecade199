"""How the rows of a front stand after the test: marks, knees, intervals, several fronts."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nas.fronts.metrics import Goal, Metric
from nas.fronts.spec import FrontSpec
from nas.record.bit_text import pack_bits
from nas.record.standing import standing
from nas.tasks.classification import ImageClassification
from nas.tasks.regression import ImageRegression
from search_spaces.space import Choice, SearchSpace

SPACE = SearchSpace("numbers", [Choice("n", tuple(range(60)))])
GOALS = tuple(
    Goal(metric)
    for metric in (Metric("accuracy"), Metric("latency_ms", "cpu"), Metric("weights_kib"))
)
FRONT = FrontSpec("joint", GOALS, ())


def row(n, accuracy, ms, kib, *, width=0.02):
    return SimpleNamespace(
        arch=SPACE.arch({"n": n}),
        metrics={"accuracy": accuracy, "latency_ms[cpu]": ms, "weights_kib": kib},
        measurements={"cpu": SimpleNamespace(low_ms=ms * (1 - width), high_ms=ms * (1 + width))},
    )


def stand(rows, found, *, front=FRONT, images=(500, 400), right=None, task=None):
    tested = {
        r.arch: {"metrics": {(task or ImageClassification).metric_name: value}}
        | ({} if right is None else {"right": pack_bits(right[i])})
        for i, (r, value) in enumerate(zip(rows, found, strict=True))
    }
    result = standing(
        front,
        rows,
        tested,
        (task or ImageClassification)(),
        validation_images=images[0],
        test_images=images[1],
    )
    number = {r.arch: i for i, r in enumerate(rows)}
    return (
        None if result.knee is None else number[result.knee],
        {number[a]: number[b] for a, b in result.beaten.items()},
    )


def test_a_row_that_only_luck_put_on_the_front_is_marked():
    rows = [row(0, 0.90, 0.1, 30.0), row(1, 0.902, 0.2, 40.0), row(2, 0.80, 0.05, 5.0)]
    # By the test the second is worse, slower and larger than the first.
    knee, beaten = stand(rows, [0.905, 0.880, 0.79])
    assert beaten == {1: 0} and knee != 1
    # By the validation alone nobody would be.
    assert stand(rows, [0.90, 0.902, 0.80])[1] == {}


def test_differences_inside_the_intervals_beat_nobody():
    # As large, and faster by less than the measurement says.
    rows = [row(0, 0.901, 0.100, 30.0), row(1, 0.900, 0.099, 30.0)]
    assert stand(rows, [0.899, 0.900])[1] == {}
    faster = [row(0, 0.901, 0.100, 30.0), row(1, 0.900, 0.080, 30.0)]
    assert stand(faster, [0.899, 0.900])[1] == {0: 1}


def test_answers_to_single_images_tell_more_than_shares():
    rng = np.random.default_rng(0)
    hard = rng.random(4000)
    right = [hard < 0.90, hard < 0.89]
    found = [float(r.mean()) for r in right]
    # Alike in every cost, so that only accuracy can tell.
    rows = [row(0, 0.89, 0.1, 30.0), row(1, 0.89, 0.1, 30.0)]
    assert stand(rows, found, images=(500, 4000))[1] == {}
    assert stand(rows, found, images=(500, 4000), right=right)[1] == {1: 0}
    # Answers that are not what the metric is made of are left aside.
    assert stand(rows, [0.5, 0.6], images=(500, 40), right=[r[:40] for r in right])[1] == {}


@given(st.integers(0, 10_000))
def test_no_knee_is_beaten_in_all_its_final_figures(seed):
    rng = np.random.default_rng(seed)
    values = np.column_stack([rng.random(20), rng.random(20), rng.random(20)])
    kept = FRONT.members(
        [{"accuracy": a, "latency_ms[cpu]": b, "weights_kib": c} for a, b, c in values]
    )
    rows = [row(i, *v) for i, v in enumerate(values[kept])]
    found = np.clip([r.metrics["accuracy"] + rng.normal(0, 0.15) for r in rows], 0, 1)
    knee, beaten = stand(rows, found.tolist())
    assert knee not in beaten
    final = np.column_stack(
        [-found, *([r.metrics[n] for r in rows] for n in ("latency_ms[cpu]", "weights_kib"))]
    )
    others = np.delete(final, knee, axis=0)
    assert not ((others <= final[knee]).all(axis=1) & (others < final[knee]).any(axis=1)).any()
    for i, j in beaten.items():
        assert (final[j] <= final[i]).all()


def test_a_front_of_costs_alone_and_one_without_rows():
    costs = FrontSpec("joint", GOALS[1:], ())
    rows = [row(0, 0.9, 0.1, 30.0), row(1, 0.8, 0.2, 20.0)]
    knee, beaten = stand(rows, [0.9, 0.8], front=costs)
    assert knee in (0, 1) and beaten == {}
    assert stand([], []) == (None, {})


def test_an_error_is_better_when_smaller():
    metric = ImageRegression.metric_name
    front = FrontSpec("joint", (Goal(Metric(metric)), Goal(Metric("weights_kib"))), ())
    rows = [
        SimpleNamespace(
            arch=SPACE.arch({"n": i}), metrics={metric: error, "weights_kib": kib}, measurements={}
        )
        for i, (error, kib) in enumerate([(1.0, 20.0), (1.2, 10.0)])
    ]
    assert not ImageRegression.higher_is_better
    # Its final error makes the larger one worse in both.
    assert stand(rows, [1.5, 1.2], front=front, task=ImageRegression) == (1, {0: 1})
