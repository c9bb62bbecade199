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
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from devices.device import DeviceSpec
from devices.fleet.remote import make_device
from devices.measuring.protocol import Protocol
from experiments.choices.material import (
    RESULTS,
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
from nas.models.parity import export_checked, open_session
from search_spaces.sparsity import NO_SPARSITY, Sparsity, parse_sparsity, sparse_kib
from supernet.plain import PlainNetwork
from supernet.ptq.quantize import quantize_post_training
from supernet.sparsity.masks import layer_refusal, magnitude_mask, zero_shares

COMMAND = "python -m experiments.choices.sparsity"
PATTERNS = ("50%", "75%", "2:4", "1:4")
WIDTH = 24
STEPS = ("mse", "bias")
PROTOCOL = Protocol(processes=2, runs=50, retries=1)
ROUNDS, RUNS = 300, 20
QUARTILES = (0.25, 0.5, 0.75)


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
    widths: dict[int, dict[str, Any]] = {}
    for text in PATTERNS:
        pattern = parse_sparsity(text)
        once = quantised(dense, images, pattern)
        student = pruned(dense, pattern)
        train(student, splits, epochs=more, rate=0.03, seed=seed + 100)
        found = quantised(student, images, pattern)
        kib = stored_kib(found, pattern)
        width = narrower(kib)
        if width not in widths:
            torch.manual_seed(seed)
            narrow = convolutions(width)
            train(narrow, splits, epochs=epochs, rate=0.1, seed=seed)
            train(narrow, splits, epochs=more, rate=0.03, seed=seed + 100)
            small = quantised(narrow, images)
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
    return {"rows": rows}


def latencies() -> dict[str, Any]:
    """Return file sizes and latencies in ONNX Runtime of networks that nobody trained.

    By the protocol, which says whether the machine was quiet enough, and as ratios of the fastest
    runs to the dense network's, all in turn, many times: a load that comes and goes slows all.
    """
    torch.manual_seed(0)
    images = [torch.randn(64, 1, 8, 8)]
    dense = convolutions(WIDTH).eval()
    networks = {"dense": quantised(dense, images)}
    for text in ("50%", "2:4", "1:4"):
        networks[text] = quantised(dense, images, parse_sparsity(text))
    half = stored_kib(networks["50%"], parse_sparsity("50%"))
    width = narrower(half)
    networks[f"width {width}"] = quantised(convolutions(width).eval(), images)
    device = make_device(DeviceSpec("here", "onnxruntime", threads=1))
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{number}.onnx" for number in range(len(networks))]
        for path, network in zip(paths, networks.values(), strict=True):
            export_checked(network, path, images[0])
        measured = device.measure(paths, protocol=PROTOCOL)
        sessions = [open_session(path, optimise=True) for path in paths]
        ratios = in_turn(sessions, images[0][:1].numpy())
        return {
            name: {
                "file_kib": round(path.stat().st_size / 1024, 2),
                "ratio to dense": [round(float(np.quantile(ratio, q)), 3) for q in QUARTILES],
                "ms": one.latency_ms,
                "valid": one.valid,
                "reasons": [str(getattr(r, "value", r)) for r in one.reasons],
            }
            for name, path, one, ratio in zip(networks, paths, measured, ratios, strict=True)
        }


def in_turn(sessions: list[Any], image: np.ndarray) -> np.ndarray:
    """Return the fastest run of each session over that of the first: (sessions, rounds)."""
    name = sessions[0].get_inputs()[0].name
    times = np.zeros((len(sessions), ROUNDS))
    for turn in range(ROUNDS):
        for k, session in enumerate(sessions):
            runs = []
            for _ in range(RUNS):
                start = time.perf_counter()
                session.run(None, {name: image})
                runs.append(time.perf_counter() - start)
            # The fastest, which others that share the core disturb least.
            times[k, turn] = min(runs)
    return times / times[0]


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
    # With what the seeds took.
    known = json.loads((RESULTS / "sparsity.json").read_text(encoding="utf-8"))
    started = time.process_time() - known["processor_s"]
    write(known["settings"], known["seeds"], started, latencies())


def write(
    settings: dict[str, Any],
    seeds: dict[str, Any],
    started: float,
    latency: dict[str, Any] | None = None,
) -> None:
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
            "latency": latency,
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
    if latency is not None:
        value = latency["2:4"]["ratio to dense"][1]
        record_claim("sparsity.latency_vs_dense", value, "<= 0.95 (none was expected)",
                     value <= 0.95, file, COMMAND)  # fmt: skip


if __name__ == "__main__":
    main()
