"""Code that a job names runs where it is trusted, and nowhere else."""

from __future__ import annotations

import json
import os

import pytest
from typer.testing import CliRunner

from nas.cli.main import app
from nas.job import trust
from nas.job.trust import Trust
from search_spaces.errors import InputError

RAN = "ran.txt"
CODE = f"open({RAN!r}, 'a').write('x')\n\n\ndef make(**options):\n    raise ValueError('ran')\n"
JOB = "name: j\ndata: {name: digits}\nspace: {name: '%s:make'}\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    # The command line sets who is trusted for its process.
    monkeypatch.setattr(trust, "_current", trust._current)
    return tmp_path


def job(folder, module: str):
    """A job and its module; modules are imported once a process, so each test has its own."""
    package, _, rest = module.partition(".")
    if rest:
        (folder / package).mkdir()
        (folder / package / "__init__.py").write_text(CODE)
        (folder / package / f"{rest}.py").write_text(CODE)
    else:
        (folder / f"{module}.py").write_text(CODE)
    (folder / "job.yaml").write_text(JOB % module)


@pytest.mark.parametrize("module", ["foreign_a", "foreign_b.inner", "foreign_missing_file.x"])
@pytest.mark.parametrize("command", [["validate"], ["run"], ["run", "--dry-run"]])
def test_looking_at_a_job_runs_none_of_its_code(folder, module, command):
    job(folder, module)
    done = CliRunner().invoke(app, [command[0], "job.yaml", *command[1:]])
    assert done.exit_code == 2
    assert "--trust" in done.stderr and f"{module}:make" in done.stderr
    assert module.split(".")[0] in done.stderr.replace(f"{module}:make", "")
    assert not (folder / RAN).exists()


@pytest.mark.parametrize("order", [["--trust", "validate"], ["validate", "--trust"]])
def test_a_job_that_is_trusted_once_is_not_asked_about_again(folder, order):
    module = "trusted_" + order[0].strip("-")
    job(folder, module)
    first = CliRunner().invoke(app, [*order, "job.yaml"])
    assert "ran" in first.stderr and "--trust" not in first.stderr
    again = CliRunner().invoke(app, ["validate", "job.yaml"])
    assert "--trust" not in again.stderr and (folder / RAN).exists()
    kept = json.loads((folder / "config" / "edge-nas" / "trusted.json").read_text())
    assert kept == [f"{module} {folder.resolve() / module}.py"]


def test_a_module_of_the_same_name_elsewhere_is_other_code(folder, monkeypatch):
    one = Trust(everything=True, remember=True)
    job(folder, "twin_net")
    one.require("twin_net:make")
    Trust(everything=False, remember=True).require("twin_net:other")
    (folder / "other").mkdir()
    monkeypatch.chdir(folder / "other")
    job(folder / "other", "twin_net")
    with pytest.raises(InputError, match=r"other/twin_net\.py"):
        Trust(everything=False, remember=True).require("twin_net:make")


def test_code_of_python_and_of_installed_packages_is_asked_about_too(folder):
    """It takes a job's words as arguments, and some of it downloads and runs code."""
    nobody = Trust(everything=False)
    for name in ("torch.hub:load", "sys:exit", "subprocess:run", "no_such_module:f"):
        with pytest.raises(InputError, match="--trust"):
            nobody.require(name)


def test_a_person_is_asked_once_and_a_no_is_kept_to(folder):
    asked = []

    def answer(yes):
        return lambda question: asked.append(question) or yes

    job(folder, "asked_net")
    with pytest.raises(InputError):
        Trust(everything=False, remember=True, ask=answer(False)).require("asked_net:make")
    Trust(everything=False, remember=True, ask=answer(True)).require("asked_net:make")
    Trust(everything=False, remember=True, ask=answer(False)).require("asked_net:make")
    assert len(asked) == 2 and str(folder.resolve()) in asked[0]


def test_a_home_that_cannot_be_written_or_read_means_being_asked_again(folder):
    place = folder / "file"
    place.write_text("no folder")
    trusted = Trust(everything=True, remember=True, file=place / "trusted.json")
    trusted.require("os:getcwd")
    (folder / "damaged.json").write_text("[")
    damaged = Trust(everything=False, remember=True, file=folder / "damaged.json")
    with pytest.raises(InputError):
        damaged.require("os:getcwd")
    assert os.path.isfile(place)
