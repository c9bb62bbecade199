"""What each part of the training recipe is worth: one part off at a time.

A shrunken Fashion-MNIST: 4,000 training images of 14x14 pixels, all 5,000 validation images, a
small mobilenet space. Each variant is trained from scratch with every seed; its figure is the
mean validation accuracy over the same stratified subnets at mixed bits. Run from the repository;
a training that is recorded is not done again::

    python -m experiments.supernet.ablation
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from experiments.results_index import record_claim
from experiments.supernet.common import Opened, accuracy, mean_and_interval, open_job, write_result
from nas.studies.records import StudyFolder
from nas.studies.subnets import stratified_subnets
from search_spaces.seeds import derive_rng, derive_seed
from supernet.batchnorm import FrozenStatistics
from supernet.network import Supernet
from supernet.quantizers.lsq import WeightQuantizer, weight_range
from supernet.training.subnets import (
    SandwichSampler,
    StagedSchedule,
    Teaching,
    default_stages,
    float_plan,
)
from supernet.training.train import Recipe, Trainer

COMMAND = "python -m experiments.supernet.ablation"
JOB = {
    "name": "ablation",
    "seed": 0,
    "data": {
        "name": "fashion_mnist",
        "image_size": 14,
        "train": 4000,
        "validation": 5000,
        "calibration": 1000,
        "augment": {"crop_padding": 0},
    },
    "space": {"name": "mobilenet", "preset": "28x28", "resolutions": [14], "widths": [0.25, 0.5]},
}
EPOCHS, WARMUP_EPOCHS, BATCH, RATE, RANDOM_SUBNETS = 8.0, 2.0, 100, 0.008, 2
SUBNETS = 12

VARIANTS = {
    "recipe": "everything on",
    "bn_recalibration": "statistics of the largest network, sliced, instead of the subnet's own",
    "distillation": "smaller subnets learn from the targets",
    "sandwich": "four uniformly drawn subnets a step; they learn from the targets",
    "shared_steps": "weight steps of their own for each width of a layer",
    "zero_init_gamma": "scales of residual branches start at one",
}


class UniformSubnets(StagedSchedule):
    """As many subnets a step as the sandwich has, all drawn uniformly, learning from targets."""

    def plans(self, step: int, progress: float) -> list[Any]:
        """Return the subnets of ``step``."""
        stage = self.stage(progress)
        if stage is None:
            return [float_plan(self.space.plan(self.space.largest()))]
        rng = derive_rng(self.seed, "uniform subnets", step)
        archs = self.space.decode(self.space.sample_genes(rng, self.random_subnets + 2))
        return [self.at_random_bits(self.space.plan(arch), stage, rng) for arch in archs]

    def teaching(self, progress: float) -> Teaching:
        """Return ``none``."""
        return "none"


class StepsPerWidth(nn.Module):
    """A weight quantiser with steps of its own for every number of output channels."""

    def __init__(self, shared: WeightQuantizer, widths: list[int], *, depthwise: bool) -> None:
        super().__init__()
        self.each = nn.ModuleDict(
            {
                str(width): WeightQuantizer(
                    shared.bits,
                    shared.kernels,
                    channels=width if depthwise else None,
                    count=shared.count,
                )
                for width in widths
            }
        )

    @property
    def initialized(self) -> Tensor:
        """Flags of all entries."""
        return torch.stack([quantizer.initialized for quantizer in self.each.values()])

    def forward(
        self, w: Tensor, bits: int, *, sign: Tensor | None = None, full: Tensor | None = None
    ) -> Tensor:
        """Fake-quantise ``w`` (out, in, k, k) with the steps of its width."""
        return self.each[str(w.shape[0])](w, bits, sign=sign)

    def step(self, kernel: int, bits: int, channels: int, *, full: Tensor | None = None) -> Tensor:
        """Return the step, (channels,) or (1,)."""
        return self.each[str(channels)].step(kernel, bits, channels)

    def wants_full(self, kernel: int, bits: int) -> bool:
        """Return False: steps come from the slice."""
        return False

    def code_range(self, bits: int) -> tuple[int, int]:
        """Return the smallest and largest code of ``bits``."""
        return weight_range(bits)


def train(opened: Opened, variant: str, seed: int) -> Supernet:
    """Train the supernet of one variant."""
    torch.manual_seed(derive_seed(seed, "ablation"))
    supernet = Supernet(opened.space, zero_init_residual=variant != "zero_init_gamma")
    if variant == "shared_steps":
        _separate_steps(supernet)
    batches = opened.splits.training_batches(BATCH, seed=seed)
    steps = round(EPOCHS * len(batches))
    kind = UniformSubnets if variant == "sandwich" else SandwichSampler
    Trainer(
        supernet,
        sampler=kind(
            opened.space,
            supernet.ranges,
            stages=default_stages(supernet.ranges, warmup=WARMUP_EPOCHS / EPOCHS),
            random_subnets=RANDOM_SUBNETS,
            seed=seed,
        ),
        batches=batches,
        loss=opened.task.loss,
        distillation_loss=opened.task.distillation_loss,
        recipe=Recipe(steps=steps, learning_rate=RATE, distillation=variant != "distillation"),
    ).run()
    return supernet


def scores(opened: Opened, supernet: Supernet, archs: list[Any]) -> list[float]:
    """Accuracies with statistics of each subnet's own."""
    return [accuracy(opened, supernet, arch) for arch in archs]


def scores_without_recalibration(
    opened: Opened, supernet: Supernet, archs: list[Any]
) -> list[float]:
    """Accuracies with the statistics of the largest network, cut to each subnet's channels."""
    splits = opened.splits
    images = [x for x, _ in splits.evaluation_batches(splits.calibration)]
    largest = supernet.statistics(opened.space.largest(), images)
    found = []
    for arch in archs:
        plan = supernet.plan(arch)
        cut = {
            layer.name: tuple(v[: layer.out_channels] for v in largest[layer.name])
            for layer in plan.layers()
            if layer.batch_norm
        }
        with torch.no_grad():
            right = sum(
                opened.task.metric(supernet(x, plan, FrozenStatistics(cut)), y)[0]
                for x, y in splits.evaluation_batches(splits.validation)
            )
        found.append(right / len(splits.validation))
    return found


def main() -> None:
    """Train every variant with every seed and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--work", type=Path, default=Path("runs/ablation"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    opened = open_job(JOB)
    archs = list(stratified_subnets(opened.space, SUBNETS, seed=0).archs)
    settings = {
        "job": JOB,
        "epochs": EPOCHS,
        "warmup_epochs": WARMUP_EPOCHS,
        "batch_size": BATCH,
        "learning_rate": RATE,
        "random_subnets": RANDOM_SUBNETS,
        "subnets": [str(arch) for arch in archs],
    }
    store = StudyFolder(arguments.work, settings)
    for seed in range(arguments.seeds):
        for variant in VARIANTS:
            key = f"{variant}|{seed}"
            if variant == "bn_recalibration" or store.get(key) is not None:
                continue
            supernet = train(opened, variant, seed)
            store.add(key, {"accuracy": scores(opened, supernet, archs)})
            if variant == "recipe":
                without = scores_without_recalibration(opened, supernet, archs)
                store.add(f"bn_recalibration|{seed}", {"accuracy": without})
            print(key, np.mean(store.get(key)["accuracy"]), flush=True)
    table = {}
    for variant, meaning in VARIANTS.items():
        values = np.array([store.get(f"{variant}|{s}")["accuracy"] for s in range(arguments.seeds)])
        whole = np.array([store.get(f"recipe|{s}")["accuracy"] for s in range(arguments.seeds)])
        table[variant] = {
            "off": meaning,
            "mean_accuracy": float(values.mean()),
            "by_seed": values.mean(1).tolist(),
            "points_lost": float(100 * (whole - values).mean()),
            # Over subnets, each the mean over seeds.
            "points_lost_interval": mean_and_interval(100 * (whole - values).mean(0)),
        }
    file = write_result(
        "ablation",
        {**settings, "seeds": arguments.seeds, "command": COMMAND, "table": table},
    )
    lost = {v: round(row["points_lost"], 2) for v, row in table.items() if v != "recipe"}
    record_claim(
        "supernet.ablation",
        lost,
        "each part on and off; points of accuracy lost without it",
        True,
        file,
        COMMAND,
    )
    print(lost)


def _separate_steps(supernet: Supernet) -> None:
    space = supernet.space
    genes = space.sample_genes(derive_rng(0, "widths"), 3000)
    ends = space.genes([space.smallest(), space.largest()])
    widths: dict[str, set[int]] = {}
    for block in space.block_columns(np.concatenate([genes, ends])):
        for column in block.layers:
            channels = np.broadcast_to(column.layer.out_channels, column.active.shape)
            seen = {int(c) for c in channels[column.active]}
            widths.setdefault(column.layer.name, set()).update(seen)
    for name, counts in widths.items():
        layer = supernet.layer(name)
        layer.weight_quantizer = StepsPerWidth(
            layer.weight_quantizer,
            sorted(counts),
            depthwise=layer.weight_quantizer.per_channel,
        )


if __name__ == "__main__":
    main()
