"""Pruned networks beside narrower dense ones of the same stored size, and their latency.

A convolutional network on 8x8 digits, pruned by magnitude anywhere and N:M, in one shot and trained
on with the zeros kept, all weights at 8 bits after training. Narrower networks have as many KiB as
sparse storage of the pruned one would take, an estimate, and as many passes over the images in
all::

    python -m experiments.choices.sparsity [--seeds 2]
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from devices.device import DeviceSpec
from devices.fleet.remote import make_device
from devices.measuring.protocol import Protocol
from experiments.choices.material import (
    accuracy,
    by_seed,
    calibration,
    keep,
    test_batches,
    train,
)
from experiments.results_index import record_claim
from nas.bits.search import LayerSize
from nas.data.splits import load_splits
from nas.job.sections.data import DataConfig
from nas.models.parity import evaluate_onnx
from search_spaces.sparsity import NO_SPARSITY, Sparsity, parse_sparsity, sparse_kib
from supernet.onnx.export import export_onnx
from supernet.plain import PlainNetwork
from supernet.ptq.quantize import quantize_post_training
from supernet.sparsity.masks import layer_refusal, magnitude_mask, zero_shares

COMMAND = "python -m experiments.choices.sparsity"
PATTERNS = ("50%", "75%", "2:4", "1:4")
WIDTH = 24
STEPS = ("mse", "bias")
PROTOCOL = Protocol(processes=2, runs=50, retries=1)


def convolutions(width: int) -> nn.Sequential:
    """Return a network of four 3x3 convolutions of ``width`` to thrice as many channels."""
    sizes = ((1, width, 1), (width, width, 1), (width, 2 * width, 2), (2 * width, 3 * width, 2))
    layers: list[nn.Module] = []
    for inputs, outputs, stride in sizes:
        layers += [
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3 * width, 10))


def pruned(network: nn.Sequential, pattern: Sparsity) -> nn.Sequential:
    """Return a copy whose inner layers have the pattern, and keep it while they are trained."""
    found = copy.deepcopy(network)
    layers = [m for m in found if isinstance(m, (nn.Conv2d, nn.Linear))][1:-1]
    for layer in layers:
        if layer_refusal(layer, pattern) is not None:
            continue
        mask = magnitude_mask(layer.weight, pattern)
        with torch.no_grad():
            layer.weight.mul_(mask)
        layer.weight.register_hook(lambda gradient, mask=mask: gradient * mask)
    return found


def quantised(network: nn.Module, images: Any, pattern: Sparsity = NO_SPARSITY) -> PlainNetwork:
    """Return the network with 8-bit weights and inputs, and the zeros of the pattern."""
    return quantize_post_training(
        network, images, (8, 8), steps=STEPS, sparsity=None if pattern.dense else pattern
    )


def stored_kib(network: PlainNetwork, pattern: Sparsity) -> float:
    """Return KiB of sparse storage, an estimate; of dense storage where nothing is sparse."""
    layers = [layer.layer for layer in network.plain_layers()]
    inner = {layer.name: pattern for layer in layers[1:-1]}
    return sparse_kib(layers, inner)


def narrower(kib: float) -> int:
    """Return the largest width whose dense network takes at most ``kib``."""

    def size(width: int) -> float:
        layers = [m for m in convolutions(width) if isinstance(m, (nn.Conv2d, nn.Linear))]
        return sum(LayerSize("", m.weight.numel(), len(m.weight), 0).packed_kib(8) for m in layers)

    return max(width for width in range(4, WIDTH + 1) if size(width) <= kib)


def one_seed(seed: int, epochs: float, more: float) -> dict[str, Any]:
    """Return everything of one seed."""
    torch.manual_seed(seed)
    splits = load_splits(DataConfig.model_validate({"name": "digits", "calibration": 128}), seed)
    tests, images = test_batches(splits), calibration(splits)
    dense = convolutions(WIDTH)
    train(dense, splits, epochs=epochs, rate=0.1, seed=seed)
    whole = quantised(dense, images)
    longer = copy.deepcopy(dense)
    train(longer, splits, epochs=more, rate=0.03, seed=seed + 100)
    longest = quantised(longer, images)
    rows: dict[str, Any] = {
        "dense": {
            "kib": stored_kib(whole, NO_SPARSITY),
            "one shot": accuracy(whole, tests),
            "trained on": accuracy(longest, tests),
        }
    }
    files = {"dense": longest}
    widths: dict[int, dict[str, Any]] = {}
    for text in PATTERNS:
        pattern = parse_sparsity(text)
        once = quantised(dense, images, pattern)
        student = pruned(dense, pattern)
        train(student, splits, epochs=more, rate=0.03, seed=seed + 100)
        found = quantised(student, images, pattern)
        files[text] = found
        kib = stored_kib(found, pattern)
        width = narrower(kib)
        if width not in widths:
            torch.manual_seed(seed)
            narrow = convolutions(width)
            train(narrow, splits, epochs=epochs, rate=0.1, seed=seed)
            train(narrow, splits, epochs=more, rate=0.03, seed=seed + 100)
            small = quantised(narrow, images)
            files[f"width {width}"] = small
            widths[width] = {
                "width": width,
                "kib": stored_kib(small, NO_SPARSITY),
                "accuracy": accuracy(small, tests),
            }
        zeros = zero_shares(found)
        rows[text] = {
            "kib": kib,
            "zeros of inner layers": float(np.mean(list(zeros.values())[1:-1])),
            "one shot": accuracy(once, tests),
            "trained on": accuracy(found, tests),
            "narrower": widths[width],
        }
    row: dict[str, Any] = {"rows": rows}
    if seed == 0:
        chosen = ("dense", "50%", "2:4", f"width {rows['50%']['narrower']['width']}")
        row["latency"] = latencies({name: files[name] for name in chosen}, images)
    return row


def latencies(files: dict[str, PlainNetwork], images: Any) -> dict[str, Any]:
    """Return file sizes and latencies in ONNX Runtime, all files measured in turn."""
    device = make_device(DeviceSpec("here", "onnxruntime", threads=1))
    with tempfile.TemporaryDirectory() as folder:
        paths = {}
        for name, network in files.items():
            path = Path(folder) / f"{len(paths)}.onnx"
            export_onnx(network, path)
            outputs = evaluate_onnx(path, [images[0].numpy()])
            assert np.isfinite(outputs).all()
            paths[name] = path
        measured = device.measure(list(paths.values()), protocol=PROTOCOL)
        return {
            name: {
                "file_kib": round(path.stat().st_size / 1024, 2),
                "ms": one.latency_ms,
                "low_ms": one.low_ms,
                "high_ms": one.high_ms,
                "valid": one.valid,
                "reasons": [str(getattr(r, "value", r)) for r in one.reasons],
            }
            for (name, path), one in zip(paths.items(), measured, strict=True)
        }


def main() -> None:
    """Fill the table, seed by seed; finished seeds are kept."""
    parser = argparse.ArgumentParser(description=__doc__, prog=COMMAND)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=float, default=6.0, help="of dense networks")
    parser.add_argument("--more", type=float, default=3.0, help="trained on, pruned or not")
    arguments = parser.parse_args()
    settings = {"epochs": arguments.epochs, "more": arguments.more, "width": WIDTH,
                "patterns": PATTERNS}  # fmt: skip
    by_seed(
        "sparsity", settings, arguments.seeds,
        lambda seed: one_seed(seed, arguments.epochs, arguments.more), write,
    )  # fmt: skip


def write(settings: dict[str, Any], seeds: dict[str, Any], started: float) -> None:
    """Write the file and the claims."""

    def mean(text: str, *keys: str) -> float:
        values = []
        for row in seeds.values():
            found = row["rows"][text]
            for key in keys:
                found = found[key]
            values.append(found)
        return float(np.mean(values))

    means = {
        text: {
            "kib": round(mean(text, "kib"), 2),
            "one shot": round(mean(text, "one shot"), 3),
            "trained on": round(mean(text, "trained on"), 3),
            **({} if text == "dense" else {
                "narrower": round(mean(text, "narrower", "accuracy"), 3),
                "narrower kib": round(mean(text, "narrower", "kib"), 2),
            }),
        }
        for text in ("dense", *PATTERNS)
    }  # fmt: skip
    file = keep(
        "sparsity",
        {
            "metric": "accuracy on the test digits, per cent; kib of pruned networks is what "
            "sparse storage would take, an estimate: no file or runtime here skips zeros",
            "network": f"four 3x3 convolutions of {WIDTH} to {3 * WIDTH} channels on 8x8 "
            "digits, 8 bits after training; first and last layer dense",
            "settings": settings,
            "means": means,
            "seeds": seeds,
        },
        COMMAND,
        started,
    )
    for key, text in (("sparsity.half_minus_narrow", "50%"), ("sparsity.most_minus_narrow", "75%"),
                      ("sparsity.two_of_four_minus_narrow", "2:4")):  # fmt: skip
        value = round(means[text]["trained on"] - means[text]["narrower"], 3)
        record_claim(key, value, ">= 0 points at the same stored size", value >= 0, file, COMMAND)
    value = round(means["2:4"]["trained on"] - means["50%"]["trained on"], 3)
    record_claim("sparsity.two_of_four_minus_half", value, ">= -0.5 points", value >= -0.5, file,
                 COMMAND)  # fmt: skip
    latency = next((row["latency"] for row in seeds.values() if "latency" in row), None)
    if latency is not None:
        value = round(latency["2:4"]["ms"] / latency["dense"]["ms"], 3)
        record_claim("sparsity.latency_vs_dense", value, "<= 0.95 (none was expected)",
                     value <= 0.95, file, COMMAND)  # fmt: skip


if __name__ == "__main__":
    main()
