"""Publishes what ``nas study ranking`` found on Fashion-MNIST, finished or not.

The studies themselves resume; run them first (several hours of one core each)::

    nas study ranking runs/fashion_mnist --subnets 30 --seeds 2 --steps 300 --batch-size 64 \\
        --learning-rate 0.008
    nas study ranking runs/fashion_mnist --subnets 30 --seeds 2 --steps 300 --batch-size 64 \\
        --learning-rate 0.008 --bits 4
    python -m experiments.supernet.ranking runs/fashion_mnist

Without the run it records the claims of the stored results again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.results_index import record_claim
from experiments.supernet.common import RESULTS, write_result
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
    arguments = parser.parse_args()
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
