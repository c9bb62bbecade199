"""The next token of a language model, and a window of 128: the low-bit runtime beside ONNX Runtime.

Networks of the space ``decoder`` with random weights, 512 tokens, 8-bit activations, exported as a
run exports them, on one thread. Rounds are interleaved in one process; processor time, the
0.2-quantile of the rounds. Outputs are held against each other first.

    python -m experiments.kernels.decode
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from devices.measuring.conditions import has_dot_products
from devices.runtime import make_runtime, random_inputs
from devices.runtimes.agreement import relative_error
from experiments.results_index import record_claim, write_result
from search_spaces.spaces.registry import build_space
from supernet.decoding import DecodingStep
from supernet.network import Supernet
from supernet.onnx.export import export_onnx

RESULTS = Path(__file__).parents[1] / "results" / "kernels" / "decode.json"
COMMAND = "python -m experiments.kernels.decode"
NETWORKS = (("500k", 2), ("2m", 2), ("2m", 8))
ROUNDS = 60
QUANTILE = 0.2


def files(folder: Path, preset: str, bits: int) -> tuple[int, dict[str, Path]]:
    """Export the largest network of a preset; return its parameters and both files."""
    torch.manual_seed(0)
    space = build_space(
        "decoder", preset=preset, outputs=512, input_size=(1, 128), weight_bits=[bits],
        granularity="block",
    )  # fmt: skip
    supernet = Supernet(space)
    plan = space.plan(space.largest())
    # The first data set the steps of the quantisers.
    supernet(torch.randint(0, 512, (4, 1, 1, 128)).float(), plan)
    network = supernet.extract(plan, {})
    step = DecodingStep(network)
    paths = {name: folder / f"{preset}-{bits}-{name}.onnx" for name in ("token", "window")}
    common: dict[str, Any] = {"batch": 1, "reduce_range": not has_dot_products()}
    export_onnx(step, paths["token"], inputs=step.inputs, outputs=step.outputs, **common)
    export_onnx(network, paths["window"], **common)
    return plan.parameters, paths


def times(paths: dict[str, Path]) -> dict[str, dict[str, float]]:
    """Return microseconds of a run by file and runtime."""
    calls = {}
    for name, path in paths.items():
        plain = make_runtime("onnxruntime", {"graph_optimization": "off"}).load(path)
        for runtime in ("onnxruntime", "lowbit"):
            session = make_runtime(runtime, {}).load(path)
            given = random_inputs(plain.inputs, 0)
            expected = plain(*given)[0]
            found = session(*given[: len(session.inputs)])[0]
            if name == "window":
                # A step's caches are the runtime's own, so only windows compare at once.
                error = relative_error(np.reshape(found, expected.shape), expected)
                assert error < 0.1, f"{path} in {runtime}: outputs differ by {error:.3g}"
            calls[name, runtime] = session.bind(*random_inputs(session.inputs, 0))
    spent: dict[tuple[str, str], list[float]] = {key: [] for key in calls}
    for _ in range(ROUNDS):
        for key, call in calls.items():
            many = 20 if key[0] == "token" else 1
            began = time.process_time()
            for _ in range(many):
                call()
            spent[key].append((time.process_time() - began) / many)
    found_us = {key: 1e6 * float(np.quantile(rounds, QUANTILE)) for key, rounds in spent.items()}
    return {
        name: {runtime: found_us[name, runtime] for runtime in ("onnxruntime", "lowbit")}
        for name in paths
    }


def main() -> None:
    """Measure every network and record how much faster a token is."""
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for preset, bits in NETWORKS:
            parameters, paths = files(Path(folder), preset, bits)
            rows.append({"parameters": parameters, "bits": bits, "microseconds": times(paths)})
            print(rows[-1], flush=True)
    file = write_result(
        RESULTS,
        {
            "rows": rows,
            "dot_products": has_dot_products(),
        },
        COMMAND,
        packages=("numpy", "onnxruntime", "torch"),
    )
    for name, key, target in (
        ("token", "language.token_lowbit_vs_ort", 1.0),
        ("window", "language.window_lowbit_vs_ort", 1.0),
    ):
        speed = {
            f"{row['parameters'] / 1e6:.1f} M, {row['bits']} bits": row["microseconds"][name][
                "onnxruntime"
            ]
            / row["microseconds"][name]["lowbit"]
            for row in rows
        }
        record_claim(key, speed, f">= {target:g}", min(speed.values()) >= target, file, COMMAND)


if __name__ == "__main__":
    main()
