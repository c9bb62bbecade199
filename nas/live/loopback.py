"""Pages for the person at this machine: a server on the loopback address that answers nobody else.

Any page of the internet can make a browser ask a loopback address, under a name of its own that it
lets point there (DNS rebinding). So a request is answered only where its Host header names the
loopback address and port themselves, where it changes nothing, and where it does not come from
another site; what is told of a run needs a token besides, for other users of a shared machine.
"""

from __future__ import annotations

import errno
import secrets
import socketserver
import threading
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from search_spaces.errors import EnvironmentProblem

ADDRESS = "127.0.0.1"

SILENCE_S = 10.0
"""Seconds that a connection may say nothing."""

MOST_AT_ONCE = 32
"""Connections that are answered at a time; further ones are closed."""

Environment = dict[str, Any]
Begin = Callable[..., Any]
Application = Callable[[Environment, Begin], Iterable[bytes]]

_HEADERS = [
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Frame-Options", "DENY"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
]


class Guarded:
    """Lets through what a browser of this machine asks for itself, and only questions.

    Args:
        app: what answers.
        port: that the server listens on.
    """

    def __init__(self, app: Application, port: int) -> None:
        self._app = app
        self._hosts = {f"{name}:{port}" for name in (ADDRESS, "localhost")}

    def __call__(self, environment: Environment, begin: Begin) -> Iterable[bytes]:
        """Answer as the application does, or refuse."""
        host = environment.get("HTTP_HOST", "").lower()
        if host not in self._hosts:
            return refuse(begin, HTTPStatus.MISDIRECTED_REQUEST)
        if environment["REQUEST_METHOD"] != "GET":
            return refuse(begin, HTTPStatus.METHOD_NOT_ALLOWED)
        if environment.get("HTTP_SEC_FETCH_SITE", "none") not in ("none", "same-origin"):
            # A link of another site is followed, and shows it nothing; its scripts get no answer.
            link = environment.get("HTTP_SEC_FETCH_MODE") == "navigate"
            if not (link and environment.get("HTTP_SEC_FETCH_DEST") == "document"):
                return refuse(begin, HTTPStatus.FORBIDDEN)

        def begin_safely(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            own = {name.lower() for name, _ in headers}
            added = [(name, value) for name, value in _HEADERS if name.lower() not in own]
            return begin(status, headers + added, *rest)

        return self._app(environment, begin_safely)


def refuse(begin: Begin, status: HTTPStatus) -> list[bytes]:
    """Refuse a request, saying nothing but the status."""
    text = f"{status.value} {status.phrase}".encode()
    begin(
        f"{status.value} {status.phrase}",
        [("Content-Type", "text/plain"), ("Content-Length", str(len(text))), *_HEADERS],
    )
    return [text]


def bears(environment: Environment, token: str) -> bool:
    """Return whether a request shows ``token`` as its bearer."""
    shown = environment.get("HTTP_AUTHORIZATION", "").removeprefix("Bearer ")
    return secrets.compare_digest(shown.encode("latin-1", "replace"), token.encode())


class LoopbackServer:
    """Serves an application on the loopback address, in threads.

    Args:
        app: made for the port that is served, which is what ``port`` says, or a free one for 0.
        port: to listen on.

    Raises:
        EnvironmentProblem: the port is taken, or may not be used.
    """

    def __init__(self, app: Application, port: int = 0) -> None:
        try:
            self._server = _Server((ADDRESS, port), _Handler)
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            why = "is taken by another program" if taken else f"cannot be used ({error.strerror})"
            raise EnvironmentProblem(
                f"port {port} of {ADDRESS} {why}; give another --port, or 0 for a free one"
            ) from error
        self.port = int(self._server.server_address[1])
        self._server.set_app(Guarded(app, self.port))

    @property
    def url(self) -> str:
        """Address of the first page."""
        return f"http://{ADDRESS}:{self.port}/"

    def serve(self) -> None:
        """Answer until :meth:`close` is called from elsewhere, or Ctrl-C."""
        try:
            self._server.serve_forever(poll_interval=0.2)
        finally:
            self._server.server_close()

    def start(self) -> LoopbackServer:
        """Answer in a thread that ends with the process."""
        threading.Thread(target=self.serve, name="page", daemon=True).start()
        return self

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True
    block_on_close = False
    # A port of a page that was closed a moment ago may be used again, one that is served may not.
    allow_reuse_address = True

    def __init__(self, *arguments: Any) -> None:
        self._free = threading.BoundedSemaphore(MOST_AT_ONCE)
        super().__init__(*arguments)

    def server_bind(self) -> None:
        """Bind without looking up a name for the address, which may take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = ADDRESS, int(self.server_address[1])
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread; a connection more than :data:`MOST_AT_ONCE` is closed at once."""
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, and make room for the next connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of connections that broke; the browser asks again."""


class _Handler(WSGIRequestHandler):
    timeout = SILENCE_S

    def log_message(self, format: str, *args: Any) -> None:
        """Keep requests out of the terminal of a run."""
