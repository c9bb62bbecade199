"""The kernels on this machine: are they exact, how fast are they, in one result file.

    python -m devices.lowbit.board RESULT.json [--rounds N]

``scripts/measure-board`` runs it on a board over ssh. Needs NumPy and a C++ compiler: no torch, and
no model. Random layers go through every kernel and are compared with plain loops; then layers of
usual shapes are timed at several bits, with all that the processor has and with less.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from devices.lowbit.build import build_selftest, find_compiler
from devices.lowbit.library import ConvSpec, Native, features, restrict
from search_spaces.atomic import write_json_atomic
from search_spaces.errors import EnvironmentProblem

FORMAT = 1
"""Version of the result file."""

SHAPES: dict[str, ConvSpec] = {
    "1x1, 28x28x64 to 128": ConvSpec(height=28, width=28, channels=64, outputs=128),
    "1x1, 14x14x256 to 64": ConvSpec(height=14, width=14, channels=256, outputs=64),
    "3x3, 28x28x32 to 32": ConvSpec(
        height=28, width=28, channels=32, outputs=32, kernel=(3, 3), pads=(1, 1, 1, 1)
    ),
    "3x3, 14x14x128 to 128": ConvSpec(
        height=14, width=14, channels=128, outputs=128, kernel=(3, 3), pads=(1, 1, 1, 1)
    ),
    "linear, 1024 to 1024": ConvSpec(channels=1024, outputs=1024),
}
"""Layers of small networks."""

BITS = ((8, 8), (4, 8), (2, 8), (1, 8), (4, 4), (2, 4), (1, 4))
"""Of weights and activations."""

_SELFTEST_LAYERS = 60


def codes_of(bits: int) -> np.ndarray:
    """Return the codes of weights of so many bits; 8 bits are kept within 7, as exports do."""
    if bits == 1:
        return np.array([-1, 1], np.int8)
    low = -64 if bits == 8 else -(2 ** (bits - 1))
    return np.arange(low, 65 if bits == 8 else -low, dtype=np.int8)


def timed(spec: ConvSpec, weight_bits: int, activation_bits: int, rounds: int) -> dict[str, Any]:
    """Return the fastest kernel of one layer with random codes and its median time in ms."""
    rng = np.random.default_rng(0)
    spec = replace(spec, largest=2**activation_bits - 1)
    x = rng.integers(0, spec.largest + 1, spec.height * spec.width * spec.channels)
    net = Native(1)
    source = net.buffer(x.size)
    target = net.buffer(int(np.prod(spec.out_size)) * spec.outputs)
    net.array(source, x.shape, np.uint8)[...] = x
    shape = (spec.outputs, spec.channels, *spec.kernel)
    layer = net.conv(
        source, target, spec, rng.choice(codes_of(weight_bits), shape), multiplier=0.01
    )
    times: dict[str, float] = {}
    for _ in range(3):
        for kernel in net.kernels(layer):
            net.choose(layer, kernel)
            took = net.time(layer, rounds)
            times[kernel] = min(took, times.get(kernel, took))
    best = min(times, key=times.__getitem__)
    return {"kernel": best, "median_ms": times[best]}


def exactness() -> dict[str, Any]:
    """Build and run the self-test for this machine; returns how it ended and what it said."""
    with tempfile.TemporaryDirectory() as folder:
        program = build_selftest(Path(folder), sanitize=False)
        done = subprocess.run(
            [str(program), str(_SELFTEST_LAYERS)], capture_output=True, text=True, check=False
        )
    said = done.stdout.strip()
    return {"exact": done.returncode == 0, "said": said, "error": done.stderr[-500:]}


def machine() -> dict[str, Any]:
    """Return what is known of this machine; nothing that names it or its user."""
    found: dict[str, Any] = {
        "machine": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "features": list(features()),
    }
    version = subprocess.run(
        [find_compiler(), "--version"], capture_output=True, text=True, check=True
    )
    found["compiler"] = version.stdout.splitlines()[0]
    places = {
        "model": "/proc/device-tree/model",
        "governor": "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor",
        "largest_khz": "/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq",
    }
    for name, place in places.items():
        try:
            found[name] = Path(place).read_text(errors="replace").strip("\0\n ")
        except OSError:
            found[name] = None
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
        names = ("model name", "CPU part", "CPU implementer")
        found["processor"] = sorted({line for line in lines if line.startswith(names)})
    found["load"] = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return found


def measured(rounds: int) -> list[dict[str, Any]]:
    """Time every layer at every pair of bits, by all instructions and by the least of them."""
    rows = []
    restrict("")
    sets = [""] + [name for name in ("neon", "avx2") if name in features()[1:]]
    for instructions in sets:
        restrict(instructions)
        for name, spec in SHAPES.items():
            for weight_bits, activation_bits in BITS:
                rows.append(
                    {
                        "layer": name,
                        "macs": int(np.prod(spec.out_size)) * spec.outputs * spec.channels
                        * int(np.prod(spec.kernel)),
                        "weight_bits": weight_bits,
                        "activation_bits": activation_bits,
                        "instructions": instructions or "all",
                        **timed(spec, weight_bits, activation_bits, rounds),
                    }
                )  # fmt: skip
    restrict("")
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure this machine and write the result file."""
    parser = argparse.ArgumentParser(prog="python -m devices.lowbit.board", description=__doc__)
    parser.add_argument("result", type=Path)
    rounds = int(os.environ.get("EDGE_NAS_BOARD_ROUNDS", "15"))
    parser.add_argument("--rounds", type=int, default=rounds, help="timings of a kernel, thrice")
    options = parser.parse_args(arguments)
    try:
        result: dict[str, Any] = {
            "format": FORMAT,
            "command": "scripts/measure-board",
            "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "machine": machine(),
            "selftest": exactness(),
            "rows": measured(max(1, options.rounds)),
        }
    except EnvironmentProblem as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    write_json_atomic(options.result, result)
    test = result["selftest"]
    print(f"{options.result}: {len(result['rows'])} timings; {json.dumps(test['said'])}")
    return 0 if test["exact"] else 1


if __name__ == "__main__":
    sys.exit(main())
