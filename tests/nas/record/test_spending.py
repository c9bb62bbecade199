"""What a run has cost: whole trees, kills, resumptions, processes side by side."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from nas.record.spending import Spending, spent, tree_cpu_seconds
from search_spaces.errors import InputError


class Clock:
    """A clock that stands where it is set."""

    def __init__(self, now=0.0):
        self.now = now

    def __call__(self):
        return self.now


def child(code, *arguments, **options):
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(code), *arguments], **options)


BURN = """
import time
def burn(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
"""


def test_a_tree_holds_living_and_ended_descendants():
    # A child that waits for an ended child of its own, and then lives on.
    code = BURN + textwrap.dedent(
        """
        import subprocess, sys
        burn(0.3)
        subprocess.run([sys.executable, "-c", sys.argv[1] + "burn(0.3)"], check=True)
        print("done", flush=True)
        sys.stdin.read()
        """
    )
    before = tree_cpu_seconds()
    process = child(code, BURN, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"done\n"
    alive = tree_cpu_seconds() - before
    assert tree_cpu_seconds(process.pid) >= 0.55
    process.communicate(b"")
    after = tree_cpu_seconds() - before
    assert alive >= 0.55
    # Ended and waited for, it is counted once and not lost.
    assert alive - 0.05 <= after <= alive + 1.0


def test_no_time_is_found_for_a_process_that_is_gone():
    process = child("pass")
    process.wait()
    assert tree_cpu_seconds(process.pid) == 0.0


def test_sessions_add_up(tmp_path):
    cpu, wall = Clock(100.0), Clock(50.0)
    with Spending(tmp_path, cpu=cpu, wall=wall):
        cpu.now, wall.now = 107.5, 60.0
    cpu.now = 3.0
    with Spending(tmp_path, cpu=cpu, wall=wall, whole_process=True):
        cpu.now, wall.now = 5.0, 61.0
    cost = spent(tmp_path)
    assert (cost.cpu_seconds, cost.wall_seconds, cost.sessions) == (12.5, 11.0, 2)


def test_what_was_spent_never_shrinks(tmp_path):
    cpu = Clock(0.0)
    with Spending(tmp_path, cpu=cpu, every_s=0.01) as spending:
        cpu.now = 8.0
        assert spending.cpu_seconds() == 8.0
        # A descendant that is just being waited for is in nobody's account for a moment.
        cpu.now = 2.0
        assert spending.cpu_seconds() == 8.0
    assert spent(tmp_path).cpu_seconds == 8.0


def test_an_error_of_the_run_is_recorded_and_raised(tmp_path):
    cpu = Clock(0.0)
    with pytest.raises(RuntimeError, match="broken"), Spending(tmp_path, cpu=cpu):
        cpu.now = 4.0
        raise RuntimeError("broken")
    assert spent(tmp_path).cpu_seconds == 4.0


def test_a_killed_session_keeps_what_it_had_written(tmp_path):
    code = BURN + textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from nas.record.spending import Spending
        with Spending(Path(sys.argv[1]), every_s=0.05):
            burn(0.5)
            time.sleep(0.5)
            print("done", flush=True)
            sys.stdin.read()
        """
    )
    process = child(code, str(tmp_path), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"done\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    first = spent(tmp_path)
    assert first.sessions == 1 and first.cpu_seconds >= 0.45
    with Spending(tmp_path):
        time.sleep(0.01)
    assert spent(tmp_path).sessions == 2
    assert spent(tmp_path).cpu_seconds >= first.cpu_seconds


def test_a_run_that_could_not_begin_leaves_no_folder(tmp_path):
    import shutil

    folder = tmp_path / "run"
    with Spending(folder):
        shutil.rmtree(folder)
    assert not folder.exists()


def test_an_older_run_has_no_record_and_a_damaged_one_is_named(tmp_path):
    assert spent(tmp_path) is None
    with Spending(tmp_path):
        pass
    (path,) = (tmp_path / "spending").glob("*.json")
    for text in ("{", "[]", json.dumps({"cpu_seconds": None, "wall_seconds": 1})):
        path.write_text(text)
        with pytest.raises(InputError, match=path.name):
            spent(tmp_path)
