"""Talking to a hub: one HTTP client for agents, remote devices and the command line.

Every answer becomes a value or one of two exceptions: :class:`HubUnreachable`, after which
asking again may help, and :class:`HubRefused`, after which it does not.
"""

from __future__ import annotations

import contextlib
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from devices.fleet.address import check_address
from devices.fleet.messages import DEVICE_HEADER
from devices.fleet.token_file import read_token
from search_spaces.errors import EnvironmentProblem, InputError
from search_spaces.terminal import plain_text

M = TypeVar("M", bound=BaseModel)

_CONNECT_S = 10.0
_ANSWER_S = 20.0
_PIECE = 1 << 16
MAX_ANSWER_BYTES = 320 << 20
"""32 results of the largest size, which is what one answer holds."""


class HubUnreachable(EnvironmentProblem):
    """No answer, or one that says that the hub cannot work just now."""


class HubRefused(InputError):
    """The hub answered no.

    Attributes:
        status: HTTP status.
        code: the hub's short word for the reason, such as ``late``.
    """

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail)
        self.status, self.code = status, code


@dataclass(frozen=True)
class TlsFiles:
    """PEM files of a client: the authority that signed the hub's certificate, and its own."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


class HubLink:
    """A connection to a hub with a token from a file.

    The file is read again when the hub does not accept the token, so a rotated token takes
    effect without a restart. Safe to use from several threads.

    Args:
        url: ``https://...``, or ``http://`` on this machine only.
        token_file: holds the token.
        tls: certificates.
        transport: stands in for the network in tests.

    Raises:
        InputError: a bad address, token file or certificate.
    """

    def __init__(
        self,
        url: str,
        token_file: Path,
        *,
        tls: TlsFiles | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = check_address(url)
        self._token_file = Path(token_file)
        self._token = read_token(self._token_file)
        self._lock = threading.Lock()
        encrypted = self.url.startswith("https")
        self._client = httpx.Client(
            base_url=self.url,
            timeout=httpx.Timeout(_ANSWER_S, connect=_CONNECT_S),
            verify=_context(tls or TlsFiles()) if encrypted else True,
            transport=transport,
            trust_env=False,
            follow_redirects=False,
            headers={"accept-encoding": "identity"},
        )

    def speak_for(self, device: str) -> None:
        """Name the board that all further requests speak for."""
        self._client.headers[DEVICE_HEADER] = device

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def ask(
        self,
        method: str,
        path: str,
        answer: type[M],
        message: BaseModel | None = None,
        *,
        wait_s: float = 0.0,
    ) -> M:
        """Send a message and return the hub's answer.

        Args:
            wait_s: how much longer than usual the hub may take.

        Raises:
            HubUnreachable: no answer.
            HubRefused: the hub says no.
        """
        content = None if message is None else message.model_dump_json()
        response = self._send(method, path, content=content, wait_s=wait_s)
        try:
            return answer.model_validate_json(response.content)
        except ValidationError as error:
            raise HubUnreachable(
                f"{self.url} does not answer as a hub of this version ({error.title})"
            ) from error

    def tell(self, method: str, path: str, message: BaseModel | None = None) -> dict[str, Any]:
        """Send a message whose answer is a plain JSON object; raises as :meth:`ask`."""
        content = None if message is None else message.model_dump_json()
        response = self._send(method, path, content=content)
        try:
            value = response.json()
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise HubUnreachable(f"{self.url} does not answer as a hub")
        return value

    def has_model(self, sha256: str) -> bool:
        """Whether the hub has this model file."""
        try:
            self._send("HEAD", f"/api/blobs/{sha256}")
        except HubRefused as error:
            if error.status == 404:
                return False
            raise
        return True

    def upload(self, sha256: str, path: Path) -> None:
        """Send a model file in pieces; a cut upload leaves nothing behind."""

        def pieces() -> Iterator[bytes]:
            with open(path, "rb") as file:
                while piece := file.read(_PIECE):
                    yield piece

        headers = {"content-length": str(path.stat().st_size)}
        self._send("PUT", f"/api/blobs/{sha256}", content=pieces, headers=headers, wait_s=60.0)

    @contextlib.contextmanager
    def download(self, sha256: str) -> Iterator[Iterator[bytes]]:
        """Give a model file's pieces; the caller checks hash and size."""
        request = self._client.build_request(
            "GET", f"/api/blobs/{sha256}", headers=self._authorisation()
        )
        with self._reached():
            response = self._client.send(request, stream=True)
        try:
            self._refuse_packed(response)
            with self._reached():
                if response.status_code >= 400:
                    self._read(response)
            self._check(response)
            yield self._pieces(response)
        finally:
            response.close()

    def _pieces(self, response: httpx.Response) -> Iterator[bytes]:
        with self._reached():
            if response.is_stream_consumed:
                yield response.content
            else:
                yield from response.iter_raw(_PIECE)

    def _send(
        self,
        method: str,
        path: str,
        *,
        content: Any = None,
        headers: dict[str, str] | None = None,
        wait_s: float = 0.0,
    ) -> httpx.Response:
        timeout = httpx.Timeout(_ANSWER_S + wait_s, connect=_CONNECT_S)
        for attempt in range(2):
            authorisation = self._authorisation()
            request = self._client.build_request(
                method,
                path,
                content=content() if callable(content) else content,
                headers={**(headers or {}), **authorisation},
                timeout=timeout,
            )
            with self._reached():
                response = self._client.send(request, stream=True)
                try:
                    self._read(response)
                finally:
                    response.close()
            if response.status_code != 401 or attempt or not self._reread():
                break
        self._check(response)
        return response

    def _read(self, response: httpx.Response) -> None:
        """Read an answer, as large as an answer of a hub can be and as it is.

        Raises:
            HubUnreachable: it is packed, so that a little of it may be very much, or too large.
        """
        self._refuse_packed(response)
        if response.is_stream_consumed:
            return  # by a transport that gives whole answers
        pieces, size = [], 0
        for piece in response.iter_raw(_PIECE):
            size += len(piece)
            if size > MAX_ANSWER_BYTES:
                raise HubUnreachable(
                    f"{self.url} answers with more than {MAX_ANSWER_BYTES >> 20} MiB"
                )
            pieces.append(piece)
        response._content = b"".join(pieces)

    def _refuse_packed(self, response: httpx.Response) -> None:
        if response.headers.get("content-encoding", "identity") != "identity":
            raise HubUnreachable(f"{self.url} answers packed, which a hub does not")

    def _authorisation(self) -> dict[str, str]:
        with self._lock:
            return {"authorization": f"Bearer {self._token}"}

    def _reread(self) -> bool:
        """Read the token file again; True when it holds another token now."""
        with self._lock:
            before = self._token
            with contextlib.suppress(InputError):
                self._token = read_token(self._token_file)
            return self._token != before

    @contextlib.contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except (httpx.TransportError, httpx.StreamError) as error:
            why = str(error) or type(error).__name__
            raise HubUnreachable(f"the hub at {self.url} cannot be reached: {why}") from error

    def _check(self, response: httpx.Response) -> None:
        status = response.status_code
        if status < 300:
            return
        if status < 400:
            # A login page of the network, a moved hub: nothing that a board should stop for.
            raise HubUnreachable(
                f"{self.url} answers with a redirect (status {status}); it is not followed, since "
                "the token would go with it. Is this the hub's own address?"
            )
        code, detail = "http", f"status {status}"
        with contextlib.suppress(ValueError, AttributeError):
            value = response.json()
            code, detail = str(value.get("error", code)), str(value.get("detail", detail))
        detail = plain_text(detail[:2000])
        if status in (408, 429) or status >= 500:
            raise HubUnreachable(f"the hub at {self.url} cannot serve: {detail}")
        if status == 401:
            detail = f"the hub at {self.url} does not accept the token of {self._token_file}"
        raise HubRefused(status, code, detail)


def _context(tls: TlsFiles) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=tls.ca)
        if tls.certificate is not None:
            context.load_cert_chain(tls.certificate, tls.key)
    except (OSError, ssl.SSLError) as error:
        names = ", ".join(str(path) for path in (tls.ca, tls.certificate, tls.key) if path)
        raise InputError(f"cannot use the TLS files {names}: {error}") from error
    return context
