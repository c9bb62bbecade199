"""Taking connections: TLS handshakes have a deadline, and only so many are open at a time.

asyncio gives a handshake a minute, counts none of them, and writes a traceback for every
connection that the process has no file left for. A few hundred clients that connect and say
nothing would so keep everybody else out and fill the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import resource
import socket
import ssl
from collections.abc import Callable

_LOG = logging.getLogger(__name__)

HANDSHAKE_S = 5.0
"""Time for a TLS handshake, from the connection on."""
MAX_HANDSHAKES = 256
"""Handshakes at a time; beyond that the oldest is given up."""
NEW_PER_S = 100.0
"""New connections a second that are taken over time; those beyond wait in the system's queue. A
connection costs the hub about a millisecond even where nothing comes of it, and boards keep
theirs for many requests, so a flood of new ones may wait while boards are answered."""
NEW_AT_ONCE = 300
"""New connections that are taken at once after a quiet time: a fleet that comes back."""
_OPEN_FILES = 16_384
_AT_ONCE = 64
_PAUSE_S = 0.1
_COMPLAIN_S = 60.0


class Acceptor:
    """Takes the connections of a listening socket; stands where asyncio's server would.

    Args:
        listener: bound and listening.
        factory: makes a connection's protocol.
        context: of TLS, or None.
        handshake_s, most: see :data:`HANDSHAKE_S`, :data:`MAX_HANDSHAKES`.
        new_per_s, new_at_once: see :data:`NEW_PER_S`, :data:`NEW_AT_ONCE`.
    """

    def __init__(
        self,
        listener: socket.socket,
        factory: Callable[[], asyncio.Protocol],
        context: ssl.SSLContext | None,
        *,
        handshake_s: float = HANDSHAKE_S,
        most: int = MAX_HANDSHAKES,
        new_per_s: float = NEW_PER_S,
        new_at_once: int = NEW_AT_ONCE,
    ) -> None:
        self._listener, self._factory, self._context = listener, factory, context
        self._handshake_s, self._most = handshake_s, most
        self._loop = asyncio.get_running_loop()
        self._new_per_s, self._new_at_once = new_per_s, float(new_at_once)
        self._allowed, self._counted = self._new_at_once, self._loop.time()
        self._under_way: dict[asyncio.Task[None], socket.socket] = {}
        self._complained = float("-inf")
        listener.setblocking(False)
        self._listen()

    def close(self) -> None:
        """Take no more connections."""
        self._loop.remove_reader(self._listener.fileno())
        for task in list(self._under_way):
            task.cancel()

    async def wait_closed(self) -> None:
        """Wait until the last handshake has ended."""
        await asyncio.gather(*self._under_way, return_exceptions=True)

    def _listen(self) -> None:
        if self._listener.fileno() >= 0:
            self._loop.add_reader(self._listener.fileno(), self._take)

    def _take(self) -> None:
        for _ in range(_AT_ONCE):
            if not self._may_take():
                return
            try:
                connection, _address = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._rest(error)
                return
            self._allowed -= 1
            connection.setblocking(False)
            if len(self._under_way) >= self._most:
                self._give_up_oldest()
            task = self._loop.create_task(self._greet(connection))
            self._under_way[task] = connection
            task.add_done_callback(lambda done: self._under_way.pop(done, None))

    def _may_take(self) -> bool:
        """Whether another connection may be taken now; looks away for a moment where not."""
        now = self._loop.time()
        earned = (now - self._counted) * self._new_per_s
        self._allowed = min(self._new_at_once, self._allowed + earned)
        self._counted = now
        if self._allowed >= 1:
            return True
        self._loop.remove_reader(self._listener.fileno())
        self._loop.call_later((1 - self._allowed) / self._new_per_s, self._listen)
        return False

    def _rest(self, error: OSError) -> None:
        """Look away for a moment when no more files may be open, and make room."""
        now = self._loop.time()
        if now - self._complained > _COMPLAIN_S:
            self._complained = now
            full = error.errno in (errno.EMFILE, errno.ENFILE)
            _LOG.warning(
                "connections wait: %s",
                "as many files are open as the system allows" if full else error,
            )
        self._give_up_oldest()
        self._loop.remove_reader(self._listener.fileno())
        self._loop.call_later(_PAUSE_S, self._listen)

    def _give_up_oldest(self) -> None:
        oldest = next(iter(self._under_way), None)
        if oldest is not None:
            self._under_way.pop(oldest)
            oldest.cancel()

    async def _greet(self, connection: socket.socket) -> None:
        timeout = None if self._context is None else self._handshake_s
        try:
            await self._loop.connect_accepted_socket(
                self._factory, connection, ssl=self._context, ssl_handshake_timeout=timeout
            )
        except (OSError, asyncio.CancelledError):  # errors of TLS are OSErrors
            connection.close()


def allow_many_files() -> None:
    """Let this process open as many files as the system lets it, within reason."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
