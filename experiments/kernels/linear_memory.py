"""Resident memory of low-bit layers beside their packed bytes, and planes beside uniform codes.

    python -m experiments.kernels.linear_memory [--ggml FOLDER] [--planes]

Each model runs in a process of its own: four layers of 4096 by 4096, made, tuned and run once.
What counts is the growth of resident memory (mapped pages too) over the same process with layers
of 64 by 64. The second part trains a small language model on this repository's documentation and
quantises each of its layers both ways at equal bits a weight; ``--planes`` does it alone and keeps
the first as it is on record.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from experiments.kernels.bench import RESULTS, machine
from search_spaces.atomic import write_json_atomic

SIZE, LAYERS = 4096, 4
TARGET = 1.3
WAYS = ("grouped", "integer", "ggml", "ort")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ggml", type=Path, help="folder of ggml; of `make`, the file")
    parser.add_argument("--worker", nargs=3)
    parser.add_argument("--planes", action="store_true")
    options = parser.parse_args()
    if options.worker:
        way, bits, size = options.worker[0], int(options.worker[1]), int(options.worker[2])
        print(json.dumps(_worker(way, bits, size, options.ggml)))
        return 0
    rows = []
    for way in () if options.planes else WAYS:
        for bits in (1, 2, 3, 4) if way in ("grouped", "integer") else (2, 4):
            try:
                small, large = (_process(way, bits, n, options.ggml) for n in (64, SIZE))
            except subprocess.CalledProcessError as error:
                rows.append({"way": way, "bits": bits, "missing": error.stderr[-200:]})
                continue
            grown = large["resident"] - small["resident"]
            row = {
                "way": way,
                "bits": bits,
                "packed_bytes": large["packed"],
                "resident_bytes": grown,
                "ratio": round(grown / large["packed"], 3),
                "peak_ratio": round((large["peak"] - small["peak"]) / large["packed"], 3),
            }
            rows.append(row)
            print(row, flush=True)
    command = "python -m experiments.kernels.linear_memory" + " --ggml FOLDER" * bool(options.ggml)
    name = "linear_memory.json"
    known = json.loads((RESULTS / name).read_text()) if options.planes else {}
    accuracy, layers = planes_and_codes()
    better = float(np.mean([layer["planes"] < layer["uniform"] for layer in layers]))
    document = {
        "machine": machine(),
        "layers": LAYERS,
        "size": SIZE,
        "command": command,
        "memory": rows,
        # What was measured before, where it was and how.
        **{k: known[k] for k in ("machine", "command", "memory") if k in known},
        "planes": {
            "network": "decoder of three blocks 256 wide, bytes of this repository's documentation",
            "accuracy": round(accuracy, 3),
            "machine": machine(),
            "share_better": better,
            "share_better_at_the_same_group": float(
                np.mean([layer["planes"] < layer["uniform_same_group"] for layer in layers])
            ),
            "layers": layers,
        },
    }
    write_json_atomic(RESULTS / name, document)
    from experiments.results_index import record_claim

    file = f"experiments/results/kernels/{name}"
    if not options.planes:
        worst = max(r["ratio"] for r in rows if r["way"] in ("grouped", "integer"))
        record_claim("lowbit.rss_over_packed", worst, TARGET, worst <= TARGET, file, command)
    record_claim("lowbit.hlq_layers_better", round(better, 3), 0.9, better >= 0.9, file,
                 "python -m experiments.kernels.linear_memory --planes")  # fmt: skip
    return 0


def _process(way: str, bits: int, size: int, path: Path | None) -> dict[str, Any]:
    extra = ["--ggml", str(path)] if path else []
    done = subprocess.run(
        [sys.executable, "-m", "experiments.kernels.linear_memory", "--worker", way, str(bits),
         str(size), *extra],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def _resident() -> tuple[int, int]:
    text = Path("/proc/self/status").read_text()
    values = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    return tuple(int(values[k].split()[0]) * 1024 for k in ("VmRSS", "VmHWM"))  # type: ignore[return-value]


def _worker(way: str, bits: int, size: int, path: Path | None) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, (1, size)).astype(np.float32)
    nominal = size * size * bits // 8 + size * (size // 128) * 2
    keep: list[Any] = []
    if way == "make":
        assert path is not None
        return _make(bits, size, path)
    if way == "grouped":
        keep, nominal = _grouped(bits, size, x)
    elif way == "integer":
        keep, nominal = _integer(bits, size)
    elif way == "ggml":
        from experiments.kernels.peers import Ggml

        kind = "tq2_0" if bits == 2 else "q4_0"
        size = max(size, 256)
        matrices = [rng.normal(0, 1, (size, size)).astype(np.float32) for _ in range(1)]
        x = rng.normal(0, 1, (1, size)).astype(np.float32)
        keep.append(Ggml(1, path))
        for _ in range(LAYERS):
            keep.append(keep[0].products(kind, matrices, x))
            keep[-1][0]()
        del matrices
    else:
        from experiments.kernels.peers import nbits_products

        size = max(size, 128)
        x = rng.normal(0, 1, (1, size)).astype(np.float32)
        codes = rng.integers(0, 2**bits, (size, size), dtype=np.uint8)
        scales = np.full((size, size // min(128, size)), 0.01)
        for _ in range(LAYERS):
            keep.append(nbits_products([codes], [scales], x, bits=bits, group=128))
            keep[-1][0]()
        del codes, scales
    # What was freed while peers' weights were made is not theirs.
    from devices.lowbit.library import Native

    Native(1).trim()
    resident, peak = _resident()
    return {"resident": resident, "peak": peak, "packed": LAYERS * nominal}


def _make(bits: int, size: int, path: Path) -> dict[str, Any]:
    """Write the model file, in a process of its own; return the layers' entries and their bytes."""
    from search_spaces.model_files.grouped import pack_grouped, store_grouped
    from search_spaces.model_files.packed_model import PackedModel, write_packed_model

    rng = np.random.default_rng(1)
    group = 128 if size >= 128 else 64
    tensors: dict[str, np.ndarray] = {}
    entries = []
    for i in range(LAYERS):
        codes = rng.integers(0, 2**bits, (size, size), dtype=np.uint8)
        scales = np.full((size, size // group), 0.01)
        weights = pack_grouped(codes, scales, bits=bits, group=group, zero=2 ** (bits - 1))
        entries.append({"shape": [size, size], **store_grouped(tensors, f"l{i}", weights)})
    write_packed_model(path, PackedModel({"nodes": []}, tensors))
    return {"entries": entries, "nominal": weights.nbytes}


def _grouped(bits: int, size: int, x: np.ndarray) -> tuple[list[Any], int]:
    from devices.lowbit.library import Native
    from search_spaces.model_files.grouped import load_grouped
    from search_spaces.model_files.packed_model import read_packed_model

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.lowbit"
        made = _process("make", bits, size, path)
        model = read_packed_model(path)
        net = Native(1)
        source = net.buffer(4 * size)
        for entry in made["entries"]:
            net.linear(source, net.buffer(4 * size), 1, load_grouped(model.tensors, entry))
        net.array(source, (1, size), np.float32)[...] = x
        net.run()
    return [net, model], made["nominal"]


def _integer(bits: int, size: int) -> tuple[list[Any], int]:
    from devices.lowbit.library import FLOATS, ConvSpec, Native
    from devices.lowbit.tuning import choose_kernel

    rng = np.random.default_rng(1)
    alphabet = [-1, 1] if bits == 1 else list(range(-(2 ** (bits - 1)), 2 ** (bits - 1)))
    net = Native(1)
    source = net.buffer(size)
    for _ in range(LAYERS):
        codes = rng.choice(np.array(alphabet, np.int8), (size, size, 1, 1))
        spec = ConvSpec(channels=size, outputs=size, kind=FLOATS)
        layer = net.conv(source, net.buffer(4 * size), spec, codes)
        choose_kernel(net, layer, 5)
        del codes
    net.trim()
    net.run()
    return [net], size * size * bits // 8


def planes_and_codes() -> tuple[float, list[dict[str, Any]]]:
    """Train a language model and quantise each of its linear layers both ways.

    Planes get groups of 128, uniform codes with a minimum groups of 64: two or three planes and a
    minimum are 3 or 4 numbers for 128 weights, a scale and a minimum 4, so the planes have as many
    bits or fewer. Beside them uniform codes with groups of 128, which have fewer bits. Weights
    begin normally distributed, as those of published models of this shape do.

    Returns:
        The share of held-out bytes that it tells, and a row for each layer at 2 and 3 bits.
    """
    import torch

    from experiments.tasks import adapters
    from nas.bits.weights_alone import linear_layers
    from supernet.weight_only.planes import hierarchical_planes
    from supernet.weight_only.uniform import round_to_nearest

    torch.set_num_threads(1)
    train, held = adapters.windows(adapters.DOCS, most=1_000_000, seed=0, files="*.md")
    config = replace(adapters.CONFIG, width=256, heads=8, key_heads=8, inner=512)
    network = adapters.trained(train, steps=500, seed=0, config=config, deviation=1.0)
    rows = []
    for name, module in linear_layers(network).items():
        weight = module.weight.detach().numpy().astype(np.float64)
        for bits in (2, 3):
            forms = {
                "planes": hierarchical_planes(weight, bits, 128),
                "uniform": round_to_nearest(weight, bits, 64, symmetric=False),
                "uniform_same_group": round_to_nearest(weight, bits, 128, symmetric=False),
            }
            errors = {
                kind: float(np.square(w.dequantised() - weight).mean() / np.square(weight).mean())
                for kind, w in forms.items()
            }
            errors |= {f"bits_{kind}": 8 * w.nbytes / weight.size for kind, w in forms.items()}
            rows.append({"layer": name, "bits": bits, **errors})
    return adapters.accuracy(network, held[:400]), rows


if __name__ == "__main__":
    sys.exit(main())
