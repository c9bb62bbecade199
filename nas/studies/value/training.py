"""Training one network for a given time, in float or with its last part at 8 bits."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from supernet.network import Supernet
    from supernet.plain import PlainNetwork
    from supernet.training.train import EpochBatches, Loss

Clock = Callable[[], float]


@dataclass(frozen=True)
class TimedRecipe:
    """How a member is trained: AdamW under one cycle of the learning rate (Smith, 2018).

    The rate follows the share of the time that is spent, not of steps, so a training ends when
    its time does, whatever else the machine does.

    Attributes:
        learning_rate: peak.
        warmup: share of the time in which the rate rises.
        weight_decay: of convolution and linear weights.
        batch_size: images a step.
        gradient_clip: largest norm of all gradients together.
        qat_share: share of the time at 8 bits, at the end, where that is asked for.
    """

    learning_rate: float = 0.01
    warmup: float = 0.25
    weight_decay: float = 0.01
    batch_size: int = 128
    gradient_clip: float = 5.0
    qat_share: float = 0.25

    def rate(self, progress: float) -> float:
        """Return the learning rate at a share of the time, 0 to 1."""
        if progress < self.warmup:
            # As torch's OneCycleLR: from a 25th of the peak, along a cosine.
            low = self.learning_rate / 25
            return low + (self.learning_rate - low) * 0.5 * (
                1 - math.cos(math.pi * progress / self.warmup)
            )
        done = min(1.0, (progress - self.warmup) / (1 - self.warmup))
        return 0.5 * self.learning_rate * (1 + math.cos(math.pi * done))


@dataclass(frozen=True)
class TimedTraining:
    """A finished training.

    Attributes:
        steps: optimiser steps, of which ``quantised_steps`` at 8 bits.
        quantised_steps: see ``steps``.
        seconds: spent, by the clock of the training.
    """

    steps: int
    quantised_steps: int
    seconds: float


def clock_of(device: str) -> Clock:
    """Return the clock of a device: processor time of this process, or wall time of a GPU."""
    if device == "cpu":
        return time.process_time

    def gpu() -> float:
        torch.cuda.synchronize()
        return time.monotonic()

    return gpu


class TimedTrainer:
    """Trains modules for a number of seconds.

    Args:
        batches: training batches of (images, targets).
        loss: (outputs, targets) -> mean loss.
        recipe: hyperparameters.
        seconds: to spend.
        device: where to compute.
        clock: seconds spent; by default that of the device.
    """

    def __init__(
        self,
        batches: EpochBatches,
        loss: Loss,
        recipe: TimedRecipe,
        *,
        seconds: float,
        device: str = "cpu",
        clock: Clock | None = None,
    ) -> None:
        self._batches, self._loss, self._recipe = batches, loss, recipe
        self._seconds, self._device = seconds, device
        self._clock = clock or clock_of(device)

    def warm_up(self) -> None:
        """Take a step with a network of no use, so that no member pays for torch's first one."""
        images, _ = next(self._stream())
        network = nn.Sequential(
            nn.Conv2d(images.shape[1], 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()
        )
        network.to(self._device).train()
        network(images.to(self._device)).mean().backward()
        optimizer = torch.optim.AdamW(network.parameters(), fused=True)
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        self._clock()

    def train(self, module: nn.Module) -> TimedTraining:
        """Train ``module`` in place, in float, for all of the time."""
        begin, stream = self._clock(), self._stream()
        steps = self._run(module, module, stream, begin, until=1.0)
        return TimedTraining(steps, 0, self._clock() - begin)

    def train_quantised(
        self, module: nn.Module, input_shape: tuple[int, int, int]
    ) -> tuple[Supernet, Any, TimedTraining]:
        """Train ``module`` in float and then, to the end of the same cycle, at 8 bits.

        Quantisation-aware with learned steps (LSQ, Esser et al., ICLR 2020), first and last
        layer included.

        Args:
            module: trained in place in its float part.
            input_shape: (channels, height, width) of one input.

        Returns:
            The quantised network, the architecture that it is, and what was spent.
        """
        from supernet.network import Supernet
        from supernet.own_model.wrap import bits_space
        from supernet.training import distributed

        begin, stream = self._clock(), self._stream()
        float_steps = self._run(module, module, stream, begin, until=1.0 - self._recipe.qat_share)
        made = self._clock()
        space = bits_space(
            module, input_shape=input_shape, weight_bits=(8,), activation_bits=(8,), edge_bits=8
        )
        network = Supernet(space).to(self._device)
        plan = network.plan(space.largest())
        # What the study does around the training is no training.
        begin += self._clock() - made

        def forward(images: Tensor) -> Tensor:
            return network(images, plan, distributed.batch_norm())

        network.train()
        steps = self._run(network, forward, stream, begin, until=1.0)
        return network, plan, TimedTraining(float_steps + steps, steps, self._clock() - begin)

    def _stream(self) -> Iterator[tuple[Tensor, Tensor]]:
        epoch = 0
        while True:
            yield from self._batches.epoch(epoch)
            epoch += 1

    def _run(
        self,
        module: nn.Module,
        forward: Callable[[Tensor], Tensor],
        stream: Iterator[tuple[Tensor, Tensor]],
        begin: float,
        *,
        until: float,
    ) -> int:
        from supernet.training.optimizers import adamw

        module.to(self._device).train()
        recipe = self._recipe
        optimizer = adamw(module.named_parameters(), 0.0, weight_decay=recipe.weight_decay)
        steps = 0
        # A synchronised GPU clock at every step would slow the training that it measures.
        every = 1 if self._device == "cpu" else 8
        progress = (self._clock() - begin) / self._seconds
        while progress < until or not steps:
            images, targets = next(stream)
            for group in optimizer.param_groups:
                group["lr"] = recipe.rate(progress)
            optimizer.zero_grad(set_to_none=True)
            images = images.to(self._device)
            if images.ndim == 4:
                images = images.contiguous(memory_format=torch.channels_last)
                if not steps:
                    # Weights too, or each convolution converts the one or the other, and a step
                    # of a small network takes half as long again.
                    module.to(memory_format=torch.channels_last)
            self._loss(forward(images), targets.to(self._device)).backward()
            nn.utils.clip_grad_norm_(module.parameters(), recipe.gradient_clip)
            optimizer.step()
            steps += 1
            if steps % every == 0:
                progress = (self._clock() - begin) / self._seconds
        return steps


def extract(network: Supernet, plan: Any, calibration: list[Tensor]) -> PlainNetwork:
    """Return a quantised network as it is exported, batch norm from calibration images."""
    network = network.cpu()
    return network.extract(plan, network.statistics(plan, calibration))
