"""A whole job, stage by stage: supernet, latency, search, verification, export, report.

Every stage asks the run folder first and computes only what is not there: the supernet
continues from its checkpoint, an evaluation or a measurement that was recorded is read
back. Everything else follows from the seed, so a run that was killed at any moment and
resumed takes the same path as one that was not.
"""

from __future__ import annotations

import contextlib
import platform
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from devices.device import device_fingerprint
from devices.measuring.store import MeasurementStore, ReplayStore, Store
from nas.data.pictures import DamagedPicture
from nas.executors import EXECUTORS, Executor
from nas.executors.pool import refuse_in_starting_worker
from nas.fronts.budgets import unserved
from nas.job.devices import make_device, require_energy_meter
from nas.job.known_devices import known_devices, require_enough_known
from nas.job.schema import Job
from nas.models.front_files import export_front, keep_models, write_cards
from nas.models.size_model import FileSizes
from nas.models.sparsity import require_sparsity
from nas.record.evaluations import StudyRecord
from nas.record.live import ProgressFile
from nas.record.provenance import command_of, versions
from nas.record.results import Verified, assemble
from nas.record.run_folder import RunStore
from nas.record.spending import Spending
from nas.stages.budget import Budget, EndTime, SearchTime, measuring_timed, minutes_for
from nas.stages.build_supernet import focus_archs
from nas.stages.latencies import Latencies, empty_table
from nas.stages.learnt_before import require_unseen
from nas.stages.opened_job import RunContext, budgets_out_of_reach, require_fit, require_known_costs
from nas.stages.progress import Progress
from nas.stages.search_stage import Search, feasible_pool
from nas.stages.verification import Models, Verification, on_fronts
from nas.stages.warm_start import WarmStart
from nas.stages.winners.reach import narrow_space
from nas.stages.winners.stage import Winners
from nas.stages.winners.unlearnt import in_vain
from nas.trackers.follow import Following
from nas.trackers.told import require_trackers
from predictors.registry import LatencyPredictor
from predictors.transfer_gp.predictor import LATENCY_PREDICTORS
from search_spaces.atomic import write_json_atomic
from search_spaces.errors import EnvironmentProblem, InfeasibleError, InputError, NasError

if TYPE_CHECKING:
    from nas.record.evaluations import Evaluation
    from nas.stages.evaluator import Evaluator


def run(
    job: Job,
    folder: Path,
    *,
    measurements: Path | None = None,
    progress: Progress | None = None,
    whole_process: bool = False,
) -> None:
    """Run ``job`` in the new folder ``folder``.

    Args:
        job: a checked job.
        folder: run folder; must not hold anything yet.
        measurements: measurement store, or folder of an earlier run, whose latencies are
            replayed instead of measured.
        progress: where to tell about progress.
        whole_process: the cost of the run is that of this process from its start.

    Raises:
        InputError: the folder is taken, or the job does not fit its data.
        InfeasibleError: no architecture satisfies the constraints.
        EnvironmentProblem: data, runtime, GPU or disk space is missing.
    """
    refuse_in_starting_worker("nas.run")
    store = create_run(job, folder, measurements=measurements)
    with store.locked(), Spending(folder, whole_process=whole_process):
        pipeline = Pipeline(job, store, progress or Progress(), whole_process)
        try:
            pipeline.prepare()
        except NasError:
            # Nothing was done yet: the folder must not stand in the way of the next try.
            shutil.rmtree(folder, ignore_errors=True)
            raise
        pipeline.execute()


def create_run(job: Job, folder: Path, *, measurements: Path | None = None) -> RunStore:
    """Begin a run of ``job`` in the new folder ``folder`` and do nothing yet.

    Raises:
        InputError: the folder is taken.
    """
    replayed = None if measurements is None else str(_store_file(measurements).resolve())
    return RunStore.create(
        folder,
        {
            "job": job.resolved(),
            "command": command_of(folder),
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "measurements": replayed,
            "versions": versions(),
            "hardware": device_fingerprint(),
        },
    )


def resume(folder: Path, *, progress: Progress | None = None, whole_process: bool = False) -> None:
    """Go on with the run in ``folder``; a finished run only gets its report written again.

    Args:
        folder: of the run.
        progress: where to tell about progress.
        whole_process: as for :func:`run`.

    Raises:
        InputError: the folder holds no run.
        InfeasibleError, EnvironmentProblem: as :func:`run`.
    """
    refuse_in_starting_worker("nas.resume")
    store = RunStore.open(folder)
    with contextlib.ExitStack() as held:
        held.enter_context(store.locked())
        if not store.results.exists():
            # Writing the report of a finished run again is no part of what its front cost.
            held.enter_context(Spending(folder, whole_process=whole_process))
        job = store.job()
        store.event("resumed", versions=versions())
        pipeline = Pipeline(job, store, progress or Progress(), whole_process)
        if not store.results.exists():
            pipeline.prepare()
        pipeline.execute()


class Pipeline:
    """The stages of one run, in the process that holds its folder.

    Args:
        job: a checked job.
        store: its run folder.
        progress: where to tell about progress.
        whole_process: as for :func:`run`.
    """

    def __init__(
        self, job: Job, store: RunStore, progress: Progress, whole_process: bool = False
    ) -> None:
        self.job, self.store, self.progress = job, store, progress
        self._budget_of = partial(Budget.of, path=store.budget, whole_process=whole_process)
        progress.listener = ProgressFile(store.folder)
        self.tracking: contextlib.AbstractContextManager[object] = contextlib.nullcontext()
        self.goals, self.constraints = job.objectives(), job.constraints()
        self.budget = None if job.budget is None else self._budget_of(job.budget)
        self.fronts = job.fronts()

    def execute(self) -> None:
        """Run every stage; whatever is recorded is not done again."""
        try:
            with self.tracking:
                self._execute()
        finally:
            study = getattr(self, "study", None)
            if study is not None:
                # A database that went away has been told of; its claims end by their age.
                with contextlib.suppress(EnvironmentProblem):
                    study.close()

    def _execute(self) -> None:
        from nas.report import write_report
        from nas.report.results import doubts, load_results

        if not self.store.results.exists():
            try:
                with contextlib.ExitStack() as stack:
                    if self.budget is not None:
                        self.budget.start()
                        stack.enter_context(self.budget.running())
                    self._stages()
                if self.budget is not None and (passed := self.budget.passed()):
                    self.progress.log(f"warning: {passed}")
            except InfeasibleError as error:
                self.store.event("infeasible", **error.record())
                self.progress.log(
                    "the supernet and every evaluation are kept: give a new job with another "
                    f"bound search.warm_start: {self.store.folder}"
                )
                raise
            except DamagedPicture as error:
                digest = self.context.splits.digest_of(error.path)
                if digest is not None:
                    self.store.update_manifest(damaged_pictures={str(error.path): digest})
                raise
        write_report(self.store.folder)
        for line in doubts(load_results(self.store.folder)):
            self.progress.log(f"warning: {line}")
        shutil.rmtree(self.store.work, ignore_errors=True)
        self.store.event("finished")

    def prepare(self) -> None:
        """Look for everything that can be missing or contradictory, before any work.

        Raises:
            InputError: the job does not fit its data, or the data changed since the run began.
            InfeasibleError: bounds on costs that no architecture meets.
            EnvironmentProblem: data, runtime or GPU is missing.
        """
        job, store = self.job, self.store
        manifest = store.manifest()
        replayed = manifest["measurements"]
        if replayed is not None and not Path(replayed).is_file():
            raise InputError(
                f"no measurements to replay at {replayed}; put them back there, or name their "
                f'new place as "measurements" in {store.manifest_path}'
            )
        # Sums depend on the number of threads, so a resumed run keeps it.
        self.progress.log("reading the data")
        self.context = RunContext.of(job, threads=job.threads or manifest.get("threads"))
        if "data" not in manifest and not store.checkpoint.exists() and not job.says_how_long():
            self._give_time()
        if "data" not in manifest and not store.checkpoint.exists() and replayed is None:
            self.context = narrow_space(self.context, store, self.progress)
        job = self.job = self.context.job
        self.context.splits.on_test_read = self._test_read
        if job.finetune.refit:
            self.context.splits.train.joined(self.context.splits.validation)
        for warning in self.context.warnings():
            self.progress.log(f"warning: {warning}")
        self.space = self.context.space
        # A replay needs no device, so one that is not here does not matter.
        self.devices = [
            make_device(config, self.space, check=replayed is None) for config in job.devices
        ]
        if replayed is None:
            wanted = {goal.metric for goal in self.goals}
            require_energy_meter(job, wanted | {bound.metric for bound in self.constraints})
        self.known_devices = known_devices(job, self.space)
        require_enough_known(job, self._new_predictor(), self.known_devices, self.space)
        require_trackers(job.trackers())
        if "focus" not in manifest:
            focus_archs(job.supernet, self.space)
        warm_start = job.search.warm_start
        data = self.context.splits.record()
        self.warm_start = None if warm_start is None else WarmStart.of(job, Path(warm_start), data)
        if self.warm_start is not None and self.warm_start.why:
            self.progress.log(self.warm_start.why)
        if "data" not in manifest:
            for warning in require_unseen(job, self.context.splits, data):
                self.progress.log(f"warning: {warning}")
        begun = manifest.get("data", data)
        repaired = manifest.get("damaged_pictures") or {}
        # A picture that was found damaged may be repaired; nothing else may change.
        if begun != data and self.context.splits.record(instead=repaired) != begun:
            raise InputError(
                f"the data at {self.context.splits.origin} is not what it was when this run "
                "began; restore it, or begin a new run"
            )
        store.update_manifest(
            damaged_pictures={},
            data=data,
            threads=self.context.threads,
            accelerator=self.context.accelerator,
        )
        require_known_costs(self.space, self.goals, self.constraints)
        require_sparsity(job, self.space)
        self.pool = feasible_pool(job, self.space, self.fronts)
        if not store.checkpoint.exists():
            require_fit(self.context, self.pool, self.constraints)
        for line in budgets_out_of_reach(job, self.space, self.pool):
            self.progress.log(f"warning: {line}")
        if self.warm_start is not None:
            self.warm_start.copy_into(store)
        self.measurements: Store = (
            MeasurementStore(store.measurements)
            if replayed is None
            else MeasurementStore.replay(Path(replayed))
        )
        self.study = StudyRecord(
            job.study or store.study,
            space=self.space,
            goals=self.goals,
            constraints=self.constraints,
            # Only a study that a job names may be used by others at the same time.
            owner=job.study and f"{platform.node()}:{store.folder.resolve()}",
        )
        # Last: a run that cannot begin is shown nowhere.
        self.tracking = Following(job.trackers(), store, self.progress).begin()

    def _give_time(self) -> None:
        """Give a job that says nothing of time the minutes that suit its data, and record them."""
        minutes = minutes_for(self.job, self.context.splits)
        self.job = self.job.with_minutes(minutes)
        assert self.job.budget is not None
        self.context = replace(self.context, job=self.job)
        self.budget = self._budget_of(self.job.budget)
        self.store.record_sections(self.job, "budget", "supernet")
        self.progress.log(
            f"budget: {minutes:g} minutes, since the job says nothing of time; give budget.minutes"
        )

    def _end_time(self, budget: Budget) -> EndTime:
        return EndTime(budget, self.store, self.job)

    def _test_read(self, reason: str) -> None:
        # What a killed run has tested is kept, so a resumed one goes on with the same reading.
        begun = any(event["event"] == "test_read" for event in self.store.events())
        self.store.event("test_resumed" if begun else "test_read", reason=reason)

    # ------------------------------------------------------------------- stages

    def _stages(self) -> None:
        from nas.stages.training import train_supernet

        with self.store.timed("supernet"):
            supernet, training = train_supernet(
                self.context, self.store, self.progress, budget=self.budget
            )
        if self.job.study is not None:
            # Only runs of one supernet on one set of images may share evaluations.
            self.study.narrow(self.store.evaluation_context(self.job))
        evaluator = self.context.evaluating(supernet)
        replayed = self.measurements if isinstance(self.measurements, ReplayStore) else None
        models = Models(self.context, self.store, evaluator, replayed=replayed)
        sizes = FileSizes(self.space)
        latencies = Latencies(
            self.space,
            self.devices,
            store=self.measurements,
            protocol=self.job.measurement_protocol(),
            files=models.file,
            predictor=self._predictor,
            failed=lambda arch, reason: verification.failed(arch, reason),
            progress=self.progress,
            retries=None if self.budget is None else self._end_time(self.budget).retries,
        )
        with self._executor() as executor:
            verification = Verification(
                self.context,
                self.store,
                self.fronts,
                models=models,
                latencies=latencies,
                study=self.study,
                evaluator=evaluator,
                executor=executor,
                progress=self.progress,
            )
            with (
                self.store.timed("latency"),
                measuring_timed(self.budget, self.store, latencies.front_factor),
            ):
                chosen = latencies.choose(self.pool, self.job.search.latency_samples)
                latencies.measure(
                    chosen,
                    variant="search",
                    # Where time is counted, the rest of it is better spent on training.
                    learning=self.budget is not None,
                )
                latencies.adapt()
                sizes.fit(models.search_sizes(chosen))
            predictors = latencies.latency_predictors()
            fitted = {name: list(found) for name, found in latencies.samples.items()}
            search = Search(
                self.job,
                self.space,
                self.fronts,
                latencies=latencies,
                sizes=sizes,
                study=self.study,
                executor=executor,
                evaluator=evaluator,
                folder=self.store.folder,
                progress=self.progress,
            )
            with self.store.timed("search"):
                search.run(self.warm_start, over=self._search_over(evaluator))
            evaluated = self.study.evaluations("search")
            candidates = evaluated
            if self.budget is not None and self.job.finetune.epochs is None:
                with self.store.timed("winners"):
                    candidates = self._train_winners(evaluated, search, evaluator, executor)
            with self.store.timed("verification"):
                verified = verification.run(candidates)
        front = on_fronts(self.fronts, verified)
        kept = [item.metrics for item in front]
        for line in unserved(self.job.cost_budgets(), kept, among="on the front"):
            self.progress.log(f"warning: {line}")
        with self.store.timed("test"):
            tested = verification.test(list(front))
            keep_models(self.store, list(front))
            self._show_examples(list(front))
        results = assemble(
            job=self.job,
            store=self.store,
            space=self.space,
            fronts=self.fronts,
            goals=self.goals,
            constraints=self.constraints,
            specs=[device.spec for device in self.devices],
            evaluations=evaluated,
            verified=verified,
            front=front,
            tested=tested,
            samples=latencies.samples,
            fitted=fitted,
            predictors=predictors,
            quality=search.quality,
            training=training,
            task=self.context.task,
            splits=self.context.splits,
            beside=verification.beside,
        )
        write_cards(self.store, results)
        write_json_atomic(self.store.results, results.to_json())
        export_front(self.store, results, self.job.export.formats, self.progress.log)

    def _search_over(self, evaluator: Evaluator) -> Callable[[int], bool]:
        """Return what tells the search that it is in vain, or its share of the budget used up."""
        if self.budget is None:
            return lambda done: False
        path = self.store.folder / "search_time.json"
        share = SearchTime(self.budget, path, tell=self.progress.log)
        vain = in_vain(self.job, evaluator, self.study, tell=self.progress.log)
        return lambda done: vain(done) or share.over(done)

    def _train_winners(
        self,
        evaluated: Sequence[Evaluation],
        search: Search,
        evaluator: Evaluator,
        executor: Executor,
    ) -> list[Evaluation]:
        """Train the architectures of the front in what is left of the budget."""
        assert self.budget is not None
        winners = Winners(
            self.job,
            self.store,
            self.fronts,
            budget=self.budget,
            evaluator=evaluator,
            executor=executor,
            predict=lambda archs: [search.metrics(arch) for arch in archs],
            progress=self.progress,
        )
        for arch, metrics in winners.run(evaluated, keep=self._end_time(self.budget).kept).items():
            self.study.record(
                arch, metrics, stage="winners", attributes={"latency_source": "predicted"}
            )
        return self.study.evaluations("winners")

    def _predictor(self) -> LatencyPredictor:
        """Return a latency predictor that knows what devices have in common."""
        table = self.known_devices or empty_table(self.space, self.pool)
        if table.devices:
            self.progress.log(
                f"{self.job.latency.predictor} learns from {len(table.devices)} known devices"
            )
        return self._new_predictor().meta_fit(table)

    def _new_predictor(self) -> LatencyPredictor:
        return LATENCY_PREDICTORS.get(self.job.latency.predictor)(self.space, seed=self.job.seed)

    @contextlib.contextmanager
    def _executor(self) -> Iterator[Executor]:
        make = EXECUTORS.get(self.job.executor)
        with make(workers=self.job.workers, **self.job.executor_options) as executor:
            yield executor

    def _show_examples(self, front: Sequence[Verified]) -> None:
        """Keep a few validation examples, and what the best model of the front says of them."""
        from nas.stages.examples import write_examples

        if not front:
            return
        task = self.context.task
        sign = 1 if task.higher_is_better else -1
        best = max(front, key=lambda item: sign * item.metrics[task.metric_name])
        size = self.space.plan(best.arch).input_size
        write_examples(self.context, self.store.folder, best.path, name=best.arch.id, size=size)


def _store_file(path: Path) -> Path:
    return path / "measurements.db" if path.is_dir() else path


__all__ = ["resume", "run"]
