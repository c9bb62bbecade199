"""What bfloat16 and ``torch.compile`` are worth in training, by the time of a step.

Two kinds of step: the float warm-up of the largest network, which may be compiled, and a
sandwich step at mixed bits, which is not. Each variant has a supernet of its own and they take
turns on the same images. Run from the repository, on an otherwise idle machine::

    python -m experiments.supernet.precision_speed experiments/fashion_mnist.yaml
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

from experiments.supernet.common import Opened, open_job, write_result
from nas.job.check import load_job
from nas.stages.build_supernet import make_schedule, make_supernet
from supernet.training.subnets import BitsStage, default_stages
from supernet.training.train import Recipe, Trainer

COMMAND = "python -m experiments.supernet.precision_speed experiments/fashion_mnist.yaml"

#: Variant -> (stage of training, precision, compiled).
VARIANTS: dict[str, tuple[str, str, bool]] = {
    "warm-up float32": ("warm-up", "float32", False),
    "warm-up float32 compiled": ("warm-up", "float32", True),
    "warm-up bfloat16": ("warm-up", "bfloat16", False),
    "warm-up bfloat16 compiled": ("warm-up", "bfloat16", True),
    "sandwich float32": ("sandwich", "float32", False),
    "sandwich bfloat16": ("sandwich", "bfloat16", False),
}


def trainer_of(opened: Opened, stage: str, precision: Any, compiled: bool) -> Trainer:
    """Return a trainer that stays in one stage for ever."""
    config = opened.job.supernet
    torch.manual_seed(opened.job.seed)
    supernet = make_supernet(opened.space, config)
    # The bits of the last stage, or a warm-up that does not end.
    last = default_stages(supernet.ranges, warmup=0.0)[-1].bits
    stages = [BitsStage(0.0, last)] if stage == "sandwich" else [BitsStage(1.0, last)]
    return Trainer(
        supernet,
        sampler=make_schedule(supernet, config, stages, seed=opened.job.seed),
        batches=opened.splits.training_batches(config.batch_size, seed=opened.job.seed),
        loss=opened.task.loss,
        distillation_loss=opened.task.distillation_loss,
        recipe=Recipe(steps=10**6, learning_rate=1e-4, precision=precision),
        compiled=compiled,
    )


def main() -> None:
    """Time every variant, one step of each in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    job = load_job(arguments.job)
    opened = open_job(job.model_dump())
    trainers = {name: trainer_of(opened, *variant) for name, variant in VARIANTS.items()}
    batches = opened.splits.training_batches(job.supernet.batch_size, seed=job.seed)
    images, targets = next(batches.epoch(0))
    compilation = {}
    for name, trainer in trainers.items():
        begin = time.perf_counter()
        for _ in range(3):  # a graph is compiled once the same subnet comes again
            trainer.train_step(images, targets)
        compilation[name] = time.perf_counter() - begin
        print(f"{name}: first three steps {compilation[name]:.1f} s", flush=True)
    times: dict[str, list[float]] = {name: [] for name in trainers}
    for _ in range(arguments.repeats):
        for name, trainer in trainers.items():
            begin = time.perf_counter()
            trainer.train_step(images, targets)
            times[name].append(time.perf_counter() - begin)
    base = {stage: median(times[f"{stage} float32"]) for stage in ("warm-up", "sandwich")}
    rows = {
        name: {
            "step_s": round(median(values), 4),
            "speedup": round(base[VARIANTS[name][0]] / median(values), 3),
            "first_three_steps_s": round(compilation[name], 1),
        }
        for name, values in times.items()
    }
    write_result(
        "precision_speed",
        {
            "command": COMMAND,
            "threads": arguments.threads,
            "batch": job.supernet.batch_size,
            "repeats": arguments.repeats,
            "steps": rows,
        },
    )
    for name, row in rows.items():
        print(f"{name:28}{row['step_s']:8.3f} s {row['speedup']:6.2f}x")


if __name__ == "__main__":
    main()
