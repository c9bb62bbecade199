"""What the source is like as a whole: its checks, its sizes, and how long its tests take.

    python -m experiments.house            # checks and sizes
    python -m experiments.house --quick    # and the quick tests
    python -m experiments.house --suite    # and every test

Times depend on what else runs: the processor seconds and the load stand beside the wall clock's.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from experiments.results_index import record_claim
from search_spaces.atomic import write_json_atomic

ROOT = Path(__file__).parents[1]
FILE = "experiments/results/house.json"
PACKAGES = ("nas", "supernet", "predictors", "devices", "search_spaces")
ENDINGS = (".py", ".js", ".cpp", ".h", ".inc", ".c")
LINES_BEFORE = 55_200
COMMAND = "python -m experiments.house"
TWO = ("-n", "2", "--dist", "loadfile")
"""As ``run-tests`` runs them."""


def sizes() -> dict[str, Any]:
    """Return lines of source, the longest Python file and the folder with the most modules."""
    tracked = subprocess.run(
        ["git", "ls-files", *PACKAGES], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    lines = {
        name: len((ROOT / name).read_text("utf-8").splitlines())
        for name in tracked
        if name.endswith(ENDINGS)
    }
    python = {name: count for name, count in lines.items() if name.endswith(".py")}
    folders: dict[str, int] = {}
    for name in python:
        if not name.endswith("__init__.py"):
            folder = str(Path(name).parent)
            folders[folder] = folders.get(folder, 0) + 1
    longest = max(python, key=python.__getitem__)
    fullest = max(folders, key=folders.__getitem__)
    return {
        "lines": sum(lines.values()),
        "longest_file": {"name": longest, "lines": python[longest]},
        "files_over_500_lines": sorted(name for name, count in python.items() if count > 500),
        "fullest_folder": {"name": fullest, "modules": folders[fullest]},
    }


def type_findings() -> int:
    """Return how many errors mypy reports over the five packages, those that are let pass too."""
    whole = (ROOT / "pyproject.toml").read_text("utf-8").replace("ignore_errors = true", "")
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "pyproject.toml"
        config.write_text(whole, "utf-8")
        command = [sys.executable, "-m", "mypy", "--config-file", str(config), *PACKAGES]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise RuntimeError(done.stdout + done.stderr)
    return sum(": error:" in line for line in done.stdout.splitlines())


def timed(*arguments: str) -> dict[str, Any]:
    """Run pytest and return its wall and processor seconds, the load and its last line."""
    begun, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    load = os.getloadavg()[0]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        # A time of tests that did not run to their end says nothing.
        raise RuntimeError(f"{done.stdout[-2000:]}{done.stderr[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "wall_s": round(time.monotonic() - begun, 1),
        "processor_s": round(used, 1),
        "load_before_and_after": [round(load, 2), round(os.getloadavg()[0], 2)],
        "outcome": (done.stdout.strip().splitlines() or [""])[-1],
    }


def main() -> None:
    """Measure, write the file and record the claims."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="time the quick tests")
    parser.add_argument("--suite", action="store_true", help="time every test")
    asked = parser.parse_args()
    path = ROOT / FILE
    known = json.loads(path.read_text("utf-8")) if path.exists() else {}
    found = {
        **known,
        **sizes(),
        "type_findings": type_findings(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {sys.version.split()[0]}",
    }
    if asked.quick:
        found["quick_tests"] = timed("--quick", *TWO)
    if asked.suite:
        first = timed("-m", "forks")
        second = timed("-m", "not forks", *TWO)
        found["suite"] = {"forks": first, "others": second}
    write_json_atomic(path, found)
    claims: list[tuple[str, Any, Any, bool]] = [
        ("house.type_findings", found["type_findings"], 0, found["type_findings"] == 0),
        ("house.lines", found["lines"], f"< {LINES_BEFORE}", found["lines"] < LINES_BEFORE),
        ("house.largest_file", found["longest_file"]["lines"], "< 500",
         found["longest_file"]["lines"] < 500),
        ("house.largest_folder", found["fullest_folder"]["modules"], "<= 20",
         found["fullest_folder"]["modules"] <= 20),
    ]  # fmt: skip
    if "quick_tests" in found:
        wall = found["quick_tests"]["wall_s"]
        claims.append(("house.quick_tests_s", wall, "< 60", wall < 60))
    if "suite" in found:
        minutes = round(sum(part["wall_s"] for part in found["suite"].values()) / 60, 1)
        claims.append(("house.suite_minutes", minutes, "< 15", minutes < 15))
    for key, value, target, met in claims:
        record_claim(key, value, target, met, FILE, COMMAND)


if __name__ == "__main__":
    main()
