"""From a clean machine to a model in hand, by the README's commands alone.

``python -m experiments.people.readme FOLDER`` clones this repository into FOLDER (what is
committed, nothing else), runs ``./run-demo`` and exports the knee with an environment that knows
nothing of this one, and records how long each command took. Only the packages' index is taken
from the machine's configuration of pip.
"""

from __future__ import annotations

import csv
import json
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Annotated

import typer

from experiments.results_index import record_claim
from search_spaces.atomic import write_json_atomic

ROOT = Path(__file__).parents[2]
RESULT = ROOT / "experiments" / "results" / "people" / "readme.json"
COMMANDS = ("./run-demo", ".venv/bin/nas export runs/digits --pick knee")
TARGET_MINUTES = 10.0


def main(folder: Annotated[Path, typer.Argument(help="New folder for the clone.")]) -> None:
    """Run the README's commands in a clone and record the time."""
    commit = _output("git", "rev-parse", "HEAD")
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    environment = {
        name: value
        for name, value in os.environ.items()
        if name in ("PATH", "HOME", "LANG") or name.startswith("PIP_")
    }
    steps = []
    for command in COMMANDS:
        start = time.monotonic()
        done = subprocess.run(
            ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True
        )
        steps.append({"command": command, "seconds": round(time.monotonic() - start, 1),
                      "exit_code": done.returncode})  # fmt: skip
        if done.returncode:
            steps[-1]["stderr"] = done.stderr[-2000:]
            break
    worked = all(step["exit_code"] == 0 for step in steps) and len(steps) == len(COMMANDS)
    models = 0
    if worked:
        with open(folder / "runs" / "digits" / "front.csv", newline="", encoding="utf-8") as file:
            models = len({row["id"] for row in csv.DictReader(file)})
    minutes = round(sum(step["seconds"] for step in steps) / 60, 2)
    command = "python -m experiments.people.readme FOLDER"
    write_json_atomic(
        RESULT,
        {
            "command": command,
            "commit": commit,
            "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} core(s)",
            "load_1m_at_end": os.getloadavg()[0],
            "python": platform.python_version(),
            "steps": steps,
            "models_on_the_front": models,
            "minutes": minutes,
        },
    )
    record_claim(
        "people.readme_minutes",
        {"commands": len(COMMANDS), "minutes": minutes, "models": models},
        f"two commands to a front, in under {TARGET_MINUTES:g} minutes",
        worked and models > 0 and minutes < TARGET_MINUTES,
        str(RESULT.relative_to(ROOT)),
        command,
    )
    typer.echo(json.dumps(steps, indent=2))


def _output(*command: str) -> str:
    return subprocess.run(
        command, cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.strip()


if __name__ == "__main__":
    typer.run(main)
