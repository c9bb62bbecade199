"""C projects on emulated microcontrollers: bits of the outputs, size of the image, instructions.

    python -m experiments.deliver.c_images

Networks with random weights of spaces for images and signals, at several bits, are written as C
projects, built for Cortex-M4, Cortex-M7 and RISC-V, and run under QEMU. Outputs are compared with
the low-bit runtime bit for bit; flash and RAM of the linked image with what the search promises.
The promise does not count code, which is the same for all networks of the same kernels: what the
image of one network, which is left out of the result, has beyond its promise is taken as the code
of all with depthwise convolutions, and that of another one as the code of all without.
Instruction counts come from the emulator: estimates of work, not of time.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from experiments.results_index import record_claim
from nas.models.c_project.project import ProjectReport, write_c_project
from search_spaces.atomic import write_json_atomic
from search_spaces.model_files.packing import pack_onnx

RESULT = Path(__file__).parents[1] / "results" / "deliver" / "c_images.json"
COMMAND = "python -m experiments.deliver.c_images"
TARGETS = {
    "cortex-m4": "arm-none-eabi-",
    "cortex-m7": "arm-none-eabi-",
    "rv32imc": "riscv64-unknown-elf-",
}
NETWORKS: dict[str, dict[str, Any]] = {
    "vision mobilenet 28x28": {"name": "mobilenet", "preset": "28x28", "input_channels": 1},
    "vision resnet 28x28": {"name": "resnet", "preset": "28x28", "input_channels": 1},
    "signal 256": {"name": "signal", "preset": "256", "input_channels": 3},
    "audio signal 1024": {"name": "signal", "preset": "1024", "input_channels": 1},
}
BITS = ((8, 8), (4, 8), (1, 4))
CODE_OF = {True: ("vision mobilenet 28x28", 8), False: ("vision resnet 28x28", 8)}
"""Whether there are depthwise convolutions -> network and weight bits whose image says how many
bytes the code takes."""

SIZE_TARGET = 0.02


def network(config: dict[str, Any], bits: tuple[int, int], folder: Path, seed: int) -> Any:
    """Return the packed model of a random architecture with random weights, and its plan."""
    import torch

    from search_spaces.bits import set_bits
    from search_spaces.spaces.registry import build_space
    from supernet.network import Supernet
    from supernet.onnx.export import export_onnx
    from supernet.quantizers.registry import QuantizerScheme

    torch.manual_seed(seed)
    torch.set_num_threads(1)
    allowed = {"weight_bits": [1, 2, 3, 4, 8], "activation_bits": [4, 8]}
    space = build_space(**config, outputs=10, **allowed)
    scheme = QuantizerScheme(weights={"default": "lsq", 1: "binary"})
    made = Supernet(space, quantizers=scheme)
    with torch.no_grad():
        for key, parameter in made.named_parameters():
            if key.endswith("gamma"):  # those of residual blocks start at 0
                parameter.copy_(torch.empty_like(parameter).uniform_(0.3, 1.2))
        genes = set_bits(space, space.genes([space.sample(np.random.default_rng(seed))]), *bits)
        plan = space.plan(space.decode(genes)[0])
        images = torch.randn(8, *plan.input_shape, generator=torch.Generator().manual_seed(1))
        made.statistics(plan, [images])
        for key, parameter in made.named_parameters():
            if "log_step" in key:  # training moves those of two layers with one input apart
                parameter.add_(torch.empty_like(parameter).uniform_(-0.1, 0.1))
        extracted = made.extract(plan, made.statistics(plan, [images])).eval()
    export_onnx(extracted, folder / "model.onnx")
    return pack_onnx(folder / "model.onnx", folder / "model.lowbit"), plan


def kernels(project: Path, target: str, folder: Path) -> list[str]:
    """Compile the kernels, which are the same in every project, once; returns the objects."""
    made = []
    options = subprocess.run(
        ["make", "-s", "-n", f"TARGET={target}", "CC=cc"], cwd=project, text=True, check=True,
        capture_output=True,
    ).stdout  # fmt: skip
    flags = [
        word
        for word in options.replace("\\\n", " ").split()
        if word.startswith(("-std", "-W", "-O", "-f", "-m", "--specs")) and "-Wl," not in word
    ]
    for name in ("kernels", "operators", "arithmetic"):
        source = f"edge_nas_{name}.c"
        if not (project / source).is_file():
            raise RuntimeError(f"{project} has no {source}")
        object_ = folder / f"{target}-{name}.o"
        if not object_.is_file():
            command = [f"{TARGETS[target]}gcc", *flags, "-c", source, "-o", str(object_)]
            subprocess.run(command, cwd=project, check=True)
        made.append(str(object_))
    return made


def image(project: Path, target: str, objects: Path) -> dict[str, Any]:
    """Build and run a project for a target; returns sizes, equality and instructions."""
    port = "port_riscv.c" if target.startswith("rv") else "port_cortex_m.c"
    sources = " ".join(["main.c", "model.c", port, *kernels(project, target, objects)])
    done = subprocess.run(
        ["make", "-s", "run", f"TARGET={target}", f"SOURCES={sources}"],
        cwd=project, text=True, timeout=900,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    program = project / "build" / target / "example.elf"
    if not program.is_file():
        raise RuntimeError(done.stdout[-2000:])
    prefix = TARGETS[target]
    sizes = dict.fromkeys(("text", "data", "bss"), 0)
    listed = subprocess.run(
        [f"{prefix}size", "-A", str(program)], capture_output=True, text=True, check=True
    ).stdout
    for section, size in re.findall(r"^\.(text|data|bss)\s+(\d+)", listed, re.M):
        sizes[section] = int(size)
    symbols = subprocess.run(
        [f"{prefix}nm", "-S", str(program)], capture_output=True, text=True, check=True
    ).stdout
    vectors = sum(
        int(size, 16) for size in re.findall(r"^\S+ (\S+) \w test_(?:in|out)puts$", symbols, re.M)
    )
    count = re.search(r"\(estimate\): (\d+)", done.stdout)
    return {
        "equal": done.returncode == 0 and "PASS 3 of 3" in done.stdout,
        "flash_bytes": sizes["text"] + sizes["data"] - vectors,
        "ram_bytes": sizes["data"] + sizes["bss"],
        "instructions_estimate": int(count[1]) if count else None,
    }


def rows(seed: int, objects: Path, known: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield a row for every network, pair of bits, storage and target that is not known yet."""
    done = {_key(row) for row in known}
    for bits, name in itertools.product(BITS, NETWORKS):
        # In 4 and 8 bits the two are the same.
        storages = ("fields",) if bits[0] in (4, 8) else ("fields", "packed")
        cells = [c for c in itertools.product(storages, TARGETS) if (name, *bits, *c) not in done]
        if not cells:
            continue
        with tempfile.TemporaryDirectory() as folder:
            model, plan = network(NETWORKS[name], bits, Path(folder), seed)
            costs = {"peak_memory_kib": plan.peak_memory_kib, "flash_kib": plan.flash_kib}
            for storage, target in cells:
                project = Path(folder) / storage
                report = write_c_project(model, project, storage=storage, promised=costs)
                yield {
                    "network": name,
                    "weight_bits": bits[0],
                    "activation_bits": bits[1],
                    "storage": storage,
                    "target": target,
                    "macs": int(sum(layer.macs for layer in plan.layers())),
                    "input_shape": list(plan.input_shape),
                    **_promise(report),
                    **image(project, target, objects),
                }


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    columns = ("network", "weight_bits", "activation_bits", "storage", "target")
    return tuple(row[column] for column in columns)


def _promise(report: ProjectReport) -> dict[str, Any]:
    assert report.promised_peak_kib is not None and report.promised_flash_kib is not None
    return {
        "arena_bytes": report.arena_bytes,
        "peak_promised_bytes": round(report.promised_peak_kib * 1024),
        "constants_bytes": report.weight_bytes + report.channel_bytes + report.table_bytes,
        "flash_promised_bytes": round(report.promised_flash_kib * 1024),
    }


def summary(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the errors of the promises and whether all outputs are equal."""
    fields = [row for row in found if row["storage"] == "fields"]
    code = {
        f"{row['target']}, {'' if depthwise else 'no '}depthwise": row["flash_bytes"]
        - row["flash_promised_bytes"]
        for row in fields
        for depthwise, known in CODE_OF.items()
        if (row["network"], row["weight_bits"]) == known
    }
    others = [r for r in fields if (r["network"], r["weight_bits"]) not in CODE_OF.values()]

    def code_of(row: dict[str, Any]) -> int:
        return code[f"{row['target']}, {'no ' if 'resnet' in row['network'] else ''}depthwise"]

    def worst(values: list[float]) -> float:
        return round(max(map(abs, values)), 4)

    packed = {
        (r["network"], r["weight_bits"], r["target"]): r for r in found if r["storage"] == "packed"
    }
    return {
        "code_bytes": code,
        "all_equal": all(row["equal"] for row in found),
        "rows": len(found),
        "flash_error_constants": {
            f"{bits}-bit activations": worst(
                [
                    r["constants_bytes"] / r["flash_promised_bytes"] - 1
                    for r in fields
                    if r["activation_bits"] == bits
                ]
            )
            for bits in sorted({r["activation_bits"] for r in fields})
        },
        "flash_error_image": worst(
            [r["flash_bytes"] / (r["flash_promised_bytes"] + code_of(r)) - 1 for r in others]
        ),
        "ram_error": worst([r["ram_bytes"] / r["peak_promised_bytes"] - 1 for r in found]),
        "packed_over_fields_flash": _median(
            [
                packed[key]["flash_bytes"] / r["flash_bytes"]
                for r in fields
                if (key := (r["network"], r["weight_bits"], r["target"])) in packed
            ]
        ),
        "instructions_per_mac": {
            target: _median(
                [r["instructions_estimate"] / r["macs"] for r in fields if r["target"] == target]
            )
            for target in TARGETS
        },
    }


def _median(values: list[float]) -> float | None:
    return round(float(np.median(values)), 3) if values else None


def versions() -> dict[str, str]:
    """Return the versions of the tools."""
    tools = [*(f"{prefix}gcc" for prefix in TARGETS.values()), "qemu-system-arm"]
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for tool in tools:
        done = subprocess.run([tool, "--version"], capture_output=True, text=True, check=True)
        found[tool] = done.stdout.splitlines()[0]
    return found


def main() -> None:
    """Measure, write the result and record the claims."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=Path, help="file to keep rows in, and to go on from")
    parser.add_argument("--known-only", action="store_true", help="write what --rows holds")
    options = parser.parse_args()
    missing = [t for t in (*TARGETS.values(),) if not shutil.which(f"{t}gcc")]
    if missing or not shutil.which("qemu-system-arm"):
        parser.error(f"cross compilers or QEMU are missing: {missing}; see docs/export-formats.md")
    known = []
    if options.rows is not None and options.rows.exists():
        known = [json.loads(line) for line in options.rows.read_text().splitlines()]
    with tempfile.TemporaryDirectory() as objects:
        for row in () if options.known_only else rows(options.seed, Path(objects), known):
            print(json.dumps(row), flush=True)
            known.append(row)
            if options.rows is not None:
                with open(options.rows, "a") as file:
                    file.write(json.dumps(row) + "\n")
    write(options.seed, known)


def write(seed: int, found: list[dict[str, Any]]) -> None:
    """Write the result and record the claims."""
    result = {
        "command": COMMAND,
        "seed": seed,
        "versions": versions(),
        "summary": summary(found),
        "rows": found,
    }
    write_json_atomic(RESULT, result)
    record(result["summary"])


def record(figures: dict[str, Any]) -> None:
    """Enter the claims."""
    file = "experiments/results/deliver/c_images.json"
    record_claim(
        "deliver.c_bit_exact", figures["all_equal"], True, figures["all_equal"], file, COMMAND
    )
    error = {
        "flash of the image, code included": figures["flash_error_image"],
        "ram of the image": figures["ram_error"],
        "constants": figures["flash_error_constants"],
    }
    met = max(figures["flash_error_image"], figures["ram_error"]) <= SIZE_TARGET
    record_claim("deliver.c_image_size_error", error, SIZE_TARGET, met, file, COMMAND)


if __name__ == "__main__":
    main()
