"""Fronts of several runs side by side, on results written by hand."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from nas.cli.main import app
from nas.fronts import pareto
from nas.fronts.compare import compare_runs
from nas.report import compare
from search_spaces.errors import InputError


def run_folder(folder, points, *, device="cpu", goals=None):
    """Write a run whose front has (accuracy, latency) points; ids are a0, a1, ..."""
    folder.mkdir()
    front = [
        {
            "id": f"a{i}",
            "arch": f"arch {accuracy} {latency}",
            "validation_accuracy": accuracy,
            "test_accuracy": accuracy - 0.01,
            "devices": {device: {"latency_ms": latency}},
            "costs": {"weights_kib": 10.0 * latency},
        }
        for i, (accuracy, latency) in enumerate(points)
    ]
    results = {
        "metric": "accuracy",
        "goals": goals or ["accuracy", f"latency_ms[{device}]"],
        "devices": [{"name": device}],
        "front": front,
    }
    (folder / "results.json").write_text(json.dumps(results))
    return folder


@pytest.fixture
def three(tmp_path):
    return [
        run_folder(tmp_path / "a", [(0.9, 3.0), (0.8, 1.0), (0.88, 1.5)]),
        run_folder(tmp_path / "b", [(0.91, 3.0), (0.8, 1.0)]),
        run_folder(tmp_path / "c", [(0.85, 2.0), (0.84, 2.5)]),
    ]


def judged_on(run, origin, digest, size=8):
    results = json.loads((run / "results.json").read_text())
    part = {"images": 9, "source_sha256": digest}
    splits = {"origin": origin, "classes": ["x", "y"], "channels": 1, "image_size": size}
    results["provenance"] = {"splits": {**splits, "splits": {"train": part, "test": part}}}
    (run / "results.json").write_text(json.dumps(results))


def test_runs_judged_on_other_data_are_told(three):
    for run, digest, size in zip(three, ("d1", "d1", "d2"), (8, 8, 8), strict=True):
        judged_on(run, f"/data/{digest}", digest, size)
    found = compare_runs(three)
    (note,) = found.notes
    assert "not the same data" in note and note.endswith(f"/data/d1; {three[2]} /data/d2")
    assert f"note: {note}" in found.lines() and found.to_json()["notes"] == [note]
    assert note.startswith(compare(*three[::2]).notes[-1][:60])
    # Sizes do not depend on the data, and pixels of another size are no other data.
    assert compare_runs(three, objectives=["weights_kib"]).notes == ()
    judged_on(three[2], "/data/d1", "d2", size=16)
    assert compare_runs(three).notes == ()


def test_volumes_are_against_the_stated_reference(three):
    found = compare_runs(three, reference=(0.7, 4.0))
    a, b, c = (front.hypervolume for front in found.fronts)
    assert found.reference == (0.7, 4.0)
    assert a == pytest.approx(0.2 * 1 + 0.18 * 1.5 + 0.1 * 0.5)
    assert b == pytest.approx(0.21 * 1 + 0.1 * 2)
    assert c == pytest.approx(0.15 * 2)
    assert found.fronts[0].knee == "a2"
    assert len(found.fronts[2].points) == 1  # the other one is dominated
    assert found.differences[0].common == 1
    assert found.differences[1].coverage_a == 1.0 and found.differences[1].coverage_b == 0.0


def test_the_default_reference_is_common_and_beyond_every_point(three):
    found = compare_runs(three)
    accuracy, latency = found.reference
    assert accuracy < 0.8 and latency > 3.0
    assert found.maximised == (True, False) and found.accuracy == "validation"
    half, every = found.attained[0.5], found.attained[1.0]
    # Two of three runs reach 0.8 at 1 ms; all of them only 0.8 at 2 ms or worse.
    assert [0.8, 1.0] in half.tolist()
    assert sorted(every.tolist()) == [[0.8, 2.0], [0.85, 3.0]]


def test_other_objectives_and_what_is_not_recorded(three):
    found = compare_runs(three, objectives=["accuracy", "weights_kib"])
    assert found.objectives == ("accuracy", "weights_kib")
    assert found.fronts[0].points[:, 1].max() == 30.0
    with pytest.raises(InputError, match="macs is not recorded"):
        compare_runs(three, objectives=["macs"])
    with pytest.raises(InputError, match="2 finite ones are needed"):
        compare_runs(three, reference=(0.7,))
    with pytest.raises(InputError, match="at least two"):
        compare_runs(three[:1])


def test_command_line_writes_everything(three, tmp_path):
    out = tmp_path / "comparison.json"
    arguments = ["compare", *map(str, three), "--reference", "0.7,4", "--json", str(out)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "reference point: 0.7, 4" in done.output
    assert "attained by at least 2 of 3 runs" in done.output
    written = json.loads(out.read_text())
    assert written["runs"][0]["knee"] == "a2"
    assert written["differences"][0]["against"] == str(three[0])
    assert CliRunner().invoke(app, ["compare", str(three[0])]).exit_code == 2


def test_runs_of_other_metrics_share_only_costs(three):
    path = three[1] / "results.json"
    results = json.loads(path.read_text())
    results["task"] = {"metric": {"name": "rmse", "higher_is_better": False}}
    path.write_text(json.dumps(results | {"metric": "rmse"}))
    with pytest.raises(InputError, match=r"has the metric accuracy and .* has rmse"):
        compare_runs(three)
    assert compare_runs(three, objectives=["weights_kib", "latency_ms[cpu]"]).accuracy is None


@pytest.mark.parametrize("m", [1, 2, 3])
@pytest.mark.parametrize("seed", range(5))
def test_attainment_is_what_so_many_runs_reach(m, seed):
    rng = np.random.default_rng(seed)
    fronts = [rng.random((rng.integers(1, 6), m)) for _ in range(4)]
    for share, runs in ((0.25, 1), (0.5, 2), (0.6, 3), (1.0, 4)):
        surface = pareto.attainment(fronts, [share])[share]
        probes = np.vstack([rng.random((200, m)), surface])
        reached = sum(
            (front[:, None] <= probes + 1e-12).all(axis=2).any(axis=0) for front in fronts
        )
        below = (surface[:, None] <= probes + 1e-12).all(axis=2).any(axis=0)
        assert ((reached >= runs) == below).all()


def test_attainment_refuses_what_has_none():
    with pytest.raises(InputError, match="every run"):
        pareto.attainment([np.empty((0, 2))], [0.5])
    with pytest.raises(InputError, match="shares"):
        pareto.attainment([np.ones((1, 2))], [0.0])
    with pytest.raises(InputError, match="two or three"):
        pareto.attainment([np.ones((1, 4))], [1.0])
