"""Bit-widths that share weights, against weights of their own for each: ``nas study bits``.

Run from the repository; what is recorded is not done again::

    python -m experiments.supernet.bits runs/fashion_mnist_long
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from experiments.results_index import record_claim
from experiments.supernet.common import write_result
from nas.studies.bits import BitsStudy
from nas.studies.source import find_source

COMMAND = "python -m experiments.supernet.bits runs/fashion_mnist_long"
TARGET = 0.5


def main() -> None:
    """Run the study and record it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--subnets", type=int, default=3)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--work", type=Path, default=None)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    source = find_source(arguments.run)
    study = BitsStudy(
        bits=(8, 4, 3, 2),
        steps=arguments.steps,
        learning_rate=0.001,
        batch_size=128,
        subnets=arguments.subnets,
    )
    result = study.run(
        source,
        arguments.work or source.folder / "studies" / "bits",
        on_record=lambda done, total, record: print(done, total, record["accuracy"], flush=True),
    )
    file = write_result("bits", {"command": COMMAND, **source.identity(), **result})
    value = {bits: row["dedicated_minus_shared"] for bits, row in result["differences"].items()}
    met = all(points <= TARGET for bits, points in value.items() if int(bits) >= 3)
    record_claim(
        "quant.shared_vs_dedicated", value, f"<= {TARGET} at 3 bits and more", met, file, COMMAND
    )
    print(value)


if __name__ == "__main__":
    main()
