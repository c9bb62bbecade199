"""Long polls: wait until something happened to what one asked about."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


class Bells:
    """Named bells; who waits for one looks again when it rings. For one event loop."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._closed = False

    def ring(self, name: str) -> None:
        """Wake everybody who waits for ``name``."""
        for event in self._waiting.get(name, ()):
            event.set()

    def ring_all(self, prefix: str) -> None:
        """Wake everybody who waits for a name that begins with ``prefix``."""
        for name in self._waiting:
            if name.startswith(prefix):
                self.ring(name)

    def close(self) -> None:
        """Wake everybody for good: the hub shuts down."""
        self._closed = True
        self.ring_all("")

    async def until(
        self, look: Callable[[], Awaitable[list[T]]], names: Sequence[str], seconds: float
    ) -> list[T]:
        """Return what ``look`` finds as soon as it finds anything, or nothing after ``seconds``."""
        event = asyncio.Event()
        for name in names:
            self._waiting.setdefault(name, set()).add(event)
        try:
            loop = asyncio.get_running_loop()
            end = loop.time() + seconds
            while True:
                event.clear()
                found = await look()
                left = end - loop.time()
                if found or left <= 0 or self._closed:
                    return found
                try:
                    await asyncio.wait_for(event.wait(), left)
                except asyncio.TimeoutError:
                    return []
        finally:
            for name in names:
                waiting = self._waiting[name]
                waiting.discard(event)
                if not waiting:
                    del self._waiting[name]
