"""The Arm kernels of the low-bit runtime under emulation: are they exact?

    python -m experiments.deliver.arm_kernels

Cross-compiles the self-test for aarch64 and runs it under qemu-aarch64: random layers through every
kernel, against plain loops. Correctness only; an emulator says nothing about speed.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from devices.lowbit.build import build_selftest
from experiments.results_index import record_claim
from search_spaces.atomic import write_json_atomic

RESULT = Path(__file__).parents[1] / "results" / "deliver" / "arm_kernels.json"
COMMAND = "python -m experiments.deliver.arm_kernels"
LAYERS = 200
CPUS = {"cortex-a53": "neon,portable", "cortex-a76": "neon_dotprod,neon,portable",
        "max": "neon_dotprod,neon,portable"}  # fmt: skip
"""Emulated processors, without and with dot products of bytes (SDOT) -> kernels that must run."""


def main() -> None:
    """Build, run on each processor and record the claim."""
    compiler = shutil.which("aarch64-linux-gnu-g++")
    emulator = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
    if not compiler or not emulator:
        raise SystemExit(
            "aarch64-linux-gnu-g++ or qemu-aarch64 is missing; see scripts/cross-tools"
        )
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        program = build_selftest(Path(folder), compiler=compiler, sanitize=False, machine="aarch64")
        for cpu, features in CPUS.items():
            done = subprocess.run(
                [emulator, "-cpu", cpu, str(program), str(LAYERS)],
                capture_output=True, text=True, check=False, timeout=1800,
            )  # fmt: skip
            said = re.search(r"(\d+) layers, (\d+) kernel runs, exact \((.*)\)", done.stdout)
            rows.append(
                {
                    "cpu": cpu,
                    "exact": done.returncode == 0 and said is not None and said[3] == features,
                    "layers": int(said[1]) if said else 0,
                    "kernel_runs": int(said[2]) if said else 0,
                    "features": said[3] if said else "",
                    "error": done.stderr[-500:],
                }
            )
    tools = {
        tool: subprocess.run(
            [tool, "--version"], capture_output=True, text=True, check=True
        ).stdout.splitlines()[0]
        for tool in (compiler, emulator)
    }
    exact = all(row["exact"] for row in rows)
    write_json_atomic(RESULT, {"command": COMMAND, "versions": tools, "rows": rows})
    file = "experiments/results/deliver/arm_kernels.json"
    record_claim("deliver.arm_kernels_exact", exact, True, exact, file, COMMAND)


if __name__ == "__main__":
    main()
