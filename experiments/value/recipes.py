"""What to train in little time: networks of equal size from scratch, in equal processor seconds.

Each network is trained alone, in float for the first half of its seconds and at its bits for the
rest, one-cycle as :class:`supernet.training.own_time.OwnRecipe`, mirrored images, one thread. The
table says why the lean presets are as they are: at about 6, 17 and 33 KiB of packed weights, MBConv
blocks at 8 and fewer bits against full convolutions, and where the side is halved. Run from the
repository::

    python -m experiments.value.recipes --seconds 90
"""

from __future__ import annotations

import argparse
import platform
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from devices.device import device_fingerprint
from nas.data.splits import DataSplits, load_splits
from nas.job.sections.data import AugmentConfig, DataConfig
from nas.stages.evaluator import Evaluator
from nas.tasks import TASKS
from search_spaces import build_space
from search_spaces.atomic import write_json_atomic
from search_spaces.planned import PlannedSpace
from search_spaces.spaces.single import SingleSpace
from supernet.network import Supernet
from supernet.training.own_time import OwnRecipe, OwnTraining
from supernet.training.subnets import float_plan

ROOT = Path(__file__).parents[2]
RESULT = ROOT / "experiments" / "results" / "value" / "recipes.json"
LEARNING_RATE = 0.01


@dataclass(frozen=True)
class Candidate:
    """One network.

    Attributes:
        name: in the table.
        bits: of weights; activations have 8.
        stages: (channels, stride, blocks, expansion) of each stage.
        fused: full convolutions instead of depthwise ones.
        width: multiplier of all channels.
        stem: channels of the first convolution, of stride 2.
    """

    name: str
    bits: int
    stages: tuple[tuple[int, int, int, int], ...]
    fused: bool
    width: float = 1.0
    stem: int = 16

    def space(self) -> PlannedSpace:
        """Return the space that holds this network alone."""
        space = build_space(
            "mobilenet",
            preset="28x28",
            stages=[
                {
                    "channels": channels, "stride": stride, "depths": [blocks],
                    "expands": [ratio], "kernels": [3], "fused": self.fused,
                }
                for channels, stride, blocks, ratio in self.stages
            ],
            stem_channels=self.stem,
            head_channels=0,
            resolutions=[28],
            widths=[self.width],
            weight_bits=[self.bits],
            activation_bits=[8],
            input_channels=1,
            outputs=10,
        )  # fmt: skip
        return SingleSpace(space, space.largest())


MBCONV = ((16, 1, 1, 3), (24, 2, 2, 3), (32, 1, 2, 3))
CANDIDATES = (
    Candidate("MBConv, W8", 8, MBCONV, fused=False, width=0.36),
    Candidate("MBConv, W4", 4, MBCONV, fused=False, width=0.5),
    Candidate("full, W4, side 7", 4, ((12, 1, 1, 1), (20, 2, 1, 2), (24, 1, 1, 1)), True, stem=12),
    Candidate("full, W4, side 4", 4, ((12, 1, 1, 1), (24, 2, 1, 1), (48, 2, 1, 1)), True, stem=12),
    Candidate("full, W3, side 4", 3, ((12, 1, 1, 1), (24, 2, 1, 1), (64, 2, 1, 1)), True, stem=12),
    Candidate("MBConv, W8", 8, MBCONV, fused=False, width=0.7),
    Candidate("full, W8, side 4", 8, ((16, 1, 1, 1), (32, 2, 1, 1), (64, 2, 1, 1)), True),
    Candidate("full, W4, side 4", 4, ((16, 1, 1, 1), (32, 2, 2, 1), (96, 2, 1, 1)), True),
    Candidate("MBConv, W8", 8, MBCONV, fused=False, width=1.12),
    Candidate("full, W4, side 7", 4, ((24, 1, 2, 1), (40, 2, 1, 2), (48, 1, 2, 1)), True),
    Candidate("full, W4, side 4", 4, ((16, 1, 1, 1), (32, 2, 1, 2), (64, 2, 2, 1)), True),
)


def train(candidate: Candidate, splits: DataSplits, seconds: float, seed: int) -> dict[str, Any]:
    """Train one network and return its size, cost and validation accuracy."""
    task = TASKS.get("image_classification")()
    space = candidate.space()
    torch.manual_seed(seed)
    network = Supernet(space)
    plan = network.plan(space.largest())
    training = OwnTraining(
        network,
        float_plan(plan),
        batches=splits.training_batches(128, seed=seed),
        loss=task.loss,
        distillation_loss=task.distillation_loss,
        recipe=OwnRecipe(learning_rate=LEARNING_RATE),
        now=time.process_time,
    )
    training.run(until=seconds / 2, total=seconds)
    training.plan = plan
    training.run(until=seconds, total=seconds)
    evaluator = Evaluator(training.reached(), splits, task)
    costs = space.costs(space.genes([space.largest()]))
    return {
        **asdict(candidate),
        "weights_kib": float(costs["weights_kib"][0]),
        "macs": int(costs["macs"][0]),
        "parameters": int(costs["parameters"][0]),
        "steps": training.step,
        "accuracy": evaluator.accuracy(evaluator.network(space.largest())),
    }


def main() -> None:
    """Train all candidates and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=90.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = DataConfig(name="fashion_mnist", validation=5000, augment=AugmentConfig(crop_padding=0))
    splits = load_splits(data, arguments.seed)
    rows = []
    for candidate in CANDIDATES:
        rows.append(train(candidate, splits, arguments.seconds, arguments.seed))
        row = rows[-1]
        print(f"{row['weights_kib']:6.1f} KiB  {row['name']:18} {row['accuracy']:.4f}", flush=True)
    write_json_atomic(
        RESULT,
        {
            "command": f"python -m experiments.value.recipes --seconds {arguments.seconds:g}",
            "seed": arguments.seed,
            "seconds": arguments.seconds,
            "learning_rate": LEARNING_RATE,
            "validation_images": len(splits.validation),
            "networks": rows,
            "versions": {name: version(name) for name in ("torch", "numpy")},
            "python": platform.python_version(),
            "machine": device_fingerprint(),
        },
    )


if __name__ == "__main__":
    main()
