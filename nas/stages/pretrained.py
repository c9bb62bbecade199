"""What a run does otherwise where its network comes trained: its teacher, its pace, its gate.

A supernet from random weights learns everything at a high rate. A network that works has most to
lose: it teaches its own subnets from the first step, learns at a lower rate, and what training made
of it is kept as far as nothing on a panel of subnets got worse by it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from search_spaces.choice_kinds import choice_kinds
from search_spaces.errors import InputError
from search_spaces.planned import PlannedSpace
from search_spaces.seeds import derive_rng
from search_spaces.space import Arch

if TYPE_CHECKING:
    from torch import Tensor

    from nas.data.splits import Batches
    from nas.job.schema import TeacherConfig
    from nas.record.run_folder import RunStore
    from nas.stages.opened_job import RunContext
    from search_spaces.plan import NetworkPlan
    from supernet.network import Supernet
    from supernet.own_model.wrap import ModuleSpace
    from supernet.training.gate import Gated
    from supernet.training.teacher import RememberingTeacher

LEARNING_RATE = 1e-3
"""Peak for a network that comes trained, where the job gives none."""

SCRATCH_RATE = 5e-3
"""Peak for random weights, where the job gives none."""

PANEL_SIZES = (0.0, 0.35, 0.7)
"""Quantiles of size of the subnets that stand for all, beside the largest."""

IMAGES = 2000
"""Validation images on which the panel is measured."""

_POOL = 256


def own_space(space: PlannedSpace) -> ModuleSpace | None:
    """Return ``space`` where it is one of a network of the user's own."""
    from supernet.own_model.wrap import ModuleSpace

    return space if isinstance(space, ModuleSpace) else None


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
            before = self.measure(supernet)
            trained = space.trained if space.trained is not None else self._better(before[0])
            recorded = {"trained": trained, "panel": [str(a) for a in self._panel],
                        "before": before}  # fmt: skip
            store.update_manifest(pretrained=recorded)
        self.trained = bool(recorded["trained"])
        self.before = tuple(map(float, recorded["before"]))

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

        return pass_gate(supernet, begun, self.before, self.measure)

    def _metric(self, supernet: Supernet, plan: NetworkPlan) -> float:
        from nas.stages.evaluator import Evaluator

        context = self._context
        evaluator = Evaluator(supernet, context.splits, context.task, device=context.accelerator)
        return evaluator.accuracy(evaluator.network(plan), images=IMAGES)

    def _better(self, metric: float) -> bool:
        splits, task = self._context.splits, self._context.task
        if not task.has_classes:
            return False
        chance = 1.0 / max(2, len(splits.classes))
        # Random weights may group images and be right more often than by chance.
        return metric > chance + 0.4 * (1 - chance)


def learning_rate(given: float | None, *, trained: bool) -> float:
    """Return the peak learning rate of the shared weights."""
    if given is not None:
        return given
    return LEARNING_RATE if trained else SCRATCH_RATE


def came_trained(store: RunStore) -> bool:
    """Whether the network of a run came trained, as it was recorded when training began."""
    return bool((store.manifest().get("pretrained") or {}).get("trained"))


def fixed_teacher(
    config: TeacherConfig | None,
    space: PlannedSpace,
    batches: Batches,
    *,
    trained: bool,
    device: str = "cpu",
) -> RememberingTeacher | None:
    """Return a teacher that no training changes; None where the schedule's own is to teach.

    Args:
        config: a network that the job names; the space's own module where it names none.
        space: of the run.
        batches: training batches, for which it remembers its answers.
        trained: whether the space's own module came trained.
        device: where to compute.

    Raises:
        InputError: no such network, or one with other outputs than the space.
    """
    from supernet.training.teacher import RememberingTeacher

    if config is not None:
        network = named_teacher(config, space)
    else:
        own = own_space(space)
        if own is None or not trained:
            return None
        network = own.module
    return RememberingTeacher(_on(network, space, device), batches)


def named_teacher(config: TeacherConfig, space: PlannedSpace) -> Any:
    """Return the network that a job names as teacher, in evaluation mode.

    Raises:
        InputError: no such network, or one that does not take the inputs of ``space`` or has other
            outputs.
    """
    import torch

    from nas.bits.source import load_source

    network = load_source(config.model, config.weights, arguments=config.arguments).eval()
    shape = (2, *space.plan(space.largest()).input_shape)
    try:
        with torch.no_grad():
            found = network(torch.zeros(shape))
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"supernet.teacher: {config.model} does not take inputs {shape[1:]}: {error}"
        ) from error
    if tuple(found.shape) != (2, space.outputs):
        raise InputError(
            f"supernet.teacher: {config.model} returns {tuple(found.shape)} for a batch of 2; the "
            f"task has {space.outputs} outputs"
        )
    return network


def _on(network: Any, space: PlannedSpace, device: str) -> Callable[[Tensor], Tensor]:
    import copy

    from supernet.resolution import resize_images

    network = copy.deepcopy(network).eval().to(device) if device != "cpu" else network.eval()
    size = space.plan(space.largest()).input_size

    def outputs(images: Tensor) -> Tensor:
        found: Tensor = network(resize_images(images.to(device), size))
        return found

    return outputs


def module_statistics(
    supernet: Supernet, plan: NetworkPlan
) -> dict[str, tuple[Tensor, Tensor]] | None:
    """Return the batch-norm statistics that a network came with, where they are those of ``plan``.

    They are for the largest architecture with the weights the network came with, at 8 bits or
    more; None for any other, whose statistics are recalibrated.
    """
    from supernet.training.subnets import float_plan

    own = own_space(supernet.space)
    if own is None or own.trained is False:
        return None
    lowest = min(min(x.weight_bits, x.activation_bits) for x in plan.layers())
    largest = float_plan(own.plan(own.largest()))
    if lowest < 8 or float_plan(plan) != largest or not own.holds_module(supernet):
        return None
    return own.pretrained_statistics()
