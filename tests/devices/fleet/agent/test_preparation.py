"""What is prepared on a board while its agent already serves."""

import contextlib
import os
import sys
import threading

import pytest

from devices.fleet.agent.config import AgentConfig
from devices.fleet.agent.preparation import Preparing
from devices.fleet.agent.workshop import Workshop
from devices.fleet.messages import Devices
from devices.runtime import RUNTIMES, Preparation
from search_spaces.errors import EnvironmentProblem

LONG_S = 60.0
WAIT = "import pathlib, sys, time\nwhile not pathlib.Path(sys.argv[1]).exists(): time.sleep(0.02)\n"


def preparing(monkeypatch, *code):
    """Let the low-bit runtime be prepared by a Python program."""
    runtime = RUNTIMES.get("lowbit")
    command = (sys.executable, "-c", *map(str, code))
    needed = [Preparation("compiling", command)]
    monkeypatch.setattr(
        runtime, "preparation", classmethod(lambda cls: needed.pop() if needed else None)
    )
    monkeypatch.setattr(runtime, "__init__", lambda self, **options: None)
    monkeypatch.setattr(runtime, "version", "1")
    monkeypatch.setattr(runtime, "parameters", lambda self: {})


def offered(fleet):
    (view,) = fleet.link().ask("GET", "/api/devices", Devices).devices
    return {offer.name for offer in view.description.runtimes}


def ended(workshop):
    for each in workshop._preparing.values():
        each.wait(LONG_S)
    assert workshop.changed()


def test_an_agent_registers_first_and_offers_what_is_prepared_later(fleet, tmp_path, monkeypatch):
    preparing(monkeypatch, WAIT, tmp_path / "go")
    both = AgentConfig(name="board", runtimes={"onnxruntime": {}, "lowbit": {}})
    agent = fleet.agent(config=both)
    agent.step()
    assert "onnxruntime" in offered(fleet) and "lowbit" not in offered(fleet)
    agent.step()
    assert "lowbit" not in offered(fleet)
    (tmp_path / "go").touch()
    ended(agent._workshop)
    agent.step()
    assert {"onnxruntime", "lowbit"} <= offered(fleet)
    assert not agent._workshop.changed()


def test_a_failed_preparation_is_said_and_not_tried_again(fleet, monkeypatch, caplog):
    preparing(monkeypatch, "import sys; sys.exit('no such compiler')")
    caplog.set_level("INFO")
    agent = fleet.agent(config=AgentConfig(name="board"))
    agent.step()
    ended(agent._workshop)
    agent.step()
    assert "lowbit" not in offered(fleet)
    assert "runtime lowbit is not offered: compiling failed: no such compiler" in caplog.text
    assert not agent._workshop.changed()


def test_a_runtime_that_the_owner_names_must_be_prepared(monkeypatch):
    preparing(monkeypatch, "import sys; sys.exit(1)")
    workshop = Workshop(AgentConfig(runtimes={"lowbit": {}}), lock=contextlib.nullcontext)
    assert workshop.describe(prepare=True).runtimes == []
    ended(workshop)
    with pytest.raises(EnvironmentProblem, match="compiling failed"):
        workshop.describe(prepare=True)


def test_a_stopped_agent_leaves_no_process_behind(tmp_path):
    started = tmp_path / "pid"
    code = "import os, pathlib, sys, time\npathlib.Path(sys.argv[1]).write_text(str(os.getpid()))\n"
    work = Preparing(
        "waiting",
        [sys.executable, "-c", code + "time.sleep(600)", str(started)],
        contextlib.nullcontext,
    )
    pause = threading.Event()
    while not (started.exists() and started.read_text()):
        assert not work.ended
        pause.wait(0.02)
    work.stop()
    work.wait(LONG_S)
    assert work.ended and work.failure is None
    with pytest.raises(ProcessLookupError):
        os.kill(int(started.read_text()), 0)


def test_nothing_starts_before_the_lock_is_free(tmp_path):
    lock = threading.Lock()
    with lock:
        code = "import pathlib, sys; pathlib.Path(sys.argv[1]).touch()"
        command = [sys.executable, "-c", code, str(tmp_path / "ran")]
        work = Preparing("touching", command, lambda: lock)
        work.wait(0.2)
        assert not work.ended and not (tmp_path / "ran").exists()
    work.wait(LONG_S)
    assert work.ended and (tmp_path / "ran").exists()
