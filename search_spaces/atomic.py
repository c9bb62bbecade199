"""Files that are either wholly there or not there at all."""

from __future__ import annotations

import contextlib
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any


def write_atomic(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, flush it to disk and rename it.

    A crash at any moment leaves the old file or the new one, never a part; the
    temporary file is removed when ``write`` raises (for instance on a full disk).
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    except OSError as error:
        # Who may not write there knows nothing of the temporary file.
        error.filename = str(path)
        raise
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def write_bytes_atomic(path: Path, data: bytes) -> None:
    """Write ``data``, atomically."""

    def write(temporary: Path) -> None:
        temporary.write_bytes(data)

    write_atomic(path, write)


def write_text_atomic(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, atomically.

    What is no character (half of a file's name that is no UTF-8) is written as its escape: a
    result must not be lost for a name in it.
    """
    write_bytes_atomic(path, text.encode("utf-8", "backslashreplace"))


def write_json_atomic(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically.

    Raises:
        ValueError: a number that JSON does not have (not a number, infinite) somewhere in it;
            the message says where. See :func:`null_for_undefined`.
    """
    for where, number in _undefined(value, ()):
        raise ValueError(
            f"{path}: {'.'.join(map(str, where)) or 'the value'} is {number}, "
            "which is not JSON compliant"
        )
    write_text_atomic(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def null_for_undefined(value: Any) -> Any:
    """Return ``value`` (dicts, lists, tuples, scalars) with None for every undefined number.

    A metric of which there is none, such as the correlation of equal values, is null in a file:
    the rest of the result must not be lost with it.
    """
    if isinstance(value, Mapping):
        return {key: null_for_undefined(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [null_for_undefined(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _undefined(value: Any, where: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], float]]:
    """Yield the place and the value of every number in ``value`` that JSON does not have."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _undefined(item, (*where, key))
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _undefined(item, (*where, index))
    elif isinstance(value, float) and not math.isfinite(value):
        yield where, value


def sync_directory(directory: Path) -> None:
    """Bring the names in a folder to disk, after a rename."""
    # Windows cannot open a directory; there the rename is as durable as it gets.
    with contextlib.suppress(PermissionError):
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
