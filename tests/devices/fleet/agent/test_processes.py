"""A real hub, a real agent and a real client, and what SIGKILL does to the agent."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time

import pytest

from devices.device import BoardAddress, DeviceSpec
from devices.fleet.link import HubLink
from devices.fleet.messages import Devices
from devices.fleet.remote import RemoteDevice
from devices.measuring.protocol import Protocol
from devices.measuring.store import MeasurementStore

pytest.importorskip("uvicorn")
ADMIN = "the-admin-token-of-the-tests"
HUB = """
import sys
from pathlib import Path
from devices.fleet.hub.server import serve
serve(host="127.0.0.1", port=0, data=Path(sys.argv[1]), token_file=Path(sys.argv[2]),
      on_ready=lambda url: print(url, flush=True))
"""
AGENT = """
import contextlib, sys, threading
from pathlib import Path
from devices.fleet.agent.agent import Agent
from devices.fleet.agent.config import AgentConfig
from devices.fleet.agent.workshop import Workshop
from devices.measuring.child import ChildSampler
from devices.fleet.link import HubLink
from devices.locks import folder_lock

url, token, data = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])

class Telling(ChildSampler):
    def sample(self, *arguments, **options):
        print("measuring", flush=True)
        return super().sample(*arguments, **options)

config = AgentConfig(name="board", runtimes={"onnxruntime": {}})
# Not the machine's own lock: a measurement of somebody else's would hold the test up.
workshop = Workshop(config, sampler=Telling(), lock=contextlib.nullcontext)
with folder_lock(data, "agent"):
    Agent(HubLink(url, token), workshop, data, wait_s=1.0).run(threading.Event())
"""


pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def start():
    """Start Python code in a process of its own; all of them end with the test."""
    processes = []

    def run(code, *arguments):
        process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, text=True
        )
        processes.append(process)
        return process

    yield run
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


def kill(process):
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def children_of(pid):
    done = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True)
    return [int(word) for word in done.stdout.split()]


def wait_until(true, seconds=30.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.05)


def test_an_agent_killed_while_measuring_finishes_the_job_once_when_it_is_back(
    start, tmp_path, make_model
):
    token = tmp_path / "token"
    token.write_text(ADMIN + "\n")
    hub = start(HUB, tmp_path / "hub", token)
    url = hub.stdout.readline().strip()
    agent = start(AGENT, url, token, tmp_path / "agent")
    link = HubLink(url, token)
    wait_until(lambda: link.ask("GET", "/api/devices", Devices).devices)
    store = MeasurementStore(tmp_path / "store.db")
    device = RemoteDevice(
        DeviceSpec("board", address=BoardAddress(url, token, "board")), wait_s=1.0
    )
    protocol = Protocol(
        processes=2, runs=5, retries=0, pin=False, warmup_max_s=0.2, max_interval=None
    )
    found = []
    client = threading.Thread(
        target=lambda: found.extend(
            device.measure([make_model()], archs=["a"], protocol=protocol, store=store)
        )
    )
    client.start()
    assert agent.stdout.readline() == "measuring\n"
    wait_until(lambda: children_of(agent.pid))
    orphans = children_of(agent.pid)
    kill(agent)
    # A measuring process must not go on without its agent.
    wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in orphans))
    agent = start(AGENT, url, token, tmp_path / "agent")
    client.join(timeout=120)
    assert not client.is_alive()
    (measured,) = found
    assert [len(samples) for samples in measured.samples_ms] == [5, 5]
    assert len(store.rows()) == 1
    link.close()
    kill(agent)
    kill(hub)
    with sqlite3.connect(next((tmp_path / "hub").glob("*.db"))) as db:
        ((state, attempts, result),) = db.execute("SELECT state, attempts, result FROM jobs")
        done = db.execute("SELECT count(*) FROM events WHERE what = 'done'").fetchone()
    assert (state, done) == ("done", (1,)) and attempts == 2
    assert json.loads(result)["samples_ms"] == [list(s) for s in measured.samples_ms]
