"""Database addresses without the password that may stand in them."""

from __future__ import annotations

import re

HIDDEN = "***"
_PASSWORD = re.compile(r"^([^:/?#]+://[^:/?#@]*):(.*)@(?=[^@/]*(?:/|$))", flags=re.DOTALL)


def without_password(url: str) -> str:
    """Return ``url`` with ``***`` for its password, as it may be shown and kept."""
    return _PASSWORD.sub(rf"\1:{HIDDEN}@", url)


def password_of(url: str) -> str | None:
    """Return the password of ``url``, as it is written there; None where it has none."""
    found = _PASSWORD.match(url)
    return None if found is None or found.group(2) == HIDDEN else found.group(2)


def with_password(url: str, password: str) -> str:
    """Return ``url`` with ``password`` in the place that :func:`without_password` left."""
    return url.replace(f":{HIDDEN}@", f":{password}@", 1)


def scrubbed(text: str, url: str) -> str:
    """Return ``text``, such as a driver's message, without the address or password of ``url``."""
    text = text.replace(url, without_password(url))
    password = password_of(url)
    return text.replace(password, HIDDEN) if password else text
