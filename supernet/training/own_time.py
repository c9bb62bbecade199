"""Training one architecture on its own for seconds, not for epochs, in as many parts as it gets."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from search_spaces.errors import InputError
from search_spaces.plan import NetworkPlan
from supernet.batchnorm import BatchStatistics
from supernet.elastic import InputQuantizer
from supernet.network import Supernet
from supernet.resolution import resize_images
from supernet.training.checkpoint import load_checkpoint, save_checkpoint
from supernet.training.collapse import CollapseGuard
from supernet.training.optimizers import (
    OptimizerName,
    Precision,
    optimizers,
    restore_states,
    states,
)
from supernet.training.subnets import float_plan
from supernet.training.teacher import RememberingTeacher
from supernet.training.train import EpochBatches, Loss

CHECK_EPOCHS = 10
"""Epochs between two looks at whether a training still gains."""

CHECK_STEPS = 250
"""Steps between them at least: ten epochs of forty examples are thirty steps, in which nothing can
be told from a warm-up."""

PATIENCE = 3
"""Looks without a gain after which it does not."""


@dataclass(frozen=True)
class OwnRecipe:
    """The hyperparameters of a training that is given seconds.

    The learning rate rises, stays, and falls linearly to zero (warm-up, stable, decay; Hu et al.,
    MiniCPM, 2024, section 4): while it stays, nothing depends on when training will end, so an
    architecture can be given more time, or none, by what it has reached so far. What it has
    reached is told by the average of its weights, which stands about where the decay would end;
    at the end of the decay the weights themselves are better, which an average only trails.

    Attributes:
        learning_rate: peak.
        weight_decay: of convolution and linear weights only.
        warmup: steps of the rise.
        decay: share of the whole time in which the rate falls to zero.
        average: decay of the exponential moving average of weights, by step.
        gradient_clip: largest norm of all gradients together.
        distillation: share of the teacher in the loss, 0 to 1.
        float_share: share of the whole time, at its beginning, in which the network trains in
            float; then quantisers begin from the weights and values that they meet (LSQ, Esser
            et al., ICLR 2020, section 3, starts from a trained float network likewise). A step in
            float takes about three quarters of the time.
        optimizer: of weights that mix channels; AdamW trains the rest.
        precision: of convolutions and matrix products; the rest stays in float32.
    """

    learning_rate: float = 5e-3
    weight_decay: float = 0.01
    warmup: int = 50
    decay: float = 0.5
    average: float = 0.995
    gradient_clip: float = 1.0
    distillation: float = 0.5
    float_share: float = 0.0
    optimizer: OptimizerName = "adamw"
    precision: Precision = "float32"

    def rate(self, step: int, spent: float, total: float) -> float:
        """Return the learning rate of ``step`` after ``spent`` of ``total`` seconds."""
        rising = min(1.0, (step + 1) / max(1, self.warmup))
        falling = (1.0 - spent / total) / self.decay if self.decay > 0 else 1.0
        return self.learning_rate * max(0.0, min(rising, falling, 1.0))


def suited_recipe(plan: NetworkPlan, *, float_share: float | None = None) -> OwnRecipe:
    """Return the recipe for an architecture whose inherited weights were trained a little.

    Muon needs far fewer steps than AdamW: of ten classes of letters, after 40 seconds of either,
    3 to 22 KiB named .8 to 1.4 points more rightly (``experiments/supernet/muon.py``);
    a transformer of 33 KiB named 72 % after 400 steps instead of 55, and a
    language model took 3.0 bits a byte after 500 instead of 3.8. In float, and at bits while the
    rate falls, networks bear twice the rate and gradients that are seldom clipped; at 4 bits from
    the first step training by AdamW came apart. Three quarters of the time in float are as good as
    three fifths or better, with weights of 2 and 3 bits too (92.0 % at 3 bits instead of 90.5 with
    half of the time); activations of 2 bits take longer to learn (88.1 % with half of the time in
    float, 84.9 with three quarters, 82.2 with none).

    Args:
        plan: the architecture at its bits.
        float_share: asked for; None takes what suits the bits.
    """
    if float_share is None:
        slow = any(layer.activation_bits < 3 or layer.weight_bits < 2 for layer in plan.layers())
        float_share = 0.5 if slow else 0.75
    recipe = OwnRecipe(float_share=float_share, optimizer="muon")
    if float_share >= 1 - recipe.decay:
        recipe = replace(recipe, learning_rate=0.01, gradient_clip=5.0)
    return recipe


class OwnTraining:
    """One architecture's own training: begun, given time, looked at, given more.

    Args:
        network: trained in place, for ``plan`` alone; begins with the weights it inherits.
        plan: the architecture at its bits.
        batches: training batches.
        loss: (outputs, targets) -> mean loss.
        distillation_loss: (outputs, teacher outputs) -> mean loss.
        teacher: what it learns from beside the targets, if anything.
        recipe: hyperparameters.
        checkpoint: file to go on from and to write to.
        checkpoint_every_s: seconds of training between two of them.
        now: the clock that seconds are read from.
        device: where to compute.

    Attributes:
        step, spent: optimiser steps and seconds so far.
        asked: seconds in which a teacher that remembers was asked, which are no part of ``spent``;
            of this process alone.
        checks: what each look at its validation gave.
        ends: seconds after which it ends because it gained no more; infinite before.
        decayed: whether the learning rate has fallen to zero.
        at_bits: whether it trains at its bits by now.
    """

    def __init__(
        self,
        network: Supernet,
        plan: NetworkPlan,
        *,
        batches: EpochBatches,
        loss: Loss,
        distillation_loss: Loss,
        teacher: RememberingTeacher | None = None,
        recipe: OwnRecipe | None = None,
        checkpoint: Path | None = None,
        checkpoint_every_s: float = 20.0,
        now: Callable[[], float] = time.monotonic,
        device: torch.device | str = "cpu",
    ) -> None:
        self.network = network.to(device)
        self.plan = plan
        self.batches = batches
        self.loss, self.distillation_loss = loss, distillation_loss
        self.teacher = teacher
        self.recipe = recipe or OwnRecipe()
        self.checkpoint = checkpoint
        self.checkpoint_every_s = checkpoint_every_s
        self.now = now
        self.device = torch.device(device)
        self.step = 0
        self.spent = 0.0
        self.asked = 0.0
        self._begun = 0.0
        self.checks: list[float] = []
        self.ends = math.inf
        self.decayed = False
        self.at_bits = self.recipe.float_share <= 0
        self._in_float = float_plan(plan)
        self._guard = CollapseGuard(self.recipe.learning_rate)
        # Looking them up in all modules takes as long as a small layer's step.
        self._parameters = dict(self.network.named_parameters())
        rate, decay = self.recipe.learning_rate, self.recipe.weight_decay
        named = self._parameters.items()
        self._optimizers = optimizers(self.recipe.optimizer, named, rate, weight_decay=decay)
        self._average: dict[str, Tensor] = {}
        if checkpoint is not None and checkpoint.exists():
            self._restore(checkpoint)

    def run(
        self,
        *,
        until: float,
        total: float,
        validate: Callable[[Supernet], float] | None = None,
    ) -> None:
        """Train until ``until`` seconds of this training are spent, of ``total`` it may have.

        Seconds spent before, in this process or another, count; those in which a teacher that
        remembers is asked do not.

        Args:
            until: seconds after which to stop.
            total: seconds after which the learning rate is to be zero.
            validate: gives a metric of a network, larger is better. Where averaged weights no
                longer gain by it, the learning rate falls from then on and training ends early.

        Raises:
            TrainingCollapse: the loss is no longer finite.
        """
        saved = self.spent
        self._begun = self.now() - self.spent
        self.network.train()
        while self.spent < (until := min(until, self.ends)):
            total = min(total, self.ends)
            epoch, index = divmod(self.step, len(self.batches))
            for images, targets in self.batches.epoch(epoch, start=index):
                self._train_step(images, targets, total)
                if validate is not None and self._due(total):
                    self._look(validate(self.reached()))
                    total, until = min(total, self.ends), min(until, self.ends)
                self.spent = self.now() - self._begun
                if self.checkpoint is not None and self.spent - saved >= self.checkpoint_every_s:
                    self.save(self.checkpoint)
                    saved = self.spent
                if self.spent >= until:
                    break
        self.decayed = self.spent >= min(total, self.ends)
        if self.checkpoint is not None and self.spent > saved:
            self.save(self.checkpoint)

    def _due(self, total: float) -> bool:
        """Whether it is time to look: now and then while the learning rate stays."""
        stays = self.spent < total * (1 - self.recipe.decay) and math.isinf(self.ends)
        epochs = max(CHECK_EPOCHS, math.ceil(CHECK_STEPS / len(self.batches)))
        return stays and self.step % (epochs * len(self.batches)) == 0

    def _look(self, value: float) -> None:
        self.checks.append(value)
        recent, before = self.checks[-PATIENCE:], self.checks[:-PATIENCE]
        if before and max(recent) <= max(before):
            self.ends = self.spent / (1 - self.recipe.decay)

    @property
    def plan_now(self) -> NetworkPlan:
        """The architecture as it is trained now: in float, or at its bits."""
        return self.plan if self.at_bits else self._in_float

    def _train_step(self, images: Tensor, targets: Tensor, total: float) -> None:
        if not self.at_bits and self.spent >= self.recipe.float_share * total:
            self._take_bits()
        images, targets = images.to(self.device), targets.to(self.device)
        taught = None
        if self.teacher is not None and self.recipe.distillation > 0:
            begun = self.now()
            with self._mixed():
                taught = self.teacher.outputs(images, *divmod(self.step, len(self.batches)))
            if self.teacher.remembers:
                # What a teacher remembers for all is not paid for by the first who asks.
                took = self.now() - begun
                self._begun += took
                self.asked += took
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.recipe.rate(self.step, self.spent, total)
        resized = resize_images(images, self.plan.input_size)
        outputs = self._outputs(resized.contiguous(memory_format=torch.channels_last))
        loss = self.loss(outputs, targets)
        if taught is not None:
            share = self.recipe.distillation
            loss = (1 - share) * loss + share * self.distillation_loss(outputs, taught)
        for optimizer in self._optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._guard.losses(self.step + 1, [loss.item()])
        own = self._own()
        norm = nn.utils.clip_grad_norm_(own.values(), self.recipe.gradient_clip, foreach=True)
        self._guard.gradients(self.step + 1, norm.item())
        for optimizer in self._optimizers:
            optimizer.step()
        self.step += 1
        self._follow(own)

    def _outputs(self, images: Tensor) -> Tensor:
        with self._mixed():
            return self.network(images, self.plan_now, BatchStatistics()).float()

    def _mixed(self) -> torch.autocast:
        mixed = self.recipe.precision == "bfloat16"
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=mixed)

    def _take_bits(self) -> None:
        """Go over to the architecture's bits; quantisers begin anew from what they meet."""
        self.at_bits = True
        for name, flags in self.network.named_buffers():
            if name.endswith("initialized"):
                flags.zero_()
        for module in self.network.modules():
            if isinstance(module, InputQuantizer):
                module.skip_unused()

    def _own(self) -> dict[str, nn.Parameter]:
        """Return the parameters that the architecture uses, after a backward pass."""
        return {n: p for n, p in self._parameters.items() if p.grad is not None}

    @torch.no_grad()
    def _follow(self, own: dict[str, nn.Parameter]) -> None:
        if self._average.keys() != own.keys():
            self._average = {n: self._average.get(n, p.detach().clone()) for n, p in own.items()}
        # A short memory at first, so that where it began is soon forgotten.
        keep = min(self.recipe.average, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(
            [self._average[n] for n in own], [p.detach() for p in own.values()], 1 - keep
        )

    @torch.no_grad()
    def reached(self) -> Supernet:
        """Return the network as far as training has come, to evaluate; it shares no tensors.

        With the average of its weights, and with the weights themselves once it is decayed.
        """
        found = copy.deepcopy(self.network)
        for name, parameter in found.named_parameters():
            parameter.grad = None
            if name in self._average and not self.decayed:
                parameter.copy_(self._average[name])
        return found

    def save(self, path: Path) -> None:
        """Write everything that the next step depends on."""
        parameters, buffers = self._parameters, dict(self.network.named_buffers())
        tensors = {f"model.{n}": parameters[n].detach() for n in self._average}
        tensors |= {f"model.{n}": value for n, value in buffers.items()}
        tensors |= {f"average.{n}": value for n, value in self._average.items()}
        tensors |= states(self._optimizers, {n: parameters[n] for n in self._average})
        state = {"step": self.step, "spent": self.spent, "checks": self.checks}
        state["decayed"], state["at_bits"] = self.decayed, self.at_bits
        # JSON has no infinity.
        state["ends"] = self.ends if math.isfinite(self.ends) else None
        save_checkpoint(path, tensors, state)

    @torch.no_grad()
    def _restore(self, path: Path) -> None:
        tensors, state = load_checkpoint(path)
        known = {**self._parameters, **dict(self.network.named_buffers())}
        for full, value in tensors.items():
            kind, _, name = full.partition(".")
            key = ""
            if kind == "optimizer":
                key, _, name = name.partition(".")
            if name not in known or (key != "step" and known[name].shape != value.shape):
                raise InputError(
                    f"{path} holds {full}, which the architecture has not: it is of another "
                    "training; remove the file, and this one begins anew"
                )
            if kind == "model":
                known[name].copy_(value)
            elif kind == "average":
                self._average[name] = value.to(self.device)
        restore_states(self._optimizers, self._parameters, tensors)
        self.step, self.spent = int(state["step"]), float(state["spent"])
        self.checks = list(state["checks"])
        self.decayed = bool(state.get("decayed", False))
        self.at_bits = bool(state.get("at_bits", True))
        self.ends = math.inf if state["ends"] is None else float(state["ends"])
        if not math.isfinite(self.spent):
            raise InputError(f"{path}: {self.spent} seconds spent cannot be; remove the file")
