"""One file whose images leave early, beside the whole network: accuracy and mean latency.

All exits of one architecture are trained together at 8 bits; gates and thresholds are chosen on
half of the validation images and told on the other, image by image, both files in turn::

    python -m experiments.choices.exits [--seeds 3] [--steps 2000]

Seeds that the table holds are kept, so the default adds what is missing.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments.choices.material import FASHION, by_seed, keep
from experiments.results_index import record_claim
from experiments.supernet.common import open_job
from nas.models.exits import export_exits_checked
from nas.models.parity import export_checked
from nas.stages.evaluator import Evaluator
from nas.studies import shared_exits
from nas.studies.exits import exits_of
from search_spaces.plan import NetworkPlan
from search_spaces.seeds import derive_seed
from supernet.exits.gates import KINDS
from supernet.exits.network import ExitNetwork, collect
from supernet.network import Supernet
from supernet.training.subnets import Schedule, float_plan
from supernet.training.train import Recipe, Trainer

COMMAND = "python -m experiments.choices.exits"
LOSS, TIMED, ROUNDS, FLOAT_SHARE, CHECKED = 0.002, 600, 5, 0.5, 200
JOB: dict[str, Any] = {
    "name": "exits",
    # Many images: a setting is the best of thousands on those that choose it.
    "data": {**FASHION, "image_size": 28, "train": 50_000, "validation": 10_000},
    "space": {
        "name": "mobilenet",
        "preset": "28x28-lean",
        "resolutions": [28],
        "stem_stride": 2,
        "stem_channels": 16,
        "stages": [
            {"channels": 16, "stride": 1, "depths": [1], "fused": True},
            {"channels": 40, "stride": 2, "depths": [2], "fused": True},
            {"channels": 128, "stride": 2, "depths": [3], "fused": True},
        ],
        "widths": [1.0],
        "exits": [1, 2],
        "weight_bits": [8],
        "activation_bits": [8],
    },
}


class EveryExit(Schedule):
    """All exits in each step, in float for the first share of training.

    Args:
        plans: of the exits, the whole network first.
    """

    def __init__(self, plans: list[NetworkPlan]) -> None:
        self.at_bits, self.in_float = plans, [float_plan(plan) for plan in plans]

    def plans(self, step: int, progress: float) -> list[NetworkPlan]:
        """Return all of them."""
        return self.in_float if progress < FLOAT_SHARE else self.at_bits


def one_seed(seed: int, steps: int) -> dict[str, Any]:
    """Return everything of one seed."""
    opened = open_job({**JOB, "seed": seed})
    torch.manual_seed(seed)
    supernet = Supernet(opened.space)
    archs = exits_of(opened.space)
    plans = [supernet.plan(archs[stage]) for stage in sorted(archs, reverse=True)]
    Trainer(
        supernet,
        sampler=EveryExit(plans),
        batches=opened.splits.training_batches(64, seed=derive_seed(seed, "exits")),
        loss=opened.task.loss,
        distillation_loss=opened.task.distillation_loss,
        recipe=Recipe(steps=steps, learning_rate=0.008, distillation=False),
    ).run()
    evaluator = Evaluator(supernet, opened.splits, opened.task)
    networks = {stage: evaluator.network(arch) for stage, arch in archs.items()}
    whole = ExitNetwork(networks)
    batches = [
        pair
        for x, y in evaluator.batches("validation", opened.splits.validation, (28, 28))
        for pair in zip(x.split(25), y.split(25), strict=True)
    ]
    outputs, targets = collect(whole, batches[::2])
    costs = {stage: float(opened.space.plan(arch).macs) for stage, arch in archs.items()}
    found: dict[str, Any] = {
        "macs": costs,
        "accuracy_of_exits": [float((o.argmax(1) == targets).float().mean()) for o in outputs],
    }
    every = shared_exits.settings(whole, outputs, targets, costs, KINDS)
    setting = shared_exits.cheapest(every, found["accuracy_of_exits"][-1], LOSS)
    found["setting"] = shared_exits.told(setting)
    found["cheapest_macs_share_by_gate"] = {
        kind: shared_exits.cheapest(
            [one for one in every if one.gates[0].kind == kind],
            found["accuracy_of_exits"][-1],
            LOSS,
        ).cost
        / costs[max(costs)]
        for kind in KINDS
    }
    network = shared_exits.with_setting(networks, setting)
    with tempfile.TemporaryDirectory() as scratch:
        files = {name: Path(scratch) / f"{name}.onnx" for name in ("shared", "whole")}
        _, check = export_exits_checked(
            network, files["shared"], torch.cat([x for x, _ in batches[1::2]])[:CHECKED]
        )
        found["file"] = asdict(check)
        export_checked(networks[max(networks)], files["whole"], batches[0][0])
        sessions = {
            name: shared_exits.load_session("onnxruntime", {}, file) for name, file in files.items()
        }
        images = np.concatenate([x.numpy() for x, _ in batches[1::2]])
        classes = torch.cat([y for _, y in batches[1::2]]).numpy()
        # Of the files themselves, as a device runs them.
        right = {name: 0 for name in sessions}
        left = np.zeros(len(network.exits))
        for image, label in zip(images, classes, strict=True):
            for name, session in sessions.items():
                results = session(image[None])
                right[name] += int(results[0].argmax() == label)
                if name == "shared":
                    left[int(results[1][0])] += 1
        latency = shared_exits.mean_latencies(sessions, images[:TIMED], rounds=ROUNDS)
    found["accuracy"] = {name: count / len(images) for name, count in right.items()}
    found["left_at"] = (left / len(images)).tolist()
    found["latency"] = latency
    found["latency_share"] = latency["shared"]["mean_ms"] / latency["whole"]["mean_ms"]
    found["accuracy_loss_points"] = 100 * (found["accuracy"]["whole"] - found["accuracy"]["shared"])
    return found


def main() -> None:
    """Fill the table, seed by seed; finished seeds are kept."""
    parser = argparse.ArgumentParser(description=__doc__, prog=COMMAND)
    parser.add_argument("--seeds", type=int, default=3, help="from 0; known ones are kept")
    parser.add_argument("--steps", type=int, default=2000)
    arguments = parser.parse_args()
    settings = {"steps": arguments.steps, "loss_allowed": LOSS, "timed_images": TIMED,
                "rounds": ROUNDS, "clock": "processor time of the thread"}  # fmt: skip
    by_seed("exits", settings, arguments.seeds, lambda seed: one_seed(seed, arguments.steps), write)


def write(settings: dict[str, Any], seeds: dict[str, Any], started: float) -> None:
    """Write the file and the claims."""
    share = round(float(np.mean([row["latency_share"] for row in seeds.values()])), 3)
    loss = round(float(np.mean([row["accuracy_loss_points"] for row in seeds.values()])), 3)
    file = keep(
        "exits",
        {
            "metric": "accuracy of the files on 5,000 validation images that chose nothing",
            "network": "six fused blocks at 28x28 pixels with exits after stages 1 and 2, 8 bits; "
            "ONNX Runtime, one thread, one image at a time",
            "settings": settings,
            "latency_share": share,
            "accuracy_loss_points": loss,
            "seeds": seeds,
        },
        COMMAND,
        started,
    )
    record_claim("exits.latency_share", share, "<= 0.7 of the whole network's mean latency",
                 share <= 0.7, file, COMMAND)  # fmt: skip
    record_claim("exits.accuracy_loss", loss, "<= 0.3 point", loss <= 0.3, file, COMMAND)


if __name__ == "__main__":
    main()
