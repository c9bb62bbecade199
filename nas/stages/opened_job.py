"""What every process of a run needs before it can work: the job's data, task and space."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nas.fronts.budgets import unserved
from nas.fronts.class_loss import asks_class_loss
from nas.fronts.costs import exact_costs
from nas.fronts.fault_rate import asked_faults
from nas.fronts.metrics import require_feasible
from nas.job.schema import Job, job_space
from nas.stages.build_supernet import emulated_precision
from nas.stages.threads import set_threads
from nas.strategies.feasible import neighbours
from nas.tasks import TASKS, Task
from search_spaces.errors import EnvironmentProblem, InputError
from search_spaces.planned import PlannedSpace, require_networks
from search_spaces.spaces.registry import takes_input_size
from supernet.training.heap import keep_memory

if TYPE_CHECKING:
    from nas.data.splits import DataSplits
    from nas.fronts.metrics import Constraint, Goal
    from nas.record.run_folder import RunStore
    from nas.stages.evaluator import Evaluator
    from search_spaces.space import Arch
    from supernet.network import Supernet


@dataclass(frozen=True)
class RunContext:
    """The parts of a job that follow from the job file and the data alone.

    Attributes:
        job: a checked job.
        task: with the job's settings.
        splits: the data, divided.
        space: of networks for this data.
        accelerator: ``cpu`` or ``cuda``.
        threads: that this process computes with.
    """

    job: Job
    task: Task
    splits: DataSplits
    space: PlannedSpace
    accelerator: str
    threads: int

    @classmethod
    def of(cls, job: Job, *, threads: int | None = None) -> RunContext:
        """Read the data and build the space of ``job``.

        Args:
            job: a checked job.
            threads: for torch and linear algebra; None leaves torch's own choice.

        Raises:
            InputError: the job does not fit its data.
            EnvironmentProblem: data or GPU is missing.
        """
        accelerator = _accelerator(job)
        threads = set_threads(threads)
        keep_memory()
        task, splits = loaded(job)
        space = network_space(job, task, splits)
        return cls(job, task, splits, space, accelerator, threads)

    def warnings(self) -> list[str]:
        """Return in words what is doubtful about the data, and what of the job was left aside."""
        from nas.models.own_network import left_out

        told = self.task.metric_name == "accuracy" and self.splits.targets == "classes"
        return [
            *self.splits.warnings(told_by_class=told),
            *left_out(self.space),
            *emulated_precision(self.job.supernet, self.accelerator),
        ]

    def evaluator(self, store: RunStore) -> Evaluator:
        """Return the evaluator of the trained supernet in ``store``.

        Raises:
            InputError: the checkpoint does not belong to the space.
        """
        from nas.models.own_network import came_trained, own_space
        from nas.stages.build_supernet import make_supernet
        from supernet.training.checkpoint import load_checkpoint
        from supernet.training.train import load_weights

        supernet = make_supernet(self.space, self.job.supernet)
        tensors, _ = load_checkpoint(store.checkpoint)
        missing = load_weights(supernet, tensors, prefix="model.", source=str(store.checkpoint))
        if missing:
            raise InputError(
                f"{store.checkpoint} lacks {len(missing)} tensors of this space, among them "
                f"{missing[0]}; the run's checkpoint does not belong to its job"
            )
        own = own_space(self.space)
        if own is not None:
            own.trained = came_trained(store)
        return self.evaluating(supernet)

    def evaluating(self, supernet: Supernet) -> Evaluator:
        """Return an evaluator of a trained supernet for what the job asks for, as with faults."""
        from nas.stages.evaluator import Evaluator

        return Evaluator(
            supernet,
            self.splits,
            self.task,
            device=self.accelerator,
            faults=asked_faults(self.job),
            class_loss=asks_class_loss(self.job),
        )


def loaded(job: Job) -> tuple[Task, DataSplits]:
    """Return the task of a job with its data.

    Raises:
        InputError, EnvironmentProblem: the data cannot be read.
    """
    task = TASKS.get(job.task)(label_smoothing=job.supernet.label_smoothing)
    return task, task.load(job.data, job.seed)


def network_space(job: Job, task: Task, splits: DataSplits) -> PlannedSpace:
    """Return the job's space, for the channels of its data and the outputs of its task.

    Raises:
        InputError: the space has no networks that could be trained, or none for such images.
    """
    space = job_space(
        job,
        input_channels=splits.channels,
        outputs=task.outputs(splits),
        input_size=splits.input_size,
        data=task.space_options(splits),
    )
    networks = require_networks(space, "'nas run'")
    expect_answers(networks, task, job.task)
    shape = splits.input_shape
    takes = networks.input_shape(shape[1]) if hasattr(networks, "input_shape") else None
    if shape[1] != shape[2] and takes != shape and not takes_input_size(job.space.name):
        raise InputError(
            f"the images are {shape[1]} x {shape[2]} pixels and the networks of {space.name!r} "
            "take square ones: say data.image_size to have them stretched, pad them in their "
            "source, or use a space that takes them as they are (mobilenet, resnet, signal for "
            "signals, or a network of your own)"
        )
    return networks


_FORMS = {"one": "(batch, outputs)", "grid": "(batch, outputs, height, width)"}


def expect_answers(space: PlannedSpace, task: Task, name: str) -> None:
    """Refuse a network of the user's own that answers for something else than the task asks.

    Raises:
        InputError: it does; of built-in spaces the check of the job says so.
    """
    found = getattr(space, "answers", None)
    if found is not None and found != task.answers:
        wanted = _FORMS.get(task.answers, f"answers for {task.answers}")
        raise InputError(
            f"the network of {space.name!r} returns {_FORMS[found]}, and the task {name} needs "
            f"{wanted}"
        )


def budgets_out_of_reach(job: Job, space: PlannedSpace, pool: Sequence[Arch]) -> list[str]:
    """Return a sentence for each budget that follows from an architecture and that none keeps.

    Args:
        job: whose ``search.budgets`` are looked at.
        space: of the run.
        pool: architectures that keep the job's bounds, its smallest among them.
    """
    budgets = job.cost_budgets()
    if not budgets:
        return []
    costs = exact_costs(
        space, {str(b.metric) for b in budgets}, training=job.search.training.update()
    )(space.genes(pool))
    rows = [{name: float(column[i]) for name, column in costs.items()} for i in range(len(pool))]
    return unserved(budgets, rows, among=f"of {len(pool)} architectures looked at")


def require_known_costs(
    space: PlannedSpace, goals: Sequence[Goal], constraints: Sequence[Constraint]
) -> None:
    """Refuse a cost that the space cannot work out, before anything is trained.

    Raises:
        InputError: it is wanted as an objective or bounded.
    """
    wanted = [goal.metric for goal in goals] + [bound.metric for bound in constraints]
    costs = exact_costs(space, [str(metric) for metric in wanted])
    ends = costs(space.genes([space.smallest(), space.largest()]))
    for metric in wanted:
        values = ends.get(str(metric))
        if values is not None and not np.isfinite(values).all():
            raise InputError(
                f"{metric} cannot be worked out for the networks of {space.name!r} (a kind of "
                "block without a memory flow, or whose flow does not say what gradients need); "
                "leave it out of objectives and constraints"
            )


def require_fit(context: RunContext, pool: Sequence[Arch], bounds: Sequence[Constraint]) -> None:
    """Refuse a bound on the model file that no network keeps, before anything is trained.

    How large a file is does not follow from the architecture; but that of the one with the least
    packed weights, exported with the weights that training would begin with, is as large as
    after it. Notes that files of a run carry are left out, so nothing is refused that might fit.

    Args:
        context: job, data and space.
        pool: architectures to choose from, which keep the bounds on costs.
        bounds: of the job.

    Raises:
        InfeasibleError: its file is larger than a bound; it is named with its size.
    """
    limits = [bound for bound in bounds if bound.metric.name == "size_kib" and bound.upper]
    if not limits:
        return
    from nas.stages.build_supernet import make_supernet
    from supernet.onnx.export import export_onnx

    job, space = context.job, context.space
    least = _least_packed(space, pool)
    network = context.evaluating(make_supernet(space, job.supernet)).network(least).cpu()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "least.onnx"
        size = export_onnx(network, path, weight_storage=job.export.weights).size_kib
    require_feasible(limits, {str(least): {"size_kib": size}})


def _least_packed(space: PlannedSpace, pool: Sequence[Arch]) -> Arch:
    """Return an architecture of least packed weights, whatever other bounds it keeps."""
    rows = space.genes([space.smallest(), *pool])
    least = np.inf
    while (packed := np.asarray(space.costs(rows)["weights_kib"])).min() < least:
        best, least = rows[int(packed.argmin())], float(packed.min())
        # In a space of somebody's own the first option need not be the smallest.
        rows = np.vstack([best[None], neighbours(space, best)])
    return space.decode(best[None])[0]


def _accelerator(job: Job) -> str:
    import torch

    if job.accelerator == "cpu":
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    if job.accelerator == "cuda":
        raise EnvironmentProblem(
            "accelerator: cuda, but torch finds no GPU here; use accelerator: auto or cpu"
        )
    return "cpu"
