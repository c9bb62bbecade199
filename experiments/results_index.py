"""The index of published claims: one entry each, written by the experiment that made it."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path
from typing import Any

from search_spaces.atomic import write_json_atomic

INDEX = Path(__file__).parent / "results" / "index.json"


def record_claim(
    key: str,
    value: Any,
    target: Any,
    met: bool,
    file: str,
    command: str,
    *,
    index: Path = INDEX,
) -> None:
    """Set one entry of the index; several experiments may write at once.

    Args:
        key: such as ``latency.nb201_10``.
        value: what was measured.
        target: what was to be reached.
        met: whether it was.
        file: result file, relative to the repository.
        command: how to repeat it.
    """
    index.parent.mkdir(parents=True, exist_ok=True)
    with open(index.parent / f".{index.name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        claims = json.loads(index.read_text()) if index.exists() else {}
        claims[key] = {
            "value": value,
            "target": target,
            "met": bool(met),
            "file": file,
            "command": command,
        }
        write_json_atomic(index, dict(sorted(claims.items())))
