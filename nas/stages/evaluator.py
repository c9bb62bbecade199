"""The accuracy of a subnet with inherited weights."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nas.stages.early_stopping import accuracy_upper_limit
from search_spaces.space import Arch
from supernet.resolution import resize_images

if TYPE_CHECKING:
    from torch import Tensor

    from nas.data.splits import DataSplits, Subset
    from nas.tasks import Task
    from search_spaces.plan import NetworkPlan
    from supernet.network import Supernet
    from supernet.plain import PlainNetwork

_CACHE_BYTES = 512 * 2**20


@dataclass(frozen=True)
class EarlyStop:
    """When to give up on an architecture before all validation images are seen.

    Attributes:
        images: after so many of them.
        risk: probability of giving up on one that would have reached ``needed``.
        needed: accuracy below which the architecture is of no use.
    """

    images: int
    risk: float
    needed: float


@dataclass(frozen=True)
class Quality:
    """What the validation images say of a network.

    Attributes:
        accuracy: the task's metric over the images seen.
        images: how many were seen.
        stopped: whether evaluation was given up before the last image.
        upper: largest plausible accuracy on all images; equal to ``accuracy`` unless stopped.
        worst_class_accuracy: the lowest accuracy of a class; NaN for a task without classes or
            when stopped.
    """

    accuracy: float
    images: int
    stopped: bool = False
    upper: float = float("nan")
    worst_class_accuracy: float = float("nan")


class Evaluator:
    """Extracts subnets with statistics of their own and evaluates them.

    Args:
        supernet: trained.
        splits: the data.
        task: gives the metric.
        batch_size: images at once.
        device: where to compute.
    """

    def __init__(
        self,
        supernet: Supernet,
        splits: DataSplits,
        task: Task,
        *,
        batch_size: int = 250,
        device: str = "cpu",
    ) -> None:
        self.supernet = supernet
        self.splits = splits
        self.task = task
        self.batch_size = batch_size
        self.device = device
        self.finetuned: dict[Arch, Supernet] = {}
        self._batches: dict[tuple[str, int, int], list[tuple[Tensor, Tensor]]] = {}
        self._cached = 0

    def network(self, arch: Arch | NetworkPlan) -> PlainNetwork:
        """Return ``arch`` as a plain network, batch norm calibrated at its own bits.

        From its own weights where ``finetuned`` has them, otherwise from the shared ones.
        """
        own = self.finetuned.get(arch) if isinstance(arch, Arch) else None
        supernet = own or self.supernet
        if not supernet.fully_initialized():
            # A bit-width that training never met gets its steps from the first data it sees.
            # On a copy, so that no result depends on what was evaluated before.
            supernet = copy.deepcopy(supernet)
        plan = supernet.plan(arch)
        batches = self.batches("calibration", self.splits.calibration, plan.input_shape[1])
        statistics = supernet.statistics(plan, (x for x, _ in batches))
        return supernet.extract(plan, statistics).to(self.device)

    def quality(
        self,
        network: PlainNetwork,
        *,
        images: int | None = None,
        early_stop: EarlyStop | None = None,
    ) -> Quality:
        """Return what the first ``images`` of the validation set (all by default) say.

        Args:
            network: at its own resolution and bits.
            images: how many are used at most.
            early_stop: give up once the accuracy needed is out of reach; only for tasks that
                count right answers.
        """
        subset = self.splits.validation
        if images is not None:
            subset = subset.first(images)
        by_class = self.task.has_classes
        if early_stop is not None and by_class and early_stop.images < len(subset):
            part = self._tally(network, subset.first(early_stop.images))
            upper = accuracy_upper_limit(
                round(part.right), early_stop.images, len(subset), risk=early_stop.risk
            )
            if upper < early_stop.needed:
                return Quality(part.accuracy, early_stop.images, stopped=True, upper=upper)
        whole = self._tally(network, subset)
        return Quality(
            whole.accuracy,
            len(subset),
            upper=whole.accuracy,
            worst_class_accuracy=whole.worst_class,
        )

    def accuracy(self, network: PlainNetwork, *, images: int | None = None) -> float:
        """Return the metric of ``network`` on the first ``images`` of the validation set."""
        return self.quality(network, images=images).accuracy

    def _tally(self, network: PlainNetwork, subset: Subset) -> _Tally:
        import torch

        tally = _Tally()
        batches = self.batches("validation", subset, network.plan.input_shape[1])
        with torch.inference_mode():
            for images, targets in batches:
                tally.add(self.task, network(images), targets)
        return tally

    def batches(self, name: str, subset: Subset, size: int) -> Iterable[tuple[Tensor, Tensor]]:
        """Return (images, targets) of ``subset`` at ``size`` pixels.

        A small set is kept; a large one is read again each time it is asked for.
        """
        key = (name, len(subset), size)
        if key in self._batches:
            return self._batches[key]
        held = 4 * len(subset) * self.splits.channels * size**2
        if self._cached + held > _CACHE_BYTES:
            return self._read(subset, size)
        self._batches[key] = list(self._read(subset, size))
        self._cached += held
        return self._batches[key]

    def _read(self, subset: Subset, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        for images, targets in self.splits.evaluation_batches(subset, batch_size=self.batch_size):
            yield resize_images(images, size).to(self.device), targets.to(self.device)


class _Tally:
    """Sums of a task's metric, and of its right answers by class where it has classes."""

    def __init__(self) -> None:
        self.right = self.weight = 0.0
        self._classes: tuple[Tensor, Tensor] | None = None

    def add(self, task: Task, outputs: Tensor, targets: Tensor) -> None:
        """Add a batch. outputs: (batch, units); targets: (batch, ...)."""
        part, weight = task.metric(outputs, targets)
        self.right, self.weight = self.right + part, self.weight + weight
        if task.has_classes:
            right, count = task.per_class(outputs, targets)
            before = self._classes or (0.0, 0.0)
            self._classes = (before[0] + right, before[1] + count)

    @property
    def accuracy(self) -> float:
        """The metric so far."""
        return self.right / self.weight

    @property
    def worst_class(self) -> float:
        """The lowest accuracy of a class that has images; NaN without classes."""
        if self._classes is None:
            return float("nan")
        right, count = self._classes
        return float((right[count > 0] / count[count > 0]).min())
