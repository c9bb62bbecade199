"""Training one architecture on its own, from the weights it inherits."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

import torch

from search_spaces.plan import NetworkPlan
from search_spaces.sparsity import Sparsity
from supernet.network import Supernet
from supernet.sparsity.training import pruned
from supernet.training.optimizers import Precision
from supernet.training.subnets import Schedule
from supernet.training.teacher import RememberingTeacher
from supernet.training.train import EpochBatches, Loss, Recipe, SubnetTeacher, Trainer


class FixedSubnets(Schedule):
    """The schedule of a training that runs the same subnets in every step.

    Args:
        subnets: for instance one architecture, or one at several bit-widths.
    """

    def __init__(self, *subnets: NetworkPlan) -> None:
        self.subnets = subnets

    def plans(self, step: int, progress: float) -> list[NetworkPlan]:
        """Return the subnets, whatever the step."""
        return list(self.subnets)


def finetune(
    supernet: Supernet,
    plan: NetworkPlan,
    *,
    batches: EpochBatches,
    loss: Loss,
    epochs: float,
    learning_rate: float,
    distillation_loss: Loss | None = None,
    start: Supernet | None = None,
    teacher: RememberingTeacher | None = None,
    targets: bool = True,
    precision: Precision = "float32",
    checkpoint: Path | None = None,
    device: torch.device | str = "cpu",
    patterns: Mapping[str, Sparsity] | None = None,
) -> Supernet:
    """Return a copy of ``supernet`` whose weights are trained for ``plan`` alone, at its bits.

    Quantisation-aware from the steps it inherits (LSQ, Esser et al., ICLR 2020). The copy
    has other subnets' weights too, but only ``plan`` is good in it.

    Args:
        supernet: trained; left as it is.
        plan: the architecture.
        batches: training batches.
        loss: (outputs, targets) -> mean loss.
        epochs: passes over the batches.
        learning_rate: peak.
        distillation_loss: (outputs, teacher outputs) -> mean loss. With it the architecture
            learns from the targets and from the largest network of ``supernet`` at its highest
            bits, with equal weight; without it from the targets alone.
        start: with the weights to begin with; those of ``supernet`` by default.
        teacher: to learn from instead of the largest network.
        targets: False learns from the teacher alone.
        precision: of convolutions and matrix products.
        checkpoint: file to continue from and to write to.
        device: where to compute.
        patterns: of layers by name, whose smallest weights are set to zero before training and
            stay zero; the copy then has ``plan`` alone.

    Raises:
        InputError: a layer that cannot have its pattern, or whose quantiser has no zero.
    """
    begun = supernet if start is None else start
    if patterns and any(not pattern.dense for pattern in patterns.values()):
        own = pruned(begun, plan, patterns)
    else:
        own = copy.deepcopy(begun)
    taught: RememberingTeacher | SubnetTeacher | None = teacher
    if distillation_loss is not None and teacher is None:
        taught = SubnetTeacher(supernet.to(device), supernet.plan(supernet.space.largest()))
    trainer = Trainer(
        own,
        sampler=FixedSubnets(plan),
        batches=batches,
        loss=loss,
        distillation_loss=loss if distillation_loss is None else distillation_loss,
        teacher=taught,
        recipe=Recipe(
            steps=max(1, round(epochs * len(batches))),
            learning_rate=learning_rate,
            warmup=0.1,
            targets=targets,
            precision=precision,
        ),
        checkpoint=checkpoint,
        device=device,
    )
    trainer.run()
    return own
