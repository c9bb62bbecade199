"""The accuracy of a subnet with inherited weights."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from supernet.resolution import resize_images

if TYPE_CHECKING:
    from torch import Tensor

    from nas.data import DataSplits, Subset
    from nas.tasks import Task
    from search_spaces.plan import NetworkPlan
    from search_spaces.space import Arch
    from supernet.network import Supernet
    from supernet.plain import PlainNetwork

_CACHE_BYTES = 512 * 2**20


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
        supernet = self.finetuned.get(arch, self.supernet)
        if not supernet.fully_initialized():
            # A bit-width that training never met gets its steps from the first data it sees.
            # On a copy, so that no result depends on what was evaluated before.
            supernet = copy.deepcopy(supernet)
        plan = supernet.plan(arch)
        batches = self.batches("calibration", self.splits.calibration, plan.input_shape[1])
        statistics = supernet.statistics(plan, (x for x, _ in batches))
        return supernet.extract(plan, statistics).to(self.device)

    def accuracy(self, network: PlainNetwork, *, images: int | None = None) -> float:
        """Return the metric of ``network`` on the first ``images`` of the validation set."""
        subset = self.splits.validation
        if images is not None:
            subset = subset.first(images)
        return self.task.evaluate(
            network, self.batches("validation", subset, network.plan.input_shape[1])
        )

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
