"""Pools of worker processes that end with their parent and say what they lack."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import connection, current_process, get_context, parent_process
from typing import Any, TypeVar

from search_spaces.errors import EnvironmentProblem

_Item = TypeVar("_Item")


def worker_pool(
    workers: int, start: Callable[..., None], arguments: tuple[Any, ...]
) -> ProcessPoolExecutor:
    """Return a pool of processes of this machine, started afresh (``spawn``).

    A forked copy of a process that ran torch's thread pool hangs at its first parallel region.

    Args:
        workers: processes.
        start: called in each worker with ``arguments``, before its first work.
        arguments: can be pickled.

    Raises:
        EnvironmentProblem: the system has no semaphores for processes (no ``/dev/shm``).
    """
    try:
        return ProcessPoolExecutor(
            workers,
            mp_context=get_context("spawn"),
            initializer=_begin,
            initargs=(start, arguments),
        )
    except (OSError, ImportError) as error:
        raise EnvironmentProblem(
            f"worker processes cannot be started: {error}. They need shared memory: /dev/shm must "
            "be there, writable and not full (a container: --shm-size=1g); or compute in one "
            "process (executor: local, --workers 1)"
        ) from error


def as_done(
    pool: ProcessPoolExecutor, function: Callable[[_Item], Any], items: Iterable[_Item]
) -> Iterator[tuple[_Item, Any]]:
    """Yield each item with what ``function`` returns of it, in any order, and end the pool."""
    with pool:
        pending = {pool.submit(function, item): item for item in items}
        try:
            for future in as_completed(pending):
                yield pending[future], future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def refuse_in_starting_worker(call: str) -> None:
    """Refuse ``call`` in a worker that is only reading the script of the process it works for.

    Raises:
        EnvironmentProblem: it is such a process, which would begin the whole run again.
    """
    # What multiprocessing sets while a fresh process imports its parent's main module.
    if getattr(current_process(), "_inheriting", False):
        raise EnvironmentProblem(
            f"{call} was reached while a worker process was reading this script, which it does "
            'once when it starts: put the call below  if __name__ == "__main__":  (or compute in '
            "one process, executor: local)"
        )


def end_with_parent() -> None:
    """Let this process end when the one that started it does, however that ends.

    A parent that is killed tells nobody, and a worker that waits for its next item, with the
    supernet in its memory, would wait for ever.
    """
    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        # Becomes readable when the parent is gone.
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def _begin(start: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    end_with_parent()
    start(*arguments)
