"""What bits cost where float is trained as long: networks of one checkpoint, each trained on.

Architectures of the space, spread over MACs, train on from the same shared weights for the same
processor seconds, once in float and once at each bit-width, by the recipe of a front's networks
(`supernet.training.own_time`). First and last layers stay at 8 bits, as in every architecture of
the space. A step in float is shorter, so float takes more of them. Judged on all validation
images; test images are not read. It resumes. Run from the repository::

    nas run experiments/supernet/fashion_mnist_bits.yaml
    python -m experiments.supernet.equal_effort runs/fashion_mnist_bits
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments.results_index import record_claim
from experiments.supernet.common import mean_and_interval, write_result
from nas.stages.evaluator import Evaluator
from nas.studies.records import StudyFolder
from nas.studies.source import find_source, open_evaluator
from nas.studies.subnets import stratified_subnets
from search_spaces.bits import bit_choices, set_bits
from search_spaces.seeds import derive_seed
from supernet.training.own_time import OwnTraining, suited_recipe
from supernet.training.subnets import float_plan

CLAIM = "quant.float_equal_effort"
LIMITS = {8: 0.2, 4: 0.5, 3: 1.0, 2: 3.0}
"""Bits of weights and activations -> points below float."""


def trained(evaluator: Evaluator, plan: Any, task: Any, *, seconds: float, seed: int) -> dict:
    """Return what ``plan`` reaches after so many processor seconds from the shared weights."""
    torch.manual_seed(seed)
    training = OwnTraining(
        copy.deepcopy(evaluator.supernet),
        plan,
        batches=evaluator.splits.training_batches(128, seed=derive_seed(seed, "equal effort")),
        loss=task.loss,
        distillation_loss=task.distillation_loss,
        recipe=suited_recipe(plan),
        now=time.process_time,
    )
    training.run(until=seconds, total=seconds)
    own = training.reached()
    network = evaluator.network(plan, own=own)
    return {
        "accuracy": evaluator.quality(network, own=own).accuracy,
        "steps": training.step,
        "seconds": round(training.spent, 1),
    }


def main() -> None:
    """Train what is left, write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--subnets", type=int, default=4)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    source = find_source(given.run)
    opened, evaluator = open_evaluator(source)
    space = opened.space
    archs = stratified_subnets(space, given.subnets, seed=0, bits=(8, 8)).archs
    settings = {
        **source.identity(), "subnets": [str(arch) for arch in archs], "seconds": given.seconds,
    }  # fmt: skip
    store = StudyFolder(source.folder / "studies" / "equal_effort", settings)
    choices = bit_choices(space)
    for seed in given.seeds:
        for arch in archs:
            genes = space.genes([arch])
            plans = {32: float_plan(space.plan(arch))}
            for bits in LIMITS:
                at = space.decode(set_bits(space, genes, bits, bits, choices=choices))[0]
                plans[bits] = space.plan(at)
            for bits, plan in plans.items():
                key = f"{seed}|{bits}|{arch}"
                if store.get(key) is None:
                    found = trained(evaluator, plan, opened.task, seconds=given.seconds, seed=seed)
                    store.add(key, {"weights_kib": plans[8].weights_kib, **found})
                    print(bits, store.get(key), flush=True)
    rows = {
        bits: [store.known(f"{seed}|{bits}|{arch}") for seed in given.seeds for arch in archs]
        for bits in (32, *LIMITS)
    }
    of_float = np.array([row["accuracy"] for row in rows[32]])
    drops = {
        bits: 100 * (of_float - np.array([row["accuracy"] for row in rows[bits]]))
        for bits in LIMITS
    }
    command = f"python -m experiments.supernet.equal_effort {' '.join(sys.argv[1:])}"
    file = write_result(
        "equal_effort",
        {
            **settings,
            "command": command,
            "seeds": given.seeds,
            "validation_images": len(opened.splits.validation),
            "drop_points": {str(bits): mean_and_interval(d) for bits, d in drops.items()},
            "networks": {str(bits): each for bits, each in rows.items()},
        },
    )
    value = {f"w{bits}a{bits}": round(float(drops[bits].mean()), 3) for bits in LIMITS}
    met = all(value[f"w{bits}a{bits}"] <= limit for bits, limit in LIMITS.items())
    target = {f"w{bits}a{bits}": limit for bits, limit in LIMITS.items()}
    record_claim(CLAIM, value, target, met, file, command)
    print(f"{CLAIM}: {value}")


if __name__ == "__main__":
    main()
