"""What flipped bits cost a network of 4-bit weights, which layers to protect, what training wins.

One architecture is trained alone, with its bits, from each seed; then on, with 1 % of the
bits flipped in every other step, and for as many steps without::

    python -m experiments.choices.faults [--seeds 3] [--steps 900] [--fault-steps 450]

Seeds that the table holds are kept, so the default adds what is missing.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from experiments.choices.material import FASHION, by_seed, keep
from experiments.results_index import record_claim
from experiments.supernet.common import open_job
from nas.stages.evaluator import Evaluator
from nas.studies.faults import Bench, trained_with_faults
from search_spaces.seeds import derive_seed
from supernet.training.standalone import train_alone
from supernet.training.train import Recipe

COMMAND = "python -m experiments.choices.faults"
RATE, DRAWS, PROTECT = 0.01, 4, 0.3
RATE_OF_LEARNING = 0.003
RATES = (0.001, 0.01, 0.03)
JOB: dict[str, Any] = {
    "name": "faults",
    "data": {**FASHION, "train": 15_000},
    "space": {
        "name": "mobilenet",
        "preset": "28x28-lean",
        "resolutions": [14],
        "weight_bits": [4],
        "activation_bits": [8],
    },
}


def one_seed(seed: int, steps: int, fault_steps: int) -> dict[str, Any]:
    """Return everything of one seed."""
    opened = open_job({**JOB, "seed": seed})
    arch = opened.space.largest()
    network = train_alone(
        opened.space,
        arch,
        batches=opened.splits.training_batches(128, seed=derive_seed(seed, "alone")),
        loss=opened.task.loss,
        recipe=Recipe(steps=steps, learning_rate=0.01),
        seed=seed,
        float_share=0.4,
    )
    arch = network.space.largest()
    evaluator = Evaluator(network, opened.splits, opened.task)
    plain = evaluator.network(arch)
    images = list(evaluator.batches("validation", opened.splits.validation, plain.plan.input_size))
    first, second = images[::2], images[1::2]
    bench = Bench(opened, draws=DRAWS, seed=seed)
    found: dict[str, Any] = {
        "clean": bench.metric(plain, second),
        "flips": {f"{rate:g}": bench.faulty(plain, "flips", rate, second) for rate in RATES},
    }
    losses, bits = bench.layers(plain, RATE, first)
    found["layers"] = {name: {"loss": losses[name], "bits": bits[name]} for name in losses}
    found["protection"] = bench.protection(plain, losses, bits, PROTECT, RATE, second)
    for name, rate in (("without", 0.0), ("with", RATE)):
        evaluator.finetuned[arch] = trained_with_faults(
            evaluator, opened, arch,
            rate=rate, steps=fault_steps, learning_rate=RATE_OF_LEARNING, seed=seed,
        )  # fmt: skip
        trained = evaluator.network(arch)
        found[name] = {
            "clean": bench.metric(trained, second),
            "faulty": bench.faulty(trained, "flips", RATE, second),
        }
        del evaluator.finetuned[arch]
    return found


def main() -> None:
    """Fill the table, seed by seed; finished seeds are kept."""
    parser = argparse.ArgumentParser(description=__doc__, prog=COMMAND)
    parser.add_argument("--seeds", type=int, default=3, help="from 0; known ones are kept")
    parser.add_argument("--steps", type=int, default=900, help="of training alone")
    parser.add_argument("--fault-steps", type=int, default=450, help="with faults, or without")
    arguments = parser.parse_args()
    settings = {"steps": arguments.steps, "fault_steps": arguments.fault_steps, "rate": RATE,
                "draws": DRAWS, "protected_share_of_bits": PROTECT}  # fmt: skip
    by_seed(
        "faults",
        settings,
        arguments.seeds,
        lambda seed: one_seed(seed, arguments.steps, arguments.fault_steps),
        write,
    )


def write(settings: dict[str, Any], seeds: dict[str, Any], started: float) -> None:
    """Write the file and the claims."""
    rows = list(seeds.values())

    def mean(value: Any) -> float:
        return round(100 * float(np.mean([value(row) for row in rows])), 2)

    means = {
        "clean": mean(lambda row: row["clean"]),
        **{
            f"flips at {rate:g}": mean(lambda row, r=rate: row["flips"][f"{r:g}"]["mean"])
            for rate in RATES
        },
        **{
            f"protected: {method}": mean(lambda row, m=method: row["protection"][m]["mean"])
            for method in rows[0]["protection"]
        },
        **{
            f"trained {name} faults, {what}": mean(
                lambda row, n=name, w=what: row[n][w] if w == "clean" else row[n][w]["mean"]
            )
            for name in ("without", "with")
            for what in ("clean", "faulty")
        },
    }
    lost = means["trained without faults, clean"] - means["trained without faults, faulty"]
    won = means["trained with faults, faulty"] - means["trained without faults, faulty"]
    share = round(won / lost, 3) if lost else 0.0
    ahead = means["protected: integer programme"] - means["protected: largest first"]
    file = keep(
        "faults",
        {
            "metric": "accuracy on 2,000 validation images, per cent; faults: mean of draws",
            "network": "largest of the 28x28-lean space at 14x14 pixels; weights of 4 bits, first "
            "and last layer 8, inputs of layers 8",
            "settings": settings,
            "means": means,
            "recovered_share": share,
            "seeds": seeds,
        },
        COMMAND,
        started,
    )
    record_claim("faults.recovered_share", share, ">= 0.5 of what 1 % flipped bits cost",
                 share >= 0.5, file, COMMAND)  # fmt: skip
    record_claim("faults.protection_ahead_of_size", round(ahead, 2), "> 0 points at equal area",
                 ahead > 0, file, COMMAND)  # fmt: skip


if __name__ == "__main__":
    main()
