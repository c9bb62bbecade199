"""Sub-networks of a trained ResNet-20: found, trained on their own, and held against plain ones.

A sub-network is found in two rungs: candidates (some with one share of all widths, the others
drawn) are fitted to the network by least squares and looked at on validation images; the best few
are trained for a part of the time, and the best of them goes on. Everything counts as its processor
time: all rungs, and what the network was asked as teacher.
"""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiments.own.resnet20_network import make
from experiments.own.resnet20_training import BATCH, accuracy, train
from nas.data.batches import Batches
from nas.data.splits import DataSplits, Subset
from nas.stages.evaluator import Evaluator
from search_spaces.seeds import derive_rng
from search_spaces.space import Arch
from supernet.narrow import narrowed
from supernet.network import Supernet
from supernet.own_model.wrap import ModuleSpace, wrap
from supernet.reading.reader import read_network
from supernet.training.own_time import OwnRecipe, OwnTraining
from supernet.training.reconstruct import reconstruct
from supernet.training.teacher import RememberingTeacher

KEPT = 2
"""Candidates that are trained for a part of the time."""
RUNG = 0.06
"""Of the time: the part of it."""
IMAGES, RUNG_IMAGES = 1000, 3000
"""Validation images that the two rungs look at."""
FITTED_TO = 128
"""Images that candidates are fitted to."""
SMALL = OwnRecipe(gradient_clip=5.0, precision="bfloat16"), 6
LARGE = OwnRecipe(learning_rate=2e-3, precision="bfloat16"), 2
"""Recipe, and candidates that are drawn beside the even ones, of sub-networks with at most half of
the MACs and with more. Those have lost little: they need not learn much, and hardly differ."""


@dataclass(frozen=True)
class Material:
    """What all sizes share.

    Attributes:
        space: of the trained network.
        evaluator: of its weights.
        splits: the data.
        test: test images.
        batches: training batches.
        teacher: the network, which remembers what it was asked.
    """

    space: ModuleSpace
    evaluator: Evaluator
    splits: DataSplits
    test: Subset
    batches: Batches
    teacher: RememberingTeacher


def material(
    space: ModuleSpace, evaluator: Evaluator, splits: DataSplits, test: Subset
) -> Material:
    """Return what all sizes share, with the network of ``space`` as teacher."""
    batches = splits.training_batches(BATCH, seed=1)
    # Folded, so that it answers in two thirds of the time.
    network = read_network(space.module, torch.zeros(2, *space.input_shape(28)))
    network.to(memory_format=torch.channels_last)

    def answers(images: Tensor) -> Tensor:
        found: Tensor = network(images.contiguous(memory_format=torch.channels_last))
        return found

    teacher = RememberingTeacher(answers, batches)
    return Material(space, evaluator, splits, test, batches, teacher)


def near(space: ModuleSpace, share: float, count: int, seed: int) -> list[Arch]:
    """Return random sub-networks in float of at most ``share`` of the MACs, and near it."""
    genes = space.sample_genes(derive_rng(seed, "near", round(1e6 * share)), 40_000)
    genes = _in_float(space, genes)
    genes = genes[_fits(space, genes, share)]
    return space.decode(genes[derive_rng(seed, "of them").permutation(len(genes))[:count]])


def even(space: ModuleSpace, share: float) -> list[Arch]:
    """Return sub-networks in float near ``share`` whose stages are equally deep and wide.

    Of each depth, the one with the most MACs among those whose widths within blocks have one share
    and those between blocks another.
    """
    options = sorted({o for c in space.choices if c.name.startswith("width.") for o in c.options})
    found = []
    for depth in (1, 2, 3):
        rows = []
        for outer, inner in itertools.product(options, options):
            row = space.option_counts - 1
            for index, choice in enumerate(space.choices):
                if choice.name.startswith("depth."):
                    row[index] = choice.options.index(depth)
                elif choice.name.startswith("width."):
                    share_of = inner if choice.name.endswith("conv1") else outer
                    # Shares that rounding makes equal are one, the larger.
                    row[index] = next(i for i, o in enumerate(choice.options) if o >= share_of)
            rows.append(row)
        genes = _in_float(space, np.array(rows))
        genes = genes[_fits(space, genes, share)]
        if len(genes):
            best = int(np.argmax(space.costs(genes)["macs"]))
            found += space.decode(genes[[best]])
    return found


def _in_float(space: ModuleSpace, genes: np.ndarray) -> np.ndarray:
    genes = genes.copy()
    for index, choice in enumerate(space.choices):
        if choice.name.startswith(("w.", "a.")):
            genes[:, index] = choice.options.index(32)
    return np.unique(space.canonical(genes), axis=0)


def _fits(space: ModuleSpace, genes: np.ndarray, share: float) -> np.ndarray:
    macs = space.costs(genes)["macs"]
    limit = share * space.plan(space.largest()).macs
    return (macs <= limit) & (macs > 0.9 * limit)


def scaled_width(limit: float) -> float:
    """Return the widest factor of all channels at which ResNet-20 has at most ``limit`` MACs."""
    widths = [float(width) for width in np.arange(0.1, 1.01, 0.0125)]
    return max(width for width in widths if plain_macs(width) <= limit)


def plain_macs(width: float) -> int:
    """Return the MACs of ResNet-20 with all channels scaled by ``width``."""
    space = wrap(make(width), input_shape=(1, 28, 28), weight_bits=(32,), activation_bits=(32,),
                 edge_bits=None)  # fmt: skip
    return int(space.plan(space.largest()).macs)


def begun(material: Material, own: Supernet, arch: Arch, recipe: OwnRecipe) -> OwnTraining:
    """Return the training of ``arch`` alone from the weights ``own``, by processor time."""
    plan, task = material.space.plan(arch), material.evaluator.task
    return OwnTraining(
        narrowed(own, plan), plan, batches=material.batches, loss=task.loss,
        distillation_loss=task.distillation_loss, teacher=material.teacher, recipe=recipe,
        now=time.process_time,
    )  # fmt: skip


def fitted(material: Material, arch: Arch) -> tuple[float, Supernet]:
    """Return the validation accuracy that least squares give ``arch``, and its weights."""
    evaluator = material.evaluator
    images = evaluator.batches("calibration", material.splits.calibration, (28, 28))
    own = reconstruct(
        evaluator.supernet, material.space.plan(arch), (x for x, _ in images), images=FITTED_TO
    )
    network = evaluator.network(arch, own=own)
    return evaluator.accuracy(network, images=IMAGES), own


def shrunk(material: Material, share: float, seconds: float) -> dict[str, Any]:
    """Return what a sub-network of ``share`` of the MACs reaches, and a plain one of as many.

    Args:
        material: what all sizes share.
        share: of the network's MACs, at most.
        seconds: of processor time for rungs and training; what the teacher is asked adds to it.
    """
    space, evaluator, splits = material.space, material.evaluator, material.splits
    recipe, drawn = SMALL if share <= 0.5 else LARGE
    begin = time.process_time()
    archs = even(space, share) + near(space, share, drawn, 0)
    looked = [(*fitted(material, arch), arch) for arch in archs]
    looked.sort(key=lambda row: -row[0])
    found = [(arch, begun(material, own, arch, recipe)) for _, own, arch in looked[:KEPT]]
    scores = []
    for arch, training in found:
        training.run(until=RUNG * seconds, total=seconds)
        network = evaluator.network(arch, own=training.reached())
        scores.append(evaluator.accuracy(network, images=RUNG_IMAGES))
    chosen = int(np.argmax(scores))
    arch, training = found[chosen]
    asked = sum(each.asked for _, each in found)
    searching = time.process_time() - begin - asked - training.spent
    total = seconds - searching
    training.run(until=total, total=total)
    asked = sum(each.asked for _, each in found)
    evaluator.finetuned[arch] = training.reached()
    network = evaluator.network(arch)
    macs = space.plan(arch).macs
    return {
        "learning_rate": recipe.learning_rate, "arch": str(arch), "macs": int(macs),
        "macs_share": macs / space.plan(space.largest()).macs,
        "fitted_validation": [score for score, _, _ in looked], "rung_validation": scores,
        "chosen": chosen,
        "epochs": training.step / len(material.batches), "search_cpu_s": searching,
        "training_cpu_s": training.spent, "teacher_cpu_s": asked,
        "validation": accuracy(network, splits, splits.validation),
        "test": accuracy(network, splits, material.test),
    }  # fmt: skip


def from_scratch(material: Material, macs: float, seconds: float) -> dict[str, float]:
    """Return what a plain network of at most ``macs``, scaled in width, reaches in ``seconds``."""
    width = scaled_width(macs)
    torch.manual_seed(0)
    network = make(width)
    spent = train(network, material.splits, seconds=seconds)
    return {
        "width": width,
        "cpu_s": spent,
        "validation": accuracy(network, material.splits, material.splits.validation),
        "test": accuracy(network, material.splits, material.test),
    }
