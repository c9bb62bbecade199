"""The winners of a search, trained on their own in the time that the budget leaves.

More architectures begin than the front has places (successive halving; Jamieson and Talwalkar,
AISTATS 2016, with two rungs): what shared weights say of an architecture is only a guess, and a
quarter of its own training corrects it before it costs a place. Those that stay share the time
in equal seconds, in which a small network takes many more steps than a large one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from nas.executors import Executor, Work
from nas.fronts.class_loss import CLASS_LOSS
from nas.fronts.fault_rate import FAULTY
from nas.fronts.metrics import METRICS
from nas.fronts.noise import error_of_difference
from nas.fronts.places import pick_spread
from nas.record.json_lines import append_line, read_lines
from nas.stages.budget import expected_places
from nas.stages.training import taught_rounds
from nas.stages.winners.share import (
    FIRST_RUNG,
    QUESTIONS_SHARE,
    TRAINED_SOMEWHAT_STEPS,
    WinnerShare,
    share_winners,
    teaches,
)
from nas.stages.winners.trainer import WinnerTrainer
from nas.stages.winners.unlearnt import by_costs, judged_images, untold
from search_spaces.space import Arch

if TYPE_CHECKING:
    from nas.fronts.spec import FrontSpec
    from nas.job.schema import Job
    from nas.record.evaluations import Evaluation
    from nas.record.run_folder import RunStore
    from nas.stages.budget import Budget
    from nas.stages.evaluator import Evaluator
    from nas.stages.progress import Progress

MOST_PARTS = 4
"""Parts in which a winner is trained at most, so that workers end together."""

_ABOVE_PLAN = 1.05
"""Of what was planned for a winner, so much it may take before others had their turn."""

Predict = Callable[[Sequence[Arch]], Sequence[Mapping[str, float]]]
"""Architectures -> metrics that need no training: costs, predicted latencies and sizes."""


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
        self, evaluated: Sequence[Evaluation], *, keep: Callable[[int], float]
    ) -> dict[Arch, dict[str, float]]:
        """Train the architectures of the front and leave their weights with the evaluator.

        Args:
            evaluated: what the search found.
            keep: places on all fronts -> seconds of the budget that must be left afterwards.

        Returns:
            Metrics of each winner, accuracies on the validation images.
        """
        self._record.parent.mkdir(parents=True, exist_ok=True)
        known = {(line["arch"], line["rung"]): line for line in read_lines(self._record)}
        metrics = {e.arch: dict(e.metrics) for e in evaluated}
        self._tell_of_untold(metrics)
        share = self._share(metrics, keep(expected_places(self.job) * len(self.fronts)))
        places = share.places
        keep_s = keep(places * len(self.fronts))
        begun = self._recorded_choice(
            "winners_begun",
            lambda: self._pick(
                metrics,
                share.begun,
                for_budget=round(self.job.finetune.candidates),
                worth=self._worth(share, keep_s),
            ),
        )
        lanes = min(self._lanes(), len(begun))
        time_s = lanes * max(0.0, self.budget.left() - keep_s)
        # Each worker asks a teacher of its own.
        asked_s = self._workers() * share.teacher_s
        if self._trainer.teaching == "all":
            time_s -= asked_s
        time_s += sum(line["seconds"] for (_, rung), line in known.items() if rung == 0)
        kept = min(len(begun), places * len(self.fronts))
        each = max(0.0, time_s) / (FIRST_RUNG * len(begun) + (1 - FIRST_RUNG) * kept)
        each = float(self._recorded_choice("winners_seconds", lambda: [each])[0])
        whole = each * (FIRST_RUNG * len(begun) + (1 - FIRST_RUNG) * kept)
        # In seconds, for those who stay train three times as long then as all did at first.
        with self.progress.stage("winners", round(whole), unit="seconds of training") as bar:

            def advance(note: str = "") -> None:
                bar.advance(round(_seconds(known.values())) - bar.done, note)

            def tell(line: Mapping[str, Any]) -> None:
                known[line["arch"], line["rung"]] = dict(line)
                append_line(self._record, dict(line))
                metric = f"{self.evaluator.task.metric_name} {line['accuracy']:.4f}"
                advance(f"training {len(known)} of {len(begun) + kept}: {metric}")

            advance()

            left = [a for a in begun if (str(a), 0) not in known]
            for line in self._train([self._item(a, 0, FIRST_RUNG * each, each) for a in left]):
                tell(line)
            staying = self._recorded_choice(
                "winners_kept", lambda: self._pick(self._metrics(begun, known, 0), places)
            )
            worth_s = QUESTIONS_SHARE * (1 - FIRST_RUNG) * each
            taught = self._taught(staying, known, pays=lambda count: asked_s <= count * worth_s)
            if taught and self._trainer.teaching != "all":
                each -= asked_s / len(staying)
            left = [a for a in staying if (str(a), 1) not in known]
            spent = {str(a): float(known[str(a), 0]["seconds"]) for a in left}
            for line in self._last_rung(left, spent, each, keep_s, taught):
                tell(line)
        self._tell_of_starved([known[str(arch), 1]["steps"] for arch in staying])
        self._tell_of_inherited([bool(known[str(arch), 1].get("inherited")) for arch in staying])
        for arch in staying:
            if not known[str(arch), 1].get("inherited"):
                self.evaluator.finetuned[arch] = self._trainer.trained(arch)
        return self._metrics(staying, known, 1)

    def _taught(
        self,
        archs: Sequence[Arch],
        known: Mapping[tuple[str, int], Mapping[str, Any]],
        *,
        pays: Callable[[int], bool],
    ) -> set[Arch]:
        """Return who has a teacher from the second rung on.

        Args:
            archs: that stay.
            known: what was told of each.
            pays: whether a teacher is worth what it takes to ask it for so many.
        """
        if self._trainer.teaching != "those behind it":
            return set(archs) if self._trainer.teaching == "all" else set()
        task = self.evaluator.task
        share = METRICS.get(task.metric_name).share

        def choose() -> list[Arch]:
            if not pays(len(archs)):
                return []
            teacher = self._trainer.teacher_quality()
            behind = [
                arch
                for arch in archs
                if teaches(
                    teacher,
                    known[str(arch), 0]["accuracy"],
                    higher_is_better=task.higher_is_better,
                    share=share,
                )
            ]
            return behind if pays(len(behind)) else []

        return set(self._recorded_choice("winners_taught", choose))

    def _tell_of_inherited(self, inherited: Sequence[bool]) -> None:
        """Say how many networks a training of their own made worse, so that it does not count."""
        if any(inherited):
            self.progress.log(
                f"{sum(inherited)} of {len(inherited)} networks of the front keep the weights that "
                "they inherit: training of their own made them worse; a longer budget, or a lower "
                "finetune.learning_rate, may change that"
            )

    def _tell_of_starved(self, steps: Sequence[int]) -> None:
        """Warn of networks that hardly trained, as where other load took the time of a budget."""
        epoch = self._epoch_steps()
        starved = sum(taken < epoch for taken in steps)
        if starved:
            more = "more cpu_minutes"
            if not self.budget.in_processor_time:
                more = "more minutes, or cpu_minutes, of which other load here takes nothing"
            self.progress.log(
                f"warning: {starved} of {len(steps)} networks of the front had less than one pass "
                f"over the training examples of their own: the budget was spent before. Give {more}"
            )

    def _last_rung(
        self,
        archs: Sequence[Arch],
        spent: dict[str, float],
        each: float,
        keep_s: float,
        taught: Collection[Arch],
    ) -> Iterator[dict[str, Any]]:
        """Train ``archs`` for equal seconds until the budget's end and yield what each reached.

        The first take little more than was planned, even if more is left by then: a teacher's
        answers to the later ones come out of that.

        Where they do not fill whole rounds of the executor's workers, each is trained in several
        parts, so that no worker waits for another (McNaughton, Management Science 1959: equal
        pieces in cyclic order keep every machine busy).

        Args:
            archs: to train.
            spent: seconds that each had before; brought up to date.
            each: seconds that were planned for one in all.
            keep_s: seconds of the budget that must be left afterwards.
            taught: who has a teacher.
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
            equal = min(free, min(width, self._lanes()) * free / slots)
            items = []
            for arch, left in now:
                before = spent[str(arch)]
                slice_s = equal
                if slots > width:
                    slice_s = min(equal, _ABOVE_PLAN * max(0.0, each - before) / left)
                items.append(
                    {
                        **self._item(arch, 1, before + slice_s, before + left * slice_s),
                        "judged": left == 1,
                        "taught": arch in taught,
                    }
                )
            for line in self._train(items):
                spent[line["arch"]] = float(line["seconds"])
                if line["judged"]:
                    yield line

    def _share(self, metrics: Mapping[Arch, Mapping[str, float]], keep_s: float) -> WinnerShare:
        """Return how the winners share their time, the same after the run was cut off."""
        manifest = self.store.manifest()
        if "winners_share" in manifest:
            return WinnerShare(**manifest["winners_share"])
        images = len(self.evaluator.splits.train)
        if "winners_places" in manifest:
            # Of a run that was begun before other numbers were chosen with the places.
            (places,) = manifest["winners_places"]
            begun = math.ceil(places * self.job.finetune.candidates)
            return WinnerShare(places, begun, taught_rounds(images), 0.0)
        front = self._pick(metrics, self.job.search.places)
        macs = {arch: self.evaluator.supernet.plan(arch).macs for arch in front}
        middling = sorted(front, key=macs.__getitem__)[len(front) // 2]
        cpu = self.budget.in_processor_time
        step_s, question_s = self._trainer.step_seconds(middling, cpu=cpu)
        self.store.update_manifest(winners_step=[macs[middling], step_s])
        share = share_winners(
            self.job,
            self._lanes() * max(0.0, self.budget.left() - keep_s),
            step_s=step_s,
            question_s=question_s,
            epoch_steps=self._epoch_steps(),
            images=images,
            fronts=len(self.fronts),
        )
        if self.job.search.front_size is None:
            self.progress.log(
                f"{share.places} places on a front, for a winner's step takes {1e3 * step_s:.0f} "
                "ms (search.front_size sets them)"
            )
        self.store.update_manifest(winners_share=asdict(share))
        return share

    def _epoch_steps(self) -> int:
        size = self.job.finetune.batch_size
        return len(self.evaluator.splits.training_batches(size, seed=0))

    def _lanes(self) -> int:
        """Return how many winners train at once and take no time from each other."""
        return 1 if self.budget.in_processor_time else self._workers()

    def _workers(self) -> int:
        return int(getattr(self.executor, "workers", 1))

    def _item(self, arch: Arch, rung: int, until: float, total: float) -> dict[str, Any]:
        return {
            "do": "winner", "arch": str(arch), "rung": rung, "until": until, "total": total,
            "cpu": self.budget.in_processor_time, "judged": True,
            "taught": self._trainer.teaching == "all",
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

    def _worth(self, share: WinnerShare, keep_s: float) -> float | None:
        """Return the operations of a network that takes enough steps in its time, if known.

        See :data:`nas.stages.winners.share.TRAINED_SOMEWHAT_STEPS`.
        """
        timed = self.store.manifest().get("winners_step")
        if timed is None:
            return None
        macs, step_s = timed
        seconds = self._lanes() * max(0.0, self.budget.left() - keep_s)
        steps = share.places * len(self.fronts) * TRAINED_SOMEWHAT_STEPS
        return float(macs * seconds / (steps * step_s))

    def _pick(
        self,
        metrics: Mapping[Arch, Mapping[str, float]],
        each: int,
        *,
        for_budget: int = 1,
        worth: float | None = None,
    ) -> list[Arch]:
        """Return up to ``each`` architectures for every front, without repetition.

        Where accuracies are those of chance, by what costs tell; see
        :func:`nas.stages.winners.unlearnt.by_costs`, also for ``worth``.
        """
        archs = list(metrics)
        chosen: list[Arch] = []
        noise = self._noise(metrics)
        if self._untold(metrics):
            task = self.evaluator.task
            metrics = by_costs(metrics, task.metric_name, worth=worth, higher=task.higher_is_better)
            noise = 0.0
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
        return error_of_difference(best, self._images())

    def _untold(self, metrics: Mapping[Arch, Mapping[str, float]]) -> bool:
        task = self.evaluator.task
        return untold(metrics.values(), task, self.evaluator.splits, self._images())

    def _tell_of_untold(self, metrics: Mapping[Arch, Mapping[str, float]]) -> None:
        """Say that shared weights have learnt nothing by which to choose."""
        if self._untold(metrics):
            task = self.evaluator.task
            better = max if task.higher_is_better else min
            best = better(found[task.metric_name] for found in metrics.values())
            self.progress.log(
                "the shared weights have learnt next to nothing (the best network has "
                f"{task.metric_name} {best:.3f}): whom to train is chosen by size and operations; "
                "a longer budget, or a larger share of it as budget.supernet, lets it choose"
            )

    def _images(self) -> int:
        return judged_images(self.job, self.evaluator.splits)

    def _recorded_choice(self, name: str, make: Callable[[], Sequence[Any]]) -> list[Any]:
        """Return what ``make`` gives, the same after the run was cut off and resumed."""
        recorded = self.store.manifest().get(name)
        space = self.evaluator.supernet.space
        if recorded is None:
            made = list(make())
            recorded = [str(v) if isinstance(v, Arch) else v for v in made]
            self.store.update_manifest(**{name: recorded})
        return [space.parse(v) if isinstance(v, str) else v for v in recorded]


def _seconds(lines: Iterable[Mapping[str, Any]]) -> float:
    """Return the seconds that all trainings took; each line has those of its network so far."""
    spent: dict[str, float] = {}
    for line in lines:
        spent[line["arch"]] = max(spent.get(line["arch"], 0.0), float(line["seconds"]))
    return sum(spent.values())
