"""Files of one JSON object a line that outlive a crash: appended durably, torn lines left out."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from search_spaces.atomic import null_for_undefined


def append_line(path: Path, values: Mapping[str, Any]) -> None:
    """Append ``values``; they are on the disk when this returns. Undefined numbers are null."""
    line = json.dumps(null_for_undefined(values), allow_nan=False)
    with open(path, "ab+") as file:
        # A line torn by a crash must not swallow this one.
        torn = False
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            torn = file.read(1) != b"\n"
        file.write(b"\n" * torn + line.encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield every whole line's object; nothing where there is no file yet."""
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        # A line torn by a crash is no record.
        with contextlib.suppress(json.JSONDecodeError):
            yield json.loads(line)
