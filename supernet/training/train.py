"""Training a supernet: several subnets a step, exactly resumable at any step."""

from __future__ import annotations

import copy
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from search_spaces.errors import InputError
from search_spaces.plan import NetworkPlan
from supernet.batchnorm import BatchNorm
from supernet.network import Supernet
from supernet.quantizers.mixture import set_progress
from supernet.resolution import resize_images
from supernet.training import distributed
from supernet.training.checkpoint import load_checkpoint, save_checkpoint
from supernet.training.collapse import CollapseGuard, TrainingCollapse
from supernet.training.optimizers import (
    OptimizerName,
    Precision,
    optimizers,
    restore_states,
    states,
)
from supernet.training.subnets import Schedule, float_plan
from supernet.training.teacher import CountedViews, RememberingTeacher
from supernet.training.weights import load_weights, weights_of_plain

Loss = Callable[[Tensor, Tensor], Tensor]
STATISTICS_BATCHES = 20
"""So many batches give the batch-norm statistics of a teacher that is done with training."""

Teacher = Callable[[Tensor], Tensor]
"""Images (batch, channels, height, width) -> outputs (batch, units), without gradients."""


class EpochBatches(Protocol):
    """Training batches as a function of (epoch, index).

    Those that are :class:`~supernet.training.teacher.CountedViews` too have a teacher's outputs
    remembered where the schedule allows it.
    """

    def __len__(self) -> int:
        """Batches in one epoch."""
        ...

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (images, targets) from batch ``start`` of ``epoch`` on."""
        ...


@dataclass(frozen=True)
class Recipe:
    """The hyperparameters of one training.

    Attributes:
        steps: optimiser steps.
        learning_rate: peak; linear warm-up over ``warmup`` of the steps, then cosine to zero.
        weight_decay: of convolution and linear weights only.
        gradient_clip: largest norm of all gradients together.
        distillation: subnets learn from the teacher's outputs, otherwise from the targets.
        precision: of convolutions and matrix products; parameters, quantisers and losses stay
            in float32.
        optimizer: of weights that mix channels; AdamW trains the rest.
        targets: learn from the targets; False learns from a teacher that does not change alone,
            so that images need no labels.
        restart: share of the steps after which a second cycle of the learning rate begins, where
            the first trains a teacher to its end; 0 for one cycle.
    """

    steps: int
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    warmup: float = 0.05
    gradient_clip: float = 1.0
    distillation: bool = True
    precision: Precision = "float32"
    restart: float = 0.0
    targets: bool = True
    optimizer: OptimizerName = "adamw"

    def rate(self, step: int) -> float:
        """Return the learning rate of ``step``."""
        second = round(self.restart * self.steps)
        begin, end = (0, second) if step < second else (second, self.steps)
        rising = max(1, round(self.warmup * (end - begin)))
        if step - begin < rising:
            return self.learning_rate * (step - begin + 1) / rising
        share = (step - begin - rising) / max(1, end - begin - rising)
        return 0.5 * self.learning_rate * (1 + math.cos(math.pi * share))


class SubnetTeacher:
    """The outputs of one subnet with weights of its own, by batch statistics.

    Args:
        supernet: whose weights are used as they are when it is called.
        plan: the subnet.
    """

    def __init__(self, supernet: Supernet, plan: NetworkPlan) -> None:
        self.supernet = supernet
        self.plan = plan

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Return outputs (batch, units) of images (batch, channels, height, width)."""
        images = resize_images(images, self.plan.input_size)
        images = images.contiguous(memory_format=torch.channels_last)
        return self.supernet(images, self.plan, distributed.batch_norm())

    def settled(self, batches: EpochBatches) -> Teacher:
        """Return the subnet with statistics of the first batches, the same for every image.

        Args:
            batches: training batches; the first of the first epoch are used.
        """
        size = self.plan.input_size

        def resized(images: Tensor) -> Tensor:
            device = next(self.supernet.parameters()).device
            images = resize_images(images.to(device), size)
            return images.contiguous(memory_format=torch.channels_last)

        first = itertools.islice(batches.epoch(0), STATISTICS_BATCHES)
        statistics = self.supernet.statistics(self.plan, (resized(x) for x, _ in first))
        return lambda images: self.supernet.evaluate(resized(images), self.plan, statistics)


class Trainer:
    """Trains a supernet with weights shared between the subnets of each step.

    Every step draws its batch and its subnets from (seed, step) alone and the checkpoint
    holds all other state, so training that was interrupted at any moment ends with the
    same weights as training that was not. In a process group (see
    :mod:`supernet.training.distributed`) each process computes on its part of every batch.

    Args:
        supernet: trained in place.
        sampler: gives the subnets of a step, see :class:`~supernet.training.subnets.Schedule`.
        batches: training batches.
        loss: (outputs, targets) -> mean loss.
        distillation_loss: (outputs, teacher outputs) -> mean loss.
        recipe: hyperparameters.
        teacher: what every subnet learns from beside the targets; by default the schedule says. One
            that remembers is asked once for each image.
        validate: (supernet, teacher's plan) -> metric, larger is better; a fall ends training.
        validate_every: steps between validations; an epoch by default.
        checkpoint: file to continue from and to write to.
        checkpoint_every_s: seconds between checkpoints.
        device: where to compute.
        compiled: run steps of a single, unchanging float subnet (the warm-up of the largest)
            through ``torch.compile``.
        on_step: called after each step with its record.

    Attributes:
        notes: what whoever trains wants kept in the checkpoint, JSON-able.
    """

    def __init__(
        self,
        supernet: Supernet,
        *,
        sampler: Schedule,
        batches: EpochBatches,
        loss: Loss,
        distillation_loss: Loss,
        recipe: Recipe,
        teacher: Teacher | RememberingTeacher | None = None,
        validate: Callable[[Supernet, NetworkPlan], float] | None = None,
        validate_every: int | None = None,
        checkpoint: Path | None = None,
        checkpoint_every_s: float = 60.0,
        device: torch.device | str = "cpu",
        compiled: bool = False,
        on_step: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        self.supernet = supernet.to(device)
        self.sampler = sampler
        self.batches = batches
        self.loss, self.distillation_loss = loss, distillation_loss
        self.recipe = recipe
        self.teacher = teacher
        self.validate = validate
        self.validate_every = len(batches) if validate_every is None else validate_every
        self.checkpoint = checkpoint
        self.checkpoint_every_s = checkpoint_every_s
        self.device = torch.device(device)
        self.compiled = compiled
        self.on_step = on_step
        self.step = 0
        self.history: list[dict[str, Any]] = []
        self.notes: dict[str, Any] = {}
        self._optimizers = self._made_optimizers()
        self._guard = CollapseGuard(recipe.learning_rate)
        self._frozen: SubnetTeacher | None = None
        self._remembering: RememberingTeacher | None = None
        self._compiled: tuple[NetworkPlan, Callable[[Tensor], Tensor]] | None = None
        self._last_plans: Sequence[NetworkPlan] = ()

    def _made_optimizers(self) -> tuple[torch.optim.Optimizer, ...]:
        return optimizers(
            self.recipe.optimizer,
            self.supernet.named_parameters(),
            self.recipe.learning_rate,
            weight_decay=self.recipe.weight_decay,
        )

    def run(self, *, until: int | None = None) -> None:
        """Train to the last step, or to step ``until``, from the checkpoint if there is one.

        Raises:
            TrainingCollapse: the loss is no longer finite, or validation fell for good.
            InputError: the checkpoint is of another training.
        """
        if self.checkpoint is not None and self.checkpoint.exists():
            self.restore(self.checkpoint)
        distributed.take_from_first(self.supernet)
        distributed.barrier()
        last = self.recipe.steps if until is None else min(until, self.recipe.steps)
        saved = time.monotonic()
        while self.step < last:
            epoch, index = divmod(self.step, len(self.batches))
            for images, targets in self.batches.epoch(epoch, start=index):
                record = self.train_step(images, targets)
                if self.on_step is not None and distributed.rank() == 0:
                    self.on_step(record)
                finished = self.step == self.recipe.steps
                due = time.monotonic() - saved >= self.checkpoint_every_s
                if self.checkpoint is not None and (finished or due):
                    if distributed.rank() == 0:
                        self.save(self.checkpoint)
                    saved = time.monotonic()
                if self.step >= last:
                    break
        distributed.barrier()

    def train_step(self, images: Tensor, targets: Tensor) -> dict[str, Any]:
        """Train one step on ``images`` (batch, channels, height, width) and their targets."""
        self.supernet.train()
        progress = self.step / self.recipe.steps
        set_progress(self.supernet, progress)
        plans = self.sampler.plans(self.step, progress)
        rate = self.recipe.rate(self.step)
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad(set_to_none=True)
        images, targets = images.to(self.device), targets.to(self.device)
        if distributed.world_size() > 1:
            self._initialise_quantisers(images, plans)
            images, targets = distributed.own_part(images), distributed.own_part(targets)
        losses = self._backward(images, targets, plans, progress)
        losses = distributed.average_values(losses)
        self._guard.losses(self.step + 1, losses)
        distributed.average_gradients(self.supernet.parameters())
        norm = nn.utils.clip_grad_norm_(self.supernet.parameters(), self.recipe.gradient_clip)
        self._guard.gradients(self.step + 1, norm.item())
        for optimizer in self._optimizers:
            optimizer.step()
        self.step += 1
        record: dict[str, Any] = {
            "step": self.step,
            "loss": losses[0],
            "subnet_loss": sum(losses[1:]) / max(1, len(losses) - 1),
            "learning_rate": rate,
        }
        watched = self.sampler.watched(plans, progress)
        due = self.validate is not None and self.step % self.validate_every == 0
        if self.validate is not None and due and watched is not None:
            record["validation"] = self.validate(self.supernet, watched)
        logged = self.step % max(1, len(self.batches) // 10) == 0
        if logged or "validation" in record or self.step == self.recipe.steps:
            self.history.append(record)
        if "validation" in record:
            self._guard.validation(self.step, record["validation"])
        return record

    def _backward(
        self, images: Tensor, targets: Tensor, plans: Sequence[NetworkPlan], progress: float
    ) -> list[float]:
        norm = distributed.batch_norm()
        sizes: dict[tuple[int, int], Tensor] = {}
        taught = self._taught(images, progress)
        first: Tensor | None = None
        learn_from_first = self.recipe.distillation and self.sampler.teaching(progress) == "first"
        losses = []
        for plan in plans:
            size = plan.input_size
            if size not in sizes:
                sizes[size] = resize_images(images, size).contiguous(
                    memory_format=torch.channels_last
                )
            outputs = self._outputs(sizes[size], plan, plans, norm)
            beside: Tensor | float = 0.0
            if taught is not None and not self.recipe.targets:
                loss = self.distillation_loss(outputs, taught)
            elif taught is not None:
                # The targets and the teacher with equal weight, as in Once-for-All's training.
                beside = self.distillation_loss(outputs, taught)
                loss = self.loss(outputs, targets) + beside
            elif first is None or not learn_from_first:
                loss = self.loss(outputs, targets)
            else:
                loss = self.distillation_loss(outputs, first)
            if first is None:
                first = outputs.detach()
            loss.backward()
            losses.append((loss - beside).item())  # of one scale, beside a teacher or not
        self._last_plans = plans
        return losses

    def _taught(self, images: Tensor, progress: float) -> Tensor | None:
        """Return the outputs (batch, units) of a teacher that does not change, if there is one."""
        teaching = self.sampler.teaching(progress)
        if not self.recipe.distillation or (self.teacher is None and teaching == "none"):
            return None
        if isinstance(self.teacher, RememberingTeacher):
            return self._remembered(self.teacher, images)
        if self.teacher is not None:
            return self._forward(self.teacher, images)
        if teaching == "first":
            return None
        if self._frozen is None:
            self._frozen = self._freeze(self.supernet)
        if teaching == "frozen" or not isinstance(self.batches, CountedViews):
            return self._forward(self._frozen, images)
        if self._remembering is None:
            self._remembering = RememberingTeacher(self._frozen.settled(self.batches), self.batches)
        return self._remembered(self._remembering, images)

    def _remembered(self, teacher: RememberingTeacher, images: Tensor) -> Tensor:
        place = divmod(self.step, len(self.batches))
        return self._forward(lambda x: teacher.outputs(x, *place), images)

    def _freeze(self, supernet: Supernet) -> SubnetTeacher:
        largest = float_plan(supernet.plan(supernet.space.largest()))
        return SubnetTeacher(copy.deepcopy(supernet), largest)

    def _outputs(
        self, x: Tensor, plan: NetworkPlan, plans: Sequence[NetworkPlan], norm: BatchNorm
    ) -> Tensor:
        def run(inputs: Tensor) -> Tensor:
            return self.supernet(inputs, plan, norm)

        # Compiling takes longer than many steps, so it is for subnets that come again and again,
        # and quantisers read their step as a number, at which a compiled graph would break.
        again = list(plans) == [plan] == list(self._last_plans)
        if not (self.compiled and again and plan == float_plan(plan)):
            return self._forward(run, x)
        if self._compiled is None or self._compiled[0] != plan:
            self._compiled = (plan, torch.compile(run))
        return self._forward(self._compiled[1], x)

    def _forward(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        if self.recipe.precision == "float32":
            return function(x)
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            return function(x).float()

    @torch.no_grad()
    def _initialise_quantisers(self, images: Tensor, plans: Sequence[NetworkPlan]) -> None:
        """Let new quantisers see the whole batch, so that all processes begin with one step."""
        if self.supernet.fully_initialized():
            return
        for plan in plans:
            resized = resize_images(images, plan.input_size).contiguous(
                memory_format=torch.channels_last
            )
            self._forward(partial(self.supernet, arch=plan), resized)

    def save(self, path: Path) -> None:
        """Write everything that the next step depends on."""
        tensors = {f"model.{k}": v for k, v in self.supernet.state_dict().items()}
        tensors |= states(self._optimizers, dict(self.supernet.named_parameters()))
        if self._frozen is not None:
            frozen = self._frozen.supernet.state_dict()
            tensors.update({f"teacher.{k}": v for k, v in frozen.items()})
        state = {
            "step": self.step,
            "recipe": asdict(self.recipe),
            "schedule": type(self.sampler).__name__,
            "batches_per_epoch": len(self.batches),
            "space": self.supernet.space.name,
            "history": self.history,
            "notes": self.notes,
        }
        save_checkpoint(path, tensors, state)

    def restore(self, path: Path) -> None:
        """Continue from ``path``.

        Raises:
            InputError: the file is missing or damaged, or of another training: the message names
                what changed.
        """
        tensors, state = load_checkpoint(path)
        if "optimizer" not in state.get("recipe", {}) and self.recipe.optimizer != "adamw":
            # Earlier versions had no other, and a training goes on as it began.
            self.recipe = replace(self.recipe, optimizer="adamw")
            self._optimizers = self._made_optimizers()
        self._refuse_changes(path, state)
        missing = load_weights(self.supernet, tensors, prefix="model.", source=str(path))
        own = self.supernet.state_dict()
        unknown = sorted(
            name
            for name in tensors
            if name.startswith("model.") and name.removeprefix("model.") not in own
        )
        for names, what in ((missing, "lacks"), (unknown, "has, beyond this network,")):
            if names:
                raise InputError(
                    f"{path} {what} {len(names)} tensors, such as {names[0]}: it was trained for "
                    "another space; restore the space of the job, or begin a new run"
                )
        restore_states(self._optimizers, dict(self.supernet.named_parameters()), tensors)
        if any(name.startswith("teacher.") for name in tensors):
            self._frozen = self._freeze(self.supernet)
            load_weights(self._frozen.supernet, tensors, prefix="teacher.", source=str(path))
        self.step = state["step"]
        self.history = list(state["history"])
        self.notes = dict(state.get("notes", {}))
        # Anew, or after a second look at the file its first, low values would seem a fall.
        self._guard = CollapseGuard(self.recipe.learning_rate)
        for record in self.history:
            if "validation" in record:
                self._guard.validation(record["step"], record["validation"])

    def _refuse_changes(self, path: Path, state: dict[str, Any]) -> None:
        if "step" not in state or "recipe" not in state:
            raise InputError(
                f"{path} holds weights but no state of a training, so it cannot be continued; "
                "to start from its weights give it as supernet.init_from of a new run"
            )
        # A setting that the file does not know had the default when it was written.
        before = {f.name: f.default for f in fields(Recipe)} | state["recipe"]
        now = asdict(self.recipe)
        for name, value in (
            ("schedule", type(self.sampler).__name__),
            ("batches_per_epoch", len(self.batches)),
            ("space", self.supernet.space.name),
        ):
            now[name], before[name] = value, state.get(name, value)
        changed = [
            f"{name} was {before[name]} and is now {now[name]}"
            for name in now
            if before[name] != now[name]
        ]
        if changed:
            raise InputError(
                f"{path} is of another training: {'; '.join(changed)}; restore the job as it was, "
                "or begin a new run"
            )


def frozen_teacher(supernet: Supernet, checkpoint: Path) -> SubnetTeacher:
    """Return the teacher that a training left in its checkpoint.

    That is the largest network as it was when it was trained to its end; where the schedule froze
    none, the largest of the finished ``supernet`` at its highest bits.

    Args:
        supernet: trained, of the space of the checkpoint.
        checkpoint: written by :class:`Trainer`.

    Raises:
        InputError: the checkpoint is missing or damaged.
    """
    tensors, _ = load_checkpoint(checkpoint)
    largest = supernet.plan(supernet.space.largest())
    if not any(name.startswith("teacher.") for name in tensors):
        return SubnetTeacher(supernet, largest)
    frozen = copy.deepcopy(supernet)
    load_weights(frozen, tensors, prefix="teacher.", source=str(checkpoint))
    return SubnetTeacher(frozen, float_plan(largest))


__all__ = [
    "EpochBatches",
    "Loss",
    "Recipe",
    "SubnetTeacher",
    "Teacher",
    "Trainer",
    "TrainingCollapse",
    "frozen_teacher",
    "load_weights",
    "weights_of_plain",
]
