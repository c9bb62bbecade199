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
import sys
from pathlib import Path

import numpy as np
import torch

from experiments.results_index import record_claim
from experiments.supernet.common import mean_and_interval, plans_at, train_alone, write_result
from nas.stages.opened_job import RunContext
from nas.studies.records import StudyFolder
from nas.studies.source import find_source, load_supernet
from nas.studies.subnets import stratified_subnets
from search_spaces.seeds import derive_seed
from supernet.narrow import narrowed
from supernet.training.own_time import suited_recipe

CLAIM = "quant.float_equal_effort"
LIMITS = {8: 0.2, 4: 0.5, 3: 1.0, 2: 3.0}
"""Bits of weights and activations -> points below float."""


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
    context = RunContext.of(source.job, threads=1)
    space = context.space
    shared = load_supernet(source, space)
    archs = stratified_subnets(space, given.subnets, seed=0, bits=(8, 8)).archs
    settings = {
        **source.identity(), "subnets": [str(arch) for arch in archs], "seconds": given.seconds,
    }  # fmt: skip
    store = StudyFolder(source.folder / "studies" / "equal_effort", settings)
    for seed in given.seeds:
        for arch in archs:
            for bits, plan in plans_at(space, arch, LIMITS).items():
                key = f"{seed}|{bits}|{arch}"
                if store.get(key) is None:
                    # Cut out, as the networks of a front are, so that a step costs what it costs.
                    found = train_alone(
                        narrowed(shared, plan), plan, suited_recipe(plan), given.seconds, context,
                        seed=derive_seed(seed, "equal effort"),
                    )  # fmt: skip
                    store.add(key, {"weights_kib": plan.weights_kib, **found})
                    print(bits, store.get(key), flush=True)
    rows = {
        bits: [store.known(f"{seed}|{bits}|{arch}") for seed in given.seeds for arch in archs]
        for bits in (32, *LIMITS)
    }
    of_float = np.array([row["validation"] for row in rows[32]])
    drops = {
        bits: 100 * (of_float - np.array([row["validation"] for row in rows[bits]]))
        for bits in LIMITS
    }
    command = f"python -m experiments.supernet.equal_effort {' '.join(sys.argv[1:])}"
    file = write_result(
        "equal_effort",
        {
            **settings,
            "command": command,
            "seeds": given.seeds,
            "validation_images": len(context.splits.validation),
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
