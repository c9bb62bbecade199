"""The one interface of every executor: run one function over many items."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from search_spaces.registry import Registry

Item = Mapping[str, Any]
"""What one call gets: JSON-compatible values."""


@dataclass(frozen=True)
class Work:
    """A function that any process can build for itself.

    Attributes:
        target: ``package.module:factory``. The factory is called once a worker, with
            ``settings`` and the worker's number of threads as keyword arguments, and returns
            the function that is called with each item.
        settings: JSON-compatible keyword arguments.
        here: the function as this process has it already; never sent to another, and no part
            of what makes two works the same.
    """

    target: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    here: Callable[[Item], Any] | None = field(default=None, compare=False)

    def build(self, *, threads: int | None = None) -> Callable[[Item], Any]:
        """Return the function, built in this process.

        Args:
            threads: that the worker may compute with; None for all.
        """
        module, _, name = self.target.partition(":")
        factory = getattr(importlib.import_module(module), name)
        function: Callable[[Item], Any] = factory(**self.settings, threads=threads)
        return function


class Executor(ABC):
    """Runs a function over items, each exactly once as far as the caller can see.

    An item whose worker died is run again, so work must bear being done twice. Not safe for use
    by several threads at once. Use it as a context manager: leaving stops its workers.
    """

    @abstractmethod
    def run(self, work: Work, items: Sequence[Item]) -> Iterator[tuple[int, Any]]:
        """Yield (index of the item, result) as results come in; nothing where there are none.

        Raises:
            EnvironmentProblem: workers die again and again, or cannot be started.
            Whatever the function raises.
        """

    def close(self) -> None:  # noqa: B027  (most executors hold nothing)
        """Stop the workers."""

    def __enter__(self) -> Executor:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


EXECUTORS: Registry[Callable[..., Executor]] = Registry("executor", group="nas.executors")
"""Factories called as ``factory(workers=..., **options)``."""

MAX_ATTEMPTS = 3
"""Workers an item may outlive before the run gives up on it."""
