"""A wheel in empty environments: which commands run without the repository, and what it weighs.

    python -m experiments.deliver.wheel --base ENV --search ENV [--lent]

``ENV`` are folders of virtual environments into which nothing but a wheel of the project was
installed: without extras, and with the extras ``search`` and ``hub`` beside PyTorch for the
processor. A command runs in an empty folder without the repository on the path. With ``--lent``
the second environment takes its libraries from another one by a ``.pth`` file, so its size says
nothing, and the sizes that are on record stay.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
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
    "nas latency validate table.csv --space nasbench201 --arch-column arch",
    "nas export --list-formats",
    "nas doctor --quick",
)
DEMO = "nas demo --small --output demo"
AFTER = (
    "nas export demo",
    "nas export demo --format onnx --format lowbit --format c",
    "nas export demo --embed-preprocessing --output uint8",
    "nas report demo",
    "nas compare demo demo",
    "nas device export demo/measurements.db measured.csv --include-invalid",
    "nas latency fit table.csv --space nasbench201 --arch-column arch --output prior.safetensors",
    "nas latency suggest prior.safetensors table.csv --arch-column arch -n 3",
)
FLEET = """
set -e
trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT
echo choose-a-long-random-admin-token > admin.token
"$HUB/bin/nas" device serve --port 0 --data hub --token-file admin.token > hub.log 2>&1 &
for i in $(seq 300); do grep -q "hub:" hub.log && break; sleep 0.2; done
at=$(sed -n 's/^hub: //p' hub.log)
"$HUB/bin/nas" device token add desk --hub $at --token-file admin.token --output desk.token
"$BOARD/bin/nas" agent --hub $at --token-file desk.token --data agent > agent.log 2>&1 &
for i in $(seq 300); do grep -q registered agent.log && break; sleep 0.2; done
"$HUB/bin/nas" device list --hub $at --token-file admin.token | grep "^desk: idle"
"""
"""The agent of a board that has the wheel alone, at a hub of the other environment."""
WATCH = """
set -e
nas watch demo > watch.log &
trap 'kill $!; wait' EXIT
for i in $(seq 100); do grep -q http watch.log && break; sleep 0.2; done
python -c "
import re, httpx
at, token = re.match(r'(\\S+)#(\\S+)', open('watch.log').read()).groups()
seen = httpx.get(at + 'api/run', headers={'Authorization': 'Bearer ' + token}, timeout=120).json()
assert seen['state'] == 'finished', seen
assert 'api/run' in httpx.get(at).text
"
"""
"""The page of the demo's run, asked for by a client."""
GIB = 2**30


def tried(
    environment: Path,
    commands: tuple[str, ...],
    run: Path | None = None,
    *,
    scripts: dict[str, str] | None = None,
    others: dict[str, Path] | None = None,
) -> list[dict[str, Any]]:
    """Run commands one after another in an empty folder; returns exit codes and seconds.

    Args:
        environment: its folder.
        commands: in order.
        run: a finished run, copied to ``demo`` where the demo itself is not tried.
        scripts: of bash, run after the commands, by what they are called in the result.
        others: further environments, by the variables under which scripts know them.
    """
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    clean["PATH"] = f"{environment / 'bin'}{os.pathsep}{clean['PATH']}"
    clean |= {name: str(place) for name, place in (others or {}).items()}
    steps = [(command, command.split()) for command in commands]
    steps += [(name, ["bash", "-c", text]) for name, text in (scripts or {}).items()]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        if run is not None:
            shutil.copytree(run, Path(folder) / "demo")
        (Path(folder) / "table.csv").write_text(latency_table())
        for command, words in steps:
            began = time.monotonic()
            done = subprocess.run(
                words, cwd=folder, env=clean, capture_output=True, text=True, check=False,
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


def latency_table(rows: int = 40) -> str:
    """Return a latency table of NAS-Bench-201 cells, made up: what counts is that it is read."""
    operations = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
    lines = ["arch,board_a,board_b"]
    for row in range(rows):
        ops = [operations[row * 7 // 5**k % 5] for k in range(6)]
        cell = f"|{ops[0]}~0|+|{ops[1]}~0|{ops[2]}~1|+|{ops[3]}~0|{ops[4]}~1|{ops[5]}~2|"
        work = 1.0 + sum({"nor_conv_1x1": 1.0, "nor_conv_3x3": 4.0}.get(op, 0.1) for op in ops)
        lines.append(f"{cell},{work:.3f},{2.5 * work:.3f}")
    return "\n".join(lines) + "\n"


def outside(environment: Path) -> bool:
    """Return whether ``nas`` of an environment comes from the wheel there and not from a clone."""
    found = subprocess.run(
        [environment / "bin" / "python", "-c", "import nas; print(nas.__file__)"],
        capture_output=True, text=True, check=True, cwd="/",
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
    )  # fmt: skip
    return Path(found.stdout.strip()).is_relative_to(environment)


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
    parser.add_argument("--lent", action="store_true", help="libraries of --search are another's")
    options = parser.parse_args()
    base, search = options.base.resolve(), options.search.resolve()
    for environment in (base, search):
        if not outside(environment):
            sys.exit(f"nas of {environment} is not the wheel's")
    rows = {
        "base": tried(base, BASE),
        "search": tried(
            search,
            (*BASE, *((DEMO,) if options.run is None else ()), *AFTER),
            options.run,
            scripts={
                "nas watch demo, asked by a client": WATCH,
                "nas device serve, nas agent of base, nas device list": FLEET,
            },
            others={"HUB": search, "BOARD": base},
        ),
    }
    folders = {"base": options.base, "search, CPU": options.search, "search, CUDA": options.cuda}
    disk = {k: round(disk_bytes(v) / GIB, 2) for k, v in folders.items() if v is not None}
    downloads = {k: round(v / GIB, 2) for k, v in options.downloads.items()}
    if options.lent:
        known = json.loads(RESULT.read_text(encoding="utf-8"))
        disk, downloads = known["disk_gib"], known["download_gib"]
    result = {
        "command": COMMAND,
        "demo": "run" if options.run is None else "not run: a finished run was given",
        "commands": rows,
        "libraries_of_search": "lent" if options.lent else "its own",
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
