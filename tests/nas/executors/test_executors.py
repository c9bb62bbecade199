"""The contract of every executor: each item once, errors told, lost workers replaced."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from nas.executors import EXECUTORS, Executor, Work
from nas.executors.processes import ProcessExecutor
from nas.testing import ExecutorContract
from search_spaces.errors import EnvironmentProblem, InputError

WORKERS = {"local": 1, "processes": 2, "ray": 2}


@pytest.fixture(scope="module", autouse=True)
def importable():
    """Let workers import this file: they get the parent's search path."""
    folder = str(Path(__file__).parent)
    sys.path.insert(0, folder)
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([folder, *([before] if before else [])])
    yield
    sys.path.remove(folder)
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before


@pytest.fixture(scope="module")
def cluster(importable):
    """A Ray cluster of two CPUs on this machine, for all tests of the file."""
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def made(name: str, request) -> Executor:
    if name == "ray":
        request.getfixturevalue("cluster")
    return EXECUTORS.get(name)(workers=WORKERS[name])


class TestEveryExecutor(ExecutorContract):
    @pytest.fixture(params=[name for name in EXECUTORS.names() if name in WORKERS])
    def executor(self, request):
        with made(request.param, request) as found:
            yield found


@pytest.fixture(params=["processes", "ray"])
def lossy(request):
    """An executor whose workers can die without the caller."""
    with made(request.param, request) as found:
        yield found


# ------------------------------------------------------------- what the workers do


def dying(*, folder: str, always: bool = False, threads: int | None = None):
    """Kill the worker in the middle of item 3: once, or every time."""

    def work(item):
        if item["x"] == 3:
            died = Path(folder) / "died"
            if always or not died.exists():
                died.write_text("")
                os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.01)
        return item["x"]

    return work


def threads_given(*, threads: int | None = None):
    return lambda item: threads


def test_a_killed_worker_costs_no_result(lossy, tmp_path):
    work = Work("test_executors:dying", {"folder": str(tmp_path)})
    found = list(lossy.run(work, [{"x": x} for x in range(8)]))
    assert (tmp_path / "died").exists()
    assert sorted(found) == [(x, x) for x in range(8)]


def test_an_item_that_always_kills_its_worker_ends_the_run(lossy, tmp_path):
    work = Work("test_executors:dying", {"folder": str(tmp_path), "always": True})
    with pytest.raises(EnvironmentProblem, match="nas resume"):
        list(lossy.run(work, [{"x": 3}]))


def test_workers_share_the_cores():
    with EXECUTORS.get("processes")(workers=2) as executor:
        ((_, threads),) = executor.run(Work("test_executors:threads_given"), [{}])
    assert 1 <= threads <= max(1, (os.cpu_count() or 1) // 2)


def test_the_local_one_uses_what_is_built_already():
    work = Work("no_such_module:nothing", here=lambda item: item["x"] + 1)
    assert list(EXECUTORS.get("local")().run(work, [{"x": 1}])) == [(0, 2)]


def test_one_target_may_have_several_functions_here():
    """What an item asks for is told apart by the item elsewhere, and by the function here."""
    works = [Work("no_such_module:nothing", here=lambda item, k=k: item["x"] + k) for k in (1, 2)]
    assert works[0] == works[1]
    with EXECUTORS.get("local")() as executor:
        assert [list(executor.run(work, [{"x": 1}])) for work in works] == [[(0, 2)], [(0, 3)]]


@pytest.mark.parametrize(("name", "workers"), [("local", 2), ("processes", 0)])
def test_numbers_of_workers_that_cannot_be_are_refused(name, workers):
    with pytest.raises(InputError, match="worker"):
        EXECUTORS.get(name)(workers=workers)


PARENT = """
import sys, time
from nas.executors.base import Work
from nas.executors.processes import ProcessExecutor

if __name__ == "__main__":
    with ProcessExecutor(workers=2) as pool:
        for index, pid in pool.run(Work("work_of_test:factory"), [{}, {}, {}, {}]):
            print(pid, flush=True)
        print("waiting", flush=True)
        time.sleep(600)
"""
CHILD = """
import os, time

def factory(*, threads):
    def run(item):
        time.sleep(0.2)
        return os.getpid()
    return run
"""


def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    (tmp_path / "parent.py").write_text(PARENT)
    (tmp_path / "work_of_test.py").write_text(CHILD)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    parent = subprocess.Popen(
        [sys.executable, str(tmp_path / "parent.py")],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    workers = set()
    for line in parent.stdout:
        if line == "waiting\n":
            break
        workers.add(int(line))
    assert workers
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until = time.monotonic() + 60
    while any(map(alive, workers)) and time.monotonic() < until:
        time.sleep(0.1)
    assert not any(map(alive, workers))


def alive(pid: int) -> bool:
    # Whoever adopts an orphan may leave it a zombie for a while; that holds no memory.
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_system_without_shared_memory_is_told_so(monkeypatch):
    def missing(*_, **__):
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr("nas.executors.pool.ProcessPoolExecutor", missing)
    with pytest.raises(EnvironmentProblem, match=r"/dev/shm.*executor: local"):
        list(ProcessExecutor(workers=2).run(Work("os:getcwd"), [{}]))


UNGUARDED = """
from nas.executors import Work
from nas.executors.pool import refuse_in_starting_worker
from nas.executors.processes import ProcessExecutor

refuse_in_starting_worker("nas.run")
with ProcessExecutor(workers=1) as executor:
    list(executor.run(Work("operator:neg"), [{}]))
"""


def test_a_script_that_its_workers_run_again_is_told_what_to_write(tmp_path):
    script = tmp_path / "unguarded.py"
    script.write_text(UNGUARDED)
    found = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=False, timeout=120
    )
    assert found.returncode != 0
    assert 'put the call below  if __name__ == "__main__":' in found.stderr
    assert "What they said is above" in found.stderr
