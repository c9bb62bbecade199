"""One member of the family: trained for its time, quantised, exported, checked on the test set."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.record.bit_text import pack_bits
from nas.studies.source import Opened, Source, open_source
from nas.studies.value.family import Member, Request, find_family
from nas.studies.value.training import TimedRecipe, TimedTrainer, extract
from search_spaces.errors import EnvironmentProblem, InputError
from search_spaces.seeds import derive_seed

if TYPE_CHECKING:
    from torch import Tensor

    from nas.data.splits import Subset
    from supernet.plain import PlainNetwork

PTQ_STEPS = ("equalize", "mse", "bias")
"""Of our post-training quantisation; learned rounding changes nothing at 8 bits."""


@dataclass(frozen=True)
class MemberWork:
    """One training.

    Attributes:
        member: name of the member.
        kind: ``float``, which is quantised after training, or ``qat``.
        seed: of weights and batches.
    """

    member: str
    kind: str
    seed: int

    @property
    def key(self) -> str:
        """The key of its record."""
        return f"{self.kind}|{self.seed}|{self.member}"


@dataclass(frozen=True)
class Plan:
    """What all trainings of a study share; small, so that it can be sent to processes.

    Attributes:
        source: the run.
        family: ``module:function``, or None for the built-in one.
        sizes_kib: asked of the family.
        seconds: of one member's training.
        recipe: of every training.
        folder: of the study; models are written to ``models`` in it.
        device: ``cpu`` or ``cuda``.
        threads: of torch.
    """

    source: Source
    family: str | None
    sizes_kib: tuple[float, ...]
    seconds: float
    recipe: TimedRecipe
    folder: Path
    device: str = "cpu"
    threads: int = 1


class Bench:
    """Trains members with the data loaded once.

    Args:
        plan: of the study.
        opened: data and task of its run, if they are loaded already.
    """

    def __init__(self, plan: Plan, opened: Opened | None = None) -> None:
        self.plan = plan
        self.opened = opened or open_source(plan.source)
        task, splits = self.opened.task, self.opened.splits
        request = Request.of(splits, task.outputs(splits), plan.sizes_kib)
        self.members: dict[str, Member] = {m.name: m for m in find_family(plan.family, request)}
        self._test: Subset | None = None
        # Whole batches of images, as the supernet's batch norm is calibrated with.
        self._calibration: list[Tensor] = [
            x for x, _ in splits.evaluation_batches(splits.calibration, batch_size=250)
        ]

    def compute(self, work: MemberWork) -> dict[str, Any]:
        """Train, quantise, export and test, and return the record.

        Raises:
            InputError: a network that cannot be quantised, such as one that is not traceable.
            EnvironmentProblem: a file that does not compute what its network does.
        """
        import torch

        begin = time.monotonic()
        plan, splits, task = self.plan, self.opened.splits, self.opened.task
        member = self.members[work.member]
        # With the run's own seed, so that families beside several runs are independent, too.
        base = self.plan.source.job.seed
        torch.manual_seed(derive_seed(base, "value", work.seed, work.member) % 2**63)
        module = member.make()
        trainer = TimedTrainer(
            splits.training_batches(
                plan.recipe.batch_size, seed=derive_seed(base, "value batches", work.seed)
            ),
            task.loss,
            plan.recipe,
            seconds=plan.seconds,
            device=plan.device,
        )
        trainer.warm_up()
        files: dict[str, dict[str, Any]] = {}
        if work.kind == "qat":
            network, arch, training = trainer.train_quantised(module, splits.input_shape)
            files["qat"] = self._file(work, "qat", extract(network, arch, self._calibration))
        else:
            training = trainer.train(module)
            module = module.cpu().eval()
            files |= self._quantised(work, module)
        return {
            "kind": work.kind,
            "member": work.member,
            "seed": work.seed,
            "training": asdict(training),
            "files": files,
            "seconds": round(time.monotonic() - begin, 1),
        }

    def _quantised(self, work: MemberWork, module: Any) -> dict[str, dict[str, Any]]:
        from devices.device import device_fingerprint
        from nas.studies.value.outside import quantize_onnxruntime
        from supernet.ptq.quantize import quantize_post_training

        ours = quantize_post_training(module, self._calibration, (8, 8), steps=PTQ_STEPS)
        files = {"ptq": self._file(work, "ptq", ours)}
        path = self._path(work, "ort")
        quantize_onnxruntime(
            module,
            path,
            self._calibration,
            has_vnni=bool(device_fingerprint()["has_vnni"]),
        )
        # The same layers at the same bits pack to the same size.
        files["ort"] = self._tested(path, ours.plan.weights_kib, ours.plan.macs)
        return files

    def _file(self, work: MemberWork, kind: str, network: PlainNetwork) -> dict[str, Any]:
        from nas.models.parity import export_checked

        path = self._path(work, kind)
        path.parent.mkdir(parents=True, exist_ok=True)
        export_checked(network, path, self._calibration[0][:32])
        return self._tested(path, network.plan.weights_kib, network.plan.macs)

    def _path(self, work: MemberWork, kind: str) -> Path:
        return self.plan.folder / "models" / f"{work.member}-{kind}-{work.seed}.onnx"

    def _tested(self, path: Path, weights_kib: float, macs: int) -> dict[str, Any]:
        return {
            "file": path.name,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "weights_kib": weights_kib,
            "macs": int(macs),
            "size_kib": path.stat().st_size / 1024,
            **self.test_file(path, self.opened.splits.input_size),
        }

    def test_file(self, path: Path, size: tuple[int, int]) -> dict[str, Any]:
        """Return a file's metric on the validation and on the test set.

        Args:
            path: ONNX file.
            size: height and width of the images that it takes.

        Returns:
            ``validation``, ``accuracy`` (of the test set), and for a task with classes
            ``right``: which test images it names rightly, as ``nas.record.bit_text`` writes them.
        """
        if self._test is None:
            self._test = self.opened.splits.test("a reference family beside the front")
        validation, _ = self._metric(path, self.opened.splits.validation, size)
        accuracy, right = self._metric(path, self._test, size)
        found: dict[str, Any] = {"validation": validation, "accuracy": accuracy}
        if right is not None:
            found["right"] = pack_bits(right)
        return found

    def _metric(
        self, path: Path, subset: Subset, size: tuple[int, int]
    ) -> tuple[float, list[bool] | None]:
        import torch

        from nas.models.parity import evaluate_onnx
        from supernet.resolution import resize_images

        task = self.opened.task
        score = task.score()
        right: list[bool] = []
        for images, targets in self.opened.splits.evaluation_batches(subset, batch_size=250):
            outputs = torch.from_numpy(evaluate_onnx(path, [resize_images(images, size)]))
            score.add(outputs, targets)
            if task.has_classes:
                right += (outputs.argmax(1) == targets).tolist()
        return score.values()[task.metric_name], right if task.has_classes else None


def compute_members(
    plan: Plan, work: Sequence[MemberWork], *, workers: int = 1, bench: Bench | None = None
) -> Iterator[tuple[MemberWork, dict[str, Any]]]:
    """Yield the record of each training as it ends, in any order.

    Args:
        plan: of the study.
        work: what to train.
        workers: processes; 1 trains in this process. Each counts its own processor time.
        bench: of this process, if it is there already.

    Raises:
        InputError, EnvironmentProblem: as :meth:`Bench.compute`, naming the member.
    """
    if not work:
        return
    if workers == 1:
        import torch

        threads = torch.get_num_threads()
        torch.set_num_threads(plan.threads)
        try:
            bench = bench or Bench(plan)
            for item in work:
                yield item, _named(bench, item)
        finally:
            torch.set_num_threads(threads)
        return
    from nas.executors.pool import as_done, worker_pool

    yield from as_done(worker_pool(min(workers, len(work)), _begin, (plan,)), _compute, work)


_BENCH: list[Bench] = []


def _begin(plan: Plan) -> None:
    import torch

    torch.set_num_threads(plan.threads)
    _BENCH[:] = [Bench(plan)]


def _compute(work: MemberWork) -> dict[str, Any]:
    return _named(_BENCH[0], work)


def _named(bench: Bench, work: MemberWork) -> dict[str, Any]:
    try:
        return bench.compute(work)
    except InputError as error:
        raise InputError(f"member {work.member} ({work.kind}): {error}") from error
    except EnvironmentProblem as error:
        raise EnvironmentProblem(f"member {work.member} ({work.kind}): {error}") from error
