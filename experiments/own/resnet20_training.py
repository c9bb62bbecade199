"""Train ResNet-20 on Fashion-MNIST as a user would, and keep weights, accuracy and time.

The weights are the material of ``experiments.own.resnet20`` and are no part of the repository::

    python -m experiments.own.resnet20_training runs/resnet20
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from experiments.own.resnet20_network import make
from nas.data.splits import DataSplits, Subset, load_splits
from nas.job.sections.data import AugmentConfig, DataConfig
from search_spaces.atomic import write_json_atomic

SEED = 0
BATCH = 128


def data() -> DataSplits:
    """Return Fashion-MNIST as every part of the experiment has it."""
    return load_splits(
        # Mirrored only: few passes are made, and crops pay after many.
        DataConfig(name="fashion_mnist", augment=AugmentConfig(crop_padding=0, flip=True)),
        SEED,
    )


@torch.no_grad()
def accuracy(network: nn.Module, splits: DataSplits, subset: Subset) -> float:
    """Return the share of right answers on ``subset``."""
    network.eval()
    right = sum(
        int((network(x.contiguous(memory_format=torch.channels_last)).argmax(1) == y).sum())
        for x, y in splits.evaluation_batches(subset)
    )
    return right / len(subset)


def train(
    network: nn.Module,
    splits: DataSplits,
    *,
    epochs: float = 0.0,
    seconds: float = 0.0,
    peak: float = 0.2,
    seed: int = SEED,
    told: Any = print,
) -> float:
    """Train by SGD with one cycle of the learning rate; return the processor seconds it took.

    Args:
        network: trained in place.
        splits: the data.
        epochs: passes over the training images; 0 takes ``seconds``.
        seconds: of this process's processor time.
        peak: learning rate.
        seed: of the batches.
        told: called with a line an epoch.
    """
    batches = splits.training_batches(BATCH, seed=seed)
    network.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(
        network.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    begin, step, done = time.process_time(), 0, False
    total = round(epochs * len(batches))
    while not done:
        epoch, start = divmod(step, len(batches))
        for images, targets in batches.epoch(epoch, start=start):
            spent = (time.process_time() - begin) / seconds if seconds else step / total
            if spent >= 1:
                done = True
                break
            rate = peak * min(spent / 0.2, (1 - spent) / 0.8)
            for group in optimizer.param_groups:
                group["lr"] = max(rate, 1e-4)
            images = images.contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                outputs = network(images)
            loss = F.cross_entropy(outputs.float(), targets, label_smoothing=0.05)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            step += 1
        told(f"step {step}, loss {loss.item():.3f}, {time.process_time() - begin:.0f} s")
    network.eval().to(memory_format=torch.contiguous_format)
    return time.process_time() - begin


def main() -> None:
    """Train once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=float, default=8.0)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    splits = data()
    network = make()
    cpu = train(network, splits, epochs=arguments.epochs)
    save_file(network.state_dict(), arguments.folder / "resnet20.safetensors")
    record = {
        "epochs": arguments.epochs,
        "cpu_s": cpu,
        "load": os.getloadavg(),
        "validation": accuracy(network, splits, splits.validation),
        "test": accuracy(network, splits, splits.test("the trained network")),
    }
    write_json_atomic(arguments.folder / "resnet20.json", record)
    print(json.dumps(record))


if __name__ == "__main__":
    main()
