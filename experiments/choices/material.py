"""What the experiments on choices share: small networks trained once on Fashion-MNIST."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from devices.device import device_fingerprint
from nas.data.splits import DataSplits, load_splits
from nas.job.sections.data import DataConfig
from search_spaces.atomic import write_json_atomic

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "experiments" / "results" / "choices"
BATCH = 128
FASHION: dict[str, Any] = {
    "name": "fashion_mnist",
    "image_size": 14,
    "train": 30_000,
    "validation": 4000,
    "calibration": 512,
    "augment": {"crop_padding": 1, "flip": True},
}
"""Section ``data`` of a job: Fashion-MNIST at 14x14 pixels."""


def fashion(seed: int = 0, **options: Any) -> DataSplits:
    """Return :data:`FASHION`, some options replaced, divided by seed."""
    return load_splits(DataConfig.model_validate({**FASHION, **options}), seed)


def convolutions() -> nn.Sequential:
    """Return a network of five 3x3 convolutions, 17,000 weights, as people write them."""
    sizes = ((1, 8, 1), (8, 16, 2), (16, 16, 1), (16, 32, 2), (32, 32, 1))
    layers: list[nn.Module] = []
    for inputs, outputs, stride in sizes:
        layers += [
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))


def perceptron(width: int = 640) -> nn.Sequential:
    """Return a network of three linear layers, without norms that would scale channels anew."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(196, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, 10),
    )


def train(
    network: nn.Module,
    splits: DataSplits,
    *,
    epochs: float,
    rate: float,
    seed: int,
    teacher: nn.Module | None = None,
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
    weight_decay: float = 5e-4,
    adam: bool = False,
) -> float:
    """Train with one cycle of the learning rate; return the processor seconds.

    Args:
        network: in place; it ends in evaluation mode.
        splits: the data.
        epochs: passes over the training images.
        rate: highest learning rate.
        seed: of the batches.
        teacher: whose outputs are learned beside the targets, half each.
        loss: of outputs and targets.
        weight_decay: of weights.
        adam: AdamW in place of SGD with momentum.
    """
    start = time.process_time()
    batches = splits.training_batches(BATCH, seed=seed)
    total = max(1, round(epochs * len(batches)))
    parameters = [p for p in network.parameters() if p.requires_grad]
    optimizer: torch.optim.Optimizer = (
        torch.optim.AdamW(parameters, lr=rate, weight_decay=weight_decay)
        if adam
        else torch.optim.SGD(
            parameters, lr=rate, momentum=0.9, nesterov=True, weight_decay=weight_decay
        )
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=total)
    network.to(memory_format=torch.channels_last).train()
    if teacher is not None:
        teacher.eval()
    step = 0
    while step < total:
        for x, y in batches.epoch(step // len(batches)):
            out = network(x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x)
            value = loss(out, y)
            if teacher is not None:
                with torch.no_grad():
                    wanted = teacher(x).log_softmax(1)
                value = 0.5 * value + 0.5 * F.kl_div(
                    out.log_softmax(1), wanted, log_target=True, reduction="batchmean"
                )
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            optimizer.step()
            schedule.step()
            step += 1
            if step >= total:
                break
    network.eval().to(memory_format=torch.contiguous_format)
    return time.process_time() - start


@torch.no_grad()
def accuracy(
    network: Callable[[Tensor], Tensor], batches: Iterable[tuple[Tensor, Tensor]]
) -> float:
    """Return the share of right answers, in per cent."""
    right = total = 0
    for x, y in batches:
        right += int((network(x).argmax(1) == y).sum())
        total += len(y)
    return 100 * right / total


def test_batches(splits: DataSplits, images: int = 5000) -> list[tuple[Tensor, Tensor]]:
    """Return the first of the official test images."""
    subset = splits.test("the rows of a table").first(images)
    return list(splits.evaluation_batches(subset, batch_size=500))


def calibration(splits: DataSplits, images: int = 256) -> list[Tensor]:
    """Return calibration images without augmentation."""
    return [x for x, _ in splits.evaluation_batches(splits.calibration.first(images))]


def by_seed(
    name: str,
    settings: dict[str, Any],
    count: int,
    one_seed: Callable[[int], dict[str, Any]],
    write: Callable[[dict[str, Any], dict[str, Any], float], None],
) -> None:
    """Fill a table seed by seed; seeds that its file has, of the same settings, are kept.

    Args:
        name: of the file, see :func:`keep`.
        settings: what the rows depend on beside the seed.
        count: of seeds, from 0.
        one_seed: returns the row of a seed.
        write: writes ``(settings, rows by seed, processor time at the start)``.
    """
    torch.set_num_threads(1)
    started = time.process_time()
    path = RESULTS / f"{name}.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    same = known.get("settings") == json.loads(json.dumps(settings))
    seeds: dict[str, Any] = known.get("seeds", {}) if same else {}
    for seed in range(count):
        if str(seed) not in seeds:
            seeds[str(seed)] = one_seed(seed)
            print(seed, json.dumps(seeds[str(seed)]), flush=True)
            write(settings, seeds, started)
    write(settings, seeds, started)


def keep(name: str, values: dict[str, Any], command: str, started: float) -> str:
    """Write a result with versions, machine, load and processor time; return its path."""
    path = RESULTS / f"{name}.json"
    write_json_atomic(
        path,
        {
            **values,
            "command": command,
            "processor_s": round(time.process_time() - started, 1),
            "load_average": [round(v, 1) for v in os.getloadavg()],
            "versions": {
                "python": platform.python_version(),
                **{p: version(p) for p in ("torch", "numpy", "scipy", "onnxruntime")},
            },
            "machine": device_fingerprint(),
        },
    )
    return str(path.relative_to(ROOT))
