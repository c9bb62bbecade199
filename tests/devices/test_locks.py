import subprocess
import sys

import pytest

from devices.locks import folder_lock, is_locked, machine_lock
from search_spaces.errors import EnvironmentProblem

pytest.importorskip("fcntl")

HOLD = """
import sys
from pathlib import Path
from devices.locks import folder_lock, machine_lock
kind, path = sys.argv[1:]
lock = folder_lock(Path(path), "agent") if kind == "folder" else machine_lock(Path(path))
with lock:
    print("held", flush=True)
    sys.stdin.read()
"""
TRY = """
import fcntl, os, sys
handle = os.open(sys.argv[1], os.O_RDWR)
try:
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    sys.exit(7)
"""


@pytest.fixture
def holder():
    """A process that holds a lock until it is killed."""
    processes = []

    def start(kind, path):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, kind, str(path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        processes.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def taken(path):
    return subprocess.run([sys.executable, "-c", TRY, str(path)]).returncode == 7


def test_a_folder_belongs_to_one_process_and_a_killed_one_lets_go(holder, tmp_path):
    process = holder("folder", tmp_path / "data")
    with (
        pytest.raises(EnvironmentProblem, match="another agent is using the folder"),
        folder_lock(tmp_path / "data", "agent"),
    ):
        raise AssertionError
    process.kill()
    process.wait()
    with folder_lock(tmp_path / "data", "agent"):
        pass


def test_one_measurement_at_a_time_holds_the_machine(holder, tmp_path):
    path = tmp_path / "machine.lock"
    process = holder("machine", path)
    assert taken(path)
    process.kill()
    process.wait()
    with machine_lock(path):
        assert taken(path)
    assert not taken(path)


def test_accelerators_have_locks_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with machine_lock(accelerator="npu"), machine_lock(accelerator="gpu"), machine_lock():
        assert len(list(tmp_path.glob("edge-nas-*.lock"))) == 3


def test_a_place_that_cannot_hold_a_lock(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentProblem, match="cannot open the lock"):
        machine_lock(tmp_path / "file" / "lock").__enter__()
    with pytest.raises(EnvironmentProblem, match="cannot use the folder"):
        folder_lock(tmp_path / "file" / "data", "hub").__enter__()


def test_whether_a_lock_is_held_is_seen_at_once(holder, tmp_path):
    lock = tmp_path / "lock"
    assert is_locked(lock) is None  # there is none
    process = holder("machine", lock)
    assert is_locked(lock) is True
    process.kill()
    process.communicate()
    assert is_locked(lock) is False
