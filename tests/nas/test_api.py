"""The functions do what the commands do, are imported late, and are not hidden by modules."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import nas
from search_spaces.errors import InputError

STORED = Path(__file__).parents[2] / "experiments" / "notebooks" / "stored"
FUNCTIONS = (
    "run", "resume", "export", "compare", "measure", "estimate", "inspect", "load_results",
    "make_job", "track", "write_report",
)  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_module_has_the_name_of_a_function(name):
    assert importlib.util.find_spec(f"nas.{name}") is None
    assert callable(getattr(nas, name)) and name in nas.__all__


def test_import_needs_no_torch():
    code = "import sys, nas; nas.run; nas.export; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_wrong_arguments_are_named(tmp_path):
    with pytest.raises(InputError, match="no run folder: it does not exist"):
        nas.resume(tmp_path / "none")
    with pytest.raises(InputError, match="no model file at"):
        nas.measure([tmp_path / "none.onnx"])
    with pytest.raises(InputError, match="at least two run folders"):
        nas.compare([tmp_path])
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(InputError, match="file is no run folder"):
        nas.load_results(tmp_path / "file")
    job = tmp_path / "job.yaml"
    job.write_text("name: digits\ndata: {name: digits}\n")
    with pytest.raises(InputError, match=r"measurements: .* does not exist"):
        nas.run(job, tmp_path / "run", measurements=tmp_path / "none")
    with pytest.raises(InputError, match="seed overrides"):
        nas.run(nas.load_job(job), seed=1)
    assert not (tmp_path / "run").exists()


def test_run_hands_the_job_to_the_pipeline(tmp_path, monkeypatch):
    from nas.stages import pipeline

    seen = {}
    monkeypatch.setattr(
        pipeline, "run", lambda job, folder, **options: seen.update(job=job, folder=folder)
    )
    job = tmp_path / "job.yaml"
    job.write_text("name: digits\ndata: {name: digits}\n")
    assert nas.run(str(job), tmp_path / "run", seed=5) == tmp_path / "run"
    assert seen["job"].seed == 5 and seen["folder"] == tmp_path / "run"


def test_measure_gives_a_measurement_for_each_model(tmp_path):
    from importlib import resources

    model = resources.files("devices.measuring") / "reference.onnx"
    settings = {"processes": 2, "runs": 3}
    (found,) = nas.measure([str(model)], protocol=settings, store=tmp_path / "m.db")
    assert found.latency_ms > 0 or found.reasons


def command(*arguments) -> str:
    """Return what a command prints."""
    from nas.cli.main import app

    done = CliRunner().invoke(app, list(map(str, arguments)))
    assert done.exit_code == 0, done.stderr
    return done.stdout


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file of a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_comparing_exporting_and_reporting_give_what_the_commands_give(tmp_path):
    run = Path(shutil.copytree(STORED / "relaxed", tmp_path / "run"))
    other = STORED / "tight"
    assert command("compare", run, other).splitlines() == nas.compare([run, other]).lines()
    formats = ["--format", "onnx", "--format", "c"]
    command("export", run, *formats, "--output", tmp_path / "one")
    written = nas.export(run, output=tmp_path / "two", formats=["onnx", "c"])
    assert [item.format for item in written] == ["onnx", "c"]
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    command("report", run)
    page = (run / "report.html").read_bytes()
    assert nas.write_report(run).read_bytes() == page
    results = nas.load_results(run)
    assert [model.id for model in results.front] and results.to_json()["front"]


def test_a_mapping_is_the_job_of_the_file_that_would_hold_it(tmp_path, monkeypatch):
    text = "name: a\ndata: {name: digits}\nsearch: {constraints: {weights_kib: {max: 20}}}\n"
    (tmp_path / "job.yaml").write_text(text)
    values = {
        "name": "a",
        "data": {"name": "digits"},
        "search": {"constraints": {"weights_kib": {"max": 20}}},
    }
    job = nas.make_job(values, folder=tmp_path)
    assert job == nas.load_job(tmp_path / "job.yaml")
    with pytest.raises(nas.DiagnosticsError, match="unknown data source 'digitz'"):
        nas.make_job({**values, "data": {"name": "digitz"}})
    with pytest.raises(InputError, match="neither text, number, list nor mapping"):
        nas.make_job({**values, "data": object()})
    from nas.stages import pipeline

    seen = []
    monkeypatch.setattr(pipeline, "run", lambda job, folder, **options: seen.append(job))
    assert nas.run(values, tmp_path / "run", seed=3) == tmp_path / "run"
    assert seen[0].seed == 3 and seen[0].search == job.search


def test_paths_of_a_mapping_are_relative_to_the_folder_that_is_given(tmp_path):
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    values = {"name": "a", "data": {"name": "image_folder", "path": Path("photos")}}
    assert nas.make_job(values, folder=tmp_path).data.path == str(tmp_path / "photos")


def test_a_network_is_inspected_as_it_is():
    from torch import nn

    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    found = nas.inspect(network, (1, 8, 8))
    assert [layer.kind for layer in found.layers] == ["conv", "linear"]
    with pytest.raises(InputError, match="load them into the module"):
        nas.inspect(network, (1, 8, 8), weights="state.safetensors")


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: nas.measure("a.onnx"), r"models: 'a.onnx' is not a list; give \['a.onnx'\]"),
        (lambda: nas.measure(Path("a.onnx")), "models: 'a.onnx' is not a list"),
        (lambda: nas.compare("runs/a"), "runs: 'runs/a' is not a list"),
        (lambda: nas.compare(["a", "b"], objectives="accuracy"), "objectives: 'accuracy' is not"),
        (lambda: nas.export("runs/a", formats="onnx"), r"formats: .* give \['onnx'\]"),
    ],
)
def test_one_where_several_belong_is_not_read_letter_by_letter(call, told):
    with pytest.raises(InputError, match=told):
        call()


def test_what_is_no_network_is_told_before_it_is_read(tmp_path):
    from torch import nn

    with pytest.raises(InputError, match="the class Linear is no network; give"):
        nas.inspect(nn.Linear, (8,))
    with pytest.raises(InputError, match="3 is no network"):
        nas.inspect(3)
    with pytest.raises(InputError, match=r"input_shape: 8 is a number; give .* \(8,\) for so many"):
        nas.inspect(nn.Linear(8, 2), 8)
    with pytest.raises(InputError, match=r"none\.onnx"):
        nas.inspect(tmp_path / "none.onnx")


def test_a_board_needs_its_hub(tmp_path):
    from importlib import resources

    model = str(resources.files("devices.measuring") / "reference.onnx")
    with pytest.raises(InputError, match="give hub and token_file too"):
        nas.measure([model], board="desk")
    with pytest.raises(InputError, match="hub needs board and token_file"):
        nas.measure([model], hub="http://127.0.0.1:1")


@pytest.mark.parametrize(
    "call",
    [
        lambda: nas.run(None),
        lambda: nas.run(3),
        lambda: nas.run(["job.yaml"]),
        lambda: nas.run(b"job.yaml"),
        lambda: nas.estimate(3),
        lambda: nas.load_job(3),
        lambda: nas.run({"name": "x", "data": {"name": "digits"}}, output=5),
        lambda: nas.resume(None),
        lambda: nas.load_results(None),
        lambda: nas.write_report(7),
        lambda: nas.export(None),
        lambda: nas.compare(None),
        lambda: nas.compare([1, 2]),
        lambda: nas.measure(None),
        lambda: nas.measure([None]),
        lambda: nas.inspect("net.onnx", "3x64x64"),
    ],
)
def test_what_is_no_path_is_told_with_its_value(call):
    with pytest.raises(nas.InputError, match=r"None|3|5|7|1|job\.yaml"):
        call()
