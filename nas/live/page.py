"""The page of a run under way: stages, curve, front so far, asked for again every few seconds."""

from __future__ import annotations

import importlib.resources
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from http import HTTPStatus
from pathlib import Path

from devices.content_policy import content_policy
from nas.live.loopback import Begin, Environment, LoopbackServer, bears, refuse
from nas.record.following import RunFollower
from search_spaces.atomic import null_for_undefined
from search_spaces.errors import NasError

KEPT_S = 2.0
"""Seconds for which a reading of the run stands; however many look, it is read so often at most."""


class RunPage:
    """The page of one run, as a WSGI application.

    The page itself holds nothing of the run. What it shows it asks for with the token, which stands
    behind the ``#`` of the address and so in no request's line, log or referrer.

    Args:
        folder: of the run, which may still have to be made.
        token: that questions about the run must show.
        clock: seconds, monotonic.
    """

    def __init__(
        self, folder: Path, token: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._folder, self._token, self._clock = Path(folder), token, clock
        page = importlib.resources.files("nas.live").joinpath("page.html").read_text("utf-8")
        self._page, self._policy = page.encode(), content_policy(page)
        self._lock = threading.Lock()
        self._follower: RunFollower | None = None
        self._read, self._state = float("-inf"), b""

    def __call__(self, environment: Environment, begin: Begin) -> Iterable[bytes]:
        """Answer ``/`` with the page and ``/api/run`` with what there is to see."""
        path = environment.get("PATH_INFO", "")
        if path == "/":
            headers = [("Content-Type", "text/html; charset=utf-8")]
            headers.append(("Content-Security-Policy", self._policy))
            return _answer(begin, self._page, headers)
        if path != "/api/run":
            return refuse(begin, HTTPStatus.NOT_FOUND)
        if not bears(environment, self._token):
            return refuse(begin, HTTPStatus.UNAUTHORIZED)
        return _answer(begin, self.state(), [("Content-Type", "application/json")])

    def state(self) -> bytes:
        """Return what there is to see as JSON; ``{"problem": TEXT}`` where it cannot be read."""
        with self._lock:
            if self._clock() - self._read >= KEPT_S:
                self._state = json.dumps(self._look(), allow_nan=False).encode()
                self._read = self._clock()
            return self._state

    def _look(self) -> object:
        try:
            if self._follower is None:
                self._follower = RunFollower(self._folder)
            return null_for_undefined(self._follower.look())
        except NasError as error:
            return {"problem": str(error)}


def page_server(folder: Path, port: int = 0) -> tuple[LoopbackServer, str]:
    """Return a server of the page of ``folder``, and the address to open, its token included.

    Args:
        folder: of the run.
        port: 0 for a free one.

    Raises:
        EnvironmentProblem: the port is taken.
    """
    token = secrets.token_urlsafe(24)
    server = LoopbackServer(RunPage(folder, token), port)
    return server, f"{server.url}#{token}"


def _answer(begin: Begin, body: bytes, headers: list[tuple[str, str]]) -> list[bytes]:
    begin("200 OK", [*headers, ("Content-Length", str(len(body)))])
    return [body]
