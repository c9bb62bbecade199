"""Training one architecture on its own, from the weights it inherits."""

from __future__ import annotations

import copy
from pathlib import Path

import torch

from search_spaces.plan import NetworkPlan
from supernet.network import Supernet
from supernet.subnets import Schedule
from supernet.train import EpochBatches, Loss, Recipe, SubnetTeacher, Trainer


class OneSubnet(Schedule):
    """The schedule of a training with a single architecture."""

    def __init__(self, plan: NetworkPlan) -> None:
        self.plan = plan

    def plans(self, step: int, progress: float) -> list[NetworkPlan]:
        """Return the architecture, whatever the step."""
        return [self.plan]


def finetune(
    supernet: Supernet,
    plan: NetworkPlan,
    *,
    batches: EpochBatches,
    loss: Loss,
    epochs: float,
    learning_rate: float,
    distillation_loss: Loss | None = None,
    checkpoint: Path | None = None,
    device: torch.device | str = "cpu",
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
        checkpoint: file to continue from and to write to.
        device: where to compute.
    """
    own = copy.deepcopy(supernet)
    teacher = None
    if distillation_loss is not None:
        teacher = SubnetTeacher(supernet.to(device), supernet.plan(supernet.space.largest()))
    trainer = Trainer(
        own,
        sampler=OneSubnet(plan),
        batches=batches,
        loss=loss,
        distillation_loss=loss if distillation_loss is None else distillation_loss,
        teacher=teacher,
        recipe=Recipe(
            steps=max(1, round(epochs * len(batches))), learning_rate=learning_rate, warmup=0.1
        ),
        checkpoint=checkpoint,
        device=device,
    )
    trainer.run()
    return own
