"""What a run has cost: processor seconds of its whole process tree, over every resumption.

Each process that works on a run keeps one small file in ``RUN/spending``, written again every
few seconds, so that a run that is killed loses the last of them and nothing else. Processor
time counts work and not waiting: another load on the machine hardly changes it.
"""

from __future__ import annotations

import json
import os
import platform
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import psutil

from search_spaces.atomic import write_json_atomic
from search_spaces.errors import InputError

EVERY_S = 5.0
"""Seconds between two writings of a session's file."""


def tree_cpu_seconds(pid: int | None = None) -> float:
    """Return the user and system seconds of a process and all it has started, ended ones too.

    A descendant's time moves to its parent when the parent waits for it; where both can be
    seen they are read parent first, so that nothing is counted twice. Descendants that were
    left behind by a parent that died are not found again.

    Args:
        pid: of the root; by default this process.
    """
    try:
        root = psutil.Process(pid)
        tree = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0
    total = 0.0
    for process in tree:
        try:
            times = process.cpu_times()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        total += times.user + times.system
        # Where the system does not keep them (macOS) psutil gives 0.
        total += getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
    return total


@dataclass(frozen=True)
class Spent:
    """What a run has cost so far.

    Attributes:
        cpu_seconds: processor seconds of all its processes.
        wall_seconds: of all its sessions together, which is how long a GPU was held.
        sessions: how often work on it was begun, processes of ``torchrun`` each for itself.
    """

    cpu_seconds: float
    wall_seconds: float
    sessions: int


class Spending:
    """Keeps the record of this process's work on a run, as a context.

    Args:
        folder: of the run.
        whole_process: count what this process did before, too; for a process that does nothing
            else, whose start belongs to the run.
        cpu: the processor seconds so far.
        wall: a steady clock in seconds.
        every_s: seconds between two writings.
    """

    def __init__(
        self,
        folder: Path,
        *,
        whole_process: bool = False,
        cpu: Callable[[], float] = tree_cpu_seconds,
        wall: Callable[[], float] = time.monotonic,
        every_s: float = EVERY_S,
    ) -> None:
        self._cpu, self._wall, self._every_s = cpu, wall, every_s
        self._before = 0.0 if whole_process else cpu()
        self._began = wall()
        self._when = datetime.now(timezone.utc).isoformat(timespec="seconds")
        # Two processes may begin in the same instant, and one may work on a run twice.
        self._path = Path(folder) / "spending" / f"{time.time_ns()}-{os.getpid()}.json"
        self._most = 0.0
        self._lock, self._end = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._follow, name="spending", daemon=True)

    def __enter__(self) -> Spending:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self.save()
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._end.set()
        self._thread.join()
        # A run that could not begin takes its folder with it.
        if self._path.parent.is_dir():
            self.save()

    def cpu_seconds(self) -> float:
        """Return the processor seconds of this session; never less than it said before."""
        with self._lock:
            # A descendant that ends while the tree is read is missing for that moment.
            self._most = max(self._most, self._cpu() - self._before)
            return self._most

    def save(self) -> None:
        """Write the file of this session."""
        write_json_atomic(
            self._path,
            {
                "cpu_seconds": round(self.cpu_seconds(), 3),
                "wall_seconds": round(self._wall() - self._began, 3),
                "began": self._when,
                "pid": os.getpid(),
                "host": platform.node(),
            },
        )

    def _follow(self) -> None:
        while not self._end.wait(self._every_s):
            if not self._path.parent.is_dir():
                return
            self.save()


def last_host(folder: Path) -> str | None:
    """Return the name of the machine that worked last on the run; None where none is recorded."""
    files = sorted((Path(folder) / "spending").glob("*.json"))
    if not files:
        return None
    try:
        return str(json.loads(files[-1].read_text(encoding="utf-8"))["host"])
    except (ValueError, KeyError, TypeError):
        return None  # damaged, which is told where its numbers are read


def spent(folder: Path) -> Spent | None:
    """Return what the run in ``folder`` has cost, or None where that was not recorded.

    Raises:
        InputError: a record is damaged.
    """
    cpu = wall = 0.0
    files = sorted((Path(folder) / "spending").glob("*.json"))
    for path in files:
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            cpu += float(values["cpu_seconds"])
            wall += float(values["wall_seconds"])
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path} is damaged ({error!r}); delete it, which leaves out that session's cost, "
                "or restore it"
            ) from error
    return Spent(round(cpu, 3), round(wall, 3), len(files)) if files else None
