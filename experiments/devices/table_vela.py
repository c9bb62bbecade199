"""Vela's estimates of the table's architectures on Arm Ethos-U, one line a cell.

python -m experiments.devices.table_vela MODELS VELA.jsonl [--accelerators A,B] [--minutes M]

Goes on where it was cut off. ``experiments.devices.table build`` takes the file when it lies
beside the measured cells as ``vela.jsonl``; its columns are estimates and are called
``model_ethos-...``.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from devices.simulators.vela import VelaDevice
from experiments.devices.table import read_cells
from experiments.devices.table_models import PRESETS, read_index
from search_spaces.errors import InputError

ACCELERATORS = ("ethos-u55-128", "ethos-u65-256", "ethos-u85-256")


def estimate_all(models: Path, cells: Path, accelerators: list[str], minutes: float) -> int:
    """Estimate until done or out of time; returns the number of cells left.

    A file that Vela refuses is recorded with its reason and no latency, and not tried again.
    """
    end = time.monotonic() + minutes * 60
    done = {(cell["preset"], cell["arch"], cell["device"]) for cell in read_cells(cells)}
    left = 0
    for accelerator in accelerators:
        device = VelaDevice(accelerator, accelerator)
        for preset in PRESETS:
            for arch in read_index(models, preset):
                name = f"model_{accelerator}"
                if (preset, arch, name) in done:
                    continue
                if time.monotonic() > end:
                    left += 1
                    continue
                cell = {"preset": preset, "arch": arch, "device": name}
                try:
                    found = device.estimate(models / f"{preset}-{arch}-int8.onnx")
                except InputError as error:
                    found = {"latency_ms": float("nan"), "refused": str(error)[:200]}
                with cells.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({**cell, **found, "version": device.version}) + "\n")
    return left


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=Path)
    parser.add_argument("cells", type=Path)
    parser.add_argument("--accelerators", default=",".join(ACCELERATORS))
    parser.add_argument("--minutes", type=float, default=60.0)
    arguments = parser.parse_args()
    chosen = [name for name in arguments.accelerators.split(",") if name]
    left = estimate_all(arguments.models, arguments.cells, chosen, arguments.minutes)
    print(f"{left} cells left")


if __name__ == "__main__":
    main()
