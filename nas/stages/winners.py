"""The winners of a search, trained on their own in the time that the budget leaves.

More architectures begin than the front has places (successive halving; Jamieson and Talwalkar,
AISTATS 2016, with two rungs): what shared weights say of an architecture is only a guess, and a
quarter of its own training corrects it before it costs a place. Those that stay share the time
in equal seconds, in which a small network takes many more steps than a large one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.executors import Executor, Work
from nas.fronts.class_loss import CLASS_LOSS
from nas.fronts.fault_rate import FAULTY
from nas.fronts.metrics import METRICS
from nas.fronts.noise import error_of_difference
from nas.fronts.places import pick_spread
from nas.models.own_network import came_trained, fixed_teacher
from nas.models.sparsity import patterns_of
from nas.record.json_lines import append_line, read_lines
from nas.stages.budget import FIRST_RUNG, trained_places
from nas.stages.training import taught_rounds
from search_spaces.seeds import derive_seed
from search_spaces.space import Arch

if TYPE_CHECKING:
    from nas.data.splits import Batches, Subset
    from nas.fronts.spec import FrontSpec
    from nas.job.schema import Job
    from nas.record.evaluations import Evaluation
    from nas.record.run_folder import RunStore
    from nas.stages.budget import Budget
    from nas.stages.evaluator import Evaluator, Quality
    from nas.stages.progress import Progress
    from search_spaces.plan import NetworkPlan
    from supernet.network import Supernet
    from supernet.training.own_time import OwnRecipe, OwnTraining
    from supernet.training.teacher import RememberingTeacher

TRAINED_RATE = 2e-3
"""Peak learning rate of what inherits from a network that came trained; a job may give another."""

REFIT_SHARE = 0.4
"""Of a winner's time, at its end, that goes into ``finetune.refit``."""

MOST_PARTS = 4
"""Parts in which a winner is trained at most, so that workers end together."""

_TIMED_S = 1.0
"""Seconds in which training steps are timed."""

Predict = Callable[[Sequence[Arch]], Sequence[Mapping[str, float]]]
"""Architectures -> metrics that need no training: costs, predicted latencies and sizes."""


class WinnerTrainer:
    """Trains one winner after another in this process; what they share is made once.

    Args:
        job: of the run.
        store: the run folder; checkpoints are in its ``winners``.
        evaluator: of the trained supernet, which winners inherit from and learn from.
    """

    def __init__(self, job: Job, store: RunStore, evaluator: Evaluator) -> None:
        self._job, self._store, self._evaluator = job, store, evaluator
        self._batches = self._batches_of("winners")
        self._all: Batches | None = None
        if job.finetune.refit:
            both = evaluator.splits.train.joined(evaluator.splits.validation)
            self._all = self._batches_of("refit", both)
        self._teachers: dict[Batches, RememberingTeacher] = {}
        self._trained = came_trained(store)

    def path(self, arch: Arch, *, refit: bool = False) -> Path:
        """Return where the training of ``arch`` is kept, or its last part."""
        name = f"{arch.id}-refit" if refit else arch.id
        return self._store.folder / "winners" / f"{name}.safetensors"

    def train(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """Train ``item["arch"]`` until ``item["until"]`` of ``item["total"]`` seconds are spent.

        Without ``item["judged"]`` it is not evaluated afterwards.

        Returns:
            ``arch``, ``rung``, ``until``, ``total``, ``accuracy`` and ``worst_class_accuracy`` on
            the validation images, and the ``steps`` and ``seconds`` taken.

        Raises:
            TrainingCollapse: the loss is no longer finite.
        """
        arch = self._evaluator.supernet.space.parse(item["arch"])
        training = self._training(arch, cpu=bool(item["cpu"]))
        # Training asks for what is better when larger.
        sign = 1 if self._evaluator.task.higher_is_better else -1

        def quality(weights: Supernet) -> Quality:
            network = self._evaluator.network(training.plan_now, own=weights)
            return self._evaluator.quality(network, own=weights)

        until, total = float(item["until"]), float(item["total"])
        first = total if self._all is None else (1 - REFIT_SHARE) * total
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
        # Inherited weights have no zeros, however well they do.
        if self._trained and self._job.finetune.sparsity is None:
            before = self._evaluator.quality(self._evaluator.network(arch))
            inherited = sign * found.accuracy < sign * before.accuracy
            found = before if inherited else found
        return {
            **item,
            "accuracy": found.accuracy,
            "worst_class_accuracy": found.worst_class_accuracy,
            # JSON knows no NaN, and without faults there is none.
            **({FAULTY: found.accuracy_at_fault_rate} if self._evaluator.faults else {}),
            **({CLASS_LOSS: found.worst_class_loss} if self._evaluator.class_loss else {}),
            **taken,
            # What it inherits from a network that came trained was better.
            **({"inherited": True} if inherited else {}),
        }

    def step_seconds(self, arch: Arch, *, cpu: bool) -> float:
        """Return the seconds of a training step of ``arch`` here, on weights thrown away."""
        training = self._training(arch, cpu=cpu, keep=False)
        training.run(until=1e-9, total=math.inf)
        step, spent = training.step, training.spent
        training.run(until=spent + _TIMED_S, total=math.inf)
        return (training.spent - spent) / (training.step - step)

    def trained(self, arch: Arch) -> Supernet:
        """Return the weights of ``arch`` from the run folder."""
        training = self._training(arch, cpu=True)
        if self.path(arch, refit=True).exists():
            training = self._refitting(arch, training, cpu=True)
        return training.reached()

    def _batches_of(self, name: str, subset: Subset | None = None) -> Batches:
        splits, config = self._evaluator.splits, self._job.finetune
        examples = len(splits.train if subset is None else subset)
        return splits.training_batches(
            config.batch_size,
            seed=derive_seed(self._job.seed, name),
            rounds=taught_rounds(examples) if config.distillation else None,
            subset=subset,
        )

    def _refitting(self, arch: Arch, training: OwnTraining, *, cpu: bool) -> OwnTraining:
        """Return the training that follows ``training`` of ``arch``, on validation examples too."""
        assert self._all is not None
        return self._training(
            arch, cpu=cpu, begin=training.reached(), batches=self._all,
            checkpoint=self.path(arch, refit=True),
        )  # fmt: skip

    def _training(
        self,
        arch: Arch,
        *,
        cpu: bool,
        keep: bool = True,
        begin: Supernet | None = None,
        batches: Batches | None = None,
        checkpoint: Path | None = None,
    ) -> OwnTraining:
        from supernet.sparsity.training import pruned
        from supernet.training.own_time import OwnTraining

        supernet, task, config = self._evaluator.supernet, self._evaluator.task, self._job.finetune
        plan = supernet.plan(arch)
        batches = batches or self._batches
        return OwnTraining(
            begin or pruned(supernet, plan, patterns_of(self._job, plan)),
            plan,
            batches=batches,
            loss=task.loss,
            distillation_loss=task.distillation_loss,
            teacher=self._taught(batches) if config.distillation else None,
            recipe=_recipe(self._job, supernet, plan, trained=self._trained),
            checkpoint=checkpoint or self.path(arch) if keep else None,
            checkpoint_every_s=self._job.supernet.checkpoint_every_s,
            now=time.process_time if cpu else time.monotonic,
            device=self._evaluator.device,
        )

    def _taught(self, batches: Batches) -> RememberingTeacher:
        from supernet.training.teacher import RememberingTeacher
        from supernet.training.train import frozen_teacher

        if batches not in self._teachers:
            teacher = fixed_teacher(
                self._job.supernet.teacher,
                self._evaluator.supernet.space,
                batches,
                trained=self._trained,
                device=self._evaluator.device,
            )
            if teacher is None:
                frozen = frozen_teacher(self._evaluator.supernet, self._store.checkpoint)
                teacher = RememberingTeacher(frozen.settled(self._batches), batches)
            self._teachers[batches] = teacher
        return self._teachers[batches]


def _recipe(job: Job, supernet: Supernet, plan: NetworkPlan, *, trained: bool) -> OwnRecipe:
    from supernet.training.own_time import OwnRecipe, suited_recipe

    config = job.finetune
    if trained:
        begin = OwnRecipe(learning_rate=TRAINED_RATE, float_share=config.float_share or 0.0)
    else:
        begin = suited_recipe(supernet, plan, float_share=config.float_share)
    rate = config.learning_rate
    return replace(
        begin,
        learning_rate=begin.learning_rate if rate is None else rate,
        distillation=1.0 if config.distillation == "only" else begin.distillation,
        weight_decay=job.supernet.weight_decay,
        precision=job.supernet.precision,
    )


class Winners:
    """Chooses who trains, shares the time, and hands over the trained.

    Args:
        job: a checked job.
        store: the run folder.
        fronts: what the job asks for.
        budget: what may be spent.
        evaluator: of the trained supernet.
        executor: where winners are trained.
        predict: metrics of architectures that training does not change.
        progress: where to tell about progress.
        trainer: trains in this process, and reads back what was trained anywhere.
    """

    def __init__(
        self,
        job: Job,
        store: RunStore,
        fronts: Sequence[FrontSpec],
        *,
        budget: Budget,
        evaluator: Evaluator,
        executor: Executor,
        predict: Predict,
        progress: Progress,
        trainer: WinnerTrainer | None = None,
    ) -> None:
        self.job, self.store, self.fronts = job, store, list(fronts)
        self.budget, self.evaluator, self.executor = budget, evaluator, executor
        self.predict, self.progress = predict, progress
        self._record = store.folder / "winners" / "rungs.jsonl"
        self._trainer = trainer or WinnerTrainer(job, store, evaluator)

    def run(
        self, evaluated: Sequence[Evaluation], *, keep_s: float
    ) -> dict[Arch, dict[str, float]]:
        """Train the architectures of the front and leave their weights with the evaluator.

        Args:
            evaluated: what the search found.
            keep_s: seconds of the budget that must be left afterwards.

        Returns:
            Metrics of each winner, accuracies on the validation images.
        """
        self._record.parent.mkdir(parents=True, exist_ok=True)
        known = {(line["arch"], line["rung"]): line for line in read_lines(self._record)}
        metrics = {e.arch: dict(e.metrics) for e in evaluated}
        lanes = self._lanes()
        (places,) = self._recorded_choice(
            "winners_places",
            lambda: [self._places(metrics, lanes * max(0.0, self.budget.left() - keep_s))],
        )
        begun = self._recorded_choice(
            "winners_begun",
            lambda: self._pick(
                metrics,
                math.ceil(places * self.job.finetune.candidates),
                for_budget=round(self.job.finetune.candidates),
            ),
        )
        time_s = lanes * max(0.0, self.budget.left() - keep_s)
        time_s += sum(line["seconds"] for (_, rung), line in known.items() if rung == 0)
        kept = min(len(begun), places * len(self.fronts))
        each = time_s / (FIRST_RUNG * len(begun) + (1 - FIRST_RUNG) * kept)
        each = float(self._recorded_choice("winners_seconds", lambda: [each])[0])
        with self.progress.stage("winners", len(begun) + kept, unit="trainings") as bar:
            bar.advance(len(known))

            def tell(line: Mapping[str, Any]) -> None:
                known[line["arch"], line["rung"]] = dict(line)
                append_line(self._record, dict(line))
                bar.advance(1, f"{self.evaluator.task.metric_name} {line['accuracy']:.4f}")

            left = [a for a in begun if (str(a), 0) not in known]
            for line in self._train([self._item(a, 0, FIRST_RUNG * each, each) for a in left]):
                tell(line)
            staying = self._recorded_choice(
                "winners_kept", lambda: self._pick(self._metrics(begun, known, 0), places)
            )
            left = [a for a in staying if (str(a), 1) not in known]
            spent = {str(a): float(known[str(a), 0]["seconds"]) for a in left}
            for line in self._last_rung(left, spent, keep_s):
                tell(line)
        self._tell_of_starved([known[str(arch), 1]["steps"] for arch in staying])
        for arch in staying:
            if not known[str(arch), 1].get("inherited"):
                self.evaluator.finetuned[arch] = self._trainer.trained(arch)
        return self._metrics(staying, known, 1)

    def _tell_of_starved(self, steps: Sequence[int]) -> None:
        """Warn of networks that hardly trained, as where other load took the time of a budget."""
        size = self.job.finetune.batch_size
        epoch = len(self.evaluator.splits.training_batches(size, seed=0))
        starved = sum(taken < epoch for taken in steps)
        if starved:
            self.progress.log(
                f"warning: {starved} of {len(steps)} networks of the front had less than one pass "
                "over the training examples of their own: the budget was spent before. Give more "
                "minutes, or cpu_minutes, of which other load on this machine takes nothing"
            )

    def _last_rung(
        self, archs: Sequence[Arch], spent: dict[str, float], keep_s: float
    ) -> Iterator[dict[str, Any]]:
        """Train ``archs`` for equal seconds until the budget's end and yield what each reached.

        Where they do not fill whole rounds of the executor's workers, each is trained in several
        parts, so that no worker waits for another (McNaughton, Management Science 1959: equal
        pieces in cyclic order keep every machine busy).

        Args:
            archs: to train.
            spent: seconds that each had before; brought up to date.
            keep_s: seconds of the budget that must be left afterwards.
        """
        if not archs:
            return
        width = min(len(archs), self._workers())
        parts = min(MOST_PARTS, width // math.gcd(len(archs), width))
        turns = [(arch, parts - part) for part in range(parts) for arch in archs]
        for i in range(0, len(turns), width):
            now, slots = turns[i : i + width], len(turns) - i
            # What others left over, or took too long for, is shared again each time.
            free = max(0.0, self.budget.left() - keep_s)
            slice_s = min(free, min(width, self._lanes()) * free / slots)
            items = [
                {
                    **self._item(
                        arch, 1, spent[str(arch)] + slice_s, spent[str(arch)] + left * slice_s
                    ),
                    "judged": left == 1,
                }
                for arch, left in now
            ]
            for line in self._train(items):
                spent[line["arch"]] = float(line["seconds"])
                if line["judged"]:
                    yield line

    def _places(self, metrics: Mapping[Arch, Mapping[str, float]], seconds: float) -> int:
        if self.job.search.front_size is not None:
            return self.job.search.front_size
        front = self._pick(metrics, self.job.search.places)
        plans = {arch: self.evaluator.supernet.plan(arch).macs for arch in front}
        middling = sorted(front, key=plans.__getitem__)[len(front) // 2]
        step_s = self._trainer.step_seconds(middling, cpu=self.budget.in_processor_time)
        places = trained_places(self.job, seconds, step_s=step_s, fronts=len(self.fronts))
        self.progress.log(
            f"{places} places on a front, for a winner's step takes {1e3 * step_s:.0f} ms "
            "(search.front_size sets them)"
        )
        return places

    def _lanes(self) -> int:
        """Return how many winners train at once and take no time from each other."""
        return 1 if self.budget.in_processor_time else self._workers()

    def _workers(self) -> int:
        return int(getattr(self.executor, "workers", 1))

    def _item(self, arch: Arch, rung: int, until: float, total: float) -> dict[str, Any]:
        return {
            "do": "winner", "arch": str(arch), "rung": rung, "until": until, "total": total,
            "cpu": self.budget.in_processor_time, "judged": True,
        }  # fmt: skip

    def _train(self, items: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
        work = Work(
            "nas.stages.worker_tasks:candidates",
            {"folder": str(self.store.folder)},
            here=self._trainer.train,
        )
        for _, line in self.executor.run(work, items):
            yield line

    def _metrics(
        self, archs: Sequence[Arch], known: Mapping[tuple[str, int], Mapping[str, Any]], rung: int
    ) -> dict[Arch, dict[str, float]]:
        found = {}
        for arch, costs in zip(archs, self.predict(archs), strict=True):
            line = known[str(arch), rung]
            found[arch] = {
                **costs,
                # By the name of the task's metric, which goals and bounds call it by.
                self.evaluator.task.metric_name: line["accuracy"],
                "worst_class_accuracy": line["worst_class_accuracy"],
                **{name: line[name] for name in (FAULTY, CLASS_LOSS) if name in line},
            }
        return found

    def _pick(
        self, metrics: Mapping[Arch, Mapping[str, float]], each: int, *, for_budget: int = 1
    ) -> list[Arch]:
        """Return up to ``each`` architectures for every front, without repetition."""
        archs = list(metrics)
        chosen: list[Arch] = []
        noise = self._noise(metrics)
        for front in self.fronts:
            picked = pick_spread(
                archs,
                [metrics[arch] for arch in archs],
                front.goals,
                front.constraints,
                each,
                metric=self.evaluator.task.metric_name,
                budgets=front.budgets,
                each=for_budget,
                noise=noise,
            )
            chosen += [arch for arch in picked if arch not in chosen]
        return chosen

    def _noise(self, metrics: Mapping[Arch, Mapping[str, float]]) -> float:
        """Return the standard error of a difference of the best in the task's metric."""
        name = self.evaluator.task.metric_name
        if not METRICS.get(name).share or not metrics:
            return 0.0
        better = max if self.evaluator.task.higher_is_better else min
        best = better(found[name] for found in metrics.values())
        images = len(self.evaluator.splits.validation)
        asked = self.job.search.validation_images
        return error_of_difference(best, min(images, asked or images))

    def _recorded_choice(self, name: str, make: Callable[[], Sequence[Any]]) -> list[Any]:
        """Return what ``make`` gives, the same after the run was cut off and resumed."""
        recorded = self.store.manifest().get(name)
        space = self.evaluator.supernet.space
        if recorded is None:
            made = list(make())
            recorded = [str(v) if isinstance(v, Arch) else v for v in made]
            self.store.update_manifest(**{name: recorded})
        return [space.parse(v) if isinstance(v, str) else v for v in recorded]
