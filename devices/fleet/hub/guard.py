"""What stands before the application: who asks, and the time, size and rate of what is sent.

The application never sees a request without a valid token, nor one that is too large or too
slow, and every refusal has a body of the same length, so that nobody can make the hub hold
much, say much or learn much.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from devices.fleet.hub.refusals import Refusal, unauthorised
from devices.fleet.hub.tokens import Identity

Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

HEALTH = "/api/health"
"""The one path of the interface that needs no token."""

REFUSAL_BYTES = 512
"""Length of every refusal's body."""


@dataclass(frozen=True)
class GuardLimits:
    """How much and how slowly a client may send.

    Attributes:
        message_bytes: body of a message.
        result_bytes: body of a result, which holds every raw sample.
        blob_bytes: body of a model upload.
        silence_s: longest wait for the next piece of a body, and for a client to take the
            next piece of an answer.
        grace_s: after this long a body must have come at ``bytes_per_s`` on average.
        uploads: model uploads at a time.
    """

    message_bytes: int = 1 << 20
    result_bytes: int = 8 << 20
    blob_bytes: int = 256 << 20
    silence_s: float = 10.0
    grace_s: float = 20.0
    bytes_per_s: float = 4096.0
    uploads: int = 8


HEADERS = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
)


def refusal_body(code: str, detail: str) -> bytes:
    """Return the JSON body of a refusal, cut and padded to ``REFUSAL_BYTES``."""
    text = "".join(c if c.isascii() and c.isprintable() else "?" for c in detail)
    while True:
        body = json.dumps({"error": code, "detail": text}).encode()
        if len(body) <= REFUSAL_BYTES:
            return body.ljust(REFUSAL_BYTES)
        text = text[: len(text) - (len(body) - REFUSAL_BYTES)]


class Guard:
    """ASGI middleware that bounds requests.

    Args:
        app: the application; finds the caller in ``scope["identity"]``.
        verify: token -> who holds it; raises :class:`Refusal`. Asked before a body is read.
        limits: see :class:`GuardLimits`.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        app: Application,
        *,
        verify: Callable[[str], Identity],
        limits: GuardLimits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app, self._verify = app, verify
        self._limits, self._clock = limits or GuardLimits(), clock
        self._uploads = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(send, self._limits.silence_s)
        upload = scope["method"] == "PUT" and scope["path"].startswith("/api/blobs/")
        try:
            if scope["path"].startswith("/api/") and scope["path"] != HEALTH:
                scope["identity"] = self._verify(_token(scope))
            limit = self._limit(scope, upload)
            declared = _declared(scope)
            if declared is not None and declared > limit:
                raise _too_large(limit)
            body = answer.body = _Body(receive, limit, self._limits, self._clock)
            if upload:
                await self._upload(scope, body, answer)
            else:
                whole = await body.whole(_expects_body(scope, declared))
                await self._app(scope, _once(whole, receive), answer)
        except Refusal as refusal:
            if not answer.begun:
                await refuse(answer, refusal)
        except asyncio.TimeoutError:
            if not answer.begun:
                await refuse(answer, Refusal(408, "too-slow", "the connection stalled"))
            else:
                raise

    async def _upload(self, scope: Scope, body: _Body, answer: _Answer) -> None:
        if self._uploads >= self._limits.uploads:
            raise Refusal(503, "busy", "too many uploads at once; try again")
        self._uploads += 1
        try:
            await self._app(scope, body, answer)
        finally:
            self._uploads -= 1

    def _limit(self, scope: Scope, upload: bool) -> int:
        if upload:
            return self._limits.blob_bytes
        if "identity" not in scope:
            return 0  # the page and the health take no body, and nobody has said who asks
        if scope["path"] == "/api/agent/result":
            return self._limits.result_bytes
        return self._limits.message_bytes


async def refuse(send: Send, refusal: Refusal) -> None:
    """Send a refusal."""
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % REFUSAL_BYTES)]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": refusal_body(refusal.code, refusal.detail)})


class _Body:
    """Receives a body within the limits; used as the application's ``receive`` for uploads."""

    def __init__(
        self, receive: Receive, limit: int, limits: GuardLimits, clock: Callable[[], float]
    ) -> None:
        self._receive, self._limit, self._limits, self._clock = receive, limit, limits, clock
        self._started = clock()
        self._size = 0
        self.ended = False

    async def __call__(self) -> Event:
        if self.ended:
            return await self._receive()
        try:
            event = await asyncio.wait_for(self._receive(), self._limits.silence_s)
        except asyncio.TimeoutError:
            raise Refusal(408, "too-slow", "the request stalled") from None
        if event["type"] != "http.request":
            self.ended = True
            return event
        self._size += len(event.get("body", b""))
        self.ended = not event.get("more_body", False)
        if self._size > self._limit:
            raise _too_large(self._limit)
        lasted = self._clock() - self._started
        if lasted > self._limits.grace_s and self._size < lasted * self._limits.bytes_per_s:
            raise Refusal(408, "too-slow", "the request came too slowly")
        return event

    async def whole(self, expected: bool) -> bytes:
        """Return the body to its end; nothing is read where none is ``expected``.

        Raises:
            Refusal: the client went away, or sent too much or too slowly.
        """
        if not expected:
            self.ended = True
            return b""
        pieces = []
        while not self.ended:
            event = await self()
            if event["type"] != "http.request":
                raise Refusal(400, "disconnected", "the request was cut off")
            pieces.append(event.get("body", b""))
        return b"".join(pieces)


class _Answer:
    """Sends an answer; a client that does not take it is let go.

    When the body was not read to its end the connection is closed after the answer: else the
    server would go on to swallow the rest, however long.
    """

    def __init__(self, send: Send, silence_s: float) -> None:
        self._send, self._silence_s = send, silence_s
        self.begun = False
        self.body: _Body | None = None

    async def __call__(self, event: Event) -> None:
        if event["type"] == "http.response.start":
            self.begun = True
            headers = [*event.get("headers", []), *HEADERS]
            if self.body is None or not self.body.ended:
                headers.append((b"connection", b"close"))
            event = {**event, "headers": headers}
        await asyncio.wait_for(self._send(event), self._silence_s)


def _once(body: bytes, receive: Receive) -> Receive:
    given = False

    async def once() -> Event:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return once


def _token(scope: Scope) -> str:
    for name, value in scope["headers"]:
        kind, _, token = value.partition(b" ")
        if name == b"authorization" and kind.lower() == b"bearer" and token.strip():
            return token.strip().decode("latin-1")
    raise unauthorised()


def _declared(scope: Scope) -> int | None:
    values = [value for name, value in scope["headers"] if name == b"content-length"]
    if not values:
        return None
    if len(values) > 1 or not values[0].isdigit() or len(values[0]) > 18:
        raise Refusal(400, "malformed", "the content length is malformed")
    return int(values[0])


def _expects_body(scope: Scope, declared: int | None) -> bool:
    return bool(declared) or any(name == b"transfer-encoding" for name, _ in scope["headers"])


def _too_large(limit: int) -> Refusal:
    return Refusal(413, "too-large", f"more than the {limit} bytes allowed")
