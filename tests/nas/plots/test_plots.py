"""The figures hold what the stored runs say, and say what is wrong with a bad call."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("plotly")

from nas import plots
from nas.bits.allocation import Bits, BitTable, allocate
from nas.plots.figure import figure
from nas.report.charts.panels import page_panels
from nas.report.results import load_results
from nas.report.rows import Rows
from search_spaces.errors import InputError

STORED = Path(__file__).parents[3] / "experiments" / "notebooks" / "stored"
RELAXED, TIGHT = STORED / "relaxed", STORED / "tight"


def trace(figure, name):
    return next(t for t in figure.data if t.name == name)


def test_importing_loads_neither_plotly_nor_torch():
    code = "import sys, nas.plots; print(sorted({'plotly', 'torch', 'pandas'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "draw",
    [plots.front, plots.devices, plots.predicted_vs_measured, plots.hypervolume,
     plots.parallel_coordinates, plots.importance, plots.accuracy_by_class, plots.architecture,
     plots.training, plots.accuracy_predictor, plots.timing],
    ids=lambda draw: draw.__name__,
)  # fmt: skip
def test_every_plot_of_a_run_draws_its_folder_and_its_results(draw):
    from_folder, from_results = draw(RELAXED), draw(load_results(RELAXED))
    assert from_folder.data and from_folder.layout.title.text
    assert from_folder.to_json() == from_results.to_json()
    json.loads(from_folder.to_json())
    with pytest.raises(InputError):
        draw({"name": "empty"})


@pytest.mark.slow
def test_what_the_report_shows_is_what_figures_show():
    panels = page_panels(Rows.of(load_results(RELAXED)))
    drawn = [
        d for panel in panels.values() for d in panel.drawings.values() if not isinstance(d, str)
    ]
    assert {type(one).__name__ for one in drawn} == {"XY", "Bars", "Parallel", "Layers"}
    for one in drawn:
        assert figure(one).layout.title.text == one.title


def test_text_of_a_run_is_never_markup():
    results = json.loads((RELAXED / "results.json").read_text())
    results["name"] = results["devices"][0]["name"] = "<b>name</b>"
    results["front"][0]["devices"] = {"<b>name</b>": results["front"][0]["devices"]["cpu"]}
    assert "<b>" not in plots.front(results).to_json()


def members(figure):
    """The points of the front in a figure: id -> (point number, trace)."""
    names = ("on the front (test accuracy)", "knee of the front")
    return {id: (i, t) for t in figure.data if t.name in names for i, id in enumerate(t.customdata)}


def test_the_front_has_every_model_with_its_interval_and_the_knee():
    results = load_results(RELAXED)
    figure = plots.front(RELAXED)
    by_id = {entry["id"]: entry for entry in results["front"]}
    assert set(members(figure)) == set(by_id)
    for id, (i, drawn) in members(figure).items():
        found = by_id[id]["devices"]["cpu"]
        assert drawn.x[i] == found["latency_ms"] and drawn.y[i] == by_id[id]["test_accuracy"]
        assert drawn.x[i] + drawn.error_x.array[i] == pytest.approx(found["high_ms"])
        assert drawn.x[i] - drawn.error_x.arrayminus[i] == pytest.approx(found["low_ms"])
        assert list(drawn.x) == sorted(drawn.x)
    assert by_id[trace(figure, "knee of the front").customdata[0]]["knee"]


def test_the_line_joins_only_what_nothing_beats():
    for cost in ("latency_ms[cpu]", "weights_kib"):
        figure = plots.front(RELAXED, cost=cost)
        (line,) = [t for t in figure.data if t.mode == "lines"]
        assert list(line.x) == sorted(line.x) and list(line.y) == sorted(line.y)
        points = [(t.x[i], t.y[i]) for i, t in members(figure).values()]
        assert max(y for _, y in points) == line.y[-1] and min(points)[0] == line.x[0]


def test_a_budget_is_a_line_at_its_bound_on_any_scale():
    figure = plots.fronts({"relaxed": RELAXED, "tight": TIGHT}, cost="weights_kib")
    bounds = [load_results(run)["constraints"][0]["bound"] for run in (RELAXED, TIGHT)]
    assert [shape.x0 for shape in figure.layout.shapes] == bounds
    drawn = [a.x for a in figure.layout.annotations]
    log = figure.layout.xaxis.type == "log"
    assert drawn == pytest.approx(np.log10(bounds) if log else bounds)


def test_volumes_of_two_runs_share_a_reference_and_never_fall():
    figure = plots.hypervolume({"a": RELAXED, "b": TIGHT})
    for curve in figure.data:
        assert np.all(np.diff(curve.y) >= -1e-12) and curve.y[-1] > 0
    # The same run twice has the same volumes.
    one, two = plots.hypervolume({"a": RELAXED, "b": RELAXED}).data
    assert list(one.y) == list(two.y)


def test_volumes_of_unlike_objectives_are_refused():
    other = {**load_results(TIGHT), "goals": ["accuracy"]}
    with pytest.raises(InputError, match="same objectives"):
        plots.hypervolume({"a": RELAXED, "b": other})


def test_wrong_names_are_told_with_what_there_is():
    with pytest.raises(InputError, match="devices: cpu, accelerator"):
        plots.predicted_vs_measured(RELAXED, device="gpu")
    with pytest.raises(InputError, match="weights_kib"):
        plots.front(RELAXED, cost="wattage")
    with pytest.raises(InputError, match="models: "):
        plots.architecture(RELAXED, "nobody")
    with pytest.raises(InputError, match="test, validation"):
        plots.front(RELAXED, split="train")
    with pytest.raises(InputError, match="families, choices"):
        plots.importance(RELAXED, by="layer")


def test_the_drawing_has_every_layer_with_its_bits():
    entry = load_results(RELAXED)["front"][0]
    layers = [layer for block in entry["plan"]["blocks"] for layer in block["layers"]]
    figure = plots.architecture(RELAXED, entry["id"])
    drawn = {name: t.name for t in figure.data for name in t.y}
    assert drawn == {layer["name"]: f"{layer['weight_bits']} bit" for layer in layers}


def test_predictions_without_a_run():
    figure = plots.prediction([1.0, 2.0], [1.1, 1.8], low_ms=[1.0, 1.5], high_ms=[1.3, 2.1])
    bars = trace(figure, "architecture").error_y
    assert list(bars.array) == pytest.approx([0.2, 0.3])
    for wrong in ({"measured_ms": [1.0], "predicted_ms": [1.0, 2.0]},
                  {"measured_ms": [0.0], "predicted_ms": [1.0]},
                  {"measured_ms": [1.0], "predicted_ms": [1.0], "low_ms": [1.0]}):  # fmt: skip
        with pytest.raises(InputError):
            plots.prediction(**wrong)


def test_the_device_map_marks_the_new_device():
    figure = plots.device_map(["a", "b", "new"], np.eye(3, 2), highlighted=["new"])
    assert list(trace(figure, "new device").text) == ["new"]
    assert list(trace(figure, "known device").text) == ["a", "b"]
    with pytest.raises(InputError):
        plots.device_map(["a"], np.eye(3, 2))


def test_bits_of_layers_and_what_a_budget_costs():
    options = [Bits(w, 8) for w in (2, 4, 8)]
    table = BitTable.of(
        ["one", "two"], [options] * 2, [[4.0, 1.0, 0.1], [8.0, 2.0, 0.2]],
        {"weights_kib": [[2, 4, 8], [2, 4, 8]]},
    )  # fmt: skip
    best = allocate(table, {"weights_kib": 12})
    figure = plots.bit_allocation(table.layers, {"best": best.options})
    assert list(figure.data[0].y) == [option.weight for option in best.options]
    curve = plots.budget_curve(table, "weights_kib", points=5, marked=[best])
    assert np.all(np.diff(curve.data[0].y) <= 0)
    assert curve.data[1].x == (best.costs["weights_kib"],)
    with pytest.raises(InputError):
        plots.bit_allocation(["one"], {"best": best.options})
    with pytest.raises(InputError, match="wattage"):
        plots.budget_curve(table, "wattage")
