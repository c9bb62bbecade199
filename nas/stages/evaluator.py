"""The accuracy of a subnet with inherited weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nas.fronts.class_loss import largest_class_loss
from nas.models.own_network import as_it_came, own_space
from search_spaces.space import Arch
from supernet.resolution import resize_images

if TYPE_CHECKING:
    from torch import Tensor

    from nas.data.splits import DataSplits, Subset
    from nas.fronts.fault_rate import FaultRate
    from nas.tasks import Task
    from nas.tasks.scores import Score
    from search_spaces.plan import NetworkPlan
    from supernet.network import Supernet
    from supernet.plain import PlainNetwork

    Batches = Iterable[tuple[Tensor, Tensor]]

_IMAGES, _PASS_BYTES = 250, 2**28
"""Images that are evaluated at once, and bytes that a layer's inputs and outputs may take."""

_CACHE_BYTES = 512 * 2**20


@dataclass(frozen=True)
class EarlyStop:
    """When to give up on an architecture before all validation images are seen.

    Attributes:
        images: after so many of them.
        risk: probability of giving up on one that would have reached ``needed``.
        needed: value of the task's metric beyond which the architecture is of no use.
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
        upper: best plausible value on all images; equal to ``accuracy`` unless stopped.
        worst_class_accuracy: the lowest accuracy of a class; NaN for a task without classes or
            when stopped.
        accuracy_at_fault_rate: with faults, where they are asked for; NaN otherwise or when
            stopped.
        worst_class_loss: largest loss of a class against the float network, likewise.
    """

    accuracy: float
    images: int
    stopped: bool = False
    upper: float = float("nan")
    worst_class_accuracy: float = float("nan")
    accuracy_at_fault_rate: float = float("nan")
    worst_class_loss: float = float("nan")


class Evaluator:
    """Extracts subnets with statistics of their own and evaluates them.

    Args:
        supernet: trained.
        splits: the data.
        task: gives the metric.
        batch_size: images at once; None for as many as memory is little for.
        device: where to compute.
        faults: evaluate with these, too.
        class_loss: evaluate float networks too, for the metric ``worst_class_loss``.
    """

    def __init__(
        self,
        supernet: Supernet,
        splits: DataSplits,
        task: Task,
        *,
        batch_size: int | None = None,
        device: str = "cpu",
        faults: FaultRate | None = None,
        class_loss: bool = False,
    ) -> None:
        self.supernet = supernet
        self.faults, self.class_loss = faults, class_loss
        self._float_classes: dict[tuple[NetworkPlan, int], list[float]] = {}
        self.splits = splits
        self.task = task
        self.batch_size = batch_size or _images_at_once(supernet.plan(supernet.space.largest()))
        self.device = device
        self.finetuned: dict[Arch, Supernet] = {}
        self._batches: dict[tuple[str, int, tuple[int, int]], list[tuple[Tensor, Tensor]]] = {}
        self._cached = 0

    def network(self, arch: Arch | NetworkPlan, *, own: Supernet | None = None) -> PlainNetwork:
        """Return ``arch`` as a plain network, batch norm calibrated at its own bits.

        From the weights ``own`` if they are given, from its own ones where ``finetuned`` has them,
        otherwise from the shared ones.
        """
        if own is None and isinstance(arch, Arch):
            own = self.finetuned.get(arch)
        if own is self.supernet:
            # Where its own training made it worse: a network that came trained is as it came.
            own = None
        plan = self.supernet.plan(arch)
        module = as_it_came(self.supernet, plan) if own is None else None
        supernet = own or module or self.supernet
        if not supernet.fully_initialized():
            # A bit-width that training never met gets its steps from the first data it sees.
            # On a copy, so that no result depends on what was evaluated before.
            supernet = copy.deepcopy(supernet)
        batches = self.batches("calibration", self.splits.calibration, plan.input_size)
        statistics = supernet.statistics(plan, (x for x, _ in batches))
        if module is not None and (space := own_space(module.space)) is not None:
            statistics = space.pretrained_statistics()
        return supernet.extract(plan, statistics).to(self.device)

    def quality(
        self,
        network: PlainNetwork,
        *,
        images: int | None = None,
        early_stop: EarlyStop | None = None,
        own: Supernet | None = None,
    ) -> Quality:
        """Return what the first ``images`` of the validation set (all by default) say.

        Args:
            network: at its own resolution and bits.
            own: the weights that it was made from, where they are not the shared ones.
            images: how many are used at most.
            early_stop: give up once the value needed is out of reach; only where a part of the
                images bounds the metric.
        """
        subset = self.splits.validation
        if images is not None:
            subset = subset.first(images)
        name, sign = self.task.metric_name, 1 if self.task.higher_is_better else -1
        if early_stop is not None and early_stop.images < len(subset):
            part = self._score(network, subset.first(early_stop.images))
            limit = part.limit(len(subset), early_stop.risk)
            if limit is not None and sign * limit < sign * early_stop.needed:
                value = part.values()[name]
                return Quality(value, early_stop.images, stopped=True, upper=limit)
        whole = self._score(network, subset)
        value = whole.values()[name]
        return Quality(
            value,
            len(subset),
            upper=value,
            worst_class_accuracy=worst_class(self.task, whole),
            accuracy_at_fault_rate=self.faulty_accuracy(network, subset),
            worst_class_loss=self.largest_class_loss(network.plan, whole.by_class(), subset, own),
        )

    def largest_class_loss(
        self,
        plan: NetworkPlan,
        by_class: list[float] | None,
        subset: Subset | None = None,
        own: Supernet | None = None,
    ) -> float:
        """Return how much the class that loses most loses against float; NaN if not asked for.

        Args:
            plan: of the quantised network.
            by_class: its accuracy by class on ``subset``.
            subset: by default the validation images.
            own: its weights, where they are not the shared ones.
        """
        if not self.class_loss or by_class is None:
            return math.nan
        seen = self.splits.validation if subset is None else subset
        return largest_class_loss(by_class, self._float_by_class(plan, seen, own))

    def _float_by_class(
        self, plan: NetworkPlan, subset: Subset, own: Supernet | None
    ) -> list[float]:
        from supernet.training.subnets import float_plan

        plain = float_plan(plan)
        key = (plain, len(subset))
        known = self._float_classes.get(key) if own is None else None
        if known is not None:
            # Candidates that differ in bits alone have one float network.
            return known
        found = self._score(self.network(plain, own=own), subset).by_class() or []
        if own is None:
            self._float_classes[key] = found
        return found

    def faulty_accuracy(self, network: PlainNetwork, subset: Subset | None = None) -> float:
        """Return the metric with the faults asked for, NaN for none; by default validation's."""
        if self.faults is None:
            return math.nan
        seen, name = self.splits.validation if subset is None else subset, self.task.metric_name
        return self.faults.accuracy(network, lambda one: self._score(one, seen).values()[name])

    def accuracy(self, network: PlainNetwork, *, images: int | None = None) -> float:
        """Return the metric of ``network`` on the first ``images`` of the validation set."""
        return self.quality(network, images=images).accuracy

    def _score(self, network: PlainNetwork, subset: Subset) -> Score:
        batches = self.batches("validation", subset, network.plan.input_size)
        return score_of(self.task, network, batches)

    def validation(self, plan: NetworkPlan, images: int | None = None) -> Batches:
        """Return (inputs, targets) of the first ``images`` of the validation set, for a network."""
        subset = self.splits.validation
        if images is not None:
            subset = subset.first(images)
        return self.batches("validation", subset, plan.input_size)

    def batches(self, name: str, subset: Subset, size: tuple[int, int]) -> Batches:
        """Return (inputs, targets) of ``subset`` at a height and width.

        A small set is kept; a large one is read again each time it is asked for.
        """
        key = (name, len(subset), size)
        if key in self._batches:
            return self._batches[key]
        held = 4 * len(subset) * self.splits.channels * size[0] * size[1]
        if self._cached + held > _CACHE_BYTES:
            return self._read(subset, size)
        self._batches[key] = list(self._read(subset, size))
        self._cached += held
        return self._batches[key]

    def _read(self, subset: Subset, size: tuple[int, int]) -> Iterator[tuple[Tensor, Tensor]]:
        for images, targets in self.splits.evaluation_batches(subset, batch_size=self.batch_size):
            yield resize_images(images, size).to(self.device), targets.to(self.device)


def _images_at_once(plan: NetworkPlan) -> int:
    """Return how many images are evaluated at once: fewer where maps of features are large."""
    largest = max(layer.input_count + layer.output_count for layer in plan.layers())
    return max(1, min(_IMAGES, _PASS_BYTES // (4 * largest)))


def score_of(task: Task, network: Callable[[Tensor], Tensor], batches: Batches) -> Score:
    """Return what (inputs, targets) say of a network."""
    import torch

    score = task.score()
    with torch.inference_mode():
        for inputs, targets in batches:
            score.add(network(inputs), targets)
    return score


def metric_of(task: Task, network: Callable[[Tensor], Tensor], batches: Batches) -> float:
    """Return the task's metric of a network on (inputs, targets)."""
    return float(score_of(task, network, batches).values()[task.metric_name])


def worst_class(task: Task, score: Score) -> float:
    """Return the lowest accuracy of a class that has images; NaN for a task without classes."""
    shares = score.by_class() if task.has_classes else None
    known = [share for share in shares or [] if not math.isnan(share)]
    return min(known, default=math.nan)
