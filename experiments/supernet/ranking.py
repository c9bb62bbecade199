"""Publishes what ``nas study ranking`` found on Fashion-MNIST, finished or not.

The studies themselves resume; run them first (several hours of one core each)::

    nas study ranking runs/fashion_mnist --subnets 30 --seeds 2 --steps 300 --batch-size 64 \\
        --learning-rate 0.008
    nas study ranking runs/fashion_mnist --subnets 30 --seeds 2 --steps 300 --batch-size 64 \\
        --learning-rate 0.008 --bits 4
    python -m experiments.supernet.ranking runs/fashion_mnist

The job as it is now, whose space holds fewer networks (the first study alone, in an hour)::

    nas run experiments/fashion_mnist.yaml --output runs/slim    # recorded: cpu_minutes: 24
    nas study ranking runs/slim --subnets 30 --seeds 2 --steps 300 --batch-size 64 \\
        --learning-rate 0.008
    python -m experiments.supernet.ranking --slim runs/slim

Without the run it records the claims of the stored results again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import kendalltau

from experiments.results_index import record_claim
from experiments.supernet.common import RESULTS, write_result
from nas.studies.expected import expected
from nas.studies.ranking import RankingStudy
from nas.studies.source import find_source
from nas.studies.workers import AloneRecipe

COMMAND = "python -m experiments.supernet.ranking runs/fashion_mnist"
STUDIES = {"mixed": (None, 0.70), "w4a4": ((4, 4), 0.50)}


def main() -> None:
    """Summarise both studies and record the claims."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, nargs="?", help="without it, the stored results")
    parser.add_argument("--studies", type=Path, default=None, help="folder of ranking-*")
    parser.add_argument("--slim", type=Path, help="a run of the job as it is now")
    arguments = parser.parse_args()
    if arguments.slim is not None:
        write_slim(arguments.slim)
        return
    if arguments.run is None:
        record({n: json.loads((RESULTS / f"ranking_{n}.json").read_text("utf-8")) for n in STUDIES})
        return
    source = find_source(arguments.run)
    folder = arguments.studies or source.folder / "studies"
    found = {}
    for name, (bits, _) in STUDIES.items():
        recipe = AloneRecipe(steps=300, batch_size=64, learning_rate=0.008, float_share=0.4)
        study = RankingStudy(recipe=recipe, subnets=30, seeds=2, bits=bits)
        found[name] = study.so_far(source, folder / f"ranking-{name}")
        write_result(f"ranking_{name}", {"command": COMMAND, **source.identity(), **found[name]})
    record(found)


def write_slim(run: Path) -> None:
    """Write the finished study of a run of the present job, and record what is expected of it."""
    source = find_source(run)
    recipe = AloneRecipe(steps=300, batch_size=64, learning_rate=0.008, float_share=0.4)
    study = RankingStudy(recipe=recipe, subnets=30, seeds=2, bits=None)
    result = study.so_far(source, source.folder / "studies" / "ranking-mixed")
    if result is None:
        raise SystemExit(f"{run} has no study of at least 4 networks")
    command = "python -m experiments.supernet.ranking --slim runs/slim"
    name = write_result("ranking_slim", {"command": command, **source.identity(), **result})
    taus = {"slim": result["tau"]["expected"]["tau"]}
    least = taus["slim"] - max(result["tau"][n]["tau"] for n in ALONE)
    for other in STUDIES:
        earlier = json.loads((RESULTS / f"ranking_{other}.json").read_text("utf-8"))
        taus[other] = expected_tau(earlier["subnets"])
        least = min(least, taus[other] - max(earlier["tau"][n]["tau"] for n in ALONE))
    target = "above that of inherited accuracy, MACs and KiB in each study"
    record_claim("ranking.expected_tau", taus, target, least > 0, name, command)
    print(taus)


ALONE = ("inherited", "macs", "weights_kib")


def expected_tau(subnets: Sequence[Mapping[str, Any]]) -> float:
    """Return Kendall's tau of what is expected of networks with their trainings alone."""
    size = np.array([s["parameters"] * s["weight_bits_mean"] for s in subnets])
    macs = np.array([s["macs"] for s in subnets])
    found = expected([s["inherited"] for s in subnets], [macs, size], higher_is_better=True)
    truth = [np.nanmean(np.array(s["alone"], dtype=float)) for s in subnets]
    return round(float(kendalltau(found, truth).statistic), 4)


def record(found: Mapping[str, Mapping[str, Any]]) -> None:
    """Record what the studies ``found``, by name, and print a line of each."""
    files = {name: f"experiments/results/supernet/ranking_{name}.json" for name in STUDIES}

    def done(name: str) -> bool:
        trainings, wanted = found[name]["trainings"]
        return trainings == wanted

    for key, name in (("ranking.kendall_tau", "mixed"), ("ranking.kendall_tau_w4a4", "w4a4")):
        target = STUDIES[name][1]
        tau = found[name]["tau"]["inherited"]
        record_claim(
            key,
            {**tau, "trainings": found[name]["trainings"]},
            f">= {target} over 30 subnets, 2 seeds each",
            tau["tau"] >= target and done(name),
            files[name],
            COMMAND,
        )
    each = {name: result["ceiling"] for name, result in found.items()}
    record_claim("ranking.ceiling_tau", each, "reported", True, files["mixed"], COMMAND)
    each = {name: result["tau"]["macs"]["tau"] for name, result in found.items()}
    record_claim("ranking.macs_tau", each, "reported", True, files["mixed"], COMMAND)
    within = {
        name: {e: result["within_bins"][e]["tau"] for e in ("inherited", "macs")}
        for name, result in found.items()
    }
    beaten = all(taus["inherited"] > taus["macs"] for taus in within.values())
    record_claim(
        "ranking.within_bins",
        within,
        "inherited above MACs in both studies",
        beaten and all(map(done, found)),
        files["mixed"],
        COMMAND,
    )
    for key, simple in (("tau_minus_macs", "macs"), ("tau_minus_kib", "weights_kib")):
        ahead = {
            f"{name}, {where}": round(
                result[part]["inherited"]["tau"] - result[part][simple]["tau"], 4
            )
            for name, result in found.items()
            for where, part in (("all", "tau"), ("similar MACs", "within_bins"))
        }
        record_claim(
            f"ranking.{key}",
            ahead,
            "> 0 over all and within bins, at mixed bits and at W4A4",
            min(ahead.values()) > 0 and all(map(done, found)),
            files["mixed"],
            COMMAND,
        )
    for name, result in found.items():
        print(name, result["trainings"], result["tau"]["inherited"], result["ceiling"])
    print(within)


if __name__ == "__main__":
    main()
