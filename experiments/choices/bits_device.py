"""Bits chosen by latencies that were measured on the device: predicted, exported, verified.

One network a seed; ONNX Runtime and the kernels of few bits measure every layer at every pair of
bits in turns, by processor time; a described accelerator of serial arithmetic estimates::

    python -m experiments.choices.bits_device [--seeds 3] [--epochs 1]

Seeds that the table holds are kept, so the default adds what is missing.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from experiments.choices.material import (
    accuracy,
    by_seed,
    calibration,
    fashion,
    keep,
    test_batches,
    train,
)
from experiments.results_index import record_claim
from nas.bits.allocation import Bits
from nas.bits.device import DeviceCosts, in_turns, measure_layers, verify
from nas.bits.hardware import hardware_costs
from nas.bits.search import STEPS, allocate_bits, write_bits
from supernet.ptq.quantize import quantize_post_training

COMMAND = "python -m experiments.choices.bits_device"
PAIRS = tuple(Bits(w, a) for w, a in ((8, 8), (4, 8), (2, 8), (4, 4), (2, 4)))
RUNTIMES: dict[str, tuple[str, dict[str, Any]]] = {
    "onnxruntime": ("onnxruntime", {}),
    "lowbit": ("lowbit", {}),
    "lowbit, AVX2 alone": ("lowbit", {"instructions": "avx2"}),
}
IMAGE_SIZE = 28
"""Pixels a side: at 14, a third of the time is what a call of the runtime takes."""

HARDWARE = "loom-16x16"
ALLOWED = 0.5
"""Points of accuracy that may be lost against int8."""

SHARES = ("70%", "80%", "90%", "95%", "97%", "98%", "99%")
"""Budgets of time tried, the least first that loses no more than allowed on validation images."""


def convolutions() -> nn.Sequential:
    """Return a network of four 3x3 convolutions whose layers take tens of microseconds."""
    sizes = ((1, 32, 1), (32, 64, 2), (64, 64, 1), (64, 128, 2))
    layers: list[nn.Module] = []
    for inputs, outputs, stride in sizes:
        layers += [
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))


def one_seed(seed: int, epochs: float) -> dict[str, Any]:
    """Return everything of one seed."""
    splits = fashion(seed, image_size=IMAGE_SIZE)
    torch.manual_seed(seed)
    network = convolutions()
    train(network, splits, epochs=epochs, rate=0.05, seed=seed)
    images, tests = calibration(splits), test_batches(splits)
    checks = list(splits.evaluation_batches(splits.validation))
    int8 = quantize_post_training(network, images, (8, 8), steps=STEPS)
    found: dict[str, Any] = {
        "float": accuracy(network, tests),
        "int8": accuracy(int8, tests),
        "devices": {},
    }
    floor = accuracy(int8, checks) - ALLOWED
    for name, (runtime, options) in RUNTIMES.items():
        measure = in_turns(runtime, options)
        costs = measure_layers(network, images, PAIRS, measure)
        found["devices"][name] = _on(network, images, checks, tests, costs, measure, floor)
    latency, _ = hardware_costs(network, images[0], HARDWARE)
    names = list(costs.differences)
    whole = sum(latency(n, PAIRS[0]) for n in names)
    edges = {names[0], names[-1]}
    estimated = DeviceCosts(
        PAIRS[0],
        whole,
        {
            n: {}
            if n in edges
            else {pair: latency(n, pair) - latency(n, PAIRS[0]) for pair in PAIRS[1:]}
            for n in names
        },
    )
    found["devices"][f"roofline {HARDWARE}, estimated"] = _on(
        network, images, checks, tests, estimated, None, floor, estimate=latency
    )
    return found


def _on(
    network: nn.Module,
    images: Any,
    checks: Any,
    tests: Any,
    costs: DeviceCosts,
    measure: Any,
    floor: float,
    *,
    estimate: Any = None,
) -> dict[str, Any]:
    """Allocate within the least budget that keeps the accuracy, and verify it."""
    told: dict[str, Any] = {"base_ms": costs.base_ms, "tried": []}
    sensitivity = None
    for share in SHARES:
        limit = costs.base_ms * float(share.removesuffix("%")) / 100
        least = costs.base_ms + sum(min([0.0, *v.values()]) for v in costs.differences.values())
        if least > limit:
            told["tried"].append({"budget": share, "refused": f"at least {least:.4g} ms"})
            continue
        result = allocate_bits(
            network, images, {"latency_ms": limit}, weight_bits=(2, 4, 8), activation_bits=(4, 8),
            latency_ms=_allowed(costs), fixed_ms=costs.base_ms, adaround=False,
            sensitivity=sensitivity,
        )  # fmt: skip
        reached = accuracy(result.network, checks)
        told["tried"].append({"budget": share, "validation": reached})
        if reached < floor:
            continue
        assigned = dict(zip(result.table.layers, result.best.options, strict=True))
        told |= {
            "budget": share,
            "bits": {name: str(bits) for name, bits in assigned.items()},
            "test": accuracy(result.network, tests),
        }
        if measure is None:
            measured = sum(estimate(name, bits) for name, bits in assigned.items())
            told |= {
                "predicted_ms": costs.predict(assigned),
                "measured_ms": measured,
                "prediction_error": abs(costs.predict(assigned) - measured) / measured,
                "share_of_base": measured / costs.base_ms,
            }
            return told
        with tempfile.TemporaryDirectory() as folder:
            write_bits(result, Path(folder), images[0])
            told |= verify(
                network, images, costs, assigned, Path(folder) / "model.onnx", measure
            ).to_json()
        return told
    return told


def _allowed(costs: DeviceCosts) -> Any:
    """Latencies of measured pairs; of those that were not, one that nobody takes."""

    def latency(layer: str, bits: Bits) -> float:
        known = costs.differences[layer]
        return costs.latency_ms(layer, bits) if not known or bits in (costs.base, *known) else 1e3

    return latency


def main() -> None:
    """Fill the table, seed by seed; finished seeds are kept."""
    parser = argparse.ArgumentParser(description=__doc__, prog=COMMAND)
    parser.add_argument("--seeds", type=int, default=3, help="from 0; known ones are kept")
    parser.add_argument("--epochs", type=float, default=1.0)
    arguments = parser.parse_args()
    settings = {
        "epochs": arguments.epochs,
        "image_size": IMAGE_SIZE,
        "pairs": [str(pair) for pair in PAIRS],
    }
    by_seed(
        "bits_device",
        settings,
        arguments.seeds,
        lambda seed: one_seed(seed, arguments.epochs),
        write,
    )


def write(settings: dict[str, Any], seeds: dict[str, Any], started: float) -> None:
    """Write the file and the claims."""
    errors: dict[str, list[float]] = {}
    for row in seeds.values():
        for name, one in row["devices"].items():
            if "prediction_error" in one:
                errors.setdefault(name, []).append(one["prediction_error"])
    worst = max((max(values) for values in errors.values()), default=float("nan"))
    shares, losses = [], []
    for row in seeds.values():
        lowbit = row["devices"]["lowbit"]
        # Against the faster of the two int8 networks, which is what one would use.
        bases = [row["devices"][name]["base_ms"] for name in ("onnxruntime", "lowbit")]
        ms = lowbit.get("share_of_base", 1.0) * lowbit["base_ms"]
        shares.append(ms / min(bases))
        losses.append(row["int8"] - lowbit.get("test", row["int8"]))
    share, loss = round(float(np.mean(shares)), 3), round(float(np.mean(losses)), 3)
    file = keep(
        "bits_device",
        {
            "metric": "accuracy on 5,000 test images; lower quartile of processor time, one thread",
            "network": "four 3x3 convolutions at 28x28 pixels, first and last layer at 8 bits",
            "settings": settings,
            "prediction_error_by_device": errors,
            "lowbit_over_the_faster_int8": share,
            "points_lost_against_int8": loss,
            "seeds": seeds,
        },
        COMMAND,
        started,
    )
    record_claim("bits.device_prediction_error", round(worst, 4),
                 "<= 0.1 on ONNX Runtime, lowbit and a roofline", worst <= 0.1 and len(errors) >= 3,
                 file, COMMAND)  # fmt: skip
    record_claim("bits.device_latency_vs_int8", share,
                 "< 1 of the faster int8 at no more than 0.5 point less",
                 share < 1 and loss <= ALLOWED, file, COMMAND)  # fmt: skip


if __name__ == "__main__":
    main()
