"""A board's own program, listed in its agent's configuration, measures for a client of the hub."""

from __future__ import annotations

import contextlib
import sys
import threading

import pytest

from devices.device import BoardAddress, DeviceSpec
from devices.fleet.agent.agent import Agent
from devices.fleet.agent.config import AgentConfig
from devices.fleet.agent.workshop import Workshop
from devices.fleet.remote import RemoteDevice
from devices.measuring.protocol import Protocol
from devices.runtimes.command import COMMANDS
from search_spaces.errors import InputError

PROTOCOL = Protocol(
    processes=2, runs=5, retries=0, pin=False, max_interval=None, max_spread=None, max_iqr=None,
    max_drift=None, max_slowdown=None, max_starvation=None, max_outlier_share=None,
)  # fmt: skip


@pytest.fixture(autouse=True)
def no_tools_left():
    yield
    COMMANDS.configure({})


@contextlib.contextmanager
def working(agent):
    """Let an agent do its rounds in a thread of its own."""
    stop = threading.Event()

    def rounds():
        while not stop.is_set():
            agent.step()

    thread = threading.Thread(target=rounds)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def configuration(folder, text=""):
    program = folder / "bench.py"
    program.write_text(
        "import sys, json\n"
        "assert open(sys.argv[1], 'rb').read(1)\n"
        "print(json.dumps({'latency_ms': [2.0 + 0.01 * i for i in range(int(sys.argv[2]))]}))\n"
    )
    path = folder / "agent.yaml"
    path.write_text(
        text
        or "name: board\n"
        "commands:\n"
        "  - name: bench\n"
        f"    arguments: [{sys.executable}, {program}, '{{model}}', '{{runs}}']\n"
        "    version: '1.2'\n"
    )
    return path


def test_a_program_of_the_boards_measures_for_a_client(fleet, tmp_path):
    config = AgentConfig.load(configuration(tmp_path))
    COMMANDS.configure({tool.name: tool for tool in config.commands})
    fleet.token("board", "measure", "board")
    workshop = Workshop(config, lock=contextlib.nullcontext)
    agent = Agent(fleet.link("board"), workshop, tmp_path / "board", wait_s=0.0)
    agent.step()
    (offer,) = [o for o in workshop.describe().runtimes if o.name == "command"]
    assert (offer.version, offer.parameters) == ("bench 1.2", {"tools": ["bench"]})
    address = BoardAddress("http://127.0.0.1:1", fleet.token_files["admin"], "board")
    spec = DeviceSpec("board", "command", options={"tool": "bench"}, address=address)
    device = RemoteDevice(
        spec,
        link=fleet.link(),
        wait_s=0.0,
        sleep=fleet.time.advance,
        clock=lambda: fleet.time.now,
    )
    with working(agent):
        (found,) = device.measure(fleet.models(1), protocol=PROTOCOL)
    assert found.valid, found.detail
    assert found.latency_ms == pytest.approx(2.02)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("commands: bench", "must be a list"),
        ("commands: [{name: a, arguments: [x]}]", "would not see the model"),
        ("commands: [{name: a, arguments: ['{modle}']}]", "unknown placeholder {modle}"),
    ],
)
def test_mistakes_in_the_list_of_programs_name_the_file(tmp_path, text, message):
    path = configuration(tmp_path, text)
    with pytest.raises(InputError, match=message) as caught:
        AgentConfig.load(path)
    assert str(path) in str(caught.value)


def test_without_programs_the_runtime_is_not_offered():
    assert not AgentConfig(runtimes={"command": {}}).offers("command")
    assert not AgentConfig().offers("command")
