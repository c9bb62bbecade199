"""Do exported files load in other versions of ONNX Runtime, with the same outputs?

Each version is installed in an environment of its own; its Python interpreter is an argument.
Run from the repository::

    python -m experiments.own.oldest_runtime /path/to/ort-1.20/bin/python

The kernels that 1.20 has are written for the tests too, which look up what exported files hold.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from experiments.results_index import record_claim
from nas.models.parity import evaluate_onnx
from search_spaces.atomic import write_json_atomic, write_text_atomic
from supernet.onnx.export import export_onnx
from supernet.onnx.opset import LOWEST
from supernet.ptq.quantize import quantize_post_training

COMMAND = "python -m experiments.own.oldest_runtime ORT_1_20/bin/python"
RESULT = Path("experiments/results/own/oldest_runtime.json")

RUN = """
import json, sys
import numpy, onnxruntime
found = {"version": onnxruntime.__version__}
images = numpy.load(sys.argv[1])
for path in sys.argv[2:]:
    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        found[path] = session.run(None, {"input": images})[0].tolist()
    except Exception as error:
        # Where the file lay says nothing of it.
        found[path] = str(error).replace(path, "the file")[:200]
print(json.dumps(found))
"""

KERNELS = Path("tests/supernet/kernels_1_20.json")
TYPES = (
    "float", "float16", "uint8", "int8", "uint16", "int16", "int32", "int64", "bool",
    "float8e4m3fn", "float8e5m2",
)  # fmt: skip
"""Of tensors in exported files."""

LIST = """
import json
from onnxruntime.capi import onnxruntime_pybind11_state as state
found = []
for kernel in state.get_all_opkernel_def():
    if kernel.provider == "CPUExecutionProvider" and not kernel.domain:
        found.append([kernel.op_name, *kernel.version_range, kernel.type_constraints])
print(json.dumps(found))
"""


def kernels(python: str) -> dict[str, list[list[Any]]]:
    """Return what an interpreter's runtime has kernels for, see ``tests.supernet.kernels``."""
    done = subprocess.run([python, "-c", LIST], capture_output=True, text=True, check=True)
    table: dict[str, list[list[Any]]] = {}
    for op, first, last, constraints in json.loads(done.stdout):
        kinds = {
            key: " ".join(t for t in TYPES if f"tensor({t})" in of)
            for key, of in sorted(constraints.items())
        }
        if last >= LOWEST and all(kinds.values()):
            row = [first, None if last >= 2**31 - 1 else last, kinds]
            table.setdefault(op, []).append(row)
    return {op: sorted(rows, key=str) for op, rows in sorted(table.items())}


def write_table(table: dict[str, list[list[Any]]]) -> None:
    """Write the kernels, an operator a line."""
    lines = [f"{json.dumps(op)}: {json.dumps(rows)}" for op, rows in table.items()]
    write_text_atomic(KERNELS, "{\n" + ",\n".join(lines) + "\n}\n")


class Tokens(nn.Module):
    """Attention over patches."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.layer = nn.Conv2d(3, 16, 4, 4), nn.TransformerEncoderLayer(16, 2, 32)
        self.head = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``x``: (batch, 3, height, width) -> (batch, 4)."""
        return self.head(self.layer(self.patches(x).flatten(2).transpose(1, 2)).mean(1))


class Decoder(nn.Module):
    """Transposed convolutions and pixel shuffles between layers, group norm, joined maps."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, 2, 1, groups=4)
        self.up, self.norm = nn.ConvTranspose2d(16, 8, 4, 2, 1), nn.GroupNorm(2, 24)
        self.wide, self.shuffle = nn.Conv2d(24, 32, 1), nn.PixelShuffle(2)
        self.scale, self.last = nn.Parameter(torch.rand(8, 1, 1) + 0.5), nn.Conv2d(8, 8, 3)
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``x``: (batch, 3, height, width) -> (batch, 4)."""
        x = torch.relu(self.stem(x))
        x = torch.relu(self.norm(torch.cat([x, self.up(self.down(x))], 1)))
        return self.head(self.last(self.scale * self.shuffle(self.wide(x))).mean((2, 3)))


def convolutions() -> nn.Module:
    """Pools that round up, squeezing, hard-swish, group norm, transposed convolution."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.Hardswish(),
        nn.MaxPool2d(3, 2, ceil_mode=True), nn.Conv2d(16, 16, 3, padding=1, groups=16),
        nn.GroupNorm(4, 16), nn.ReLU(), nn.ConvTranspose2d(16, 8, 2, 2), nn.GELU(),
        nn.Conv2d(8, 33, 3), nn.Conv2d(33, 49, 3, bias=False), nn.BatchNorm2d(49), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(196, 4),
    )  # fmt: skip


def main() -> None:
    """Export files of every kind and run them with each interpreter."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("python", nargs="+")
    interpreters = parser.parse_args().python
    torch.manual_seed(0)
    images = torch.randn(8, 3, 16, 16)
    rows: list[dict[str, Any]] = []
    with TemporaryDirectory() as folder:
        np.save(f"{folder}/images.npy", images.numpy())
        made = (("convolutions", convolutions), ("decoder", Decoder), ("tokens", Tokens))
        for name, make in made:
            network = make().eval()
            for pair in ((32, 32), (8, 8), (4, 8), (3, 8), (2, 8)):
                bits = pair[0]
                for storage in ("int8", "packed") if bits < 8 else ("int8",):
                    quantised = quantize_post_training(
                        network, [images], pair, steps=(), edge_bits=None
                    )
                    path = Path(folder) / f"{name}-w{bits}a{pair[1]}-{storage}.onnx"
                    export_onnx(quantised, path, weight_storage=storage)
                    model = onnx.load(path)
                    versions = {"opset": model.opset_import[0].version, "ir": model.ir_version}
                    apart = sum(n.op_type == "BitShift" for n in model.graph.node)
                    size = {"bytes": path.stat().st_size, "taken_apart": apart}
                    form = {"weight_bits": bits, "activation_bits": pair[1], "storage": storage}
                    rows.append({"file": path.name, **form, **versions, **size})
        files = [str(Path(folder) / row["file"]) for row in rows]
        expected = {f: evaluate_onnx(Path(f), [images]) for f in files}
        for python in interpreters:
            done = subprocess.run(
                [python, "-c", RUN, f"{folder}/images.npy", *files],
                capture_output=True, text=True, check=True,
            )  # fmt: skip
            found = json.loads(done.stdout.splitlines()[-1])
            for row, file in zip(rows, files, strict=True):
                got = found[file]
                row[found["version"]] = (
                    got if isinstance(got, str)
                    else float(np.abs(np.array(got) - expected[file]).max())
                )  # fmt: skip
            versions_seen = found["version"]
            loading = [e for row in rows if isinstance(e := row[versions_seen], float)]
            equal = all(e < 1e-4 for e in loading)
            met = len(loading) == len(rows) and equal
            if versions_seen.startswith("1.20"):
                write_table(kernels(python))
                value = f"{len(loading)} of {len(rows)} files load; equal outputs: {equal}"
                record_claim(
                    "own.oldest_onnxruntime", value, "every file", met,
                    str(RESULT), COMMAND,
                )  # fmt: skip
    write_json_atomic(RESULT, {"command": COMMAND, "torch": torch.__version__, "rows": rows})
    for row in rows:
        print(row)


if __name__ == "__main__":
    main()
