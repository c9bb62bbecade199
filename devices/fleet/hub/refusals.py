"""Why a hub refuses: one exception with an HTTP status and a code machines can read."""

from __future__ import annotations

from search_spaces.errors import NasError


class Refusal(NasError):
    """A request the hub does not grant.

    Attributes:
        status: HTTP status.
        code: short word for programs, such as ``late`` or ``superseded``.
    """

    exit_code = 2

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail = status, code, detail


def unauthorised() -> Refusal:
    """No token, or one that is not valid: which of the two is not told."""
    return Refusal(401, "unauthorised", "a valid bearer token is needed")


def forbidden() -> Refusal:
    """A valid token whose scope or device does not cover the request."""
    return Refusal(403, "forbidden", "this token does not allow that")


def late() -> Refusal:
    """A result whose lease is over."""
    return Refusal(409, "late", "the lease is over; the result is not counted")


def superseded() -> Refusal:
    """A session that a newer one of the same device has replaced."""
    return Refusal(409, "superseded", "another agent has registered as this device since")


def not_registered() -> Refusal:
    """A device or session the hub does not know."""
    return Refusal(409, "not-registered", "register first")


def unknown(what: str) -> Refusal:
    """Something asked for by name that does not exist."""
    return Refusal(404, "unknown", what)


def malformed(detail: str = "the message is malformed") -> Refusal:
    """A request that is not of the required form."""
    return Refusal(422, "malformed", detail)
