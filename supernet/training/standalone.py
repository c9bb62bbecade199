"""Training one architecture from scratch, alone: what shared weights are held against."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from search_spaces.plan import NetworkPlan
from search_spaces.planned import PlannedSpace
from search_spaces.space import Arch
from search_spaces.spaces.single import SingleSpace
from supernet.network import Supernet
from supernet.quantizers.registry import QuantizerScheme
from supernet.training.subnets import Schedule, float_plan
from supernet.training.train import EpochBatches, Loss, Recipe, Trainer


class FloatThenBits(Schedule):
    """One architecture, in float for the first share of training and then at its bits.

    Args:
        plan: the architecture at its bits.
        float_share: share of the steps in float, 0 to 1.
    """

    def __init__(self, plan: NetworkPlan, *, float_share: float) -> None:
        self.plan = plan
        self.float_plan = float_plan(plan)
        self.float_share = float_share

    def plans(self, step: int, progress: float) -> list[NetworkPlan]:
        """Return the architecture; ``progress`` is from 0 to 1."""
        return [self.float_plan if progress < self.float_share else self.plan]


def train_alone(
    space: PlannedSpace,
    arch: Arch,
    *,
    batches: EpochBatches,
    loss: Loss,
    recipe: Recipe,
    seed: int,
    float_share: float = 0.5,
    quantizers: QuantizerScheme | None = None,
    device: torch.device | str = "cpu",
    on_step: Callable[[dict[str, Any]], None] | None = None,
) -> Supernet:
    """Return a network of ``arch`` alone, trained from random weights and at its own bits.

    Quantisation-aware after a warm-up in float (LSQ, Esser et al., ICLR 2020, section 3
    starts from a trained float network likewise).

    Args:
        space: of the architecture.
        arch: the architecture.
        batches: training batches.
        loss: (outputs, targets) -> mean loss.
        recipe: hyperparameters.
        seed: of the weights.
        float_share: share of the steps in float.
        quantizers: see :class:`~supernet.network.Supernet`.
        device: where to compute.
        on_step: called after each step with its record.

    Raises:
        TrainingCollapse: the loss is no longer finite.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Supernet(SingleSpace(space, arch), quantizers=quantizers)
    plan = network.plan(network.space.largest())
    Trainer(
        network,
        sampler=FloatThenBits(plan, float_share=float_share),
        batches=batches,
        loss=loss,
        distillation_loss=loss,
        recipe=recipe,
        device=device,
        on_step=on_step,
    ).run()
    return network
