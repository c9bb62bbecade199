"""The first stage of a run: the supernet, trained or continued from its checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.stages.build_supernet import focus_archs, make_schedule, make_supernet
from search_spaces.seeds import derive_seed

if TYPE_CHECKING:
    from nas.data.splits import Batches
    from nas.record.run_folder import RunStore
    from nas.stages.opened_job import RunContext
    from nas.stages.progress import Progress
    from search_spaces.space import Arch
    from supernet.network import Supernet


def train_supernet(
    context: RunContext, store: RunStore, progress: Progress
) -> tuple[Supernet, list[dict[str, Any]]]:
    """Train the supernet of a run, from its checkpoint if there is one.

    Args:
        context: job, data and space.
        store: holds the checkpoint.
        progress: where to tell about it.

    Returns:
        The trained supernet, and one record for each logged step.

    Raises:
        InputError: weights to start from that do not fit; a loss that collapses.
    """
    import torch

    from nas.stages.tracking import tensorboard_log, validation_of
    from supernet.training import distributed
    from supernet.training.subnets import BitsStage, default_stages
    from supernet.training.train import Recipe, Trainer

    job, space, task = context.job, context.space, context.task
    config = job.supernet
    torch.manual_seed(derive_seed(job.seed, "supernet"))
    supernet = make_supernet(space, config)
    if config.init_from is not None and not store.checkpoint.exists():
        _start_from(supernet, Path(config.init_from), progress)
    batches = context.splits.training_batches(config.batch_size, seed=job.seed)
    focus = _focus(context, store)
    steps = _steps(context, store, batches, focus)
    warmup = min(0.9, config.warmup_epochs * len(batches) / steps)
    stages = (
        default_stages(supernet.ranges, warmup=warmup)
        if config.bits_schedule is None
        # The job's stages divide what is left after the warm-up.
        else [
            BitsStage(warmup + (1 - warmup) * stage.start, tuple(stage.bits))
            for stage in config.bits_schedule
        ]
    )
    watched = config.tensorboard and distributed.rank() == 0
    with (
        progress.stage("supernet", steps, unit="steps") as bar,
        tensorboard_log(store.folder / "tensorboard" if watched else None) as log,
    ):

        def on_step(record: dict[str, Any]) -> None:
            bar.advance(1, f"loss {record['loss']:.3f}")
            log(record)

        trainer = Trainer(
            supernet,
            sampler=make_schedule(supernet, config, stages, seed=job.seed, focus=focus),
            batches=batches,
            loss=task.loss,
            distillation_loss=task.distillation_loss,
            recipe=Recipe(
                steps=steps,
                learning_rate=config.learning_rate,
                weight_decay=config.weight_decay,
                distillation=config.distillation,
                precision=config.precision,
            ),
            checkpoint=store.checkpoint,
            checkpoint_every_s=config.checkpoint_every_s,
            device=context.accelerator,
            compiled=config.compile,
            validate=validation_of(context),
            on_step=on_step,
        )
        if store.checkpoint.exists():
            trainer.restore(store.checkpoint)
            bar.advance(trainer.step)
        trainer.run()
    return supernet, trainer.history


def _start_from(supernet: Supernet, path: Path, progress: Progress) -> None:
    from supernet.training.checkpoint import load_checkpoint
    from supernet.training.train import load_weights, weights_of_plain

    tensors, _ = load_checkpoint(path)
    prefix = "model." if any(name.startswith("model.") for name in tensors) else ""
    tensors = weights_of_plain(supernet, tensors) or tensors
    fresh = load_weights(supernet, tensors, prefix=prefix, source=str(path))
    progress.log(
        f"started from {path}; {len(fresh)} of {len(supernet.state_dict())} tensors are not in "
        "it and start afresh"
    )


def _focus(context: RunContext, store: RunStore) -> list[Arch]:
    """Return what the training focuses on; recorded, so that a resumed run draws the same."""
    if context.job.supernet.focus is None:
        return []
    recorded = store.manifest().get("focus")
    if recorded is None:
        found = focus_archs(context.job.supernet, context.space)
        recorded = [str(arch) for arch in found]
        store.update_manifest(focus=recorded)
    return [context.space.parse(text) for text in recorded]


def _steps(context: RunContext, store: RunStore, batches: Batches, focus: Sequence[Arch]) -> int:
    epochs = context.job.supernet.passes()
    if epochs is not None:
        return max(1, round(epochs * len(batches)))
    recorded = store.manifest().get("training_steps")
    if recorded is None:
        recorded = _steps_in_time(context, batches, focus)
        store.update_manifest(training_steps=recorded)
    return int(recorded)


def _steps_in_time(context: RunContext, batches: Batches, focus: Sequence[Arch]) -> int:
    from nas.stages.step_time import step_seconds

    config = context.job.supernet
    warm, full = step_seconds(
        config,
        context.space,
        context.task,
        batches,
        seed=context.job.seed,
        device=context.accelerator,
        focus=focus,
    )
    budget = 60.0 * float(config.minutes or 0)
    warm_steps = round(config.warmup_epochs * len(batches))
    rest = (budget - warm_steps * warm) / full
    if rest < warm_steps / 9:
        # The warm-up takes at most nine tenths of the steps.
        return max(1, int(budget / (0.9 * warm + 0.1 * full)))
    return int(warm_steps + rest)
