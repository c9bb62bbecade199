"""A whole job, stage by stage: supernet, latency, search, verification, export, report.

Every stage asks the run folder first and computes only what is not there: the supernet
continues from its checkpoint, an evaluation or a measurement that was recorded is read
back. Everything else follows from the seed, so a run that was killed at any moment and
resumed takes the same path as one that was not.
"""

from __future__ import annotations

import platform
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from devices.device import DeviceSpec, LocalDevice, device_fingerprint
from devices.store import MeasurementStore, Store
from nas.constraints import Metric, require_feasible, violations
from nas.job import Job, job_space
from nas.pareto import nondominated
from nas.progress import Progress
from nas.results import Verified, assemble, pick_spread
from nas.run_store import RunStore
from nas.strategies import STRATEGIES, Exact, Learned, Problem, Supplied
from nas.strategies.surrogates import cost_surrogates
from nas.study import StudyRecord
from nas.tasks import TASKS
from predictors.accuracy import AccuracyPredictor
from predictors.latency import TransferGP
from search_spaces.atomic import write_json_atomic
from search_spaces.errors import EnvironmentProblem, InputError, NasError
from search_spaces.planned import COST_NAMES, PlannedSpace
from search_spaces.seeds import derive_rng, derive_seed
from search_spaces.space import Arch
from search_spaces.table import LatencyTable

if TYPE_CHECKING:
    from devices.measurement import Measurement
    from nas.evaluator import Evaluator
    from nas.parity import Parity
    from predictors.registry import Adapted
    from supernet.plain import PlainNetwork

_VERIFICATION_ROUNDS = 3
_POOL = 1000
_RECORDED_PACKAGES = (
    "edge-nas", "torch", "torchvision", "numpy", "onnx", "onnxruntime", "optuna",
    "scikit-learn", "scipy", "moocore", "safetensors",
)  # fmt: skip


def run(
    job: Job,
    folder: Path,
    *,
    measurements: Path | None = None,
    progress: Progress | None = None,
) -> None:
    """Run ``job`` in the new folder ``folder``.

    Args:
        job: a checked job.
        folder: run folder; must not hold anything yet.
        measurements: measurement store, or folder of an earlier run, whose latencies are
            replayed instead of measured.
        progress: where to tell about progress.

    Raises:
        InputError: the folder is taken, or the job does not fit its data.
        InfeasibleError: no architecture satisfies the constraints.
        EnvironmentProblem: data, runtime, GPU or disk space is missing.
    """
    replayed = None if measurements is None else str(_store_file(measurements).resolve())
    store = RunStore.create(
        folder,
        {
            "job": job.resolved(),
            "command": shlex.join(["nas", *sys.argv[1:]]),
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "measurements": replayed,
            "versions": _versions(),
            "hardware": device_fingerprint(),
        },
    )
    with store.locked():
        pipeline = _Pipeline(job, store, progress or Progress())
        try:
            pipeline.prepare()
        except NasError:
            # Nothing was done yet: the folder must not stand in the way of the next try.
            shutil.rmtree(folder, ignore_errors=True)
            raise
        pipeline.execute()


def resume(folder: Path, *, progress: Progress | None = None) -> None:
    """Go on with the run in ``folder``; a finished run only gets its report written again.

    Raises:
        InputError: the folder holds no run.
        InfeasibleError, EnvironmentProblem: as :func:`run`.
    """
    store = RunStore.open(folder)
    with store.locked():
        manifest = store.manifest()
        store.event("resumed", versions=_versions())
        pipeline = _Pipeline(Job.model_validate(manifest["job"]), store, progress or Progress())
        if not store.results.exists():
            pipeline.prepare()
        pipeline.execute()


class _Pipeline:
    def __init__(self, job: Job, store: RunStore, progress: Progress) -> None:
        self.job, self.store, self.progress = job, store, progress
        self.goals, self.constraints = job.objectives(), job.constraints()
        self.specs = [
            DeviceSpec(d.name, d.runtime, d.threads, d.batch, dict(d.options)) for d in job.devices
        ]
        self.adapted: dict[str, Adapted] = {}
        self.samples: dict[str, dict[Arch, Measurement]] = {s.name: {} for s in self.specs}
        self.before_verification: dict[str, Adapted] = {}
        self.quality: list[dict[str, Any]] = []

    def execute(self) -> None:
        """Run every stage; whatever is recorded is not done again."""
        from nas.report import write_report

        if not self.store.results.exists():
            with self.store.timed("supernet"):
                self._train()
            with self.store.timed("latency"):
                self._sample_latency()
            with self.store.timed("search"):
                self._search()
            with self.store.timed("verification"):
                verified = self._verify()
            with self.store.timed("test"):
                self._finish(verified)
        write_report(self.store.folder)
        shutil.rmtree(self.store.work, ignore_errors=True)
        self.store.event("finished")

    # ------------------------------------------------------------------- stages

    def prepare(self) -> None:
        """Look for everything that can be missing or contradictory, before any work.

        Raises:
            InputError: the job does not fit its data, or the data changed since the run began.
            InfeasibleError: bounds on costs that no architecture meets.
            EnvironmentProblem: data, runtime or GPU is missing.
        """
        manifest = self.store.manifest()
        replayed = manifest["measurements"]
        if replayed is None:
            for spec in self.specs:
                spec.make_runtime()
        self.device = _accelerator(self.job)
        # Sums depend on the number of threads, so a resumed run keeps it.
        self.threads = _set_threads(self.job.threads or manifest.get("threads"))
        self.task = TASKS.get(self.job.task)(label_smoothing=self.job.supernet.label_smoothing)
        if not self.task.higher_is_better:
            raise InputError(
                f"task {self.job.task!r}: its metric {self.task.metric_name} is better when "
                "smaller, and the search maximises; return its negative and set higher_is_better"
            )
        self.splits = self.task.load(self.job.data, self.job.seed)
        self.splits.on_test_read = lambda reason: self.store.event("test_read", reason=reason)
        space = job_space(
            self.job,
            input_channels=self.splits.channels,
            outputs=self.task.outputs(self.splits),
        )
        if not isinstance(space, PlannedSpace):
            raise InputError(
                f"the space {space.name!r} has no networks to train; 'nas run' needs one of "
                "layers, such as mobilenet"
            )
        self.space = space
        self.protocol = self.job.measurement_protocol()
        self.measurements: Store = (
            MeasurementStore(self.store.measurements)
            if replayed is None
            else MeasurementStore.replay(Path(replayed))
        )
        self.study = StudyRecord(
            self.store.study, space=space, goals=self.goals, constraints=self.constraints
        )
        data = self.splits.record()
        if manifest.get("data", data) != data:
            raise InputError(
                f"the data at {self.splits.origin} is not what it was when this run began; "
                "restore it, or begin a new run"
            )
        self.store.update_manifest(data=data, threads=self.threads, accelerator=str(self.device))
        self.pool = self._feasible_pool()

    def _train(self) -> None:
        import torch

        from supernet.checkpoint import load_checkpoint
        from supernet.network import Supernet
        from supernet.subnets import BitsStage, SandwichSampler, default_stages
        from supernet.train import Recipe, Trainer, load_weights, weights_of_plain

        config = self.job.supernet
        torch.manual_seed(derive_seed(self.job.seed, "supernet"))
        self.supernet = Supernet(self.space)
        if config.init_from is not None and not self.store.checkpoint.exists():
            tensors, _ = load_checkpoint(Path(config.init_from))
            prefix = "model." if any(name.startswith("model.") for name in tensors) else ""
            tensors = weights_of_plain(self.supernet, tensors) or tensors
            fresh = load_weights(self.supernet, tensors, prefix=prefix, source=config.init_from)
            self.progress.log(
                f"started from {config.init_from}; {len(fresh)} of "
                f"{len(self.supernet.state_dict())} tensors are not in it and start afresh"
            )
        batches = self.splits.training_batches(config.batch_size, seed=self.job.seed)
        steps = self._steps(batches)
        warmup = min(0.9, config.warmup_epochs * len(batches) / steps)
        stages = (
            default_stages(self.supernet.ranges, warmup=warmup)
            if config.bits_schedule is None
            # The job's stages divide what is left after the warm-up.
            else [
                BitsStage(warmup + (1 - warmup) * stage.start, tuple(stage.bits))
                for stage in config.bits_schedule
            ]
        )
        with self.progress.stage("supernet", steps, unit="steps") as bar:
            trainer = Trainer(
                self.supernet,
                sampler=SandwichSampler(
                    self.space,
                    self.supernet.ranges,
                    stages=stages,
                    random_subnets=config.random_subnets,
                    seed=self.job.seed,
                ),
                batches=batches,
                loss=self.task.loss,
                distillation_loss=self.task.distillation_loss,
                recipe=Recipe(
                    steps=steps,
                    learning_rate=config.learning_rate,
                    weight_decay=config.weight_decay,
                    distillation=config.distillation,
                ),
                checkpoint=self.store.checkpoint,
                checkpoint_every_s=config.checkpoint_every_s,
                device=self.device,
                on_step=lambda record: bar.advance(1, f"loss {record['loss']:.3f}"),
            )
            if self.store.checkpoint.exists():
                trainer.restore(self.store.checkpoint)
                bar.advance(trainer.step)
            trainer.run()
        self.training = trainer.history

        from nas.evaluator import Evaluator

        self.evaluator: Evaluator = Evaluator(
            self.supernet, self.splits, self.task, device=self.device
        )

    def _steps(self, batches: Any) -> int:
        epochs = self.job.supernet.passes()
        if epochs is not None:
            return max(1, round(epochs * len(batches)))
        recorded = self.store.manifest().get("training_steps")
        if recorded is None:
            recorded = self._steps_in_time(batches)
            self.store.update_manifest(training_steps=recorded)
        return int(recorded)

    def _steps_in_time(self, batches: Any) -> int:
        from nas.step_time import step_seconds

        config = self.job.supernet
        warm, full = step_seconds(
            config, self.space, self.task, batches, seed=self.job.seed, device=self.device
        )
        budget = 60.0 * float(config.minutes or 0)
        warm_steps = round(config.warmup_epochs * len(batches))
        rest = (budget - warm_steps * warm) / full
        if rest < warm_steps / 9:
            # The warm-up takes at most nine tenths of the steps.
            return max(1, int(budget / (0.9 * warm + 0.1 * full)))
        return int(warm_steps + rest)

    def _sample_latency(self) -> None:
        pool = self.pool
        # Both ends of the space first: a front reaches from one to the other, and a
        # predictor should not have to extrapolate.
        ends = [a for a in (self.space.smallest(), self.space.largest()) if a in set(pool)]
        inner = [arch for arch in pool if arch not in ends]
        count = min(self.job.search.latency_samples - len(ends), len(inner))
        for spec in self.specs:
            empty = LatencyTable.from_archs(self.space, pool, {})
            predictor = TransferGP(self.space, seed=self.job.seed).meta_fit(empty)
            chosen = [*ends, *(predictor.suggest(inner, count) if count > 0 else [])]
            found = self._measure(spec, chosen, variant="search")
            self.samples[spec.name].update(found)
            self._adapt(spec.name)
        self.before_verification = dict(self.adapted)
        self.fitted = {name: list(found) for name, found in self.samples.items()}

    def _search(self) -> None:
        config = self.job.search
        accuracy = AccuracyPredictor(
            self.space, seed=derive_seed(self.job.seed, "accuracy") % 2**32
        )
        problem = Problem(
            self.space, self.goals, self.constraints, self._surrogates(Learned(accuracy))
        )
        options = {"initial": config.initial} if config.strategy == "predictor" else {}
        strategy = STRATEGIES.get(config.strategy)(problem, seed=self.job.seed, **options)
        done, round_number = 0, 0
        with self.progress.stage("search", config.evaluations, unit="subnets") as bar:
            while done < config.evaluations:
                wanted = config.initial if round_number == 0 else config.batch
                archs = strategy.ask(min(wanted, config.evaluations - done))
                if not archs:
                    break
                metrics = []
                for arch in archs:
                    metrics.append(self._evaluate(arch, round_number))
                    bar.advance(1, f"accuracy {metrics[-1]['accuracy']:.4f}")
                strategy.tell(
                    archs,
                    np.array([[g.sign * m[str(g.metric)] for g in self.goals] for m in metrics]),
                    np.array(
                        [list(violations(self.constraints, m).values()) for m in metrics]
                    ).reshape(len(metrics), len(self.constraints)),
                )
                if accuracy.fitted:
                    # The fit from which this round's subnets were chosen.
                    quality = accuracy.quality
                    self.quality.append(
                        {
                            "round": round_number,
                            "points": quality.points,
                            "kendall_tau": quality.kendall_tau,
                            "rmse": quality.rmse,
                        }
                    )
                done += len(archs)
                round_number += 1

    def _verify(self) -> list[Verified]:

        wanted = self.job.search.front_size
        verified: dict[Arch, Verified] = {}
        evaluated = self.study.evaluations("search")
        with self.progress.stage("verification", wanted, unit="models") as bar:
            for _ in range(_VERIFICATION_ROUNDS):
                archs = [e.arch for e in evaluated if e.arch not in verified]
                good = self._front(list(verified.values()))
                missing = wanted - len(good)
                if missing <= 0 or not archs:
                    break
                metrics = [
                    {**e.metrics, **self._predicted(e.arch)}
                    for e in evaluated
                    if e.arch not in verified
                ]
                chosen = pick_spread(
                    archs,
                    metrics,
                    self.goals,
                    self.constraints,
                    missing,
                    infeasible_too=not good,
                )
                if not chosen:
                    break
                for item in self._verify_models(chosen):
                    verified[item.arch] = item
                bar.advance(max(0, len(self._front(list(verified.values()))) - len(good)))
                for spec in self.specs:
                    self._adapt(spec.name)
        found = list(verified.values())
        require_feasible(self.constraints, {str(v.arch): v.metrics for v in found})
        return found

    def _finish(self, verified: list[Verified]) -> None:
        front = self._front(verified)
        test = self.splits.test("accuracy of the final front")
        tested = {}
        with self.progress.stage("test", len(front), unit="models") as bar:
            for item in front:
                tested[item.arch] = self._test(item, test)
                bar.advance(1)
        self.store.models.mkdir(exist_ok=True)
        for item in front:
            shutil.copy2(item.path, self.store.models / f"{item.arch.id}.onnx")
        results = assemble(
            job=self.job,
            store=self.store,
            space=self.space,
            goals=self.goals,
            constraints=self.constraints,
            specs=self.specs,
            evaluations=self.study.evaluations("search"),
            verified=verified,
            front=front,
            tested=tested,
            samples=self.samples,
            fitted=self.fitted,
            predictors=self.before_verification,
            quality=self.quality,
            training=self.training,
            metric=self.task.metric_name,
            higher_is_better=self.task.higher_is_better,
        )
        self._write_cards(results)
        write_json_atomic(self.store.results, results)

    # ---------------------------------------------------------------- one thing

    def _evaluate(self, arch: Arch, round_number: int) -> dict[str, float]:
        recorded = self.study.lookup(arch, "search")
        if recorded is not None:
            return recorded
        network = self.evaluator.network(arch)
        accuracy = self.evaluator.accuracy(network, images=self.job.search.validation_images)
        metrics = {"accuracy": accuracy, **self._costs(arch), **self._predicted(arch)}
        return self.study.record(
            arch,
            metrics,
            stage="search",
            attributes={
                "round": round_number,
                "seed": self.job.seed,
                "latency_source": "predicted",
            },
        )

    def _finetune(self, archs: Sequence[Arch]) -> None:
        from supernet.finetune import finetune

        config = self.job.finetune
        if not config.epochs:
            return
        batches = self.splits.training_batches(
            config.batch_size, seed=derive_seed(self.job.seed, "finetune")
        )
        with self.progress.stage("fine-tuning", len(archs), unit="models") as bar:
            for arch in archs:
                self.evaluator.finetuned[arch] = finetune(
                    self.supernet,
                    self.space.plan(arch),
                    batches=batches,
                    loss=self.task.loss,
                    epochs=config.epochs,
                    learning_rate=config.learning_rate,
                    checkpoint=self.store.folder / "finetuned" / f"{arch.id}.safetensors",
                    device=self.device,
                )
                bar.advance(1)

    def _verify_models(self, archs: Sequence[Arch]) -> list[Verified]:
        self._finetune(archs)
        exported = {}
        for arch in archs:
            try:
                exported[arch] = self._exported(arch, "verify")
            except EnvironmentProblem as error:
                self._failed(arch, str(error))
        self.evaluator.finetuned.clear()
        measured = {
            spec.name: self._measure(spec, list(exported), variant="verify") for spec in self.specs
        }
        items = []
        for arch, (network, path) in exported.items():
            if not all(arch in found for found in measured.values()):
                continue
            parity = self._parity(network, path)
            accuracy = self._metric_of(path, self.splits.validation, arch, keep="validation")
            metrics = {"accuracy": accuracy, **self._costs(arch)}
            for spec in self.specs:
                metrics[f"latency_ms[{spec.name}]"] = measured[spec.name][arch].latency_ms
            recorded = self.study.record(
                arch, metrics, stage="verify", attributes={"agreement": parity.agreement}
            )
            items.append(
                Verified(
                    arch=arch,
                    path=path,
                    metrics=recorded,
                    measurements={name: found[arch] for name, found in measured.items()},
                    parity=parity,
                )
            )
        return items

    def _parity(self, network: PlainNetwork, path: Path) -> Parity:
        from nas.parity import check_parity

        size = network.plan.input_shape[1]
        batches = self.evaluator.batches("validation", self.splits.validation, size)
        network = network.cpu()
        if hasattr(self.task, "per_class"):
            return check_parity(network, path, ((x.cpu(), y.cpu()) for x, y in batches))
        # Only class numbers can be held against the largest output.
        return check_parity(network, path, (x.cpu() for x, _ in batches))

    def _metric_of(self, path: Path, subset: Any, arch: Arch, *, keep: str) -> float:
        """Return the task's metric of an exported file on ``subset``."""
        total = weight = 0.0
        for outputs, targets in self._outputs(path, subset, arch, keep):
            part, part_weight = self.task.metric(outputs, targets)
            total, weight = total + part, weight + part_weight
        return total / weight

    def _outputs(self, path: Path, subset: Any, arch: Arch, keep: str) -> Iterator[Any]:
        """Yield (outputs, targets) of an exported file, batch by batch."""
        import torch

        from nas.parity import evaluate_onnx

        size = self.space.plan(arch).input_shape[1]
        for images, targets in self.evaluator.batches(keep, subset, size):
            yield torch.from_numpy(evaluate_onnx(path, [images.cpu()])), targets.cpu()

    def _failed(self, arch: Arch, reason: str) -> None:
        """Leave out a candidate that cannot be exported or measured, and say so."""
        self.progress.log(f"{arch.id} is left out: {reason}")
        self.study.record_failure(arch, reason, stage="verify")

    def _test(self, item: Verified, test: Any) -> dict[str, Any]:
        by_class = hasattr(self.task, "per_class")
        total = weight = 0.0
        right: Any = 0.0
        count: Any = 0.0
        for outputs, targets in self._outputs(item.path, test, item.arch, "test"):
            part, part_weight = self.task.metric(outputs, targets)
            total, weight = total + part, weight + part_weight
            if by_class:
                one, other = self.task.per_class(outputs, targets)
                right, count = right + one, count + other
        shares = None
        if by_class:
            each = zip(right.tolist(), count.tolist(), strict=True)
            shares = dict(
                zip(self.splits.classes, [r / n if n else None for r, n in each], strict=True)
            )
        return {"accuracy": total / weight, "per_class": shares}

    def _exported(self, arch: Arch, variant: str) -> tuple[PlainNetwork, Path]:
        from nas.parity import export_checked

        network = self.evaluator.network(arch).cpu()
        path = self.store.work / f"{arch.id}-{variant}.onnx"
        size = network.plan.input_shape[1]
        batches = self.evaluator.batches("calibration", self.splits.calibration, size)
        images = next(iter(batches))[0][:32]
        export_checked(
            network,
            path,
            images.cpu(),
            metadata={"arch": str(arch)},
            weight_storage=self.job.export.weights,
        )
        return network, path

    def _measure(
        self, spec: DeviceSpec, archs: Sequence[Arch], *, variant: str
    ) -> dict[Arch, Measurement]:
        paths = [self.store.work / f"{arch.id}-{variant}.onnx" for arch in archs]
        replaying = self.store.manifest()["measurements"] is not None
        for arch, path in zip(archs, paths, strict=True):
            if not path.exists() and not replaying:
                self._exported(arch, variant)
        device = LocalDevice(spec)
        with self.progress.stage(f"{spec.name}: latency", len(archs), unit="models") as bar:
            found = device.measure(
                paths,
                archs=[str(arch) for arch in archs],
                space=self.space.name,
                variant=variant,
                protocol=self.protocol,
                store=self.measurements,
                on_result=lambda _, measurement: bar.advance(1, f"{measurement.latency_ms:.3f} ms"),
            )
        usable = {}
        for arch, measurement in zip(archs, found, strict=True):
            if np.isfinite(measurement.latency_ms):
                usable[arch] = measurement
            else:
                self._failed(arch, f"{spec.name} cannot run it: {measurement.detail}")
        if not usable:
            raise EnvironmentProblem(
                f"{spec.name} ({spec.runtime}) cannot run any of {len(archs)} models; the last "
                f"says: {found[-1].detail}"
            )
        if variant == "verify":
            self.samples[spec.name].update(usable)
        return usable

    def _adapt(self, device: str) -> None:
        measured = self.samples[device]
        if not measured:
            return
        archs = list(measured)
        predictor = TransferGP(self.space, seed=self.job.seed).meta_fit(
            LatencyTable.from_archs(self.space, archs, {})
        )
        self.adapted[device] = predictor.adapt(archs, [measured[a].latency_ms for a in archs])

    def _predicted(self, arch: Arch) -> dict[str, float]:
        genes = self.space.genes([arch])
        return {
            f"latency_ms[{name}]": float(adapted.predict_genes(genes)[0][0])
            for name, adapted in self.adapted.items()
        }

    def _costs(self, arch: Arch) -> dict[str, float]:
        costs = self.space.costs(self.space.genes([arch]))
        return {name: float(costs[name][0]) for name in COST_NAMES}

    def _surrogates(self, accuracy: Learned | None) -> dict[str, Any]:
        names = {str(g.metric) for g in self.goals} | {str(c.metric) for c in self.constraints}
        surrogates: dict[str, Any] = cost_surrogates(
            self.space.costs, [name for name in COST_NAMES if name in names]
        )
        for name in sorted(names - set(surrogates)):
            metric = Metric.parse(name)
            if metric.name == "accuracy":
                if accuracy is not None:
                    surrogates[name] = accuracy
            elif metric.name == "latency_ms":
                surrogates[name] = Supplied(
                    lambda genes, device=metric.device: self.adapted[device].predict_genes(genes)
                )
            else:
                raise InputError(f"{name} cannot be evaluated by this job")
        return surrogates

    def _feasible_pool(self) -> list[Arch]:
        """Architectures to choose latency samples from: within the exact constraints."""
        rng = derive_rng(self.job.seed, "latency pool")
        exact = [c for c in self.constraints if c.metric.name in COST_NAMES]
        genes = np.unique(self.space.sample_genes(rng, _POOL), axis=0)
        ends = self.space.genes([self.space.smallest(), self.space.largest()])
        if exact:
            from nas.strategies.feasible import find_feasible

            problem = Problem(
                self.space,
                self.goals,
                exact,
                {
                    name: surrogate
                    for name, surrogate in self._surrogates(None).items()
                    if isinstance(surrogate, Exact) or name in COST_NAMES
                },
            )
            genes = np.asarray(find_feasible(problem, 300, rng))
            within = problem.screen(ends, range(len(exact))) <= 0
            ends = ends[within.all(axis=1)]
        return list(dict.fromkeys(self.space.decode(np.concatenate([ends, genes]))))

    def _front(self, verified: list[Verified]) -> list[Verified]:
        if not verified:
            return []
        objectives = np.array(
            [[g.sign * v.metrics[str(g.metric)] for g in self.goals] for v in verified]
        )
        missed = np.array(
            [list(violations(self.constraints, v.metrics).values()) for v in verified]
        ).reshape(len(verified), len(self.constraints))
        return [
            v for v, keep in zip(verified, nondominated(objectives, missed), strict=True) if keep
        ]

    def _write_cards(self, results: dict[str, Any]) -> None:
        from nas.model_card import ModelCard

        for entry in results["front"]:
            model = self.store.folder / entry["model"]
            ModelCard.from_results(results, entry, model).write(self.store.models)


def _store_file(path: Path) -> Path:
    return path / "measurements.db" if path.is_dir() else path


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _RECORDED_PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


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


def _set_threads(threads: int | None) -> int:
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    return torch.get_num_threads()


__all__ = ["resume", "run"]
