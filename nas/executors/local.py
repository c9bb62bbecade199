"""One item after the other, in this process: the default, and the reference for the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from nas.executors.base import EXECUTORS, Executor, Item, Work
from search_spaces.errors import InputError


@EXECUTORS.register("local")
class LocalExecutor(Executor):
    """Works on the items in order.

    Args:
        workers: 1 or None; there is only this process.
    """

    def __init__(self, *, workers: int | None = None) -> None:
        if workers not in (None, 1):
            raise InputError(
                f"executor 'local' has one worker, not {workers}; use executor: processes"
            )
        self._built: tuple[Work, Callable[[Item], Any]] | None = None

    def run(self, work: Work, items: Sequence[Item]) -> Iterator[tuple[int, Any]]:
        """See :meth:`Executor.run`."""
        if not items:
            return
        function = work.here or self._function_of(work)
        for index, item in enumerate(items):
            yield index, function(item)

    def _function_of(self, work: Work) -> Callable[[Item], Any]:
        if self._built is None or self._built[0] != work:
            self._built = (work, work.build())
        return self._built[1]
