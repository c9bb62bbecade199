"""C projects against TensorFlow Lite Micro: instructions of an inference, bytes of code and RAM.

    python -m experiments.deliver.c_vs_tflm

The same networks at 8 bits, with random weights, on this machine's processor: the C project as its
Makefile builds it, and the ``.tflite`` file in the interpreter of the package tflite-micro, whose
kernels are the reference ones in plain C++ (the result names those that ran). Valgrind counts the
instructions of ``edge_nas_run`` and of ``MicroInterpreter::Invoke``; the code is that of the
functions that ran within them, so what TensorFlow Lite Micro needs to load a model is left out.
Nothing of it can be had as sources from package registries, so there is no figure of its kernels
for Arm (CMSIS-NN), nor of it on a microcontroller.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from devices.runtime import random_inputs
from devices.runtimes.agreement import SEEDS, Agreement
from devices.runtimes.onnxruntime import OnnxRuntime
from experiments.deliver.c_images import NETWORKS, network
from experiments.deliver.litert_kernels import file_of, outputs
from experiments.results_index import record_claim
from nas.models.c_project.project import write_c_project
from search_spaces.atomic import write_json_atomic

RESULT = Path(__file__).parents[1] / "results" / "deliver" / "c_vs_tflm.json"
COMMAND = "python -m experiments.deliver.c_vs_tflm"
BITS = (8, 8)
VECTORS = 3
"""Inputs that the example of a C project runs."""

_INTERPRETED = """
import sys
import numpy as np
from tflite_micro import runtime

interpreter = runtime.Interpreter.from_file(sys.argv[1])
if sys.argv[2:]:
    shape = tuple(interpreter.get_input_details(0)["shape"])
    values = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    interpreter.set_input(values, 0)
    interpreter.invoke()
else:
    interpreter.print_allocations()
"""


def counted(command: list[str], function: str, folder: Path) -> tuple[int, set[str]]:
    """Return the instructions within a function, and the names of the functions that ran there."""
    file = folder / "callgrind.out"
    subprocess.run(
        ["valgrind", "--tool=callgrind", "--demangle=no", f"--callgrind-out-file={file}",
         f"--toggle-collect={function}", *command],
        check=True, capture_output=True, cwd=folder,
    )  # fmt: skip
    text = file.read_text()
    total = re.search(r"^(?:summary|totals): (\d+)", text, re.M)
    if total is None or not int(total[1]):
        raise RuntimeError(f"valgrind counted nothing within {function} of {command[0]}")
    return int(total[1]), set(re.findall(r"^c?fn=\(\d+\) (\S+)", text, re.M))


def code_of(binary: Path, functions: set[str]) -> dict[str, int]:
    """Return the bytes of those functions that a binary holds."""
    listed = subprocess.run(["nm", "-S", str(binary)], capture_output=True, text=True, check=True)
    found = re.findall(r"^\S+ (\S+) [tTwW] (\S+)$", listed.stdout, re.M)
    return {name: int(size, 16) for size, name in found if name in functions}


def ours(model: Any, folder: Path) -> dict[str, Any]:
    """Return the figures of a C project at the Makefile's optimisation, and at the smallest."""
    report = write_c_project(model, folder)
    found: dict[str, Any] = {
        "constants_bytes": report.weight_bytes + report.channel_bytes + report.table_bytes,
        "ram_bytes": report.arena_bytes,
    }
    for level in ("-O2", "-Os"):
        build = f"BUILD=build/{level}"
        subprocess.run(["make", "-s", build, f"OPTIMISE={level}"], cwd=folder, check=True)
        program = folder / "build" / level / "example.elf"
        shown = subprocess.run([str(program)], capture_output=True, text=True, check=True).stdout
        if f"PASS {VECTORS} of {VECTORS}" not in shown:
            raise RuntimeError(f"the C project computes something else: {shown}")
        instructions, functions = counted([str(program)], "edge_nas_run", folder)
        found[level] = {
            "instructions": instructions // VECTORS,
            "code_bytes": sum(code_of(program, functions).values()),
        }
    return found


def theirs(file: Path, folder: Path) -> dict[str, Any]:
    """Return the figures of TensorFlow Lite Micro."""
    import tflite_micro

    script = folder / "interpreted.py"
    script.write_text(_INTERPRETED)
    command = [sys.executable, str(script), str(file)]
    library = next(Path(tflite_micro.__file__).parent.rglob("_runtime.so"))
    symbols = subprocess.run(["nm", str(library)], capture_output=True, text=True, check=True)
    # Mangled: what it calls has "Invoke" in its name, too, and would end the count.
    invoke = re.search(r"\S*16MicroInterpreter6InvokeEv$", symbols.stdout, re.M)
    if invoke is None:
        raise RuntimeError(f"{library} has no function MicroInterpreter::Invoke()")
    instructions, functions = counted([*command, "run"], invoke[0], folder)
    # Without the binding to Python.
    code = code_of(library, {name for name in functions if "6tflite" in name})
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    arena = dict(re.findall(r"Arena allocation (head|tail) (\d+)", told.stdout + told.stderr))
    return {
        "instructions": instructions,
        "code_bytes": sum(code.values()),
        "file_bytes": file.stat().st_size,
        "ram_bytes": int(arena["head"]),
        "ram_beside_tensors_bytes": int(arena["tail"]),
        "kernels": sorted({name for symbol in code if (name := _kernel(symbol))}),
    }


def _kernel(symbol: str) -> str:
    """Return name and namespace of a convolution's function."""
    places = "reference_integer_ops|cmsis|xtensa"
    found = re.search(rf"({places}).*?((?:Depthwise)?Conv\w*?Channel)", symbol)
    return f"{found[1]}::{found[2]}" if found else ""


def main() -> None:
    """Count, write the result and record the claim."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    for tool in ("valgrind", "make", "nm"):
        if shutil.which(tool) is None:
            raise SystemExit(f"{tool} is not installed")
    rows: dict[str, Any] = {}
    for name, config in NETWORKS.items():
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            model, plan = network(config, BITS, folder, 0)
            file = file_of(folder / "model.onnx")
            reference = OnnxRuntime(graph_optimization="off").load(folder / "model.onnx")
            inputs = [random_inputs(reference.inputs, seed)[0] for seed in range(SEEDS)]
            expected = [np.array(reference(values)[0]) for values in inputs]
            micro = outputs(file, "TensorFlow Lite Micro", inputs)
            rows[name] = {
                "macs": int(sum(layer.macs for layer in plan.layers())),
                "ours": ours(model, folder / "project"),
                "tensorflow_lite_micro": theirs(file, folder)
                | {"outputs": vars(Agreement.of(micro, expected))},
            }
        print(name, json.dumps(rows[name]), flush=True)
    compilers = [["cc", "--version"], ["valgrind", "--version"]]
    versions = {"python": platform.python_version(), "machine": platform.machine()}
    versions |= {package: version(package) for package in ("tflite-micro", "ai-edge-litert")}
    for command in compilers:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        versions[command[0]] = done.stdout.splitlines()[0]
    result = {"command": COMMAND, "versions": versions, "load": os.getloadavg()[0], "rows": rows}
    write_json_atomic(RESULT, result)
    record(rows)


def record(rows: dict[str, Any]) -> None:
    """Enter the claim: instructions and bytes of ours over theirs."""
    instructions, flash, ram = {}, {}, {}
    for name, row in rows.items():
        own, micro = row["ours"], row["tensorflow_lite_micro"]
        instructions[name] = round(own["-O2"]["instructions"] / micro["instructions"], 3)
        size = own["constants_bytes"] + own["-O2"]["code_bytes"]
        flash[name] = round(size / (micro["file_bytes"] + micro["code_bytes"]), 3)
        ram[name] = round(own["ram_bytes"] / micro["ram_bytes"], 3)
    value = {
        "instructions, ours over theirs": instructions,
        "constants and code, ours over theirs": flash,
        "memory of tensors, ours over theirs": ram,
        "their kernels": next(iter(rows.values()))["tensorflow_lite_micro"]["kernels"],
    }
    met = max(instructions.values()) < 1 and max(flash.values()) < 1
    record_claim(
        "deliver.c_vs_tflm_instructions",
        value,
        "fewer instructions and bytes than TensorFlow Lite Micro at 8 bits",
        met,
        "experiments/results/deliver/c_vs_tflm.json",
        COMMAND,
    )


if __name__ == "__main__":
    main()
