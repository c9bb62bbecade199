import numpy as np
import pytest

from nas.report.importance import choice_importance, family, family_importance


def test_the_choice_that_decides_explains_nearly_everything():
    rng = np.random.default_rng(0)
    rows = [{"a": int(rng.integers(3)), "b": int(rng.integers(3))} for _ in range(200)]
    values = [row["a"] + 0.05 * rng.normal() for row in rows]
    first, second = choice_importance(rows, values)
    assert first.choice == "a" and first.explained > 0.98 > first.chance
    assert second.choice == "b" and second.explained < 0.05
    assert [option for option, _, _ in first.levels] == [0, 1, 2]
    assert [mean for _, _, mean in first.levels] == pytest.approx([0, 1, 2], abs=0.05)


def test_noise_stays_under_the_chance_level_nineteen_times_in_twenty():
    rng = np.random.default_rng(1)
    rows = [{f"c{j}": int(rng.integers(4)) for j in range(100)} for _ in range(60)]
    found = choice_importance(rows, rng.normal(size=60))
    assert len(found) == 100
    above = sum(item.explained > item.chance for item in found)
    assert above <= 12
    # Not biased upwards, which the plain share of variance (here 3 / 59) would be.
    assert np.mean([item.explained for item in found]) < 3 / 59


def test_a_conditional_choice_is_judged_where_it_is_active():
    rng = np.random.default_rng(2)
    rows, values = [], []
    for _ in range(120):
        row = {"depth": int(rng.integers(1, 3))}
        if row["depth"] == 2:
            row["kernel"] = int(rng.choice([3, 5]))
        rows.append(row)
        values.append(10 * row["depth"] + row.get("kernel", 0))
    kernel = next(i for i in choice_importance(rows, values) if i.choice == "kernel")
    assert kernel.explained == pytest.approx(1.0)
    assert kernel.active == sum("kernel" in row for row in rows) < 120


def test_values_that_are_missing_are_left_out_and_constants_explain_nothing():
    rows = [{"a": i % 2, "b": 1, "c": i} for i in range(20)]
    values = [None if i == 0 else float("nan") if i == 1 else float(i % 2) for i in range(20)]
    (only,) = choice_importance(rows, values)
    assert only.choice == "a" and only.active == 18
    assert choice_importance(rows, [0.3] * 20) == []
    assert choice_importance([], []) == []


def test_figures_repeat():
    rows = [{"a": i % 3, "b": "xyz"[i % 2]} for i in range(30)]
    values = np.sin(np.arange(30.0))
    assert choice_importance(rows, values) == choice_importance(rows, values)


@pytest.mark.parametrize(
    "name, kind",
    [("s1.b2.w.project", "w"), ("s1.depth", "depth"), ("width", "width"), ("e0", "e0")],
)
def test_the_family_of_a_choice(name, kind):
    assert family(name) == kind


def test_a_family_explains_what_none_of_its_members_does_alone():
    rng = np.random.default_rng(3)
    rows = [
        {f"b{j}.{kind}": int(rng.choice([2, 4, 8])) for j in range(12) for kind in ("w", "k")}
        for _ in range(200)
    ]
    values = [sum(v for name, v in row.items() if name.endswith("w")) for row in rows]
    bits, kernels = family_importance(rows, values)
    assert bits.choice == "w" and bits.explained > 0.7
    assert kernels.choice == "k" and kernels.explained < 0.1
    assert choice_importance(rows, values)[0].explained < 0.3
    means = [mean for _, _, mean in bits.levels]
    assert len(means) == 4 and means == sorted(means)
    assert sum(count for _, count, _ in bits.levels) == 200


def test_a_family_of_one_is_the_choice_itself_and_text_has_no_mean():
    rows = [{"width": (0.5, 1.0)[i % 2], "op": "ab"[i % 2]} for i in range(40)]
    (only,) = family_importance(rows, [float(i % 2) for i in range(40)])
    assert only.choice == "width" and [option for option, _, _ in only.levels] == [0.5, 1.0]
