"""The last stages of a run: candidates become files, which are validated, measured, tested."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.data.sources import OF_TEXT
from nas.executors import Executor, Work
from nas.fronts.class_loss import CLASS_LOSS
from nas.fronts.fault_rate import FAULTY
from nas.fronts.metrics import require_feasible
from nas.fronts.places import pick_spread
from nas.fronts.spec import FrontSpec
from nas.models.language.export_parts import export_part
from nas.models.language.parts import part_named, parts_of
from nas.models.metadata import metadata_of
from nas.record.bit_text import pack_bits
from nas.record.json_lines import append_line, read_lines
from nas.record.results import Verified
from nas.stages.evaluator import worst_class
from nas.stages.latencies import QUANTITIES, Latencies, quantity
from nas.stages.search_stage import WORST, costs
from search_spaces.space import Arch

if TYPE_CHECKING:
    from torch import Tensor

    from devices.measuring.store import ReplayStore
    from nas.models.parity import Parity
    from nas.record.evaluations import Evaluation, StudyRecord
    from nas.record.run_folder import RunStore
    from nas.stages.evaluator import Evaluator
    from nas.stages.opened_job import RunContext
    from nas.stages.progress import Progress
    from supernet.network import Supernet
    from supernet.plain import PlainNetwork

_ROUNDS = 3

_SIZED_FILES = 6
"""Files whose sizes the size of every other one is told from."""

_PARITY_VALUES = 2**24
"""Outputs of a language model that are compared with its file's."""


class Models:
    """Model files of a run's architectures, exported when they are first asked for.

    Args:
        context, store: job, data and space; the run folder, in whose ``work`` files are kept.
        evaluator: gives the networks.
        replayed: measurements that stand for those of this run; None where it measures.
    """

    def __init__(
        self,
        context: RunContext,
        store: RunStore,
        evaluator: Evaluator,
        *,
        replayed: ReplayStore | None = None,
    ) -> None:
        self._context, self._store, self._evaluator = context, store, evaluator
        self._replayed = replayed

    def path(self, arch: Arch, variant: str) -> Path:
        """Return where the file of ``arch`` is or will be."""
        return self._store.work / f"{arch.id}-{variant}.onnx"

    def file(self, arch: Arch, variant: str) -> Path:
        """Return the file of ``arch``, exported if it is not there.

        A run that replays measurements needs no files to measure. Of an architecture that the
        earlier run has not measured it makes the file all the same, to see whether that run had
        to leave it out.

        Raises:
            UnusableModel: the exported file does not compute what its network does.
        """
        path = self.path(arch, variant)
        known = self._replayed is not None and self._replayed.holds(
            self._context.space.name, str(arch), variant
        )
        if not path.exists() and not known:
            part = part_named(variant)
            if part is None:
                self.export(arch, variant)
            else:
                self.export_part(arch, variant, part)
        return path

    def export_part(self, arch: Arch, variant: str, part: str) -> None:
        """Export a part of a model of texts: what reads a source, or what gives a token more.

        Raises:
            UnusableModel: the parts do not give what everything at once does.
        """
        network = self._evaluator.network(arch).cpu()
        export_part(
            network,
            self.path(arch, variant),
            part,
            self._calibration(network),
            metadata={"arch": str(arch), **metadata_of(self._context.splits)},
            weight_storage=self._context.job.export.weights,
        )

    def export(self, arch: Arch, variant: str) -> tuple[PlainNetwork, Path]:
        """Export ``arch`` and return its network with the file.

        Raises:
            UnusableModel: the exported file does not compute what its network does.
        """
        from nas.models.parity import export_checked

        network = self._evaluator.network(arch).cpu()
        path = self.path(arch, variant)
        export_checked(
            network,
            path,
            self._calibration(network),
            metadata={"arch": str(arch), **metadata_of(self._context.splits)},
            weight_storage=self._context.job.export.weights,
        )
        if variant == "verify":
            # What is handed over adds tokens, too.
            for part in parts_of(network.plan):
                self.export_part(arch, f"{variant}-{part}", part)
        return network, path

    def search_sizes(self, archs: Sequence[Arch]) -> dict[Arch, float]:
        """Return the KiB of a few files, always of the same architectures for a resumed run.

        Raises:
            UnusableModel: not one of them computes what its network does.
        """
        from nas.models.parity import UnusableModel

        found: dict[Arch, float] = {}
        last = None
        for arch in archs:
            if len(found) == _SIZED_FILES:
                break
            path = self.path(arch, "search")
            try:
                if not path.exists():
                    self.export(arch, "search")
            except UnusableModel as error:
                last = error
                continue
            found[arch] = path.stat().st_size / 1024
        if last is not None and not found:
            raise last
        return found

    def _calibration(self, network: PlainNetwork) -> Tensor:
        """Return a few calibration inputs for a network."""
        batches = self._evaluator.batches(
            "calibration", self._context.splits.calibration, network.plan.input_size
        )
        return next(iter(batches))[0][:32].cpu()


class Verification:
    """Turns evaluated candidates into verified ones.

    Args:
        context: job, data and space.
        store: the run folder.
        fronts: what the job asks for.
        models: gives model files.
        latencies: measures them.
        study: the record of evaluations.
        evaluator: of the trained supernet.
        executor: where candidates are fine-tuned.
        progress: where to tell about progress.
    """

    def __init__(
        self,
        context: RunContext,
        store: RunStore,
        fronts: Sequence[FrontSpec],
        *,
        models: Models,
        latencies: Latencies,
        study: StudyRecord,
        evaluator: Evaluator,
        executor: Executor,
        progress: Progress,
    ) -> None:
        self.context, self.store, self.fronts = context, store, list(fronts)
        self.models, self.latencies, self.study = models, latencies, study
        self.evaluator, self.executor, self.progress = evaluator, executor, progress
        self.job, self.space, self.task = context.job, context.space, context.task
        self._found: dict[Arch, Mapping[str, float]] = {}
        self._tried: set[Arch] = set()  # What fails once fails again: its place is another's.
        self.beside: dict[Arch, dict[str, float]] = {}
        """The task's further metrics of verified candidates on the validation set."""

    def run(self, evaluated: Sequence[Evaluation]) -> list[Verified]:
        """Verify candidates until every front has as many members as the job asks for.

        Each round takes candidates that the predictions, sharpened by the last round's
        measurements, put on a front. A front that stays short after three rounds is left so.

        Args:
            evaluated: what the search found.
        """
        verified: dict[Arch, Verified] = {}
        self._found = {e.arch: e.metrics for e in evaluated}
        wanted = min(len(evaluated), self.job.search.places) * len(self.fronts)
        with self.progress.stage("verification", wanted, unit="places on fronts") as bar:
            for _ in range(_ROUNDS):
                chosen = self._choose(evaluated, verified)
                if not chosen:
                    break
                self._tried.update(chosen)
                before = self._places(verified)
                for item in self._verify(chosen):
                    verified[item.arch] = item
                bar.advance(max(0, self._places(verified) - before))
                self.latencies.adapt()
        return list(verified.values())

    def _choose(
        self, evaluated: Sequence[Evaluation], verified: Mapping[Arch, Verified]
    ) -> list[Arch]:
        open_ones = [e for e in evaluated if e.arch not in self._tried]
        predicted = self.latencies.predicted([e.arch for e in open_ones])
        metrics = [{**e.metrics, **p} for e, p in zip(open_ones, predicted, strict=True)]
        chosen: list[Arch] = []
        for front in self.fronts:
            good = self._count(front, verified)
            missing = self.job.search.places - good
            if missing <= 0 or not open_ones:
                continue
            picked = pick_spread(
                [e.arch for e in open_ones],
                metrics,
                front.goals,
                front.constraints,
                missing,
                metric=self.job.metric,
                infeasible_too=not good,
                budgets=[
                    budget
                    for budget in front.budgets
                    if not any(budget.keeps(item.metrics) for item in verified.values())
                ],
            )
            chosen += [arch for arch in picked if arch not in chosen]
        return chosen

    def _count(self, front: FrontSpec, verified: Mapping[Arch, Verified]) -> int:
        return int(front.members([v.metrics for v in verified.values()]).sum())

    def _places(self, verified: Mapping[Arch, Verified]) -> int:
        size = self.job.search.places
        return sum(min(size, self._count(front, verified)) for front in self.fronts)

    # ---------------------------------------------------------------- one round

    def _verify(self, archs: Sequence[Arch]) -> list[Verified]:
        from nas.models.parity import UnusableModel

        self._finetune(archs)
        exported = {}
        # Held for the float networks of the same weights, where their classes are compared.
        own = dict(self.evaluator.finetuned)
        for arch in archs:
            try:
                exported[arch] = self.models.export(arch, "verify")
            except UnusableModel as error:
                self.failed(arch, str(error))
        for arch in archs:
            # Weights of an architecture's own are not needed once they are in its file.
            self.evaluator.finetuned.pop(arch, None)
        measured = self.latencies.measure(list(exported), variant="verify") if exported else {}
        items = []
        for arch, (network, path) in exported.items():
            if not all(arch in found for found in measured.values()):
                continue
            parity = self._parity(network, path)
            if parity.problems:
                self.failed(arch, "; ".join(parity.problems))
                continue
            metrics = {
                **self._quality(network, path, arch, own.get(arch)),
                **costs(self.space, arch, self.fronts, training=self.job.search.training.update()),
                "size_kib": path.stat().st_size / 1024,
            }
            for device, found in measured.items():
                for name in QUANTITIES:
                    value = quantity(found[arch], name)
                    if np.isfinite(value):
                        metrics[f"{name}[{device}]"] = value
            recorded = self.study.record(
                arch, metrics, stage="verify", attributes={"agreement": parity.agreement}
            )
            items.append(
                Verified(
                    arch=arch,
                    path=path,
                    # Another run may have recorded the architecture first in a shared study;
                    # what this run says of its front is what it measured itself.
                    metrics={**recorded, **metrics},
                    measurements={device: found[arch] for device, found in measured.items()},
                    parity=parity,
                )
            )
        return items

    def _finetune(self, archs: Sequence[Arch]) -> None:
        from nas.stages.worker_tasks import finetune_candidate

        config = self.job.finetune
        # Winners of a budget were trained before.
        shared_time = self.job.budget is not None and config.epochs is None
        wanted = config.epochs or (config.reconstruct and config.epochs == 0) or config.sparsity
        if shared_time or not wanted:
            return

        def here(item: Mapping[str, Any]) -> str:
            arch = self.space.parse(item["arch"])
            finetune_candidate(arch, self.job, self.store, self.evaluator)
            return str(item["arch"])

        work = Work(
            "nas.stages.worker_tasks:candidates", {"folder": str(self.store.folder)}, here=here
        )
        with self.progress.stage("fine-tuning", len(archs), unit="models") as bar:
            for _ in self.executor.run(
                work, [{"do": "finetune", "arch": str(arch)} for arch in archs]
            ):
                bar.advance(1)
        for arch in archs:
            # Finished in the run folder, by whichever process; this only reads it.
            found = finetune_candidate(arch, self.job, self.store, self.evaluator)
            if found is not self.evaluator.supernet:
                self.evaluator.finetuned[arch] = found

    def failed(self, arch: Arch, reason: str) -> None:
        """Leave out a candidate that cannot be exported or measured, and say so."""
        self.progress.log(f"{arch.id} is left out: {reason}")
        self.study.record_failure(arch, reason, stage="verify")

    def _parity(self, network: PlainNetwork, path: Path) -> Parity:
        from nas.models.parity import check_parity

        # Of a language model, whose windows have thousands of outputs each, not all of them.
        windows = self.context.splits.validation
        if self.context.splits.targets in OF_TEXT:
            each = network.plan.input_size[1] * network.plan.outputs
            windows = windows.first(max(64, _PARITY_VALUES // each))
        batches = self.evaluator.batches("validation", windows, network.plan.input_size)
        pairs = ((x.cpu(), y.cpu()) for x, y in batches)
        return check_parity(network.cpu(), path, pairs, task=self.task)

    def _quality(
        self, network: PlainNetwork, path: Path, arch: Arch, own: Supernet | None
    ) -> dict[str, float]:
        if self.job.finetune.refit:
            # What validation said while the candidate had not met those examples.
            names = (self.task.metric_name, WORST, FAULTY, CLASS_LOSS)
            return {k: v for k, v in self._found[arch].items() if k in names}
        found = self._metrics_of(path, self.context.splits.validation, arch, "validation")
        name = self.task.metric_name
        self.beside[arch] = {k: v for k, v in found["metrics"].items() if k != name}
        metrics = {name: found["metrics"][name], WORST: found["worst_class"]}
        if self.evaluator.faults is not None:
            metrics[FAULTY] = self.evaluator.faulty_accuracy(network.to(self.evaluator.device))
        if self.evaluator.class_loss:
            each = [math.nan if v is None else v for v in (found["per_class"] or {}).values()]
            metrics[CLASS_LOSS] = self.evaluator.largest_class_loss(
                self.space.plan(arch), each, own=own
            )
        return metrics

    # ----------------------------------------------------------------- test set

    def test(self, front: Sequence[Verified]) -> dict[Arch, dict[str, Any]]:
        """Run the test set, once, through each file of the front.

        Each result is kept as it comes: a run resumed in this stage tests only what is left,
        and does not touch the test set where nothing is.

        Returns:
            of each ``metrics`` by name, ``worst_class`` and ``per_class`` (None for a task
            without classes, labels or outputs); for a task with classes ``right``, which images
            it answers rightly, as ``nas.record.bit_text`` writes them.
        """
        keys = {
            item.arch: f"{item.arch} {hashlib.sha256(item.path.read_bytes()).hexdigest()}"
            for item in front
        }
        known = {
            line["model"]: line["result"]
            for line in read_lines(self.store.tested)
            if "metrics" in line["result"]
        }
        left = [item for item in front if keys[item.arch] not in known]
        with self.progress.stage("test", len(front), unit="models") as bar:
            bar.advance(len(front) - len(left))
            test = (
                self.context.splits.test(f"{self.task.metric_name} of the final front")
                if left
                else None
            )
            for item in left:
                result = self._metrics_of(item.path, test, item.arch, "test")
                append_line(self.store.tested, {"model": keys[item.arch], "result": result})
                known[keys[item.arch]] = result
                bar.advance(1)
        return {item.arch: known[keys[item.arch]] for item in front}

    def _metrics_of(self, path: Path, subset: Any, arch: Arch, keep: str) -> dict[str, Any]:
        """Return the metrics of an exported file on ``subset``, and the metric of each class."""
        score = self.task.score()
        right: list[bool] = []
        for outputs, targets in self._outputs(path, subset, arch, keep):
            score.add(outputs, targets)
            if self.task.has_classes:
                right += (outputs.argmax(1) == targets).tolist()
        shares = score.by_class()
        each: dict[str, float | None] | None = None
        if shares is not None:
            values = [None if math.isnan(value) else value for value in shares]
            each = dict(zip(self.context.splits.classes, values, strict=True))
        return {
            "metrics": score.values(),
            "worst_class": worst_class(self.task, score),
            "per_class": each,
            **({"right": pack_bits(right)} if self.task.has_classes else {}),
        }

    def _outputs(self, path: Path, subset: Any, arch: Arch, keep: str) -> Iterator[Any]:
        """Yield (what is answered by an exported file, targets), batch by batch."""
        import torch

        from nas.models.outputs import run_file
        from nas.models.parity import open_session

        session = open_session(path, optimise=True)

        def network(x: Tensor) -> Tensor:
            return torch.from_numpy(run_file(session, x.numpy())[0])

        size = self.space.plan(arch).input_size
        for images, targets in self.evaluator.batches(keep, subset, size):
            yield self.task.answer(network, images.cpu()), targets.cpu()


def on_fronts(
    fronts: Sequence[FrontSpec], verified: Sequence[Verified]
) -> dict[Verified, tuple[str, ...]]:
    """Return the members of any front, with the names of the fronts they are on.

    Raises:
        InfeasibleError: no front has a member.
    """
    metrics = [item.metrics for item in verified]
    on: dict[int, list[str]] = {}
    for front in fronts:
        for index, inside in enumerate(front.members(metrics)):
            if inside:
                on.setdefault(index, []).append(front.name)
    if not on:
        evaluated = {str(item.arch): item.metrics for item in verified}
        require_feasible(fronts[0].constraints, evaluated)
    return {verified[index]: tuple(names) for index, names in sorted(on.items())}
