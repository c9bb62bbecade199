"""Fronts against families: selection by validation only, budgets, intervals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.studies.value.comparison import Point, best_within, compare
from nas.studies.value.text import _table

shares = st.floats(0, 1)
points = st.lists(
    st.builds(
        lambda kib, validation, accuracy, ms: Point(
            f"{kib}-{validation}", kib, validation, accuracy, latency_ms={"cpu": ms}
        ),
        st.floats(1, 100),
        shares,
        shares,
        st.floats(0.01, 1),
    ),
    min_size=1,
    max_size=8,
)


@given(points, st.floats(0.5, 120), st.randoms())
def test_test_accuracy_chooses_nothing(found, budget, random):
    shuffled = [
        Point(p.name, p.weights_kib, p.validation, random.random(), latency_ms=p.latency_ms)
        for p in found
    ]
    for device in (None, "cpu"):
        a, b = best_within(found, budget, device), best_within(shuffled, budget, device)
        assert (a is None) == (b is None)
        if a is not None:
            assert (a.validation, a.cost(device)) == (b.validation, b.cost(device))
            assert a.cost(device) <= budget * (1 + 1e-9)
            others = [p.validation for p in found if p.cost(device) <= budget]
            assert a.validation == max(others, default=a.validation)


@given(points, points, st.lists(st.floats(0.5, 120), min_size=1, max_size=4))
def test_turning_sides_round_turns_signs(ours, others, budgets):
    there, back = compare(ours, [others], budgets), compare(others, [ours], budgets)
    for a, b in zip(there["rows"], back["rows"], strict=True):
        assert (a["ahead"] is None) == (b["ahead"] is None)
        if a["ahead"] is not None:
            assert a["ahead"] == pytest.approx(-b["ahead"], abs=2e-3)


@given(points, st.lists(st.floats(0.5, 120), min_size=1, max_size=4))
def test_a_set_is_not_ahead_of_itself(found, budgets):
    result = compare(found, [found, found], budgets)
    assert all(row["ahead"] in (0.0, None) for row in result["rows"])
    assert result["missing"] == 0


def test_a_model_that_was_not_measured_is_within_no_latency():
    point = Point("a", 1.0, 0.9, 0.9)
    assert best_within([point], 1e9, "cpu") is None
    assert best_within([point], 1.0) is point


def test_budgets_that_the_front_misses_are_counted():
    front, family = [Point("f", 20.0, 0.9, 0.9)], [Point("m", 5.0, 0.8, 0.8)]
    result = compare(front, [family], [6.0, 30.0])
    assert result["missing"] == 1
    assert [row["ahead"] for row in result["rows"]] == [None, pytest.approx(10.0)]
    assert result["mean"] == pytest.approx(10.0)


def drawn(rng, images, accuracy):
    return rng.random(images) < accuracy


def test_the_interval_of_paired_images_covers_what_it_should():
    # Both models see the same images, most of which are easy or hard for both.
    rng = np.random.default_rng(0)
    inside, wide = 0, 0.0
    trials = 400
    for _ in range(trials):
        hard = rng.random(1000)
        a, b = hard < 0.90, hard < 0.88
        flip = rng.random(1000) < 0.02
        a = a ^ flip
        true = 100 * ((0.90 * 0.98 + 0.10 * 0.02) - 0.88)
        row = compare([Point("a", 1, 1, a.mean(), a)], [[Point("b", 1, 1, b.mean(), b)]], [1.0])[
            "rows"
        ][0]
        inside += row["low"] <= true <= row["high"]
        wide += row["high"] - row["low"]
    assert 0.92 <= inside / trials <= 0.985
    # Unpaired, the two shares alone would be off by 5.6 points.
    assert wide / trials < 3.5


def test_seeds_widen_the_interval_by_how_far_they_are_apart():
    def run(spread):
        family = [[Point("m", 1, 1, 0.8 + d)] for d in (-spread, 0.0, spread)]
        return compare([Point("f", 1, 1, 0.9)], family, [1.0])["rows"][0]

    near, far = run(0.001), run(0.01)
    assert near["ahead"] == far["ahead"] == pytest.approx(10.0)
    # Student's t of two degrees of freedom: 4.303 times .1 / sqrt(3) points.
    assert near["high"] - near["ahead"] == pytest.approx(4.3027 * 0.1 / 3**0.5, abs=2e-3)
    assert far["high"] - far["ahead"] == pytest.approx(10 * (near["high"] - near["ahead"]), 1e-2)


def test_one_seed_without_classes_has_no_interval():
    row = compare([Point("f", 1, 1, 0.9)], [[Point("m", 1, 1, 0.8)]], [1.0])["rows"][0]
    assert (row["low"], row["high"]) == (None, None)


def test_the_mean_over_budgets_does_not_count_the_same_images_twice():
    rng = np.random.default_rng(1)
    a, b = drawn(rng, 2000, 0.9), drawn(rng, 2000, 0.85)
    front = [Point("f", 1, 1, a.mean(), a)]
    family = [Point("m", 1, 1, b.mean(), b)]
    once, thrice = compare(front, [family], [1.0]), compare(front, [family], [1.0, 2.0, 3.0])
    assert thrice["mean"] == once["mean"]
    assert (thrice["low"], thrice["high"]) == (once["low"], once["high"])


def test_a_metric_that_is_better_when_smaller():
    front = [Point("f", 1, validation=2.0, accuracy=2.5), Point("g", 1, 3.0, 1.0)]
    family = [Point("m", 1, validation=3.0, accuracy=3.25), Point("n", 1, 9.0, 0.5)]
    row = compare(front, [family], [1.0], higher=False, unit=1.0)["rows"][0]
    assert (row["front"]["name"], row["family"][0]["name"]) == ("f", "m")
    assert row["ahead"] == 0.75


def test_budgets_for_which_the_front_has_no_model_are_named():
    rows = [
        {"budget": budget, "front": ours, "family": [{"accuracy": 0.6}], "ahead": ahead,
         "low": None, "high": None}
        for budget, ours, ahead in ((8.0, None, None), (16.0, {"accuracy": 0.7}, 10.0))
    ]  # fmt: skip
    comparison = {"rows": rows, "mean": 10.0, "low": None, "high": None, "missing": 1}
    told = list(_table(comparison, "KiB at most", "{:.1f}", 100.0))
    assert told[-1].strip().startswith("not in the average: 8.0, for which the front has no model")
    assert "16.0" not in told[-1]
