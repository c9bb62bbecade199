"""Connections that must get to the point: uvicorn's protocol with deadlines for a request's head.

uvicorn bounds how long a connection idles between requests, not how long it takes to send
one; a client that sends a header byte a minute would hold its connection for good. Bodies and
answers have their deadlines in :mod:`devices.fleet.hub.guard`.
"""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_S = 10.0
"""Time for the head of a request, from the connection or the first byte on."""
MAX_HEADLESS = 512
"""Connections without a whole head at a time; beyond that the oldest is closed."""


class GuardedProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 protocol that closes connections without a request in time."""

    head_s = HEAD_S
    max_headless = MAX_HEADLESS

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Give a new connection its time for the head of a request."""
        super().connection_made(transport)
        self._deadline: asyncio.TimerHandle | None = None
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        """Take bytes; a head among them ends the wait for it, or begins the next."""
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        """Look whether the next request has begun, and give its head its time."""
        super().on_response_complete()
        self._look()  # the next head may have begun already

    def _look(self) -> None:
        if self.conn.their_state is h11.IDLE:
            # Part of a head: the clock runs from its first byte.
            if self._deadline is None and self.conn.trailing_data[0]:
                self._expect_head()
        else:
            self._head_came()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a connection that is gone."""
        self._head_came()
        super().connection_lost(exc)

    def _expect_head(self) -> None:
        headless: dict[Any, None] = self.app_state.setdefault("headless", {})
        if len(headless) >= self.max_headless:
            next(iter(headless))._give_up()
        headless[self] = None
        self._deadline = self.loop.call_later(self.head_s, self._give_up)

    def _head_came(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self.app_state.get("headless", {}).pop(self, None)

    def _give_up(self) -> None:
        self._head_came()
        self.transport.abort()
