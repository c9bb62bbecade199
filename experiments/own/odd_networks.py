"""Which small networks with unusual parts run in the low-bit runtime and as C, with equal outputs.

Each of :data:`experiments.own.odd_nets.NETWORKS` is quantised to 4-bit weights and 8-bit
activations and exported; its packed form is compared with unoptimised ONNX Runtime on the same
file, and its C project is compiled and compared with the low-bit runtime bit for bit. Run from the
repository, with a C and a C++ compiler::

    python -m experiments.own.odd_networks
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import nn

from devices.lowbit.network import LowBitNetwork
from experiments.own.odd_nets import NETWORKS
from experiments.results_index import record_claim, write_result
from nas.models.c_project.project import write_c_project
from nas.models.parity import evaluate_onnx
from search_spaces.errors import InputError
from search_spaces.model_files.packing import pack_onnx
from supernet.onnx.export import export_onnx
from supernet.ptq.quantize import quantize_post_training

COMMAND = "python -m experiments.own.odd_networks"
RESULT = Path(__file__).parents[1] / "results" / "own" / "odd_networks.json"
SEED = 0
ERROR = 0.01
"""Largest relative error; some values lie between two codes."""


def try_network(name: str, network: nn.Module, folder: Path) -> dict[str, Any]:
    """Quantise, export and run one network; what is refused says why."""
    row: dict[str, Any] = {"network": name}
    with torch.no_grad():
        for _ in range(10):
            network(torch.randn(16, 3, 16, 16))
    images = torch.randn(16, 3, 16, 16)
    path = folder / "model.onnx"
    codes = quantize_post_training(network.eval(), [images], (4, 8), steps=(), edge_bits=None)
    export_onnx(codes, path)
    expected = evaluate_onnx(path, [images], optimise=False)
    try:
        packed = pack_onnx(path, folder / "model.lowbit")
        runtime = LowBitNetwork(packed, batch=len(images), rounds=0)
        found = runtime.run(images.numpy())
        row["error"] = float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
        row["in_floats"] = runtime.float_operations
    except InputError as error:
        return row | {"refused": str(error), "c": "refused"}
    try:
        write_c_project(packed, folder / "c")
    except InputError as error:
        return row | {"c": str(error)}
    done = subprocess.run(
        ["make", "-s", "run"], cwd=folder / "c", capture_output=True, text=True, check=False
    )
    return row | {"c": "equal" if done.returncode == 0 else done.stdout[-200:]}


def main() -> None:
    """Try all networks and record how many pass."""
    rows = []
    for name, make in NETWORKS.items():
        torch.manual_seed(SEED)
        with TemporaryDirectory() as folder:
            rows.append(try_network(name, make(), Path(folder)))
        print(rows[-1], flush=True)
    packages = ("torch", "onnx", "onnxruntime", "numpy")
    file = write_result(RESULT, {"seed": SEED, "rows": rows}, COMMAND, packages=packages)
    right = sum(row.get("error", 1.0) < ERROR for row in rows)
    integers = sum(row.get("in_floats") == [] for row in rows)
    value = f"{right} of {len(rows)}; {integers} on integers alone"
    record_claim("own.odd_networks_lowbit", value, "all", right == len(rows), file, COMMAND)
    equal = sum(row["c"] == "equal" for row in rows)
    value = f"{equal} of {len(rows)}"
    record_claim("own.odd_networks_c", value, "all", equal == len(rows), file, COMMAND)


if __name__ == "__main__":
    main()
