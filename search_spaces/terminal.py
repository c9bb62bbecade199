"""Text from elsewhere on a terminal."""

from __future__ import annotations

import shlex
from pathlib import Path


def plain_text(text: str) -> str:
    """Return ``text`` with everything that a terminal would act on written as its escape.

    What a board says of itself, or a hub of its refusal, may hold sequences that move the
    cursor, set the title or turn the direction of writing; the name of a file may hold halves of
    characters, which no terminal takes. Line ends and tabs stay.
    """
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)


def quoted(path: Path | str) -> str:
    """Return a path as a shell takes it for one word, for commands to be copied."""
    return shlex.quote(str(path))
