"""Whole networks at few bits in the low-bit runtime against ONNX Runtime at int8 and float.

    python -m experiments.kernels.networks --instructions avx2 --threads 1

The largest MobileNet of the 96x96 preset and the largest ResNet, untrained (speed does not depend
on the weights' values), with 8 bits in the first and last layers. The exports and the packed
files are made on the way; all contenders run in turn in one process.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments.kernels.bench import RESULTS, machine, timing_options
from search_spaces.atomic import write_json_atomic

BITS = ((2, 4), (2, 8))
SPACES = {"mobilenet": {"preset": "96x96"}, "resnet": {}}


def main() -> int:
    options = timing_options(__doc__)
    import torch

    torch.set_num_threads(1)

    command = (
        f"python -m experiments.kernels.networks --instructions {options.instructions} "
        f"--threads {options.threads}"
    )
    with tempfile.TemporaryDirectory() as folder:
        results = {name: _network(name, Path(folder), options) for name in SPACES}
    document = {
        "machine": machine(),
        "instructions": options.instructions,
        "threads": options.threads,
        "rounds": options.rounds,
        "command": command,
        "networks": results,
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    name = f"networks_{options.instructions}_{options.threads}.json"
    write_json_atomic(RESULTS / name, document)
    for network, result in results.items():
        print(network, result["ms_quartiles"], result["speedup_over_better"])
    if options.instructions == "avx2" and options.threads == 1:
        from experiments.results_index import record_claim

        for pair in ("w2a4", "w2a8"):
            value = {n: r["speedup_over_better"][pair] for n, r in results.items()}
            record_claim(
                f"kernel.network_{pair}_speedup",
                value,
                1.0,
                min(value.values()) > 1,
                f"experiments/results/kernels/{name}",
                command,
            )
    return 0


def _network(name: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    import numpy as np

    from devices.lowbit.network import LowBitNetwork
    from experiments.kernels.contenders import bound, interleave, ort_session
    from search_spaces.model_files.packed_model import read_packed_model

    files = export(name, folder)
    shape = read_packed_model(files["w2a4.lowbit"]).graph["input"]["shape"]
    x = np.random.default_rng(0).standard_normal((1, *shape)).astype(np.float32)
    runs, networks = {}, {}
    for kind in ("int8", "float"):
        runs[kind] = bound(ort_session(str(files[f"{kind}.onnx"]), options.threads), {"input": x})
    for w, a in (*BITS, (8, 8)):
        key = f"w{w}a{a}"
        network = LowBitNetwork(read_packed_model(files[f"{key}.lowbit"]), threads=options.threads)
        network.run(x)
        networks[key], runs[key] = network, network.runner
    times = interleave(runs, options.rounds)
    ms = {k: [round(float(q), 4) for q in np.percentile(v, (25, 50, 75))] for k, v in times.items()}
    medians = {k: ms[k][1] for k in ("int8", "float")}
    better = times[min(medians, key=medians.__getitem__)]
    return {
        "input": shape,
        "ms_quartiles": ms,
        # Round by round, as the clock of a shared machine changes.
        "speedup_over_better": {k: round(float(np.median(better / times[k])), 3) for k in networks},
        "file_kib": {k: round(p.stat().st_size / 1024, 1) for k, p in files.items()},
        "float_operations": {k: n.float_operations for k, n in networks.items()},
        "profile": {k: n.profile(20) for k, n in networks.items()},
    }


def export(name: str, folder: Path) -> dict[str, Path]:
    """Write the float, int8 and few-bit files of one network; returns them by name."""
    import numpy as np
    import torch

    import search_spaces.spaces.mobilenet
    import search_spaces.spaces.resnet  # noqa: F401
    from search_spaces.model_files.packing import pack_onnx
    from search_spaces.spaces.registry import build_space
    from supernet.network import Supernet
    from supernet.onnx.export import export_onnx
    from supernet.training.subnets import at_bits

    bits = dict(weight_bits=(2, 4, 8, 32), activation_bits=(4, 8, 32))
    space = build_space(name, input_channels=3, outputs=10, **SPACES[name], **bits)
    torch.manual_seed(0)
    supernet = Supernet(space)
    rng = np.random.default_rng(0)
    plan = max((space.plan(space.sample(rng)) for _ in range(200)), key=lambda p: p.macs)
    files = {}
    for w, a in (*BITS, (8, 8), (32, 32)):
        chosen = at_bits(plan, w, a) if w in (8, 32) else at_inner_bits(plan, w, a)
        images = torch.randn(8, *chosen.input_shape)
        with torch.no_grad():
            network = supernet.extract(chosen, supernet.statistics(chosen, [images])).eval()
        key = {8: "int8", 32: "float"}.get(w, f"w{w}a{a}")
        files[f"{key}.onnx"] = folder / f"{name}.{key}.onnx"
        export_onnx(network, files[f"{key}.onnx"], reduce_range=True)
        if w != 32:
            target = folder / f"{name}.w{w}a{a}.lowbit"
            files[f"w{w}a{a}.lowbit"] = target
            pack_onnx(files[f"{key}.onnx"], target)
    return files


def at_inner_bits(plan: Any, weight_bits: int, activation_bits: int) -> Any:
    """Return ``plan`` with these bits inside, 8 bits in the first and last layers."""

    def change(layer: Any) -> Any:
        outer = layer.role in ("stem", "head", "classifier", "squeeze", "excite", "feature")
        w, a = (8, 8) if outer else (weight_bits, activation_bits)
        return replace(layer, weight_bits=w, activation_bits=a)

    return replace(
        plan, blocks=tuple(replace(b, layers=tuple(map(change, b.layers))) for b in plan.blocks)
    )


if __name__ == "__main__":
    sys.exit(main())
