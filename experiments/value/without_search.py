"""Is it the search, or only the space and the recipe? Networks of the space, trained alone instead.

The processor seconds that a run spent, shared equally by as many networks as it trained to the end
on their own, each trained from random weights by the same recipe. Two choices of the networks:
``same``, the run's own architectures (which without the run nobody knows: what their shared
weights are worth), and ``drawn``, for each of their sizes an architecture drawn
from the space within a tenth below it (what the choice and the shared weights are worth
together). Judged on all validation images; test images are not read. It resumes. Run from the
repository::

    python -m experiments.value.without_search runs/value/folder/seed-0
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments.results_index import write_result
from experiments.supernet.common import train_alone
from experiments.value.more_training import finished
from nas.record.spending import spent
from nas.stages.opened_job import RunContext
from nas.stages.threads import set_threads
from nas.strategies.genes import sample_spread
from nas.studies.records import StudyFolder
from nas.studies.source import find_source
from search_spaces.planned import PlannedSpace
from search_spaces.seeds import derive_rng, derive_seed
from search_spaces.space import Arch
from search_spaces.spaces.single import SingleSpace
from supernet.network import Supernet
from supernet.training.own_time import suited_recipe

RESULTS = Path(__file__).parents[1] / "results" / "value"
BELOW = 0.1
"""Of a size, how much smaller a network drawn for it may be."""

_POOL = 20_000


def winners_of(run: Path, space: PlannedSpace) -> list[dict[str, Any]]:
    """Return what a run trained on their own to the end: arch, weights_kib, validation accuracy.

    All of them, also those that other rows of the front beat.
    """
    rows = [
        {
            "arch": str(line["arch"]),
            "weights_kib": space.plan(space.parse(str(line["arch"]))).weights_kib,
            "validation": float(line["accuracy"]),
        }
        for line in finished(run)
    ]
    return sorted(rows, key=lambda row: float(row["weights_kib"]))


def drawn(space: PlannedSpace, sizes: list[float], *, seed: int) -> list[Arch]:
    """Return an architecture of the space for each size in KiB, a little below it."""
    rng = derive_rng(seed, "without search")
    genes = sample_spread(space, rng, _POOL)
    kib = space.costs(genes)["weights_kib"]
    found = []
    for size in sizes:
        fits = np.flatnonzero((kib <= size) & (kib >= (1 - BELOW) * size))
        found.append(space.decode(genes[[rng.choice(fits)]])[0])
    return found


def trained_alone(context: RunContext, arch: Arch, seconds: float, *, seed: int) -> dict[str, Any]:
    """Return what ``arch`` reaches from random weights in so many processor seconds."""
    torch.manual_seed(derive_seed(seed, "alone weights") % 2**63)
    network = Supernet(SingleSpace(context.space, arch))
    plan = network.plan(network.space.largest())
    found = train_alone(
        network, plan, suited_recipe(plan), seconds, context,
        seed=derive_seed(seed, "alone"), batch_size=context.job.finetune.batch_size,
    )  # fmt: skip
    return {"weights_kib": plan.weights_kib, "macs": plan.macs, **found}


def beside(run: Path, *, seed: int) -> dict[str, Any]:
    """Return a run's front beside networks trained alone in the seconds of the whole run."""
    set_threads(1)
    source = find_source(run)
    context = RunContext.of(source.job, threads=1)
    front = winners_of(run, context.space)
    cost = spent(run)
    assert cost is not None, f"{run} does not record its cost"
    seconds = cost.cpu_seconds / len(front)
    settings = {**source.identity(), "seconds": seconds, "seed": seed, "front": front}
    store = StudyFolder(source.folder / "studies" / f"without-search-{seed}", settings)
    chosen = {
        "same": [context.space.parse(row["arch"]) for row in front],
        "drawn": drawn(context.space, [row["weights_kib"] for row in front], seed=seed),
    }
    for kind, archs in chosen.items():
        for place, arch in enumerate(archs):
            key = f"{kind}-{place}"
            if store.get(key) is None:
                store.add(key, trained_alone(context, arch, seconds, seed=seed))
                print(kind, front[place]["weights_kib"], front[place]["validation"],
                      store.get(key), flush=True)  # fmt: skip
    rows = [
        {
            "weights_kib": row["weights_kib"],
            "front": row["validation"],
            **{kind: store.known(f"{kind}-{place}") for kind in chosen},
        }
        for place, row in enumerate(front)
    ]
    ahead = {
        kind: round(100 * float(np.mean([r["front"] - r[kind]["validation"] for r in rows])), 3)
        for kind in chosen
    }
    return {"seconds_each": round(seconds, 1), "ahead_points": ahead, "networks": rows}


def main() -> None:
    """Train what is left, write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--name", default="without_search", help="of the result")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    found = {f"{run.parent.name}/{run.name}": beside(run, seed=given.seed) for run in given.runs}
    command = f"python -m experiments.value.without_search {' '.join(sys.argv[1:])}"
    write_result(
        RESULTS / f"{given.name}.json", {"runs": found}, command, packages=("torch", "numpy")
    )
    print({run: one["ahead_points"] for run, one in found.items()})


if __name__ == "__main__":
    main()
