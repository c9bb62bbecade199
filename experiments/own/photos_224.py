"""A folder of photographs on a laptop: how long ``nas run --dry-run`` takes, and what memory a job.

1,200 JPEG files of 224x224 pixels in six folders are made; ``nas init`` writes the job as for a
user; the dry run is timed until its first line and until its end; then the job runs, at 224 pixels
whatever ``nas init`` chose, until training has gone on for some minutes, and the largest memory of
all its processes together is kept. Where other work has the machine, processor seconds are about
what a dry run takes on one core of it alone; they are a claim of their own, beside that of the wall
clock, which names the load. Run from the repository::

    python -m experiments.own.photos_224
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psutil
import yaml

from experiments.results_index import record_claim
from search_spaces.atomic import write_json_atomic
from search_spaces.seeds import derive_rng

COMMAND = "python -m experiments.own.photos_224"
RESULT = Path("experiments/results/own/photos_224.json")
CLASSES, EACH, SIDE = 6, 200, 224
SECONDS, GIB = 60.0, 4.0
"""Targets: of the dry run, and of the largest memory."""


def photographs(folder: Path) -> None:
    """Write the pictures: coloured patterns of a frequency of each class, with noise."""
    from PIL import Image

    rng = derive_rng(0, "photographs")
    rows, columns = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    for kind in range(CLASSES):
        place = folder / f"kind_{kind}"
        place.mkdir(parents=True)
        for index in range(EACH):
            angle, phase = rng.uniform(0, np.pi), rng.uniform(0, 6)
            wave = np.sin(2 * np.pi * (2 + 3 * kind) * (
                rows * np.sin(angle) + columns * np.cos(angle)) + phase)  # fmt: skip
            colour = rng.uniform(0.3, 1.0, 3)
            pixels = 127 + 80 * wave[..., None] * colour + rng.normal(0, 20, (SIDE, SIDE, 3))
            image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
            image.save(place / f"{index}.jpg", quality=90)


def watched(command: list[str], folder: Path, *, seconds: float | None = None) -> dict[str, Any]:
    """Run a command and return its times, its output, and the largest memory of its processes.

    Args:
        command: what to run.
        folder: where.
        seconds: after so many it is asked to end; None lets it end by itself.
    """
    begin, before = time.perf_counter(), _cpu()
    path = folder / "output.txt"
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(Path.cwd())}
    with path.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            command, cwd=folder, stdout=output, stderr=subprocess.STDOUT, env=environment
        )
        largest, first, interrupted = 0, None, False
        while process.poll() is None:
            largest = max(largest, _memory(process.pid))
            spent = time.perf_counter() - begin
            if first is None and path.stat().st_size:
                first = spent
            if seconds is not None and spent > seconds and not interrupted:
                process.terminate()
                interrupted = True
            time.sleep(0.2)
    return {
        "seconds": time.perf_counter() - begin, "cpu_s": _cpu() - before,
        "first_line_s": first, "peak_gib": largest / 2**30,
        "exit_code": process.returncode, "interrupted": interrupted,
        "output": path.read_text(encoding="utf-8").splitlines()[-30:],
    }  # fmt: skip


def _cpu() -> float:
    """Return processor seconds of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _memory(pid: int) -> int:
    """Return the memory of a process and its children that is their own: bytes."""
    total = 0
    try:
        top = psutil.Process(pid)
        for process in (top, *top.children(recursive=True)):
            total += process.memory_full_info().pss
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        pass
    return total


def claim(result: dict[str, Any]) -> None:
    """Record the time of the slower dry run: of the processor, and of the wall clock."""
    dry = [result["dry_run"], result["dry_run_at_224"]]
    told = all(each["exit_code"] == 0 for each in (result["init"], *dry))
    cpu, wall = (max(each[key] for each in dry) for key in ("cpu_s", "seconds"))
    load = f"load {result['load'][0]:.1f} on {result['cores']} cores"
    record_claim("own.dry_run_224_cpu_s", round(cpu, 1), f"< {SECONDS:g} s of a processor",
                 told and cpu < SECONDS, str(RESULT), COMMAND)  # fmt: skip
    record_claim("own.dry_run_224_s", f"{wall:.1f} of the wall clock ({load})",
                 f"< {SECONDS:g} of the wall clock", told and wall < SECONDS,
                 str(RESULT), COMMAND)  # fmt: skip


def main() -> None:
    """Measure, and record the claims."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=240.0, help="of the job itself")
    arguments = parser.parse_args()
    nas = [sys.executable, "-m", "nas"]
    with TemporaryDirectory() as place:
        folder = Path(place)
        photographs(folder / "photos")
        init = watched(
            [*nas, "init", "job.yaml", "--data", "image_folder", "--path", "photos",
             "--latency-ms", "0"], folder)  # fmt: skip
        chosen = yaml.safe_load((folder / "job.yaml").read_text(encoding="utf-8"))
        dry = watched([*nas, "run", "job.yaml", "--dry-run"], folder)
        whole = {**chosen, "data": {**chosen["data"], "image_size": SIDE}}
        (folder / "job224.yaml").write_text(yaml.safe_dump(whole), encoding="utf-8")
        dry_224 = watched([*nas, "run", "job224.yaml", "--dry-run"], folder)
        run = watched([*nas, "run", "job224.yaml", "--output", "run"], folder,
                      seconds=arguments.seconds)  # fmt: skip
    peak = max(dry["peak_gib"], dry_224["peak_gib"], run["peak_gib"])
    result = {
        "command": COMMAND, "seed": 0, "load": os.getloadavg(), "cores": os.cpu_count(),
        "pictures": CLASSES * EACH, "side": SIDE, "job": chosen,
        "init": init, "dry_run": dry, "dry_run_at_224": dry_224, "run_at_224": run,
    }  # fmt: skip
    write_json_atomic(RESULT, result)
    told = all(each["exit_code"] == 0 for each in (init, dry, dry_224))
    claim(result)
    record_claim("own.memory_224_gib", round(peak, 2), f"< {GIB:g}", told and peak < GIB,
                 str(RESULT), COMMAND)  # fmt: skip
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
