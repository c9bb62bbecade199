"""Training one winner after another, from the weights that it inherits."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.fronts.class_loss import CLASS_LOSS
from nas.fronts.fault_rate import FAULTY
from nas.fronts.noise import error_of_metric
from nas.models.own_network import came_trained, fixed_teacher
from nas.models.sparsity import patterns_of
from nas.stages.build_supernet import anew, precision_of
from nas.stages.training import taught_rounds
from nas.stages.winners.least_squares import reconstructed
from nas.stages.winners.share import FIRST_RUNG, Teaching, teaching
from search_spaces.seeds import derive_seed
from search_spaces.space import Arch

if TYPE_CHECKING:
    from torch import Tensor

    from nas.data.splits import Batches, Subset
    from nas.job.schema import Job
    from nas.record.run_folder import RunStore
    from nas.stages.evaluator import Evaluator, Quality
    from search_spaces.plan import NetworkPlan
    from supernet.network import Supernet
    from supernet.training.own_time import OwnRecipe, OwnTraining
    from supernet.training.teacher import RememberingTeacher

TRAINED_RATE = 2e-3
"""Peak learning rate of what inherits from a network that came trained; a job may give another."""

FITTING_SHARE = 0.1
"""Of a winner's time, at most, for which layers of a network that came trained are fitted to those
of the whole network before anything is trained."""

REFIT_SHARE = 1 - FIRST_RUNG
"""Of a winner's time that goes into ``finetune.refit``: all that follows the choice among
candidates, for which the validation examples were set apart."""

_TIMED_S = 1.0
"""Seconds in which training steps are timed."""


class WinnerTrainer:
    """Trains one winner after another in this process; what they share is made once.

    Args:
        job: of the run.
        store: the run folder; checkpoints are in its ``winners``.
        evaluator: of the trained supernet, which winners inherit from and learn from.
    """

    def __init__(self, job: Job, store: RunStore, evaluator: Evaluator) -> None:
        self._job, self._store, self._evaluator = job, store, evaluator
        self._teachers: dict[Batches, RememberingTeacher] = {}
        self._trained = came_trained(store)
        self._made: dict[tuple[str, tuple[int, int] | None], Batches] = {}

    @property
    def teaching(self) -> Teaching:
        """Whom a teacher teaches, see :func:`nas.stages.winners.share.teaching`."""
        return teaching(self._job, trained=self._trained)

    def teacher_quality(self) -> float:
        """Return the task's metric of the largest network of the shared weights, as it teaches."""
        from supernet.training.train import frozen_teacher

        teacher = frozen_teacher(self._evaluator.supernet, self._store.checkpoint)
        network = self._evaluator.network(teacher.plan, own=teacher.supernet)
        return self._evaluator.quality(network, own=teacher.supernet).accuracy

    @cached_property
    def _joined(self) -> Subset | None:
        """Training and validation examples together, where a winner ends with them."""
        if not self._job.finetune.refit:
            return None
        splits = self._evaluator.splits
        return splits.train.joined(splits.validation)

    def _batches(self, size: tuple[int, int] | None, *, refit: bool = False) -> Batches:
        """Return what winners of a resolution train on, each time another view.

        Or, for None, what those with a teacher do: as many views as were chosen before, at the size
        of the data, since a teacher may look at images of another size than those whom it teaches.
        """
        key = "refit" if refit else "winners", size
        if key not in self._made:
            self._made[key] = self._batches_of(*key, subset=self._joined if refit else None)
        return self._made[key]

    @cached_property
    def _frozen(self) -> Callable[[Tensor], Tensor]:
        """The largest network of the shared weights, which no longer changes."""
        from supernet.training.train import frozen_teacher

        frozen = frozen_teacher(self._evaluator.supernet, self._store.checkpoint)
        return frozen.settled(self._batches(None))

    def path(self, arch: Arch, *, refit: bool = False) -> Path:
        """Return where the training of ``arch`` is kept, or its last part."""
        name = f"{arch.id}-refit" if refit else arch.id
        return self._store.folder / "winners" / f"{name}.safetensors"

    def train(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """Train ``item["arch"]`` until ``item["until"]`` of ``item["total"]`` seconds are spent.

        Without ``item["judged"]`` it is not evaluated afterwards. With ``item["taught"]`` it has a
        teacher.

        Returns:
            ``arch``, ``rung``, ``until``, ``total``, ``accuracy`` and ``worst_class_accuracy`` on
            the validation images, and the ``steps`` and ``seconds`` taken.

        Raises:
            TrainingCollapse: the loss is no longer finite.
        """
        arch = self._evaluator.supernet.space.parse(item["arch"])
        taught = bool(item.get("taught", self.teaching != "nobody"))
        begin = self._fitted(arch, FITTING_SHARE * float(item["total"]))
        training = self._training(arch, cpu=bool(item["cpu"]), taught=taught, begin=begin)
        # Training asks for what is better when larger.
        sign = 1 if self._evaluator.task.higher_is_better else -1

        def quality(weights: Supernet) -> Quality:
            network = self._evaluator.network(training.plan_now, own=weights)
            return self._evaluator.quality(network, own=weights)

        until, total = float(item["until"]), float(item["total"])
        first = total if self._joined is None else (1 - REFIT_SHARE) * total
        training.run(
            until=min(until, first),
            total=first,
            validate=lambda weights: sign * quality(weights).accuracy,
        )
        steps, seconds = training.step, training.spent
        if until > first:
            last = self._refitting(arch, training, cpu=bool(item["cpu"]))
            last.run(until=until - first, total=total - first)
            steps, seconds = steps + last.step, seconds + last.spent
        taken = {"steps": steps, "seconds": round(seconds, 3)}
        if not item.get("judged", True):
            return {**item, **taken}
        found = quality(training.reached())
        inherited = False
        if self._may_inherit(int(item.get("rung", 0))):
            before = self._evaluator.quality(self._evaluator.network(arch))
            images = len(self._evaluator.splits.validation)
            name = self._evaluator.task.metric_name
            # What came trained has shown what it can; the shared weights are one draw of many.
            doubt = 0.0 if self._trained else error_of_metric(name, before.accuracy, images)
            inherited = sign * (before.accuracy - found.accuracy) > doubt
            found = before if inherited else found
        return {
            **item,
            "accuracy": found.accuracy,
            "worst_class_accuracy": found.worst_class_accuracy,
            # JSON knows no NaN, and without faults there is none.
            **({FAULTY: found.accuracy_at_fault_rate} if self._evaluator.faults else {}),
            **({CLASS_LOSS: found.worst_class_loss} if self._evaluator.class_loss else {}),
            **taken,
            # What it inherits was better.
            **({"inherited": True} if inherited else {}),
        }

    def _fitted(self, arch: Arch, seconds: float) -> Supernet | None:
        """Return weights that least squares give ``arch``; None where it begins with its own.

        What a network that came trained leaves to its narrower variants is far from what their
        layers can give. Zeros among weights are chosen by the weights that are inherited.
        """
        if not self._trained or self._job.finetune.sparsity is not None:
            return None
        if self.path(arch).exists():
            return None  # its training has begun
        from supernet.narrow import narrowed

        shared = self._evaluator.supernet
        found = reconstructed(arch, self._evaluator, seconds=seconds)
        return None if found is shared else narrowed(found, shared.plan(arch))

    def _may_inherit(self, rung: int) -> bool:
        """Whether a winner keeps the weights that it inherits where its training made it worse.

        After a quarter of it, mostly in float, what it will become is not known yet: only a network
        that came trained is held against what it was by then. One that ends with the validation
        examples has learnt for most of its time what they cannot judge.
        """
        # Inherited weights have no zeros, however well they do.
        if self._job.finetune.sparsity is not None:
            return False
        return self._trained or (rung == 1 and not self._job.finetune.refit)

    def step_seconds(self, arch: Arch, *, cpu: bool) -> tuple[float, float]:
        """Return the seconds of a training step of ``arch`` here, on weights thrown away.

        Returns:
            those of the step alone, and those in which a teacher that remembers answers for a batch
            that it has not seen; 0 without one.
        """
        # Of their own: how many views the others have is chosen by what this finds.
        taught = self.teaching != "nobody"
        size = None if taught else self._evaluator.supernet.plan(arch).input_size
        batches = self._batches_of("winners", size)
        training = self._training(arch, cpu=cpu, taught=taught, keep=False, batches=batches)
        training.run(until=1e-9, total=math.inf)
        step, spent, asked = training.step, training.spent, training.asked
        training.run(until=spent + _TIMED_S, total=math.inf)
        # What its teacher remembers is of no use to others.
        self._teachers.pop(batches, None)
        steps = training.step - step
        return (training.spent - spent) / steps, (training.asked - asked) / steps

    def trained(self, arch: Arch) -> Supernet:
        """Return the weights of ``arch`` from the run folder."""
        training = self._training(arch, cpu=True, taught=False)
        if self.path(arch, refit=True).exists():
            training = self._refitting(arch, training, cpu=True)
        return training.reached()

    def _batches_of(
        self, name: str, size: tuple[int, int] | None, *, subset: Subset | None = None
    ) -> Batches:
        splits, config = self._evaluator.splits, self._job.finetune
        examples = len(splits.train if subset is None else subset)
        rounds = (self._store.manifest().get("winners_share") or {}).get("rounds")
        return splits.training_batches(
            config.batch_size,
            seed=derive_seed(self._job.seed, name),
            rounds=(rounds or taught_rounds(examples)) if size is None else None,
            subset=subset,
            size=size,
        )

    def _refitting(self, arch: Arch, training: OwnTraining, *, cpu: bool) -> OwnTraining:
        """Return the training that follows ``training`` of ``arch``, on validation examples too."""
        path = self.path(arch, refit=True)
        taught = self.teaching == "all"
        plan = self._evaluator.supernet.plan(arch)
        begin = anew(self._job, self._evaluator.supernet, trained=self._trained)
        if begin is not None:
            begin = _cut_out(begin, plan, path)
        return self._training(
            arch, cpu=cpu, taught=taught, begin=begin or training.reached(),
            batches=self._batches(None if taught else plan.input_size, refit=True),
            checkpoint=path,
        )  # fmt: skip

    def _training(
        self,
        arch: Arch,
        *,
        cpu: bool,
        taught: bool,
        keep: bool = True,
        begin: Supernet | None = None,
        batches: Batches | None = None,
        checkpoint: Path | None = None,
    ) -> OwnTraining:
        from supernet.sparsity.training import pruned
        from supernet.training.own_time import OwnTraining

        supernet, task = self._evaluator.supernet, self._evaluator.task
        plan = supernet.plan(arch)
        batches = batches or self._batches(None if taught else plan.input_size)
        return OwnTraining(
            begin or pruned(supernet, plan, patterns_of(self._job, plan)),
            plan,
            batches=batches,
            loss=task.loss,
            distillation_loss=task.distillation_loss,
            teacher=self._teacher(batches) if taught else None,
            recipe=_recipe(self._job, plan, trained=self._trained, device=self._evaluator.device),
            checkpoint=checkpoint or self.path(arch) if keep else None,
            checkpoint_every_s=self._job.supernet.checkpoint_every_s,
            now=time.process_time if cpu else time.monotonic,
            device=self._evaluator.device,
        )

    def _teacher(self, batches: Batches) -> RememberingTeacher:
        from supernet.training.teacher import RememberingTeacher

        if batches not in self._teachers:
            teacher = fixed_teacher(
                self._job.supernet.teacher,
                self._evaluator.supernet.space,
                batches,
                trained=self._trained,
                device=self._evaluator.device,
            )
            if teacher is None:
                teacher = RememberingTeacher(self._frozen, batches)
            self._teachers[batches] = teacher
        return self._teachers[batches]


def _cut_out(supernet: Supernet, plan: NetworkPlan, checkpoint: Path) -> Supernet:
    """Return ``plan`` cut out of random weights, or all of them where ``checkpoint`` has them.

    A training that was begun with weights for the largest network goes on with them.
    """
    from supernet.narrow import narrowed
    from supernet.training.checkpoint import load_checkpoint

    cut = narrowed(supernet, plan)
    if checkpoint.exists():
        held, _ = load_checkpoint(checkpoint)
        sizes = {f"model.{name}": p.shape for name, p in cut.named_parameters()}
        if any(name in held and held[name].shape != size for name, size in sizes.items()):
            return supernet
    return cut


def _recipe(job: Job, plan: NetworkPlan, *, trained: bool, device: str) -> OwnRecipe:
    from supernet.training.own_time import OwnRecipe, suited_recipe

    config = job.finetune
    if trained:
        begin = OwnRecipe(learning_rate=TRAINED_RATE, float_share=config.float_share or 0.0)
    else:
        begin = suited_recipe(plan, float_share=config.float_share)
    rate = config.learning_rate
    return replace(
        begin,
        learning_rate=begin.learning_rate if rate is None else rate,
        optimizer=config.optimizer or begin.optimizer,
        distillation=1.0 if config.distillation == "only" else begin.distillation,
        weight_decay=job.supernet.weight_decay,
        precision=precision_of(job.supernet, device),
    )
