"""The knees of three short jobs, of pictures, signals and sounds, for the tests of C projects.

    python -m experiments.deliver.front_models --sounds FOLDER

Each job trains, searches under the limits of a microcontroller and verifies, in a minute of a
processor; the knee of its front is kept as a packed model, with what the search promised of it.
``FOLDER`` holds a folder of sounds for each word, such as experiments.tasks.spoken_words makes.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import nas
from nas.report.results import load_results
from search_spaces.atomic import write_json_atomic

KEPT = Path(__file__).parents[2] / "tests" / "nas" / "models" / "c_project" / "fronts"
COMMAND = "python -m experiments.deliver.front_models --sounds FOLDER"

_COMMON: dict[str, Any] = {
    "seed": 0,
    "threads": 1,
    "budget": {"cpu_minutes": 1.2, "supernet": 0.3},
    "devices": [{"name": "mcu", "simulator": "roofline", "hardware": "mcu-simd"}],
    "protocol": {"processes": 2, "runs": 5, "retries": 0},
    "search": {
        "objectives": ["accuracy", "weights_kib"],
        "constraints": {"peak_memory_kib": {"max": 64}, "flash_kib": {"max": 64}},
        "evaluations": 16,
        "initial": 12,
        "batch": 4,
        "front_size": 3,
        "latency_samples": 4,
    },
}
JOBS: dict[str, dict[str, Any]] = {
    "vision": {
        "data": {"name": "digits", "validation": 0.2},
        "space": {"name": "mobilenet", "preset": "8x8-lean"},
    },
    "signal": {
        "task": "signal_classification",
        "data": {
            "name": "cylinder_bell_funnel",
            "options": {"examples": 1200, "length": 128},
            "validation": 0.2,
        },
        "space": {"name": "signal", "preset": "256"},
    },
    "audio": {
        "task": "audio_classification",
        "data": {
            "name": "audio_folder",
            "options": {"words": ["yes", "no", "stop", "go"], "unknown": "other"},
        },
        "space": {"name": "mobilenet", "preset": "49x40-lean"},
    },
}


def knee(name: str, job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Run a job, keep its knee as ``NAME.lowbit``, and return what was promised of it."""
    run = folder / name
    nas.run(nas.make_job({"name": name, **_COMMON, **job}), output=run)
    written = nas.export(run, "knee", formats=["lowbit"], output=folder / f"{name}-out")
    (packed,) = [item.files[0] for item in written if item.format == "lowbit"]
    (KEPT / f"{name}.lowbit").write_bytes((folder / f"{name}-out" / packed).read_bytes())
    results = load_results(run)
    entry = next(one for one in results["front"] if one.get("knee"))
    return {
        "id": str(entry["id"]),
        "arch": str(entry["arch"]),
        "test_accuracy": entry.get("test_accuracy"),
        **{key: entry["costs"][key] for key in ("peak_memory_kib", "flash_kib", "macs")},
    }


def main() -> None:
    """Run the jobs and keep their knees."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sounds", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=list(JOBS), default=list(JOBS))
    options = parser.parse_args()
    JOBS["audio"]["data"]["path"] = str(options.sounds.resolve())
    KEPT.mkdir(exist_ok=True)
    table = KEPT / "promises.json"
    known = json.loads(table.read_text(encoding="utf-8"))["models"] if table.is_file() else {}
    with tempfile.TemporaryDirectory() as folder:
        for name in options.only:
            known[name] = knee(name, JOBS[name], Path(folder))
            write_json_atomic(table, {"command": COMMAND, "models": known})
            print(name, known[name], flush=True)


if __name__ == "__main__":
    main()
