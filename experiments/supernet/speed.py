"""Images per second of a sandwich step, and of evaluating one subnet, beside plain PyTorch.

The sandwich step trains the largest, the smallest and two random subnets with one optimiser
step. The plain loop trains the same four architectures, extracted as stand-alone modules at the
same bits, one after the other, each with an optimiser of its own. Steps of both kinds are
interleaved. Run from the repository, on an otherwise idle machine::

    python -m experiments.supernet.speed runs/fashion_mnist
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

from experiments.results_index import record_claim
from experiments.supernet.common import write_result
from nas.studies.source import find_source, load_supernet, open_source
from supernet.resolution import resize_images
from supernet.training.subnets import BitsStage, SandwichSampler
from supernet.training.train import Recipe, Trainer

COMMAND = "python -m experiments.supernet.speed runs/fashion_mnist"
BATCH = 128


def seconds(action: Callable[[], object]) -> float:
    """Return how long ``action`` takes."""
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def main() -> None:
    """Time both loops and one evaluation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    source = find_source(arguments.run)
    opened = open_source(source)
    space, task = opened.space, opened.task
    supernet = load_supernet(source, space)
    bits = sorted({b for r in supernet.ranges.values() for b in r.weight_bits if b < 32})
    sampler = SandwichSampler(
        space,
        supernet.ranges,
        stages=[BitsStage(0.0, tuple(bits))],
        random_subnets=2,
        seed=arguments.seed,
    )
    batches = opened.splits.training_batches(BATCH, seed=arguments.seed)
    trainer = Trainer(
        supernet,
        sampler=sampler,
        batches=batches,
        loss=task.loss,
        distillation_loss=task.distillation_loss,
        recipe=Recipe(steps=10**6, learning_rate=1e-6),
    )
    images, targets = next(batches.epoch(0))
    sandwich, plain = [], []
    for repeat in range(arguments.repeats + 1):
        plans = sampler.plans(trainer.step, 0.5)
        resized = {
            plan.input_shape[1]: resize_images(images, plan.input_shape[1]).contiguous(
                memory_format=torch.channels_last
            )
            for plan in plans
        }
        networks = [
            supernet.extract(plan, supernet.statistics(plan, [resized[plan.input_shape[1]]]))
            for plan in plans
        ]
        optimisers = [torch.optim.AdamW(n.parameters(), lr=1e-6, fused=True) for n in networks]

        def train_plain(networks=networks, optimisers=optimisers) -> None:
            for network, optimiser in zip(networks, optimisers, strict=True):
                network.train()
                optimiser.zero_grad(set_to_none=True)
                x = resize_images(images, network.plan.input_shape[1]).contiguous(
                    memory_format=torch.channels_last
                )
                task.loss(network(x), targets).backward()
                torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
                optimiser.step()

        # The first step of an optimiser makes its state.
        train_plain()
        times = (seconds(train_plain), seconds(lambda: trainer.train_step(images, targets)))
        if repeat:
            plain.append(times[0])
            sandwich.append(times[1])
    memory_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    from nas.stages.evaluator import Evaluator

    evaluator = Evaluator(supernet, opened.splits, task)
    plans = sampler.plans(0, 0.5)
    evaluations = []
    for plan in (plans[2], plans[2], plans[3], plans[3]):
        network = []
        calibrate = seconds(lambda plan=plan, n=network: n.append(evaluator.network(plan)))
        validate = seconds(lambda n=network: evaluator.accuracy(n[0]))
        evaluations.append((calibrate, validate))
    # The second evaluation of each: the first also resizes and keeps the images.
    calibrate = median(e[0] for e in evaluations[1::2])
    validate = median(e[1] for e in evaluations[1::2])
    images_evaluated = len(opened.splits.calibration) + len(opened.splits.validation)
    ratios = [s / p for s, p in zip(sandwich, plain, strict=True)]
    ratio = median(ratios)
    file = write_result(
        "speed",
        {
            "command": COMMAND,
            "threads": arguments.threads,
            "batch": BATCH,
            "subnets_a_step": 4,
            "sandwich_step_s": median(sandwich),
            "plain_loop_s": median(plain),
            "ratio": ratio,
            "ratio_by_step": [round(r, 3) for r in ratios],
            "sandwich_images_per_s": 4 * BATCH / median(sandwich),
            "plain_images_per_s": 4 * BATCH / median(plain),
            "evaluation": {
                "calibration_images": len(opened.splits.calibration),
                "validation_images": len(opened.splits.validation),
                "calibration_s": calibrate,
                "validation_s": validate,
                "images_per_s": images_evaluated / (calibrate + validate),
            },
            "peak_memory_mib": memory_mib,
        },
    )
    record_claim(
        "supernet.sandwich_ratio", round(ratio, 3), "<= 1.25", ratio <= 1.25, file, COMMAND
    )
    print(f"sandwich {median(sandwich):.3f} s, plain {median(plain):.3f} s, ratio {ratio:.3f}")


if __name__ == "__main__":
    main()
