"""Training a supernet: several subnets a step, exactly resumable at any step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from search_spaces.errors import InputError, NasError
from search_spaces.plan import NetworkPlan
from supernet.checkpoint import load_checkpoint, save_checkpoint
from supernet.network import Supernet
from supernet.resolution import resize_images

Loss = Callable[[Tensor, Tensor], Tensor]


class TrainingCollapse(NasError):
    """The loss became infinite or not a number; the message names the step and the cure."""

    exit_code = 2


class EpochBatches(Protocol):
    """Training batches as a function of (epoch, index)."""

    def __len__(self) -> int:
        """Batches in one epoch."""
        ...

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (images, targets) from batch ``start`` of ``epoch`` on."""
        ...


class Sampler(Protocol):
    """Which subnets a step trains."""

    def plans(self, step: int, progress: float) -> list[NetworkPlan]:
        """Return the subnets of a step, the teacher first."""
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
    """

    steps: int
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    warmup: float = 0.05
    gradient_clip: float = 1.0
    distillation: bool = True

    def rate(self, step: int) -> float:
        """Return the learning rate of ``step``."""
        rising = max(1, round(self.warmup * self.steps))
        if step < rising:
            return self.learning_rate * (step + 1) / rising
        share = (step - rising) / max(1, self.steps - rising)
        return 0.5 * self.learning_rate * (1 + math.cos(math.pi * share))


class Trainer:
    """Trains a supernet with weights shared between the subnets of each step.

    Every step draws its batch and its subnets from (seed, step) alone and the checkpoint
    holds all other state, so training that was interrupted at any moment ends with the
    same weights as training that was not.

    Args:
        supernet: trained in place.
        sampler: gives the subnets of a step, the teacher first.
        batches: training batches.
        loss: (outputs, targets) -> mean loss.
        distillation_loss: (outputs, teacher outputs) -> mean loss.
        recipe: hyperparameters.
        checkpoint: file to continue from and to write to.
        checkpoint_every_s: seconds between checkpoints.
        device: where to compute.
        on_step: called after each step with its record.
    """

    def __init__(
        self,
        supernet: Supernet,
        *,
        sampler: Sampler,
        batches: EpochBatches,
        loss: Loss,
        distillation_loss: Loss,
        recipe: Recipe,
        checkpoint: Path | None = None,
        checkpoint_every_s: float = 60.0,
        device: torch.device | str = "cpu",
        on_step: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        self.supernet = supernet.to(device)
        self.sampler = sampler
        self.batches = batches
        self.loss, self.distillation_loss = loss, distillation_loss
        self.recipe = recipe
        self.checkpoint = checkpoint
        self.checkpoint_every_s = checkpoint_every_s
        self.device = torch.device(device)
        self.on_step = on_step
        self.step = 0
        self.history: list[dict[str, Any]] = []
        self._optimizer = make_optimizer(supernet, recipe)
        self._largest_size = supernet.space.plan(supernet.space.largest()).input_shape[1]

    def run(self, *, until: int | None = None) -> None:
        """Train to the last step, or to step ``until``, from the checkpoint if there is one.

        Raises:
            TrainingCollapse: the loss is no longer finite.
        """
        if self.checkpoint is not None and self.checkpoint.exists():
            self.restore(self.checkpoint)
        last = self.recipe.steps if until is None else min(until, self.recipe.steps)
        saved = time.monotonic()
        while self.step < last:
            epoch, index = divmod(self.step, len(self.batches))
            for images, targets in self.batches.epoch(epoch, start=index):
                record = self.train_step(images, targets)
                if self.on_step is not None:
                    self.on_step(record)
                finished = self.step == self.recipe.steps
                due = time.monotonic() - saved >= self.checkpoint_every_s
                if self.checkpoint is not None and (finished or due):
                    self.save(self.checkpoint)
                    saved = time.monotonic()
                if self.step >= last:
                    break

    def train_step(self, images: Tensor, targets: Tensor) -> dict[str, Any]:
        """Train one step on ``images`` (batch, channels, height, width) and their targets."""
        self.supernet.train()
        plans = self.sampler.plans(self.step, self.step / self.recipe.steps)
        rate = self.recipe.rate(self.step)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.zero_grad(set_to_none=True)
        images, targets = images.to(self.device), targets.to(self.device)
        losses = self._backward(images, targets, plans)
        if not all(math.isfinite(value) for value in losses):
            raise TrainingCollapse(
                f"training collapsed in step {self.step + 1}: the losses are {losses}; "
                f"lower the learning rate (now {self.recipe.learning_rate:g})"
            )
        norm = nn.utils.clip_grad_norm_(self.supernet.parameters(), self.recipe.gradient_clip)
        if not math.isfinite(norm.item()):
            raise TrainingCollapse(
                f"training collapsed in step {self.step + 1}: the gradients are not finite; "
                f"lower the learning rate (now {self.recipe.learning_rate:g})"
            )
        self._optimizer.step()
        self.step += 1
        record = {
            "step": self.step,
            "loss": losses[0],
            "subnet_loss": sum(losses[1:]) / max(1, len(losses) - 1),
            "learning_rate": rate,
        }
        if self.step % max(1, len(self.batches) // 10) == 0 or self.step == self.recipe.steps:
            self.history.append(record)
        return record

    def _backward(
        self, images: Tensor, targets: Tensor, plans: Sequence[NetworkPlan]
    ) -> list[float]:
        sizes: dict[int, Tensor] = {}
        teacher: Tensor | None = None
        losses = []
        for plan in plans:
            size = plan.input_shape[1]
            if size not in sizes:
                sizes[size] = resize_images(images, size).contiguous(
                    memory_format=torch.channels_last
                )
            outputs = self.supernet(sizes[size], plan)
            if teacher is None or not self.recipe.distillation:
                loss = self.loss(outputs, targets)
            else:
                loss = self.distillation_loss(outputs, teacher)
            if teacher is None:
                teacher = outputs.detach()
            loss.backward()
            losses.append(loss.item())
        return losses

    def save(self, path: Path) -> None:
        """Write everything that the next step depends on."""
        tensors = {f"model.{k}": v for k, v in self.supernet.state_dict().items()}
        for name, parameter in self.supernet.named_parameters():
            for key, value in self._optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{key}.{name}"] = torch.as_tensor(value)
        state = {
            "step": self.step,
            "recipe": asdict(self.recipe),
            "space": self.supernet.space.name,
            "history": self.history,
        }
        save_checkpoint(path, tensors, state)

    def restore(self, path: Path) -> None:
        """Continue from ``path``.

        Raises:
            InputError: the file is missing, damaged, or of another space.
        """
        tensors, state = load_checkpoint(path)
        load_weights(self.supernet, tensors, prefix="model.", source=str(path))
        for name, parameter in self.supernet.named_parameters():
            entry = {
                key: tensors[f"optimizer.{key}.{name}"].to(parameter.device)
                for key in ("step", "exp_avg", "exp_avg_sq")
                if f"optimizer.{key}.{name}" in tensors
            }
            if entry:
                self._optimizer.state[parameter] = entry
        self.step = state["step"]
        self.history = list(state["history"])


def make_optimizer(supernet: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Return AdamW that decays convolution and linear weights, and nothing else."""
    decayed, kept = [], []
    for name, parameter in supernet.named_parameters():
        (decayed if name.endswith(".weight") else kept).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": recipe.weight_decay},
            {"params": kept, "weight_decay": 0.0},
        ],
        lr=recipe.learning_rate,
        fused=True,
    )


def weights_of_plain(supernet: Supernet, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a plain network under the supernet's names.

    Args:
        supernet: whose largest architecture the plain network is, see :meth:`Supernet.extract`.
        tensors: its ``state_dict()``; batch-norm statistics are left out, since the supernet
            has none.
    """
    renamed = {}
    plan = supernet.space.plan(supernet.space.largest())
    for i, block in enumerate(plan.blocks):
        for layer in block.layers:
            prefix = f"layers.{layer.name.replace('.', '_')}"
            for theirs, ours in (
                ("op.weight", "weight"),
                ("op.bias", "beta"),
                ("norm.weight", "gamma"),
                ("norm.bias", "beta"),
            ):
                tensor = tensors.get(f"{i}.ops.{layer.role}.{theirs}")
                if tensor is not None:
                    # A linear layer's weights are those of a 1x1 convolution.
                    flat = ours == "weight" and tensor.dim() == 2
                    renamed[f"{prefix}.{ours}"] = tensor[..., None, None] if flat else tensor
    return renamed


def load_weights(
    supernet: nn.Module, tensors: dict[str, Tensor], *, prefix: str = "", source: str = "weights"
) -> list[str]:
    """Load every tensor whose name and shape fit, quantiser state included.

    A classifier for another number of outputs is left as it is.

    Returns:
        Names of the supernet's tensors that were not found and keep their values.

    Raises:
        InputError: not one tensor fits, or one of the same name has another shape.
    """
    own = supernet.state_dict()
    found = {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix) and name.removeprefix(prefix) in own
    }
    if not found:
        raise InputError(
            f"{source} has no tensor of this network: it has {sorted(tensors)[:3]}..., "
            f"the network {sorted(own)[:3]}..."
        )
    found = {
        name: tensor
        for name, tensor in found.items()
        if "classifier" not in name or tensor.shape == own[name].shape
    }
    for name, tensor in found.items():
        if tensor.shape != own[name].shape:
            raise InputError(
                f"{source}: {name} has the shape {tuple(tensor.shape)}, the space asks for "
                f"{tuple(own[name].shape)}"
            )
    supernet.load_state_dict(found, strict=False)
    return sorted(set(own) - set(found))
