"""The first stage of a run: the supernet, trained or continued from its checkpoint."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.models.own_network import fixed_teacher, learning_rate, own_space
from nas.models.training_gate import IMAGES, Pretrained
from nas.record.live import LossLog
from nas.stages.build_supernet import (
    focus_archs,
    make_schedule,
    make_supernet,
    optimizer_of,
    precision_of,
)
from search_spaces.errors import InputError
from search_spaces.seeds import derive_seed

if TYPE_CHECKING:
    from torch import Tensor

    from nas.data.splits import Batches
    from nas.record.run_folder import RunStore
    from nas.stages.budget import Budget
    from nas.stages.opened_job import RunContext
    from nas.stages.progress import Progress
    from search_spaces.space import Arch
    from supernet.network import Supernet
    from supernet.training.gate import Gated
    from supernet.training.teacher import RememberingTeacher
    from supernet.training.train import Trainer

TAUGHT_ROUNDS, TAUGHT_VIEWS = 8, 2048
"""Epochs whose augmentation differs, and images in them at least, where a teacher is asked once for
each image it can be shown: to ask the largest network in every step costs more than training the
small ones does."""

TIMING_SHARE = 0.1
"""Of the supernet's time after which only a few steps of a kind are timed."""

STARTING_SHARE = 0.04
"""Of a budget that may go before training begins, into imports, data and timing; what they take
more of a short one comes out of the supernet's share, half of it at most."""

FEWEST_ROUNDS, SEEN_BEFORE_NEW = 2, 2
"""Epochs that differ at least in a short training, and how often a middling network sees a view
before another of its image is worth a question."""


def taught_rounds(images: int, *, epochs: float = math.inf) -> int:
    """Return how many epochs of a training differ where a teacher is asked.

    Args:
        images: of the training set.
        epochs: of the training, as far as they are known.
    """
    most = max(TAUGHT_ROUNDS, -(-TAUGHT_VIEWS // max(1, images)))
    if epochs / SEEN_BEFORE_NEW >= most:
        return most
    return max(FEWEST_ROUNDS, math.ceil(epochs / SEEN_BEFORE_NEW))


def train_supernet(
    context: RunContext, store: RunStore, progress: Progress, *, budget: Budget | None = None
) -> tuple[Supernet, list[dict[str, Any]]]:
    """Train the supernet of a run, from its checkpoint if there is one.

    Args:
        context: job, data and space.
        store: holds the checkpoint.
        progress: where to tell about it.
        budget: of the run, where the job gives one.

    Returns:
        The trained supernet, and one record for each logged step.

    Raises:
        InputError: weights to start from that do not fit; a loss that collapses.
    """
    import torch

    from nas.stages.collapse import validation_of
    from supernet.training import distributed
    from supernet.training.gate import snapshot
    from supernet.training.subnets import BitsStage, default_stages
    from supernet.training.train import Recipe, Trainer

    job, space, task = context.job, context.space, context.task
    config = job.supernet
    torch.manual_seed(derive_seed(job.seed, "supernet"))
    supernet = make_supernet(space, config)
    if config.init_from is not None and not store.checkpoint.exists():
        _start_from(supernet, Path(config.init_from), progress)
    batches = context.splits.training_batches(
        config.batch_size,
        seed=job.seed,
        rounds=taught_rounds(len(context.splits.train)) if config.schedule == "taught" else None,
    )
    begun = snapshot(supernet)
    own = Pretrained(context, store, supernet) if own_space(space) is not None else None
    trained = own is not None and own.trained
    focus = _focus(context, store)
    if budget is None:
        steps = _steps(context, store, batches, focus)
        warmup = min(0.9, config.warmup_epochs * len(batches) / max(1, steps))
    else:
        if store.manifest().get("training_plan") is None:
            progress.log("timing steps of training")
        steps, warmup = _steps_in_budget(context, store, batches, focus, budget, trained=trained)
    teacher = fixed_teacher(
        config.teacher, space, batches, trained=trained, device=context.accelerator
    )
    if not store.checkpoint.exists():
        _tell_doubts(context, supernet, own, teacher, progress)
    if config.distillation == "only" and teacher is None:
        raise InputError(
            "supernet.distillation: only learns from a teacher that does not change, and there is "
            "none: name one as supernet.teacher, or begin with a network that comes trained"
        )
    if trained:
        # It has learnt what the first phase would teach it.
        warmup = 0.0
    teacher_first = config.schedule == "taught" and not trained
    stages = (
        # A network that is trained to its end needs no high bits first to learn from.
        default_stages(supernet.ranges, warmup=warmup, gradual=not (teacher_first or trained))
        if config.bits_schedule is None
        # The job's stages divide what is left after the warm-up.
        else [
            BitsStage(warmup + (1 - warmup) * stage.start, tuple(stage.bits))
            for stage in config.bits_schedule
        ]
    )
    with (
        progress.stage("supernet", steps, unit="steps") as bar,
        LossLog(store.folder if distributed.rank() == 0 else None) as log,
    ):

        def on_step(record: dict[str, Any]) -> None:
            bar.advance(1, f"loss {record['loss']:.3f}")
            log.write(record)

        trainer = Trainer(
            supernet,
            sampler=make_schedule(supernet, config, stages, seed=job.seed, focus=focus),
            batches=batches,
            loss=task.loss,
            distillation_loss=task.distillation_loss,
            recipe=Recipe(
                steps=steps,
                learning_rate=learning_rate(config.learning_rate, trained=trained),
                weight_decay=config.weight_decay,
                distillation=bool(config.distillation),
                precision=precision_of(config, context.accelerator),
                restart=warmup if teacher_first else 0.0,
                targets=config.distillation != "only",
                optimizer=optimizer_of(supernet, config, trained=trained),
            ),
            teacher=teacher,
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
        if distributed.rank() == 0:
            _end(trainer, store, own, begun, progress)
    return supernet, trainer.history


def _tell_doubts(
    context: RunContext,
    supernet: Supernet,
    own: Pretrained | None,
    teacher: RememberingTeacher | None,
    progress: Progress,
) -> None:
    """Warn where a network that came trained, or one that teaches, may mean other classes."""
    from nas.models.class_order import doubt

    found = [None if own is None else own.doubt(supernet)]
    splits, named = context.splits, context.job.supernet.teacher
    if named is not None and teacher is not None and context.task.has_classes:
        seen = splits.evaluation_batches(splits.validation.first(IMAGES))
        who = f"the teacher {named.model}"
        found.append(doubt(who, lambda images: teacher.answer(images).cpu(), seen, splits.classes))
    for line in found:
        if line is not None:
            progress.log(f"warning: {line}")


def _end(
    trainer: Trainer,
    store: RunStore,
    own: Pretrained | None,
    begun: dict[str, Tensor],
    progress: Progress,
) -> None:
    """Keep what training made of a network of the user's own as far as nothing got worse."""
    if own is not None and trainer.step and "gate" not in trainer.notes:
        gated = own.gate(trainer.supernet, begun)
        trainer.notes["gate"] = asdict(gated)
        trainer.save(store.checkpoint)
        progress.log(_told(gated))
    elif not store.checkpoint.exists():
        trainer.save(store.checkpoint)


def _told(gated: Gated) -> str:
    change = sum(gated.after[1:]) / len(gated.after[1:]) - sum(gated.before[1:]) / len(
        gated.before[1:]
    )
    if gated.share == 0:
        return (
            "training made a sub-network worse, so the weights stay as they came; train for "
            "longer, or at a lower supernet.learning_rate"
        )
    begun, now = abs(gated.before[0]), abs(gated.after[0])
    # One that came trained is as it came; one that did not has learnt.
    itself = f"keeps its {now:.4f}" if now == begun else f"went from {begun:.4f} to {now:.4f}"
    return f"the network itself {itself}; its sub-networks gain {change:+.4f} on average" + (
        "" if gated.share == 1 else f" ({gated.share:.0%} of the way that training went)"
    )


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
        return max(1, round(epochs * len(batches))) if epochs else 0
    recorded = store.manifest().get("training_steps")
    if recorded is None:
        recorded = _steps_in_time(context, batches, focus)
        store.update_manifest(training_steps=recorded)
    return int(recorded)


def _steps_in_budget(
    context: RunContext,
    store: RunStore,
    batches: Batches,
    focus: Sequence[Arch],
    budget: Budget,
    *,
    trained: bool,
) -> tuple[int, float]:
    """Return the steps that the budget gives the supernet, and the share of its first phase.

    Fixed at the start from measured steps, and recorded, so that a resumed run takes the same.
    """
    recorded = store.manifest().get("training_plan")
    if recorded is None:
        config = context.job.budget
        assert config is not None
        share = config.supernet * budget.limit_s
        steps = measure_steps(
            context, batches, focus, cpu=budget.in_processor_time, at_most_s=TIMING_SHARE * share,
            trained=trained,
        )  # fmt: skip
        recorded = plan_training(
            share - min(0.5 * share, max(0.0, budget.spent() - STARTING_SHARE * budget.limit_s)),
            # A network that comes trained needs no time to become a teacher.
            0.0 if trained else config.teacher,
            steps,
        )
        store.update_manifest(training_plan=recorded)
    return int(recorded["steps"]), float(recorded["warmup"])


def measure_steps(
    context: RunContext,
    batches: Batches,
    focus: Sequence[Arch],
    *,
    cpu: bool = False,
    at_most_s: float = math.inf,
    trained: bool = False,
) -> tuple[float, float]:
    """Return the seconds of a step of the first phase and of a later one, here and now."""
    from nas.stages.step_time import step_seconds

    return step_seconds(
        context.job.supernet,
        context.space,
        context.task,
        batches,
        seed=context.job.seed,
        device=context.accelerator,
        focus=focus,
        cpu=cpu,
        at_most_s=at_most_s,
        trained=trained,
    )


def plan_training(
    seconds: float, teacher: float, step_seconds: tuple[float, float]
) -> dict[str, float]:
    """Return how many ``steps`` fit into ``seconds``, and the share ``warmup`` of the first phase.

    Args:
        seconds: of the whole training.
        teacher: share of them for the first phase, in which the largest network trains alone.
        step_seconds: of a step of the first phase, and of a later one.
    """
    first, later = step_seconds
    of_teacher = max(1, round(teacher * seconds / first)) if teacher else 0
    of_subnets = max(1, round((1 - teacher) * seconds / later))
    steps = of_teacher + of_subnets
    return {"steps": steps, "warmup": of_teacher / steps}


def _steps_in_time(context: RunContext, batches: Batches, focus: Sequence[Arch]) -> int:
    config = context.job.supernet
    warm, full = measure_steps(context, batches, focus)
    budget = 60.0 * float(config.minutes or 0)
    warm_steps = round(config.warmup_epochs * len(batches))
    rest = (budget - warm_steps * warm) / full
    if rest < warm_steps / 9:
        # The warm-up takes at most nine tenths of the steps.
        return max(1, int(budget / (0.9 * warm + 0.1 * full)))
    return int(warm_steps + rest)
