"""What a worker does for a run: evaluate a candidate, or train it on its own.

Every factory here is named by a :class:`nas.executors.Work` and called in the worker with the
run folder, so nothing but architectures and numbers travels between processes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.fronts.noise import error_of_metric
from nas.job.schema import Job
from nas.models.own_network import came_trained, fixed_teacher
from nas.models.sparsity import patterns_of
from nas.record.run_folder import RunStore
from nas.stages.build_supernet import precision_of
from nas.stages.evaluator import EarlyStop, Evaluator
from nas.stages.opened_job import RunContext
from nas.stages.winners.least_squares import reconstructed, without_and_with
from search_spaces.seeds import derive_seed
from search_spaces.space import Arch

if TYPE_CHECKING:
    from supernet.network import Supernet

FINETUNING_RATE = 5e-4
"""Peak learning rate of fine-tuning for a number of epochs, where the job gives none."""


def candidates(*, folder: str, threads: int | None = None) -> Callable[[Mapping[str, Any]], Any]:
    """Return the function that does with a candidate of the run in ``folder`` what it is told.

    ``item["do"]`` is ``evaluate`` (:func:`evaluation_of`), ``finetune``
    (:func:`finetune_candidate`) or ``winner``
    (:class:`nas.stages.winners.trainer.WinnerTrainer`). What they need, data and supernet, is
    read once.
    """
    from nas.stages.winners.trainer import WinnerTrainer

    store = RunStore.open(Path(folder))
    job = store.job()
    evaluator = RunContext.of(job, threads=threads).evaluator(store)
    evaluate = evaluation_of(evaluator)
    trainer: list[WinnerTrainer] = []

    def do(item: Mapping[str, Any]) -> Any:
        if item["do"] == "evaluate":
            return evaluate(item)
        if item["do"] == "finetune":
            arch = evaluator.supernet.space.parse(item["arch"])
            finetune_candidate(arch, job, store, evaluator)
            return item["arch"]
        if not trainer:
            trainer.append(WinnerTrainer(job, store, evaluator))
        return trainer[0].train(item)

    return do


def evaluation_of(evaluator: Evaluator) -> Callable[[Mapping[str, Any]], Any]:
    """Return a function of ``{"arch", "images", "early_stop"}`` that gives a ``Quality``'s fields.

    ``early_stop`` holds the fields of :class:`nas.stages.evaluator.EarlyStop`, or None.
    """

    def evaluate(item: Mapping[str, Any]) -> dict[str, Any]:
        arch = evaluator.supernet.space.parse(item["arch"])
        stop = item.get("early_stop")
        quality = evaluator.quality(
            evaluator.network(arch),
            images=item.get("images"),
            early_stop=None if stop is None else EarlyStop(**stop),
        )
        return vars(quality).copy()

    return evaluate


def finetune_candidate(arch: Arch, job: Job, store: RunStore, evaluator: Evaluator) -> Supernet:
    """Train ``arch`` on its own as the job asks; return the supernet that holds its weights.

    The weights are kept in the run folder: training that was cut off goes on, and what is
    finished is read back. With ``finetune.sparsity`` the smallest weights are zero before it
    begins, and stay so. Where training made ``arch`` worse on the validation images (beyond chance,
    unless the network came trained), that is the supernet itself, with the weights that ``arch``
    inherits.
    """
    from supernet.sparsity.training import pruned
    from supernet.training.finetune import finetune

    config, trained = job.finetune, came_trained(store)
    start = reconstructed(arch, evaluator) if config.reconstruct else evaluator.supernet
    plan = evaluator.supernet.plan(arch)
    patterns = patterns_of(job, plan)
    if not config.epochs:
        return pruned(start, plan, patterns) if patterns else start
    batches = evaluator.splits.training_batches(
        config.batch_size, seed=derive_seed(job.seed, "finetune")
    )
    teacher = None
    if config.distillation:
        teacher = fixed_teacher(
            job.supernet.teacher,
            evaluator.supernet.space,
            batches,
            trained=trained,
            device=evaluator.device,
        )
    found = finetune(
        evaluator.supernet,
        plan,
        batches=batches,
        loss=evaluator.task.loss,
        start=start,
        teacher=teacher,
        targets=config.distillation != "only",
        distillation_loss=evaluator.task.distillation_loss if config.distillation else None,
        epochs=config.epochs,
        learning_rate=config.learning_rate or FINETUNING_RATE,
        precision=precision_of(job.supernet, evaluator.device),
        checkpoint=store.folder / "finetuned" / f"{arch.id}.safetensors",
        device=evaluator.device,
        patterns=patterns,
    )
    # Inherited weights have no zeros, however well they do.
    if patterns:
        return found
    before, after = without_and_with(found, arch, evaluator)
    # As of winners that share a budget: beyond chance, where the network did not come trained.
    images, name = len(evaluator.splits.validation), evaluator.task.metric_name
    doubt = 0.0 if trained else error_of_metric(name, abs(before), images)
    return found if after >= before - doubt else evaluator.supernet
