"""The search stage: strategies propose, candidates are evaluated, everything is recorded."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.executors import Executor, Work
from nas.fronts.class_loss import CLASS_LOSS
from nas.fronts.costs import exact_costs, exact_names
from nas.fronts.fault_rate import FAULTY
from nas.fronts.metrics import Metric
from nas.fronts.spec import FrontSpec, metric_names
from nas.stages.early_stopping import accuracy_needed
from nas.strategies import STRATEGIES, Learned, Problem, Strategy, Supplied
from nas.strategies.near_budget import near_budget
from nas.strategies.surrogates import cost_surrogates
from predictors.accuracy import FEWEST, AccuracyPredictor
from search_spaces.errors import InfeasibleError, InputError
from search_spaces.planned import PlannedSpace
from search_spaces.seeds import derive_rng, derive_seed
from search_spaces.space import Arch

if TYPE_CHECKING:
    from nas.job.schema import Job
    from nas.models.size_model import FileSizes
    from nas.record.evaluations import StudyRecord
    from nas.stages.evaluator import Evaluator
    from nas.stages.latencies import Latencies
    from nas.stages.progress import Progress
    from nas.stages.warm_start import WarmStart
    from search_spaces.training.update import Update

_POLL_S = 0.2
POOL = 1000
"""Architectures from which those for the first measurements are chosen."""
WORST = "worst_class_accuracy"
"""What an evaluation on validation images gives beside the task's metric."""
OF_ALL_IMAGES = frozenset({WORST, FAULTY, CLASS_LOSS})
"""Metrics of an evaluation that a part of the images does not bound."""


class Search:
    """Looks for the candidates of every front of a job.

    Args:
        job: a checked job.
        space: of its networks.
        fronts: what is looked for; the strategies of the fronts take turns and learn from
            each other's evaluations.
        latencies: predicted latency on each device.
        sizes: predicted bytes of the model file.
        study: the record of evaluations.
        executor, evaluator: where candidates are evaluated, of the trained supernet.
        folder: run folder, for workers of other processes.
        progress: where to tell about progress.
    """

    def __init__(
        self,
        job: Job,
        space: PlannedSpace,
        fronts: Sequence[FrontSpec],
        *,
        latencies: Latencies,
        sizes: FileSizes,
        study: StudyRecord,
        executor: Executor,
        evaluator: Evaluator,
        folder: Path,
        progress: Progress,
    ) -> None:
        from nas.stages.worker_tasks import evaluation_of

        self.job, self.space, self.fronts = job, space, list(fronts)
        self.latencies, self.sizes, self.study = latencies, sizes, study
        self.executor, self.progress = executor, progress
        self._folder = folder.resolve()
        self._work = Work(
            "nas.stages.worker_tasks:candidates",
            {"folder": str(folder.resolve())},
            here=evaluation_of(evaluator),
        )
        # One surrogate for all fronts: they are told the same evaluations.
        self.metric = job.metric
        self._learned = {
            self.metric: Learned(_learned(space, job.seed, "accuracy")),
            WORST: Learned(_learned(space, job.seed, "worst class")),
        }
        if evaluator.faults is not None:
            self._learned[FAULTY] = Learned(_learned(space, job.seed, "faults"))
        if evaluator.class_loss:
            self._learned[CLASS_LOSS] = Learned(_learned(space, job.seed, "class loss"))
        self.quality: list[dict[str, Any]] = []
        """Fit of the accuracy predictor, one entry a round."""

    def run(
        self,
        warm_start: WarmStart | None = None,
        *,
        over: Callable[[int], bool] = lambda done: False,
    ) -> None:
        """Spend the job's evaluations; those on record are not made again.

        Args:
            warm_start: an older run whose evaluations are known and cost nothing.
            over: asked with the number of evaluations before each round that is not on record,
                and before each part of the first but its own first, which is enough for the places
                of a front; True ends the search early.

        Raises:
            InfeasibleError: no front has an architecture that keeps its bounds.
        """
        config = self.job.search
        strategies = self._strategies()
        known = self._take_over(warm_start)
        first = [] if warm_start is None else warm_start.front(self.space)
        first = [arch for arch in first if arch not in known]
        told = dict(known)
        self._tell(strategies, known)
        done, round_number, on_record = 0, 0, self._on_record()
        part, rest = max(config.batch, config.places), list[Arch]()
        with self.progress.stage("search", config.evaluations, unit="subnets") as bar:
            while done < config.evaluations and strategies:
                if done and done >= on_record and over(done):
                    break
                left = config.evaluations - done
                if rest:
                    archs, rest = rest[:part], rest[part:]
                elif first:
                    archs, first = first[:left], []
                else:
                    wanted = config.first if round_number == 0 else config.batch
                    archs = self._ask(strategies, round_number, min(wanted, left), told)
                archs = self._within_budget(archs)
                if not archs:
                    break
                if not done:
                    archs, rest = archs[:part], archs[part:]
                found = {}
                for arch, metrics in self._evaluate(archs, round_number, list(told.values())):
                    found[arch] = metrics
                    bar.advance(1, f"{self.metric} {metrics[self.metric]:.4f}")
                ordered = {arch: found[arch] for arch in archs}
                told.update(ordered)
                self._tell(strategies, ordered)
                done += len(archs)
                if not rest:
                    self._record_quality(round_number)
                    round_number += 1

    def _within_budget(self, archs: Sequence[Arch]) -> list[Arch]:
        """Return ``archs`` without those whose evaluation would exceed the job's number.

        A resumed run asks for what it asked for before, so this leaves out nothing unless
        something changed in between (a library, the number of threads): then what is on record
        counts, whether it is asked for again or not.
        """
        free = self.job.search.evaluations - self._on_record()
        kept = []
        for arch in archs:
            if self.study.lookup(arch, "search") is None:
                if free <= 0:
                    continue
                free -= 1
            kept.append(arch)
        return kept

    def _on_record(self) -> int:
        """Return how many evaluations of the search this run has made."""
        mine = str(self._folder)
        return sum(
            evaluation.attributes.get("round", 0) >= 0
            and (not self.study.shared or evaluation.attributes.get("run") == mine)
            for evaluation in self.study.evaluations("search")
        )

    # ------------------------------------------------------------------ strategies

    def _strategies(self) -> dict[str, Strategy]:
        config = self.job.search
        options = dict(config.options)
        if config.strategy == "predictor":
            options["initial"] = config.first
            options.setdefault("log_costs", True)
        make = STRATEGIES.get(config.strategy)
        return {
            front.name: make(
                Problem(
                    self.space,
                    front.goals,
                    front.constraints,
                    self.surrogates(front, learned=True),
                ),
                seed=derive_seed(self.job.seed, "front", front.name) if i else self.job.seed,
                **options,
            )
            for i, front in enumerate(self.fronts)
        }

    def _ask(
        self,
        strategies: dict[str, Strategy],
        round_number: int,
        count: int,
        told: Mapping[Arch, Mapping[str, float]],
    ) -> list[Arch]:
        """Ask the next front's strategy; a front that cannot be met leaves the search."""
        while strategies:
            names = list(strategies)
            name = names[round_number % len(names)]
            front = next(front for front in self.fronts if front.name == name)
            # The first round is for all; from then on half serves budgets, where there are any.
            near = self._for_budgets(front, count // 2 if round_number else 0, told)
            try:
                asked = strategies[name].ask(count - len(near))
                return list(dict.fromkeys([*near, *asked]))
            except InfeasibleError as error:
                if len(strategies) == 1:
                    raise
                self.progress.log(f"front {name!r}: {error}")
                del strategies[name]
        return []

    def _for_budgets(
        self, front: FrontSpec, count: int, told: Mapping[Arch, Mapping[str, float]]
    ) -> list[Arch]:
        """Return up to ``count`` new architectures that use the budgets of ``front`` well."""
        each = count // max(1, len(front.budgets))
        if not each or len(told) < FEWEST:
            return []
        values = np.array([metrics[self.metric] for metrics in told.values()])
        self._learned[self.metric].fit(self.space.genes(list(told)), values)
        found: list[Arch] = []
        for i, budget in enumerate(front.budgets):
            near = replace(
                front, goals=(budget.goal,), constraints=budget.within(front.constraints)
            )
            surrogates = self.surrogates(near, learned=True)
            found += near_budget(
                Problem(self.space, near.goals, near.constraints, surrogates),
                each,
                derive_rng(self.job.seed, "budget", front.name, str(i), str(len(told))),
                exclude=[*told, *found],
            )
        return found

    def _tell(
        self, strategies: Mapping[str, Strategy], found: Mapping[Arch, Mapping[str, float]]
    ) -> None:
        archs, metrics = list(found), list(found.values())
        if not archs:
            return
        for front in self.fronts:
            if front.name in strategies:
                strategies[front.name].tell(
                    archs, front.objectives(metrics), front.violations(metrics)
                )

    def _record_quality(self, round_number: int) -> None:
        from scipy.stats import kendalltau

        from predictors.rank_correlation import rank_correlation

        found = self._learned[self.metric].left_out()
        if found is not None:
            # The fit from which this round's subnets were chosen.
            values, predicted = found
            self.quality.append(
                {
                    "round": round_number,
                    "points": len(values),
                    "kendall_tau": rank_correlation(kendalltau, predicted, values),
                    "rmse": float(np.sqrt(np.mean((predicted - values) ** 2))),
                }
            )

    def surrogates(self, front: FrontSpec, *, learned: bool) -> dict[str, Any]:
        """Return what gives each metric of a front before it is evaluated.

        Args:
            front: its objectives and bounds.
            learned: also those that are fitted to evaluations.

        Raises:
            InputError: a metric that nothing gives.
        """
        names = {str(g.metric) for g in front.goals} | {str(c.metric) for c in front.constraints}
        exact = exact_names(names)
        found: dict[str, Any] = cost_surrogates(
            exact_costs(self.space, exact, training=self.job.search.training.update()), exact
        )
        for name in sorted(names - set(found)):
            metric = Metric.parse(name)
            if metric.name in self._learned:
                if learned:
                    found[name] = self._learned[metric.name]
            elif metric.name == "size_kib":
                found[name] = Supplied(self.sizes.predict)
            elif metric.device is not None:
                found[name] = Supplied(partial(self.latencies.predict_genes, name))
            else:
                raise InputError(f"{name} cannot be evaluated by this job")
        return found

    # ----------------------------------------------------------------- evaluations

    def metrics(self, arch: Arch) -> dict[str, float]:
        """Return what is known of ``arch`` without evaluating it: costs and predictions."""
        genes = self.space.genes([arch])
        size = self.sizes.predict(genes)[0]
        return {
            **costs(self.space, arch, self.fronts, training=self.job.search.training.update()),
            "size_kib": float(size[0]),
            **self.latencies.predicted([arch])[0],
        }

    def _evaluate(
        self, archs: Sequence[Arch], round_number: int, told: Sequence[Mapping[str, float]]
    ) -> Any:
        """Yield (architecture, metrics), those on record first, the others as they are done.

        With processes that share the study, each takes a few at a time and waits for what the
        others have taken, so that two runs of one job go through its rounds together.
        """
        left = list(archs)
        while left:
            before = len(left)
            todo: list[tuple[Arch, dict[str, float]]] = []
            share = getattr(self.executor, "workers", 1) if self.study.shared else len(left)
            still = []
            for arch in left:
                recorded = self.study.lookup(arch, "search")
                if recorded is None and len(todo) < share and self.study.claim(arch, "search"):
                    # Its last owner may have finished after the first look.
                    recorded = self.study.lookup(arch, "search")
                    if recorded is None:
                        todo.append((arch, self.metrics(arch)))
                        continue
                    self.study.unclaim(arch, "search")
                if recorded is None:
                    still.append(arch)
                else:
                    yield arch, recorded
            left = still
            items = [self._item(arch, metrics, told) for arch, metrics in todo]
            for index, quality in self.executor.run(self._work, items):
                arch, metrics = todo[index]
                yield arch, self._recorded(arch, metrics, quality, round_number)
            if len(left) == before:
                time.sleep(_POLL_S)

    def _recorded(
        self,
        arch: Arch,
        metrics: Mapping[str, float],
        quality: Mapping[str, Any],
        round_number: int,
    ) -> dict[str, float]:
        stopped = quality["stopped"]
        return self.study.record(
            arch,
            {
                self.metric: quality["accuracy"],
                WORST: quality["worst_class_accuracy"],
                **{n: quality[n] for n in (FAULTY, CLASS_LOSS) if n in self._learned},
                **metrics,
            },
            stage="search",
            attributes={
                "round": round_number,
                "seed": self.job.seed,
                "run": str(self._folder),
                "latency_source": "predicted",
                "images": quality["images"],
                "early_stopped": stopped,
                **({"accuracy_upper": quality["upper"]} if stopped else {}),
            },
        )

    def _item(
        self, arch: Arch, metrics: Mapping[str, float], told: Sequence[Mapping[str, float]]
    ) -> dict[str, Any]:
        config = self.job.search
        stop = None
        if config.early_stopping is not None and not self._needs_every_image():
            needed = accuracy_needed(metrics, told, self.fronts, metric=self.metric)
            if np.isfinite(needed):
                stop = {
                    "images": config.early_stopping.images,
                    "risk": config.early_stopping.risk,
                    "needed": needed,
                }
        return {
            "do": "evaluate", "arch": str(arch),
            "images": config.validation_images, "early_stop": stop,
        }  # fmt: skip

    def _needs_every_image(self) -> bool:
        return any(metric.name in OF_ALL_IMAGES for metric in self._evaluated_metrics())

    def _evaluated_metrics(self) -> list[Metric]:
        return [
            metric
            for front in self.fronts
            for metric in [g.metric for g in front.goals] + [c.metric for c in front.constraints]
        ]

    def _take_over(self, warm_start: WarmStart | None) -> dict[Arch, dict[str, float]]:
        """Record an older run's evaluations here, with this run's predictions of latency."""
        if warm_start is None:
            return {}
        found = {}
        for old in warm_start.evaluations(self.space, self.job.search.validation_images):
            quality = {name: old.metrics.get(name, float("nan")) for name in self._learned}
            needed = {m.name for m in self._evaluated_metrics()} & OF_ALL_IMAGES
            if any(not np.isfinite(quality[name]) for name in needed):
                continue
            recorded = self.study.lookup(old.arch, "search")
            found[old.arch] = recorded or self.study.record(
                old.arch,
                {**quality, **self.metrics(old.arch)},
                stage="search",
                attributes={
                    "round": -1,
                    "seed": self.job.seed,
                    "latency_source": "predicted",
                    "from_run": str(warm_start.store.folder),
                },
            )
        if found:
            self.progress.log(
                f"{len(found)} evaluations are taken over from {warm_start.store.folder}"
            )
        return found


def feasible_pool(
    job: Job, space: PlannedSpace, fronts: Sequence[FrontSpec], *, count: int = POOL
) -> list[Arch]:
    """Return architectures to choose latency samples from: within the exact bounds.

    Both ends of the space are among them where they keep the bounds.

    Raises:
        InfeasibleError: bounds on exact costs that no architecture keeps.
    """

    from nas.strategies.feasible import find_feasible

    rng = derive_rng(job.seed, "latency pool")
    # The bounds that all fronts share are on costs of the architecture itself.
    known = exact_names(metric_names(fronts))
    exact = [c for c in fronts[0].constraints if c.metric.name in known]
    genes = np.unique(space.sample_genes(rng, count), axis=0)
    ends = space.genes([space.smallest(), space.largest()])
    if exact:
        names = {str(c.metric) for c in exact} | {
            str(g.metric) for g in fronts[0].goals if g.metric.name in known
        }
        problem = Problem(
            space,
            fronts[0].goals,
            exact,
            cost_surrogates(
                exact_costs(space, names, training=job.search.training.update()), sorted(names)
            ),
        )
        genes = np.asarray(find_feasible(problem, 300, rng))
        ends = ends[(problem.screen(ends, range(len(exact))) <= 0).all(axis=1)]
    return list(dict.fromkeys(space.decode(np.concatenate([ends, genes]))))


def costs(
    space: PlannedSpace,
    arch: Arch,
    fronts: Sequence[FrontSpec],
    *,
    training: Update | None = None,
) -> dict[str, float]:
    """Return the exact costs of an architecture by name, with those that ``fronts`` ask for.

    ``training`` is what is trained on a device, as of :func:`nas.fronts.costs.exact_costs`.
    """
    found = exact_costs(space, metric_names(fronts), training=training)(space.genes([arch]))
    return {name: float(values[0]) for name, values in found.items()}


def _learned(space: PlannedSpace, seed: int, what: str) -> AccuracyPredictor:
    return AccuracyPredictor(space, seed=derive_seed(seed, what) % 2**32)


__all__ = ["Search", "costs", "feasible_pool"]
