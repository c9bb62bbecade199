"""The charts of a run say what its results say."""

from __future__ import annotations

import pytest

from nas.report.charts import choices, front, latency, model, search
from nas.report.charts.panels import page_panels
from nas.report.charts.spec import NothingRecorded, Points, Rule
from nas.report.rows import Rows
from search_spaces.errors import InputError

FEW = {"name": "least", "front": [{"id": "0123456789", "arch": "width=1"}]}


def points(chart):
    return {mark.role: mark for mark in chart.marks if isinstance(mark, Points)}


def test_a_front_has_each_model_once_with_what_is_told_of_it(results):
    chart = front.front(Rows.of(results))
    found = points(chart)
    ids = [id for role in ("front", "knee", "beaten") if role in found for id in found[role].ids]
    assert sorted(ids) == sorted(entry["id"] for entry in results["front"])
    assert sorted(found["rejected"].ids) == sorted(e["id"] for e in results["rejected"])
    by_id = {entry["id"]: entry for entry in results["front"]}
    for i, id in enumerate(found["front"].ids):
        latency_of = by_id[id]["devices"]["cpu"]
        assert found["front"].across.low[i] == latency_of["low_ms"]
        assert id in found["front"].texts[i] and "95 % interval" in found["front"].texts[i]
    assert chart.x.label == "latency on cpu, ms (onnxruntime 1.23.2)"
    assert chart.y.label == "test accuracy, %"


def test_rejected_models_keep_the_figure_that_rejected_them(results):
    rejected = points(front.front(Rows.of(results)))["rejected"]
    by_id = {entry["id"]: entry for entry in results["rejected"]}
    assert [by_id[id]["validation_accuracy"] for id in rejected.ids] == list(rejected.y)


def test_an_invalid_latency_is_doubted_only_on_its_device(results):
    board = front.front(Rows.of(results), cost="latency_ms[board]")
    doubted = [id for mark in points(board).values()
               for id, on in zip(mark.ids, mark.doubted, strict=False) if on]  # fmt: skip
    assert doubted == [results["front"][-1]["id"]]
    assert any("⚠" in note for note in board.notes)
    assert not any(any(mark.doubted) for mark in points(front.front(Rows.of(results))).values())


def test_budgets_stand_on_their_axis(results):
    rows = Rows.of(results)
    bound = results["constraints"][0]["bound"]
    (rule,) = [m for m in front.front(rows).marks if isinstance(m, Rule)]
    assert (rule.along, rule.at) == ("x", bound)
    results["constraints"].append({"metric": "accuracy", "bound": 0.8, "upper": False})
    rules = [m for m in front.front(Rows.of(results)).marks if isinstance(m, Rule)]
    assert [(m.along, m.at) for m in rules] == [("x", bound), ("y", 0.8)]
    results["budgets"] = [{"metric": "weights_kib", "limit": 9.5, "model": None}]
    sized = front.front(Rows.of(results), cost="weights_kib").marks
    assert 9.5 in {m.at for m in sized if isinstance(m, Rule)}


def test_the_axis_leaves_out_the_worst_evaluations_alone(results):
    results["evaluations"][5]["metrics"]["accuracy"] = 0.01
    dots = points(front.front(Rows.of(results)))["evaluation"]
    assert min(dots.y) == 0.01 < dots.reach[0]
    kept = sum(dots.reach[0] <= y <= dots.reach[1] for y in dots.y)
    assert kept >= 0.9 * len(dots.y)
    results["higher_is_better"] = False
    assert points(front.front(Rows.of(results)))["evaluation"].reach[0] == 0.01


def test_charts_share_what_does_not_depend_on_the_cost(results):
    rows = Rows.of(results)
    a, b = (points(front.front(rows, cost=cost)) for cost in ("latency_ms[cpu]", "weights_kib"))
    for role in a:
        assert a[role].y == b[role].y and a[role].texts == b[role].texts


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"cost": "wattage"}, "weights_kib"), ({"split": "train"}, "test, validation")],
)
def test_a_front_of_what_there_is_not_is_refused(results, wrong, message):
    with pytest.raises(InputError, match=message):
        front.front(Rows.of(results), **wrong)


def test_predictions_are_judged_on_models_the_predictor_had_not_seen(results):
    verified = {e["id"] for e in [*results["front"], *results["rejected"]]}
    for sample in results["latency_samples"]:
        factor = 1.2 if sample["id"] in verified else 1.0
        sample.update(valid=True, predicted_ms=sample["latency_ms"] * factor)
        sample.update(predicted_low_ms=sample["latency_ms"] * 0.9)
        sample.update(predicted_high_ms=sample["latency_ms"] * (2 - factor))
    sample = next(s for s in results["latency_samples"] if s["id"] not in verified)
    sample.update(valid=False, predicted_ms=sample["latency_ms"] * 9)
    rows = Rows.of(results)
    held_out = latency.latency_fit(rows.samples, "cpu", held_out=True)
    others = latency.latency_fit(rows.samples, "cpu", held_out=False)
    assert held_out["mape"] == pytest.approx(0.2) and held_out["inside"] == 0.0
    assert held_out["spearman"] == pytest.approx(1.0)
    assert others["mape"] == pytest.approx(0.0) and others["inside"] == 1.0
    on_cpu = [s for s in results["latency_samples"] if s["device"] == "cpu"]
    assert held_out["n"] + others["n"] == len(on_cpu) - 1
    chart = latency.predicted_vs_measured(rows)
    assert points(chart)["invalid"].ids == (sample["id"],)
    assert "mean error 20.0 %" in chart.notes[0] and "mean error 20.0 %" in chart.title


def test_latencies_of_evaluations_say_where_they_come_from(results):
    a, b, c, *_ = results["evaluations"]
    for row in results["evaluations"]:
        row.pop("predicted")
    a["latency_source"] = "predicted"
    b["metrics"]["latency_ms[cpu]"] = 0.5
    results["latency_samples"].append({"device": "cpu", "id": b["id"], "latency_ms": 0.5})
    c["latency_source"] = {"cpu": "measured", "board": "predicted"}
    sources = Rows.of(results).evaluations["sources"]
    assert sources["latency_ms[cpu]"][:3] == ["predicted", "measured", "measured"]
    assert sources["latency_ms[board]"][2] == "predicted"
    c.pop("latency_source")
    assert Rows.of(results).evaluations["sources"]["latency_ms[cpu]"][2] == "source not recorded"


def test_what_chance_reaches_stands_beside_what_a_choice_explains(results):
    chart = choices.importance(Rows.of(results))
    (bars,) = chart.series
    assert list(bars.values) == sorted(bars.values, reverse=True)
    assert [v <= line for v, line in zip(bars.values, bars.lines, strict=True)] == list(bars.pale)
    assert "w (weight bits)" in chart.categories
    with pytest.raises(InputError, match="families, choices"):
        choices.importance(Rows.of(results), by="layer")
    with pytest.raises(InputError, match="latency_ms"):
        choices.importance(Rows.of(results), metric="wattage")


def test_an_architecture_stands_out_once_among_the_lines(results):
    results["evaluations"].append(dict(results["evaluations"][0]))
    chart = choices.parallel_coordinates(Rows.of(results))
    marked = [id for id, on in zip(chart.ids, chart.marked, strict=True) if on]
    assert len(set(marked)) == len(marked)
    assert set(marked) == {entry["id"] for entry in results["front"]}


def test_times_are_shares_of_the_whole(results):
    chart = search.timing(Rows.of(results))
    assert chart.whole == pytest.approx(sum(row["seconds"] for row in results["timing"]))
    assert chart.series[0].labels[1] == "10 min 12 s"


def test_many_classes_are_the_worst(results):
    results["front"][0]["per_class"] = {f"c{i}": i / 100 for i in range(50)}
    id = results["front"][0]["id"]
    chart = model.accuracy_by_class(Rows.of(results), id)
    assert chart.categories == tuple(f"c{i}" for i in range(20))
    assert chart.notes == ("The 20 worst of 50.",)
    results["higher_is_better"] = False
    assert model.accuracy_by_class(Rows.of(results), id).categories[0] == "c49"


def test_a_task_without_classes_has_no_place_for_them(results):
    assert "classes" in page_panels(Rows.of(results))
    for entry in results["front"]:
        entry["per_class"] = None
    assert "classes" not in page_panels(Rows.of(results))  # a run that does not say
    results["task"] = {"has_classes": False}
    assert "classes" not in page_panels(Rows.of(results))
    results["task"] = {"has_classes": True}
    panel = page_panels(Rows.of(results))["classes"]
    assert all("was not recorded" in drawing for drawing in panel.drawings.values())


@pytest.mark.parametrize(
    "build",
    [front.front, front.devices, latency.predicted_vs_measured, search.hypervolume,
     search.accuracy_predictor, search.training, search.timing, choices.importance,
     choices.parallel_coordinates, model.architecture, model.accuracy_by_class],
    ids=lambda build: build.__name__,
)  # fmt: skip
def test_what_was_not_recorded_is_said(build):
    few = {**FEW, "front": [{**FEW["front"][0], "knee": True}]}
    with pytest.raises(NothingRecorded, match=r"recorded|no |fewer"):
        build(Rows.of(few))


def test_every_panel_of_a_run_that_recorded_little_says_so():
    panels = page_panels(Rows.of(FEW))
    assert all(isinstance(d, str) for panel in panels.values() for d in panel.drawings.values())
