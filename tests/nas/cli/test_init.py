"""``nas init``: where the data is looked for, and what the job is called."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from nas.cli.main import app
from nas.job.check import load_job


@pytest.fixture
def call(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


def photos(folder, shade=0):
    for label in ("cats", "dogs"):
        (folder / label).mkdir(parents=True)
        for number in range(8):
            pixels = np.full((16, 16, 3), shade + number, np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{number}.png")


def test_a_folder_is_looked_for_from_here_as_on_any_command_line(call, tmp_path):
    photos(tmp_path / "Große Ikonen 2")
    (tmp_path / "jobs").mkdir()
    written = call("init", "jobs/new.yaml", "--path", "Große Ikonen 2", "--latency-ms", "0")
    assert written.exit_code == 0, written.stderr
    job = load_job(tmp_path / "jobs" / "new.yaml")
    assert job.data.path is not None
    assert job.name == "Groe-Ikonen-2"  # so that two folders' runs are not in each other's way
    # Beside the job it is found, too, as the job itself says it.
    (tmp_path / "jobs" / "beside").mkdir()
    photos(tmp_path / "jobs" / "beside" / "faces")
    written = call("init", "jobs/other.yaml", "--path", "beside/faces", "--latency-ms", "0")
    assert written.exit_code == 0, written.stderr
    assert 'path: "beside/faces"' in (tmp_path / "jobs" / "other.yaml").read_text()


def test_a_folder_that_two_places_have_is_asked_for(call, tmp_path):
    photos(tmp_path / "pets")
    photos(tmp_path / "jobs" / "pets", shade=100)
    told = call("init", "jobs/new.yaml", "--path", "pets", "--latency-ms", "0")
    assert told.exit_code == 2 and f"such as {tmp_path / 'pets'}" in told.stderr
    assert not (tmp_path / "jobs" / "new.yaml").exists()


@pytest.mark.parametrize(("path", "name"), [(".", "image-folder"), ("測試", "image-folder")])
def test_a_folder_without_a_name_leaves_that_of_its_source(path, name):
    from nas.job.first.template import _name

    assert _name("image_folder", path) == name
