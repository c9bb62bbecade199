"""Bytes of a file as text, or in words why they are none and what to do about it."""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from pathlib import Path

from search_spaces.errors import InputError

OPTION = "data.options.encoding"
"""Where a job says the encoding of its files."""

_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_LOOKED_AT = 4096
"""Bytes by which an encoding is guessed."""


@dataclass(frozen=True)
class NoText:
    """Why bytes are no text.

    Attributes:
        byte: place of the first that shows it, from 0.
        line: the same in lines, from 1.
        reason: what is wrong with it.
        likely: the encoding that the bytes have, as far as they show; None for an unknown one.
    """

    byte: int
    line: int
    reason: str
    likely: str | None

    def fix(self, option: str | None = OPTION) -> str:
        """Return what to do; ``option`` is where an encoding may be said, None for nowhere."""
        if self.likely == "":
            return "give a file of text"
        begin = f"the file looks like {self.likely}: " if self.likely else ""
        if option is None:
            return f"{begin}save it as UTF-8"
        such = self.likely or "latin-1"
        say = f"say {option}: {such}" if self.likely else f"say {option}, such as {such}"
        return f"{begin}{say}, or save it as UTF-8"


def decoded_text(data: bytes, encoding: str = "utf-8", option: str = OPTION) -> str | NoText:
    """Return the text that ``data`` holds, without the mark that may begin it, or why it is none.

    A character U+0000 is no text: it shows another encoding, or a file of another kind.

    Raises:
        InputError: there is no such encoding.
    """
    try:
        text = data.decode(encoding)
    except LookupError as error:
        raise InputError(f"{option}: {encoding!r} is no encoding") from error
    except UnicodeDecodeError as error:
        return _no_text(data, error.start, f"is no {encoding} ({error.reason})", encoding)
    except UnicodeError as error:
        return _no_text(data, 0, f"is no {encoding} ({error})", encoding)
    if "\0" in text:
        byte = len(text[: text.index("\0")].encode(encoding))
        return _no_text(data, byte, "is a zero, which no text holds", encoding)
    return text.removeprefix("\ufeff")


def read_plain(path: Path, encoding: str = "utf-8", option: str | None = OPTION) -> str:
    """Return the text of a file.

    Args:
        path: the file.
        encoding: of it.
        option: where another encoding may be said; None for nowhere.

    Raises:
        InputError: it cannot be read, is no text, or there is no such encoding; told with the
            line and what to do.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    found = decoded_text(data, encoding, option or OPTION)
    if isinstance(found, NoText):
        raise InputError(
            f"{path}:{found.line}: byte {found.byte} of the file {found.reason}; "
            f"{found.fix(option)}"
        )
    return found


def utf8(text: str) -> bytes:
    """Return a text's bytes.

    Raises:
        InputError: it holds half of a character: what a command line was given was no UTF-8.
    """
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        half = ord(text[error.start])
        # Python keeps a byte that it could not read as U+DC80 and up.
        what = f"byte 0x{half - 0xDC00:02X}" if 0xDC80 <= half <= 0xDCFF else f"U+{half:04X}"
        raise InputError(
            f"the text {text[max(0, error.start - 20) : error.end + 20]!r} has {what} after "
            f"{error.start} letters, which is no UTF-8; give it in UTF-8"
        ) from error


def _no_text(data: bytes, byte: int, reason: str, encoding: str) -> NoText:
    likely = _likely(data)
    line = data.count(b"\n", 0, byte) + 1
    return NoText(byte, line, reason, None if likely == encoding else likely)


def _likely(data: bytes) -> str | None:
    """Return the encoding that bytes show, an empty one of what is no text, None if unknown."""
    for mark, name in _MARKS:
        if data.startswith(mark):
            return name
    begin = data[:_LOOKED_AT]
    if b"\0" not in begin:
        return None if b"\0" not in data else ""
    # Letters of Latin scripts have a zero beside them in UTF-16, always on the same side.
    half = len(begin) / 2
    zeros = [begin[side::2].count(0) / half for side in (0, 1)]
    for side, name in ((1, "utf-16-le"), (0, "utf-16-be")):
        if zeros[side] > 0.3 and zeros[1 - side] < 0.05:
            return name
    return ""
