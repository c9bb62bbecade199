"""Bearer tokens: who may do what, until when. Only hashes are kept.

A token is 256 random bits, so one round of SHA-256 keeps it: there is nothing to guess.
The admin token of the token file is checked beside them and never stored.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from devices.fleet.hub import refusals
from devices.fleet.hub.ledger import Ledger, Transaction
from devices.fleet.messages import IssuedToken, Scope, TokenRequest, TokenView

ADMIN = "admin"
_DAY_S = 86400.0


@dataclass(frozen=True)
class Identity:
    """Who is asking: the token's name, its scope, and the device it is bound to."""

    name: str
    scope: Scope
    device: str | None = None


@dataclass(frozen=True)
class _Kept:
    sha256: bytes
    identity: Identity
    expires: float | None


class Tokens:
    """Issues, rotates, revokes and checks tokens.

    Args:
        ledger: where hashes are kept.
        admin_token: text of the token file.
        wall: Unix time, for creation and expiry.
    """

    def __init__(self, ledger: Ledger, admin_token: str, *, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._admin = _Kept(_hash(admin_token), Identity(ADMIN, "admin"), None)
        self._kept: tuple[_Kept, ...] = ()
        ledger.call(self._reload)

    def verify(self, token: str) -> Identity:
        """Return who holds ``token``.

        Every kept hash is compared, each in constant time, so that the answer's time tells
        nothing about which of them is near.

        Raises:
            Refusal: 401; unknown, expired, rotated and revoked tokens look the same.
        """
        given = _hash(token)
        found: _Kept | None = None
        for kept in (self._admin, *self._kept):
            if hmac.compare_digest(given, kept.sha256):
                found = kept
        if found is None or (found.expires is not None and found.expires <= self._wall()):
            raise refusals.unauthorised()
        return found.identity

    def add(self, transaction: Transaction, request: TokenRequest) -> IssuedToken:
        """Make a token.

        Raises:
            Refusal: the name is taken, or a measuring token names no device.
        """
        if request.scope == "measure" and request.device is None:
            raise refusals.malformed("a token of scope measure is bound to a device; name it")
        if request.scope != "measure" and request.device is not None:
            raise refusals.malformed("only a token of scope measure is bound to a device")
        taken = transaction.db.execute(
            "SELECT revoked FROM tokens WHERE name = ?", (request.name,)
        ).fetchone()
        if request.name == ADMIN or (taken is not None and not taken[0]):
            raise refusals.Refusal(409, "taken", "a token of that name exists; rotate or revoke it")
        token, now = _new_token(), self._wall()
        expires = None if request.expires_days is None else now + request.expires_days * _DAY_S
        transaction.db.execute(
            "INSERT OR REPLACE INTO tokens (name, sha256, scope, device, created, expires) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (request.name, _hash(token).hex(), request.scope, request.device, now, expires),
        )
        self._changed(transaction, "token-added", request.name)
        return IssuedToken(name=request.name, token=token)

    def rotate(self, transaction: Transaction, name: str) -> IssuedToken:
        """Replace a token's text; the old one stops working at once. Its lifetime begins anew."""
        row = transaction.db.execute(
            "SELECT created, expires FROM tokens WHERE name = ? AND NOT revoked", (name,)
        ).fetchone()
        if row is None:
            raise refusals.unknown("no token of that name")
        token, now = _new_token(), self._wall()
        expires = None if row[1] is None else now + (row[1] - row[0])
        transaction.db.execute(
            "UPDATE tokens SET sha256 = ?, created = ?, expires = ? WHERE name = ?",
            (_hash(token).hex(), now, expires, name),
        )
        self._changed(transaction, "token-rotated", name)
        return IssuedToken(name=name, token=token)

    def revoke(self, transaction: Transaction, name: str) -> None:
        """End a token."""
        done = transaction.db.execute(
            "UPDATE tokens SET revoked = 1 WHERE name = ? AND NOT revoked", (name,)
        ).rowcount
        if not done:
            raise refusals.unknown("no token of that name")
        self._changed(transaction, "token-revoked", name)

    def list(self, transaction: Transaction) -> list[TokenView]:
        """Return every token ever made, without its text."""
        rows = transaction.db.execute(
            "SELECT name, scope, device, created, expires, revoked FROM tokens ORDER BY name"
        ).fetchall()
        names = ("name", "scope", "device", "created", "expires", "revoked")
        views = [dict(zip(names, row, strict=True)) for row in rows]
        return [TokenView(**{**view, "revoked": bool(view["revoked"])}) for view in views]

    def _changed(self, transaction: Transaction, what: str, name: str) -> None:
        transaction.event(self._wall(), what, name=name)
        rows = self._read(transaction)
        transaction.after(lambda: self._keep(rows))

    def _reload(self, transaction: Transaction) -> None:
        self._keep(self._read(transaction))

    def _keep(self, rows: tuple[_Kept, ...]) -> None:
        self._kept = rows

    @staticmethod
    def _read(transaction: Transaction) -> tuple[_Kept, ...]:
        rows = transaction.db.execute(
            "SELECT name, sha256, scope, device, expires FROM tokens WHERE NOT revoked"
        ).fetchall()
        return tuple(
            _Kept(bytes.fromhex(sha256), Identity(name, scope, device), expires)
            for name, sha256, scope, device, expires in rows
        )


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", errors="surrogatepass")).digest()


def _new_token() -> str:
    return f"nas_{secrets.token_urlsafe(32)}"
