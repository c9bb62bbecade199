"""A hub, its network and its boards in one process, with every fault on demand.

For tests of this package and of whatever is built on it: time passes when it is told to,
the network can be cut at any point of an exchange, and a measurement takes no time.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from devices.fleet.hub.clock import Clock
from devices.measuring.child import Sampler
from devices.measuring.protocol import Protocol
from devices.measuring.sampling import REFERENCE, Block, Failure
from devices.runtime import Runtime


@dataclass
class ManualClock:
    """Monotonic and wall time that stand still between calls of :meth:`advance`."""

    now: float = 1000.0
    wall: float = 1.8e9

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
        self.wall += seconds

    def step_wall(self, seconds: float) -> None:
        """Set the machine's clock forward or back; no time passes."""
        self.wall += seconds

    def clock(self) -> Clock:
        """Return the clock a hub takes."""
        return Clock(monotonic=lambda: self.now, wall=lambda: self.wall)


class Killed(BaseException):
    """A process ended here: nothing after this point runs, no handler catches it."""


@dataclass
class Faults:
    """What happens to each exchange of a client.

    Attributes:
        before: called before a request leaves; what it raises is what the client sees.
        after: called when the hub has answered and the client has not seen it yet.
        cut_body_at: bytes of a request's body after which the connection breaks.
    """

    before: Callable[[httpx.Request], None] = lambda request: None
    after: Callable[[httpx.Request, httpx.Response], None] = lambda request, response: None
    cut_body_at: int | None = None


class HubNetwork:
    """A hub on an event loop of its own, reached through transports instead of sockets.

    Args:
        make_app: builds the hub's application; called again by :meth:`restart`.
    """

    def __init__(self, make_app: Callable[[], Any]) -> None:
        self._make_app = make_app
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.app: Any = make_app()
        self.down = False

    def restart(self) -> None:
        """Replace the hub by one that has only what is on disk."""
        self.app = self._make_app()

    def transport(self, faults: Faults | None = None) -> httpx.BaseTransport:
        """Return a client's way to the hub."""
        return _Transport(self, faults or Faults())

    def close(self) -> None:
        """Stop the loop."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def exchange(self, request: httpx.Request, cut_body_at: int | None = None) -> httpx.Response:
        """Carry one request to the hub and its answer back."""
        if self.down:
            raise httpx.ConnectError("the hub is down", request=request)
        body = request.read()
        work = _exchange(self.app, request, body, cut_body_at)
        response = asyncio.run_coroutine_threadsafe(work, self._loop).result(60)
        if cut_body_at is not None:
            raise httpx.WriteError("the connection was cut", request=request)
        return response

    def exchange_all(self, requests: Sequence[httpx.Request]) -> list[httpx.Response]:
        """Carry many requests, one after another, without a change of threads for each."""

        async def carry() -> list[httpx.Response]:
            return [await _exchange(self.app, r, r.read(), None) for r in requests]

        return asyncio.run_coroutine_threadsafe(carry(), self._loop).result(600)


class _Transport(httpx.BaseTransport):
    def __init__(self, network: HubNetwork, faults: Faults) -> None:
        self._network, self._faults = network, faults

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Carry a request to the hub, with the faults that are played."""
        self._faults.before(request)
        response = self._network.exchange(request, self._faults.cut_body_at)
        self._faults.after(request, response)
        return response


async def _exchange(
    app: Any, request: httpx.Request, body: bytes, cut_body_at: int | None
) -> httpx.Response:
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": request.url.scheme,
        "path": request.url.path,
        "raw_path": request.url.raw_path.split(b"?")[0],
        "query_string": request.url.query,
        "root_path": "",
        "headers": [(name.lower(), value) for name, value in request.headers.raw],
        "server": (request.url.host, request.url.port),
        "client": ("127.0.0.1", 1),
        "state": {},
    }
    sent = body if cut_body_at is None else body[:cut_body_at]
    pieces: list[dict[str, Any]] = [
        {"type": "http.request", "body": sent, "more_body": cut_body_at is not None}
    ]
    gone = asyncio.Event()
    if cut_body_at is not None:
        pieces.append({"type": "http.disconnect"})
    status, headers, answer = 500, [], []

    async def receive() -> dict[str, Any]:
        if pieces:
            return pieces.pop(0)
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(event: dict[str, Any]) -> None:
        nonlocal status, headers
        if event["type"] == "http.response.start":
            status, headers = event["status"], event.get("headers", [])
        elif event["type"] == "http.response.body":
            answer.append(event.get("body", b""))

    await app(scope, receive, send)
    return httpx.Response(status, headers=headers, content=b"".join(answer), request=request)


@dataclass
class InstantSampler(Sampler):
    """Samples without running anything: each model takes ``latency_ms`` of its file's name.

    Attributes:
        latency_ms: of a model.
        before: called with the models of each process before it "runs".
        measured: names of the files, one entry a process.
    """

    latency_ms: Callable[[Path], float] = lambda path: 1.0
    before: Callable[[Sequence[Path]], None] = lambda models: None
    measured: list[list[str]] = field(default_factory=list)

    def sample(
        self,
        runtime: Runtime,
        models: Sequence[Path],
        sequence: Sequence[int],
        protocol: Protocol,
        *,
        reference: Path | None,
        cores: Sequence[int],
    ) -> dict[int, Block | Failure]:
        """See :meth:`Sampler.sample`: no time passes."""
        indices = [index for index in sequence if index != REFERENCE]
        self.before([models[index] for index in indices])
        self.measured.append([models[index].name for index in indices])
        return {
            index: Block(
                calls=1,
                samples_ns=(int(self.latency_ms(models[index]) * 1e6),) * protocol.runs,
                settled=True,
                finite=True,
                processor_share=1.0,
            )
            for index in indices
        }
