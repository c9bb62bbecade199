"""The functions do what the commands do, are imported late, and are not hidden by modules."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

import nas
from search_spaces.errors import InputError


@pytest.mark.parametrize("name", ["run", "resume", "export", "compare", "measure"])
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
