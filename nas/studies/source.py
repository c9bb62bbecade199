"""What a study works on: a job's data and space, and the supernet that its run trained."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.job.check import load_job
from nas.job.schema import Job
from nas.record.run_folder import RunStore
from search_spaces.errors import InputError
from search_spaces.planned import PlannedSpace
from search_spaces.terminal import quoted

if TYPE_CHECKING:
    from nas.data.splits import DataSplits
    from nas.stages.evaluator import Evaluator
    from nas.tasks import Task
    from search_spaces.space import Arch
    from supernet.network import Supernet
    from supernet.training.subnets import Schedule


@dataclass(frozen=True)
class Source:
    """A job and the checkpoint of its supernet; small, so that it can be sent to processes.

    Attributes:
        job: checked.
        checkpoint: of the trained supernet.
        folder: of the run.
    """

    job: Job
    checkpoint: Path
    folder: Path

    def identity(self) -> dict[str, Any]:
        """Return what results depend on: data, space, and the weights of the supernet."""
        return {
            "task": self.job.task,
            "job_seed": self.job.seed,
            "data": self.job.data.model_dump(mode="json", exclude_defaults=True),
            "space": self.job.space.model_dump(mode="json", exclude_defaults=True),
            "supernet_sha256": hashlib.sha256(self.checkpoint.read_bytes()).hexdigest(),
        }


@dataclass(frozen=True)
class Opened:
    """The parts of a source, loaded."""

    job: Job
    task: Task
    splits: DataSplits
    space: PlannedSpace


def find_source(path: Path) -> Source:
    """Return the run at ``path``, or the run of the job file at ``path``.

    Raises:
        InputError: there is no run, or its supernet is not trained.
        DiagnosticsError: the job file has mistakes.
    """
    if path.is_dir():
        store = RunStore.open(path)
        job = store.job()
    else:
        job = load_job(path)
        store = RunStore(job.run_folder())
        if not store.manifest_path.is_file():
            raise InputError(
                f"{path}: its run folder {store.folder} does not exist; a study needs a trained "
                f"supernet, so do first: nas run {quoted(path)}"
            )
    if not store.checkpoint.exists():
        raise InputError(
            f"{store.folder} has no trained supernet yet; go on with it by: "
            f"nas resume {quoted(store.folder)}"
        )
    return Source(job, store.checkpoint, store.folder)


def open_source(source: Source) -> Opened:
    """Load the data and build the space.

    Raises:
        InputError: the space has no networks.
        EnvironmentProblem: the data is not here.
    """
    from nas.stages.opened_job import loaded, network_space

    task, splits = loaded(source.job)
    return Opened(source.job, task, splits, network_space(source.job, task, splits))


def load_supernet(source: Source, space: PlannedSpace) -> Supernet:
    """Return the trained supernet of a source.

    Raises:
        InputError: training is not finished, or the file is of another space.
    """
    from nas.stages.build_supernet import make_supernet
    from supernet.training.checkpoint import load_checkpoint
    from supernet.training.train import load_weights

    tensors, state = load_checkpoint(source.checkpoint)
    steps = state.get("recipe", {}).get("steps")
    if steps is not None and state["step"] < steps:
        raise InputError(
            f"{source.checkpoint}: training stands at step {state['step']} of {steps}; finish it "
            f"by: nas resume {quoted(source.folder)}"
        )
    supernet = make_supernet(space, source.job.supernet)
    missing = load_weights(supernet, tensors, prefix="model.", source=str(source.checkpoint))
    if missing:
        raise InputError(
            f"{source.checkpoint} lacks {len(missing)} tensors of the space, such as {missing[0]}"
        )
    return supernet


def open_evaluator(source: Source) -> tuple[Opened, Evaluator]:
    """Return a source loaded, and what evaluates networks of its supernet.

    Raises:
        InputError, EnvironmentProblem: as :func:`open_source` and :func:`load_supernet`.
    """
    from nas.stages.evaluator import Evaluator

    opened = open_source(source)
    supernet = load_supernet(source, opened.space)
    return opened, Evaluator(supernet, opened.splits, opened.task)


def train_on(
    opened: Opened,
    own: Supernet,
    sampler: Schedule,
    *,
    steps: int,
    learning_rate: float,
    batch_size: int,
    seed: int,
    **recipe: Any,
) -> None:
    """Train a supernet's weights on, in place, from the targets alone.

    Args:
        opened: gives data and loss.
        own: the weights.
        sampler: says what is trained in each step.
        steps, learning_rate, batch_size: of the training.
        seed: of its images.
        recipe: what else a :class:`supernet.training.train.Recipe` takes.
    """
    from supernet.training.train import Recipe, Trainer

    Trainer(
        own,
        sampler=sampler,
        batches=opened.splits.training_batches(batch_size, seed=seed),
        loss=opened.task.loss,
        distillation_loss=opened.task.distillation_loss,
        recipe=Recipe(
            steps=steps, learning_rate=learning_rate, warmup=0.1, distillation=False, **recipe
        ),
    ).run()


def default_steps(source: Source, batch_size: int) -> int:
    """Return the steps of a training alone that sees as many images as the supernet's training."""
    from supernet.training.checkpoint import load_checkpoint

    _, state = load_checkpoint(source.checkpoint)
    steps = state.get("recipe", {}).get("steps")
    if steps is None:
        raise InputError(f"{source.checkpoint} does not say how it was trained; give --steps")
    return max(1, round(steps * source.job.supernet.batch_size / batch_size))


def own_weights(source: Source, evaluator: Evaluator, arch: Arch) -> str:
    """Give ``evaluator`` the weights that the run trained for ``arch`` on its own, if it did.

    Returns:
        what the weights are, in words.
    """
    from nas.stages.winners.trainer import WinnerTrainer
    from nas.stages.worker_tasks import finetune_candidate

    store = RunStore.open(source.folder)
    if (source.folder / "winners" / f"{arch.id}.safetensors").is_file():
        evaluator.finetuned[arch] = WinnerTrainer(source.job, store, evaluator).trained(arch)
    elif (source.folder / "finetuned" / f"{arch.id}.safetensors").is_file():
        evaluator.finetuned[arch] = finetune_candidate(arch, source.job, store, evaluator)
    else:
        return "inherited from the supernet"
    return "trained on its own"
