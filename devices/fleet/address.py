"""Addresses of hubs: encrypted, or on this machine."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from search_spaces.errors import InputError


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_address(url: str) -> str:
    """Return a hub's address without a trailing slash, if a token may be sent there.

    Raises:
        InputError: it is no address, or would carry the token in clear to another machine.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise InputError(f"{url!r} is no address of a hub: {error}") from None
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment:
        raise InputError(f"{url!r} is no address of a hub; write https://HOST:PORT")
    if parts.username is not None:
        raise InputError("a hub's address holds no user and no password; tokens lie in a file")
    if parts.scheme == "http" and not is_loopback(host):
        raise InputError(
            f"{url}: the token would travel in clear; use https (the hub has --tls-cert)"
        )
    return url.rstrip("/")
