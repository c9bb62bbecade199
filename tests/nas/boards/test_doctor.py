"""The doctor tells what is there, what is not, and what does not run."""

from __future__ import annotations

import pytest

from devices.runtime import RUNTIMES, Runtime
from nas.boards import doctor
from search_spaces.errors import InputError


def test_every_extra_has_its_packages():
    found = doctor.extras()
    assert {"numpy", "onnxruntime"} <= set(found["base"])
    assert "torch" in found["search"]
    assert "edge-nas" not in {name for names in found.values() for name in names}


def test_what_is_missing_is_told_with_its_command(monkeypatch):
    monkeypatch.setattr(doctor, "extras", lambda: {"base": ["numpy"], "hub": ["no-such-package"]})
    lines = list(doctor._packages())
    assert lines[0].startswith("base") and "numpy" in lines[0]
    assert lines[1].startswith("missing ")
    assert lines[1].endswith("no-such-package; install with: pip install 'edge-nas[hub]'")


def test_a_runtime_is_run_not_only_found():
    line = doctor._tried("onnxruntime", "1")
    assert line.startswith("runtime") and "ran the reference model" in line


def test_one_that_fails_or_is_unknown_is_broken(monkeypatch):
    line = doctor._tried("no-such-runtime", "0")
    assert line.startswith("broken") and "no-such-runtime" in line
    monkeypatch.setattr(doctor, "RUN_SECONDS", 0.01)
    assert "no result within" in doctor._tried("onnxruntime", "1")


def test_one_whose_package_is_absent_says_so(monkeypatch):
    class Absent(Runtime):
        def __init__(self):
            raise InputError("its package is absent")

        version = ""
        load = None

    monkeypatch.setattr(RUNTIMES, "get", lambda name: Absent)
    lines = list(doctor._runtimes(run_models=False))
    assert lines and all("its package is absent" in line for line in lines)


@pytest.mark.parametrize("quick", [True])
def test_the_whole_account_ends_with_the_machine(quick):
    lines = list(doctor.diagnose(run_models=not quick))
    assert lines[0].startswith("edge-nas") and lines[-1].startswith("measuring")
    assert any(line.startswith("runtime      onnxruntime") for line in lines)
