"""What each post-training step is worth, on the float network inside a trained supernet.

The largest architecture of a finished run is extracted in float, with its statistics
recalibrated, and quantised from unlabelled calibration images. Accuracy is on the validation
images; the steps look at no label. Finished rows are kept::

    python -m experiments.supernet.post_training runs/fashion_mnist
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from experiments.supernet.common import RESULTS, write_result
from nas.job.schema import Job, job_space
from nas.stages.build_supernet import make_supernet
from nas.stages.evaluator import Evaluator
from nas.tasks import TASKS
from supernet.ptq.adaround import RoundingRecipe
from supernet.ptq.quantize import quantize_post_training
from supernet.training.checkpoint import load_checkpoint
from supernet.training.subnets import float_plan
from supernet.training.weights import load_weights

COMMAND = "python -m experiments.supernet.post_training"
BITS = ((8, 8), (4, 8), (4, 4))
ROWS: dict[str, dict[str, Any]] = {
    "fold, one step a layer": {"steps": (), "per_channel": False},
    "+ equalise": {"steps": ("equalize",), "per_channel": False},
    "a step a channel": {"steps": ()},
    "+ equalise, a step a channel": {"steps": ("equalize",)},
    "+ least-error ranges": {"steps": ("equalize", "mse")},
    "+ bias correction": {"steps": ("equalize", "mse", "bias")},
    "+ AdaRound": {"steps": ("equalize", "mse", "bias", "adaround")},
}


def main() -> None:
    """Fill the table."""
    parser = argparse.ArgumentParser(description=__doc__, prog=COMMAND)
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("--images", type=int, default=512, help="calibration images")
    parser.add_argument("--iterations", type=int, default=1000, help="AdaRound steps a layer")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    manifest = json.loads((arguments.run / "manifest.json").read_text(encoding="utf-8"))
    job = Job.model_validate(manifest["job"])
    task = TASKS.get(job.task)(label_smoothing=0.0)
    splits = task.load(job.data, job.seed)
    space = job_space(job, input_channels=splits.channels, outputs=task.outputs(splits))
    supernet = make_supernet(space, job.supernet)  # type: ignore[arg-type]
    tensors, _ = load_checkpoint(arguments.run / "supernet" / "checkpoint.safetensors")
    load_weights(supernet, tensors, prefix="model.")
    evaluator = Evaluator(supernet.eval(), splits, task)
    plan = float_plan(space.plan(space.largest()))  # type: ignore[attr-defined]
    network = evaluator.network(plan)
    subset = splits.calibration.first(arguments.images)
    batches = [x for x, _ in splits.evaluation_batches(subset, batch_size=128)]
    settings = {"images": arguments.images, "iterations": arguments.iterations, "seed": job.seed}
    path = RESULTS / "post_training.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    rows = known.get("rows", {}) if known.get("settings") == settings else {}
    if "float" not in rows:
        rows["float"] = evaluator.accuracy(network)
    for bits in BITS:
        for name, options in ROWS.items():
            key = f"W{bits[0]}A{bits[1]} {name}"
            if key in rows:
                continue
            quantized = quantize_post_training(
                network,
                batches,
                bits,
                rounding=RoundingRecipe(iterations=arguments.iterations),
                seed=job.seed,
                **options,
            )
            rows[key] = evaluator.accuracy(quantized)
            print(f"{key}: {rows[key]:.4f} (float {rows['float']:.4f})", flush=True)
            write_result("post_training", _result(settings, rows, len(splits.validation)))


def _result(settings: dict[str, Any], rows: dict[str, float], images: int) -> dict[str, Any]:
    return {
        "network": "largest architecture, extracted in float; first and last layer 8 bits",
        "metric": f"accuracy on {images} validation images",
        "settings": settings,
        "command": f"{COMMAND} RUN --images {settings['images']} "
        f"--iterations {settings['iterations']}",
        "rows": rows,
    }


if __name__ == "__main__":
    main()
