"""A wheel in empty environments: which commands run without the repository, and what it weighs.

    python -m experiments.deliver.wheel --base ENV --search ENV [--cuda-download BYTES ...]

``ENV`` are folders of virtual environments into which nothing but a wheel of the project was
installed: without extras, and with the extra ``search`` beside PyTorch for the processor. A command
runs in an empty folder without the repository on the path.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from experiments.results_index import record_claim
from search_spaces.atomic import write_json_atomic

RESULT = Path(__file__).parents[1] / "results" / "deliver" / "wheel.json"
COMMAND = "python -m experiments.deliver.wheel --base ENV --search ENV"
BASE = (
    "nas init job.yaml --data digits --latency-ms 0",
    "nas validate job.yaml",
    "nas agent --help",
    "nas latency --help",
    "nas export --list-formats",
    "nas doctor --quick",
)
DEMO = "nas demo --small --output demo"
EXPORT = (
    "nas export demo",
    "nas export demo --format onnx --format lowbit --format c",
    "nas export demo --embed-preprocessing --output uint8",
)
GIB = 2**30


def tried(
    environment: Path, commands: tuple[str, ...], run: Path | None = None
) -> list[dict[str, Any]]:
    """Run commands one after another in an empty folder; returns exit codes and seconds.

    Args:
        environment: its folder.
        commands: in order.
        run: a finished run, copied to ``demo`` where the demo itself is not tried.
    """
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    clean["PATH"] = f"{environment / 'bin'}{os.pathsep}{clean['PATH']}"
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        if run is not None:
            shutil.copytree(run, Path(folder) / "demo")
        for command in commands:
            began = time.monotonic()
            done = subprocess.run(
                command.split(), cwd=folder, env=clean, capture_output=True, text=True, check=False,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip
            rows.append(
                {
                    "command": command,
                    "exit_code": done.returncode,
                    "seconds": round(time.monotonic() - began, 1),
                    "error": "" if done.returncode == 0 else done.stderr[-500:],
                }
            )
            print(rows[-1], flush=True)
    return rows


def disk_bytes(folder: Path) -> int:
    """Return the bytes of all files below a folder, links not followed."""
    return sum(p.lstat().st_size for p in folder.rglob("*") if not p.is_dir())


def main() -> None:
    """Run the commands, weigh the environments and record the claims."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--search", type=Path, required=True)
    parser.add_argument("--cuda", type=Path, help="environment with the extra and CUDA")
    parser.add_argument("--run", type=Path, help="a finished run, instead of the demo")
    parser.add_argument("--downloads", type=json.loads, default={}, help="JSON: set-up -> bytes")
    options = parser.parse_args()
    rows = {
        "base": tried(options.base.resolve(), BASE),
        "search": tried(
            options.search.resolve(),
            (*BASE, *((DEMO,) if options.run is None else ()), *EXPORT),
            options.run,
        ),
    }
    folders = {"base": options.base, "search, CPU": options.search, "search, CUDA": options.cuda}
    disk = {k: round(disk_bytes(v) / GIB, 2) for k, v in folders.items() if v is not None}
    downloads = {k: round(v / GIB, 2) for k, v in options.downloads.items()}
    result = {
        "command": COMMAND,
        "demo": "run" if options.run is None else "not run: a finished run was given",
        "commands": rows,
        "disk_gib": disk,
        "download_gib": downloads,
    }
    write_json_atomic(RESULT, result | {"compiler": bool(shutil.which("c++"))})
    record(result)


def record(result: dict[str, Any]) -> None:
    """Enter the claims."""
    file = "experiments/results/deliver/wheel.json"
    every = [row for rows in result["commands"].values() for row in rows]
    worked = sum(row["exit_code"] == 0 for row in every)
    record_claim(
        "deliver.wheel_commands",
        {"worked": worked, "tried": len(every), "demo": result["demo"]},
        "every command ends with 0, the demo included",
        worked == len(every) and result["demo"] == "run",
        file,
        COMMAND,
    )
    for key, limit in (("download_gib", 0.5), ("disk_gib", 2.0)):
        value = result[key]
        met = bool(value) and value.get("search, CPU", limit + 1) <= limit
        target = f"<= {limit} for search without CUDA"
        record_claim(f"deliver.{key}", value, target, met, file, COMMAND)


if __name__ == "__main__":
    main()
