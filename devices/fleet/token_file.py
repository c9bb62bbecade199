"""Token files: one bearer token, readable by its owner."""

from __future__ import annotations

from pathlib import Path

from search_spaces.errors import InputError

LEAST_ADMIN = 12
"""Characters of an admin token: fewer can be guessed."""


def read_admin_token(path: Path) -> str:
    """Return the token that may do everything at a hub.

    Raises:
        InputError: as :func:`read_token`; it is short enough to be guessed.
    """
    token = read_token(path)
    if len(token) < LEAST_ADMIN or len(set(token)) < 6:
        raise InputError(
            f"the admin token in {path} can be guessed; make one of at least {LEAST_ADMIN} random "
            f"characters, for instance: openssl rand -hex 32 > {path}"
        )
    return token


def read_token(path: Path) -> str:
    """Return the token of a token file: its only line.

    Raises:
        InputError: the file is missing, empty, or holds more than one word.
    """
    try:
        text = Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise InputError(f"cannot read the token file {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"the token file {path} is not text") from None
    if not text or len(text.split()) != 1 or not text.isascii() or not text.isprintable():
        raise InputError(f"the token file {path} must hold one token: printable ASCII, no spaces")
    return text
