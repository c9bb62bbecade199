"""Results of experiments, and the index of published claims: one entry each, by its experiment."""

from __future__ import annotations

import fcntl
import json
import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from search_spaces.atomic import write_json_atomic

INDEX = Path(__file__).parent / "results" / "index.json"


def write_result(
    path: Path, values: Mapping[str, Any], command: str, *, packages: tuple[str, ...]
) -> str:
    """Write a result with machine, load and versions; return its path in the repository.

    Args:
        path: of the file, within the repository.
        values: what was found.
        command: how to repeat it.
        packages: whose versions matter.
    """
    write_json_atomic(
        path,
        {
            **values,
            "machine": platform.processor() or platform.machine(),
            "load": os.getloadavg()[0],
            "versions": {name: version(name) for name in packages},
            "command": command,
        },
    )
    return str(path.relative_to(Path(__file__).parents[1]))


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
