"""The gate of a run whose network comes trained: what it is measured by before and after.

A supernet from random weights learns everything at a high rate. A network that works has most to
lose: it teaches its own subnets from the first step, learns at a lower rate, and what training made
of it is kept as far as nothing on a panel of subnets got worse by it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nas.models.class_order import better_than_chance
from nas.models.own_network import on_images, own_space
from search_spaces.choice_kinds import choice_kinds
from search_spaces.planned import PlannedSpace
from search_spaces.seeds import derive_rng
from search_spaces.space import Arch

if TYPE_CHECKING:
    from torch import Tensor

    from nas.data.splits import DataSplits
    from nas.record.run_folder import RunStore
    from nas.stages.opened_job import RunContext
    from nas.tasks import Task
    from search_spaces.plan import NetworkPlan
    from supernet.network import Supernet
    from supernet.training.gate import Gated

PANEL_SIZES = (0.0, 0.35, 0.7)
"""Quantiles of size of the subnets that stand for all, beside the largest."""

IMAGES = 2000
"""Validation images on which the panel is measured."""

_POOL = 256


def panel(space: PlannedSpace, seed: int) -> list[Arch]:
    """Return the subnets that stand for all: the largest and a few by size, at highest bits."""
    genes = space.sample_genes(derive_rng(seed, "gate"), _POOL)
    for name, kind in choice_kinds(space).items():
        if kind == "bits":
            genes[:, space.index[name]] = len(space.choices[space.index[name]].options) - 1
    genes = np.unique(space.canonical(genes), axis=0)
    order = np.argsort(space.costs(genes)["weights_kib"], kind="stable")
    places = [order[round(share * (len(order) - 1))] for share in PANEL_SIZES]
    archs = [space.largest(), *space.decode(genes[places])]
    return list(dict.fromkeys(archs))


def comes_trained(space: PlannedSpace, splits: DataSplits, task: Task) -> bool:
    """Whether the network of ``space`` comes trained, as :class:`Pretrained` of a run will find.

    Nothing is recorded, and only the network itself is asked, on validation images.
    """
    own = own_space(space)
    if own is None or own.trained is not None:
        return own is not None and bool(own.trained)
    if not task.has_classes:
        return False
    seen = splits.evaluation_batches(splits.validation.first(IMAGES))
    right = task.evaluate(on_images(own.module, space), seen)
    return better_than_chance(right, len(splits.classes))


class Pretrained:
    """The beginning of a run with a network of the user's own, measured once and recorded.

    Args:
        context: job, data and space.
        store: the run folder, whose manifest keeps what was measured.
        supernet: with the weights that the run begins with.

    Attributes:
        trained: whether the network came trained: the job says so, or it answers far better than
            by chance.
        before: metrics of the panel, larger is better; the largest in float comes first.
    """

    def __init__(self, context: RunContext, store: RunStore, supernet: Supernet) -> None:
        space = own_space(context.space)
        assert space is not None
        self._context, self._space = context, space
        self._panel = panel(space, context.job.seed)
        recorded = store.manifest().get("pretrained")
        if recorded is None:
            said, space.trained = space.trained, space.trained is not False
            before = self.measure(supernet)
            trained = self._better(before[0]) if said is None else said
            recorded = {"trained": trained, "panel": [str(a) for a in self._panel],
                        "before": before}  # fmt: skip
            store.update_manifest(pretrained=recorded)
        self.trained = bool(recorded["trained"])
        space.trained = self.trained
        self.before = tuple(map(float, recorded["before"]))

    def doubt(self, supernet: Supernet) -> str | None:
        """Return in words why the network may mean other classes than the data; None if it is well.

        Args:
            supernet: with the weights that the run begins with.
        """
        from nas.models.class_order import doubt
        from nas.stages.evaluator import Evaluator
        from supernet.training.subnets import float_plan

        context = self._context
        if not self.trained or self._better(self.before[0]) or not context.task.has_classes:
            return None
        evaluator = Evaluator(supernet, context.splits, context.task, device=context.accelerator)
        plan = float_plan(self._space.plan(self._space.largest()))
        seen, names = evaluator.validation(plan, IMAGES), context.splits.classes
        return doubt("the network", evaluator.network(plan), seen, names)

    def measure(self, supernet: Supernet) -> list[float]:
        """Return the metric of each network of the panel, larger is better."""
        from supernet.training.subnets import float_plan

        plans = [float_plan(self._space.plan(self._space.largest()))]
        plans += [self._space.plan(arch) for arch in self._panel]
        sign = 1.0 if self._context.task.higher_is_better else -1.0
        return [sign * self._metric(supernet, plan) for plan in plans]

    def gate(self, supernet: Supernet, begun: dict[str, Tensor]) -> Gated:
        """Leave ``supernet`` no worse than it ``begun``; see :mod:`supernet.training.gate`."""
        from supernet.training.gate import pass_gate

        return pass_gate(supernet, begun, self.before, self.measure, noise=self._noise())

    def _metric(self, supernet: Supernet, plan: NetworkPlan) -> float:
        from nas.stages.evaluator import Evaluator

        context = self._context
        evaluator = Evaluator(supernet, context.splits, context.task, device=context.accelerator)
        return evaluator.accuracy(evaluator.network(plan), images=IMAGES)

    def _noise(self) -> list[float] | None:
        """Return a standard error of a difference of each metric; none is known but of shares."""
        if not self._context.task.metric_is_share and not self._context.task.has_classes:
            return None
        images = min(IMAGES, len(self._context.splits.validation))
        return [(2 * max(0.0, p * (1 - p)) / images) ** 0.5 for p in self.before]

    def _better(self, metric: float) -> bool:
        splits, task = self._context.splits, self._context.task
        if not task.has_classes:
            return False
        return better_than_chance(metric, len(splits.classes))
