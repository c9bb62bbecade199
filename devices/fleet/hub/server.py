"""Runs a hub on a socket: TLS, one process to a data folder, clean stop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devices.fleet.address import is_loopback
from devices.fleet.hub.hub import Hub, HubLimits
from devices.fleet.token_file import read_admin_token
from devices.locks import folder_lock
from search_spaces.errors import EnvironmentProblem, InputError, MissingExtraError

_SWITCH_S = 5e-4


@dataclass(frozen=True)
class Tls:
    """Files of a TLS server, PEM.

    Attributes:
        certificate, key: of the hub.
        client_ca: when given, clients must show a certificate that it signed.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None


def serve(
    *,
    host: str,
    port: int,
    data: Path,
    token_file: Path,
    tls: Tls | None = None,
    limits: HubLimits | None = None,
    on_ready: Callable[[str], None] = lambda url: None,
) -> None:
    """Serve a hub until it is told to stop (SIGINT or SIGTERM).

    Args:
        port: 0 takes a free one.
        on_ready: called with the address once connections are taken.

    Raises:
        InputError: a host that others can reach without TLS, or a bad token file.
        EnvironmentProblem: the address is taken, or another hub serves this folder.
        MissingExtraError: the extra ``hub`` is not installed.
    """
    if tls is None and not is_loopback(host):
        raise InputError(
            f"host {host} can be reached by others, so tokens would travel in clear: give "
            f"--tls-cert and --tls-key, or serve on 127.0.0.1"
        )
    admin_token = read_admin_token(token_file)
    try:
        import uvicorn

        from devices.fleet.hub.accept import Acceptor, allow_many_files
        from devices.fleet.hub.app import make_app
        from devices.fleet.hub.connections import GuardedProtocol
    except ModuleNotFoundError as error:
        if error.name not in ("fastapi", "uvicorn", "starlette", "h11"):
            raise
        raise MissingExtraError(error.name, "hub") from error

    with folder_lock(data, "hub"), _listen(host, port) as listener:
        hub = Hub(data, admin_token, limits=limits)
        config = uvicorn.Config(
            make_app(hub),
            http=GuardedProtocol,
            ws="none",
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=3,
            limit_concurrency=4096,
        )
        if tls is not None:
            config.load()
            config.ssl = tls_context(tls)
        allow_many_files()
        # Uploads are checked in threads, in Python: with the usual 5 ms a request that waits for
        # the interpreter at each of its steps would take ten times as long beside a few of them.
        sys.setswitchinterval(_SWITCH_S)

        class Server(uvicorn.Server):
            """uvicorn's, whose connections come through our own acceptor."""

            async def startup(self, sockets: list[socket.socket] | None = None) -> None:
                await super().startup(sockets=[])
                if not self.lifespan.should_exit:
                    # uvicorn closes them and waits; it needs no more of a server than that.
                    accepting: list[Any] = [
                        Acceptor(one, self._protocol, config.ssl) for one in sockets or []
                    ]
                    self.servers = accepting

            def _protocol(self) -> asyncio.Protocol:
                return config.http_protocol_class(  # type: ignore[call-arg]
                    config=config, server_state=self.server_state, app_state=self.lifespan.state
                )

        server = Server(config)
        scheme = "http" if tls is None else "https"
        shown = f"[{host}]" if ":" in host else host
        address = f"{scheme}://{shown}:{listener.getsockname()[1]}"
        try:
            asyncio.run(_run(server, listener, lambda: on_ready(address)))
        finally:
            hub.close()


async def _run(server: object, listener: socket.socket, on_ready: Callable[[], None]) -> None:
    serving = asyncio.ensure_future(server.serve(sockets=[listener]))  # type: ignore[attr-defined]
    while not server.started and not serving.done():  # type: ignore[attr-defined]
        await asyncio.sleep(0.01)
    if not serving.done():
        on_ready()
    await serving


def tls_context(tls: Tls) -> ssl.SSLContext:
    """Return a server's context, TLS 1.2 or later.

    Raises:
        InputError: a file is missing or no PEM.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(tls.certificate, tls.key)
        if tls.client_ca is not None:
            context.load_verify_locations(tls.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        names = ", ".join(str(p) for p in (tls.certificate, tls.key, tls.client_ca) if p)
        raise InputError(f"cannot use the TLS files {names}: {error}") from error
    return context


@contextlib.contextmanager
def _listen(host: str, port: int) -> Iterator[socket.socket]:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM
        )[0]
        # With the protocol named, asyncio turns Nagle's algorithm off, which would hold back
        # the second half of each answer by 40 ms.
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1024)
    except socket.gaierror as error:
        raise InputError(f"host {host} cannot be resolved: {error.strerror}") from error
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        why = "another program is using it" if taken else error.strerror
        raise EnvironmentProblem(f"cannot listen on {host}:{port}: {why}") from error
    with listener:
        yield listener
