import copy

import pytest

from nas.report import compare
from nas.report.comparison import compare_results
from nas.report.results import complete
from search_spaces.errors import InputError


def test_a_front_agrees_with_itself(results):
    found = compare_results(complete(results), complete(results))
    assert found.identical and len(found.shared) == len(results["front"])
    assert found.front.hypervolume_ratio == 1.0
    assert found.front.coverage_a == found.front.coverage_b == 1.0
    assert f"the fronts are the same: {len(results['front'])} architectures" in str(found)


def test_latency_and_accuracy_of_shared_architectures(results):
    other = copy.deepcopy(results)
    gone = other["front"].pop()
    moved = other["front"][2]
    for key in ("latency_ms", "low_ms", "high_ms"):
        moved["devices"]["cpu"][key] *= 1.5
    other["front"][1]["test_accuracy"] -= 0.02
    found = compare_results(complete(results), complete(other))
    assert not found.identical
    assert found.only_a == (gone["id"],) and found.only_b == ()
    assert found.front.hypervolume_ratio < 1
    gaps = {gap.quantity: gap for gap in found.gaps}
    latency = gaps["latency_ms[cpu]"]
    assert latency.id == moved["id"] and latency.b / latency.a == pytest.approx(1.5)
    assert latency.apart == 1 and latency.compared == len(other["front"])
    assert gaps["latency_ms[board]"].apart == 0
    accuracy = gaps["test accuracy"]
    assert accuracy.id == other["front"][1]["id"]
    assert accuracy.b - accuracy.a == pytest.approx(-0.02)
    assert "(+50.0%)" in str(found) and "1 only in A" in str(found)


def test_unlike_runs_are_noted(results):
    other = copy.deepcopy(results)
    other.update(seed=8, goals=["accuracy", "weights_kib"])
    other["space"]["preset"] = "8x8"
    found = compare_results(complete(results), complete(other))
    text = str(found)
    assert found.goals == ("accuracy",)
    assert "the objectives differ" in text and "seed" in text and "8x8" in text


def test_fronts_without_common_architectures(results):
    other = copy.deepcopy(results)
    for entry in other["front"]:
        entry["arch"] += " x=1"
    found = compare_results(complete(results), complete(other))
    assert not found.shared and not found.gaps and not found.identical
    assert "no architecture is on both fronts" in str(found)


def test_better_values_raise_the_volume_for_every_kind_of_objective(results):
    other = copy.deepcopy(results)
    for entry in other["front"]:
        entry["validation_accuracy"] += 0.01
        entry["devices"]["cpu"]["latency_ms"] *= 0.9
    found = compare_results(complete(results), complete(other))
    assert found.front.hypervolume_ratio > 1
    assert found.front.coverage_b == 1.0 and found.front.coverage_a < 1.0


def test_test_accuracy_where_validation_is_not_recorded(results):
    other = copy.deepcopy(results)
    other["front"][0]["validation_accuracy"] = None
    assert compare_results(complete(results), complete(other)).accuracy == "test"


def test_what_cannot_be_compared(results):
    empty = {**results, "front": []}
    with pytest.raises(InputError, match="empty front"):
        compare_results(complete(results), complete(empty))
    other = {**copy.deepcopy(results), "goals": ["weights_kib"]}
    with pytest.raises(InputError, match="no recorded objective in common"):
        compare_results(complete(results), complete(other))


def test_compare_reads_two_folders(results, tmp_path, save):
    a, b = save(tmp_path / "a", results), save(tmp_path / "b", results)
    text = str(compare(a, b))
    assert str(a) in text and str(b) in text and "the same" in text
    with pytest.raises(InputError, match=r"neither results\.json nor manifest\.json"):
        compare(a, tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(InputError, match=r"no results\.json"):
        compare(a, tmp_path)
