"""Several processes of this machine."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from devices.measuring.conditions import allowed_cores
from nas.executors.base import EXECUTORS, MAX_ATTEMPTS, Executor, Item, Work
from nas.executors.pool import worker_pool
from search_spaces.errors import EnvironmentProblem, InputError

_function: Callable[[Item], Any] | None = None
"""The function of this worker process, built by :func:`_start`."""


@EXECUTORS.register("processes")
class ProcessExecutor(Executor):
    """A pool of worker processes that share this machine's cores.

    Args:
        workers: processes; None takes one for each core.

    Raises:
        InputError: fewer than one worker.
    """

    def __init__(self, *, workers: int | None = None) -> None:
        if workers is not None and workers < 1:
            raise InputError(f"executor 'processes' needs at least one worker, not {workers}")
        self.workers = workers or len(allowed_cores())
        self._pool: ProcessPoolExecutor | None = None
        self._work: Work | None = None

    def run(self, work: Work, items: Sequence[Item]) -> Iterator[tuple[int, Any]]:
        """See :meth:`Executor.run`."""
        waiting = list(range(len(items)))
        attempts = [0] * len(items)
        while waiting:
            pool = self._started(work)
            futures: dict[Future[Any], int] = {}
            broken = False
            try:
                for index in waiting:
                    futures[pool.submit(_call, items[index])] = index
            except BrokenProcessPool:
                broken = True
            pending = set(futures)
            while pending and not broken:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    if isinstance(future.exception(), BrokenProcessPool):
                        broken = True
                        continue
                    waiting.remove(futures[future])
                    yield futures[future], future.result()
            if broken:
                # Nobody can tell whose item killed the worker, so every one left counts it.
                self.close()
                for index in waiting:
                    attempts[index] += 1
                    if attempts[index] >= MAX_ATTEMPTS:
                        raise EnvironmentProblem(
                            f"worker processes died {MAX_ATTEMPTS} times while "
                            f"{dict(items[index])} was waiting or under way. What they said is "
                            "above; without a word, memory may be short: lower 'workers', then go "
                            "on with 'nas resume'"
                        )

    def close(self) -> None:
        """Stop the workers; what they are working on is given up."""
        if self._pool is not None:
            children = list((self._pool._processes or {}).values())
            self._pool.shutdown(wait=False, cancel_futures=True)
            for child in children:
                with contextlib.suppress(ProcessLookupError):
                    child.kill()
            self._pool = None

    def _started(self, work: Work) -> ProcessPoolExecutor:
        if self._pool is not None and self._work is not work and self._work != work:
            self.close()
        if self._pool is None:
            threads = max(1, len(allowed_cores()) // self.workers)
            described = Work(work.target, dict(work.settings))
            self._pool = worker_pool(self.workers, _start, (described, threads))
            self._work = work
        return self._pool


def _start(work: Work, threads: int) -> None:
    # Ctrl-C reaches the whole group; the parent stops its workers itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, str(threads))
    global _function
    _function = work.build(threads=threads)


def _call(item: Item) -> Any:
    assert _function is not None, "a worker calls its function only after it was built"
    return _function(item)
