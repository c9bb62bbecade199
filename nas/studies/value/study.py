"""``nas study value``: is a front worth the time it took?"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.record.bit_text import unpack_bits
from nas.record.run_folder import RunStore
from nas.record.spending import spent
from nas.report.results import load_results
from nas.studies.records import StudyFolder
from nas.studies.source import Opened, Source, open_source
from nas.studies.value.comparison import Point, compare
from nas.studies.value.family import MEMBERS, Member, Request, family_sizes, find_family
from nas.studies.value.latencies import Measured, measure_together
from nas.studies.value.members import Bench, MemberWork, Plan, compute_members
from nas.studies.value.probe import probe_members
from nas.studies.value.training import TimedRecipe
from search_spaces.atomic import write_json_atomic
from search_spaces.errors import InputError

if TYPE_CHECKING:
    from devices.device import Device

KINDS = {"int8": ("ptq", "ort"), "ptq": ("ptq",), "ort": ("ort",), "qat": ("qat",)}
"""What a front is compared with -> which files of the family count as it."""

BUDGETS = 5
"""Latencies at which both are compared."""


@dataclass(frozen=True)
class ValueStudy:
    """A reference family with the time of a run, beside the front of the run.

    Attributes:
        family: ``module:function`` of a family, see
            :func:`nas.studies.value.family.user_family`; None for the built-in one.
        sizes: KiB of packed weights at which to compare, and for which the built-in family
            chooses its widths; None spans the front's, and of a family of the user's takes its
            members' own.
        seeds: trainings of each member.
        cpu_seconds: for all members of one seed and kind together; None takes what the run spent.
        qat: whether members are trained by 8-bit QAT, too; a training of its own with as much
            time as the one that is quantised afterwards.
        threads: of torch, in each process.
        recipe: of every training.
    """

    family: str | None = None
    sizes: tuple[float, ...] | None = None
    seeds: int = 1
    cpu_seconds: float | None = None
    qat: bool = True
    threads: int = 1
    recipe: TimedRecipe = field(default_factory=TimedRecipe)

    def run(
        self,
        source: Source,
        folder: Path,
        *,
        workers: int = 1,
        make_device: Callable[..., Device] | None = None,
        on_record: Callable[[int, int, Mapping[str, Any]], None] | None = None,
        tell: Callable[[str], None] = lambda text: None,
    ) -> dict[str, Any]:
        """Train what ``folder`` lacks, measure, compare; write ``value.json`` and return it.

        The file lies beside the folder: ``RUN/studies/value.json``.

        Args:
            source: the run, finished.
            folder: for records, models and measurements; what it holds is not computed again.
            workers: processes that train at the same time, of ``threads`` each.
            make_device: makes a device of an entry of the job; by default as the run does.
            on_record: called with (done, total, record) after each training.
            tell: told what is going on.

        Raises:
            InputError: the run has no front, does not say what it cost, or the family is wrong;
                the folder holds a study with other settings.
            EnvironmentProblem: the data is not here.
        """
        from devices.measuring.store import MeasurementStore
        from nas.job.devices import make_device as device_of_job

        folder = Path(folder)
        results = load_results(source.folder)
        if not results["front"]:
            raise InputError(f"{source.folder} has an empty front; there is nothing to compare")
        opened = open_source(source)
        accelerator = _accelerator(source)
        budget = self._budget(source, accelerator)
        front_kib = [float(entry["costs"]["weights_kib"]) for entry in results["front"]]
        sizes = tuple(self.sizes or family_sizes(front_kib, MEMBERS))
        request = Request.of(opened.splits, opened.task.outputs(opened.splits), sizes)
        members = find_family(self.family, request, answers=opened.task.answers)
        if self.family is not None:
            probe_members(members, request, answers=opened.task.answers)
        plan = Plan(
            source=source,
            family=self.family,
            sizes_kib=sizes,
            seconds=budget["seconds"] / len(members),
            recipe=self.recipe,
            folder=folder,
            device=accelerator,
            threads=self.threads,
        )
        store = StudyFolder(folder, self._settings(source, plan))
        bench = Bench(plan, opened)
        bench_front = self._front(results, source, bench, store)
        self._train(plan, members, store, bench, workers, on_record)
        measured = measure_together(
            source.job,
            opened.space,
            *self._files(source, folder, results, members, store),
            store=MeasurementStore(folder / "measurements.db"),
            make=make_device or device_of_job,
            tell=tell,
        )
        result = self._result(opened, plan, budget, results, members, store, bench_front, measured)
        write_json_atomic(folder.parent / f"{folder.name}.json", result)
        return result

    # ------------------------------------------------------------------- parts

    def _budget(self, source: Source, accelerator: str) -> dict[str, Any]:
        clock = "processor seconds" if accelerator == "cpu" else "seconds of the GPU"
        if self.cpu_seconds is not None:
            return {"seconds": self.cpu_seconds, "clock": clock, "source": "given"}
        cost = spent(source.folder)
        if cost is None:
            raise InputError(
                f"{source.folder} does not record what it cost (a run of an older version); give "
                "the seconds by --cpu-seconds"
            )
        seconds = cost.cpu_seconds if accelerator == "cpu" else cost.wall_seconds
        return {"seconds": seconds, "clock": clock, "source": "spent by the run"}

    def _settings(self, source: Source, plan: Plan) -> dict[str, Any]:
        return {
            "study": "value",
            **source.identity(),
            "family": self.family,
            "seconds_of_a_member": round(plan.seconds, 3),
            "recipe": asdict(self.recipe),
            "device": plan.device,
            "threads": self.threads,
        }

    def _kinds(self) -> tuple[str, ...]:
        return ("float", "qat") if self.qat else ("float",)

    def _work(self, members: Sequence[Member]) -> list[MemberWork]:
        return [
            MemberWork(member.name, kind, seed)
            for seed in range(self.seeds)
            for kind in self._kinds()
            for member in members
        ]

    def _train(
        self,
        plan: Plan,
        members: Sequence[Member],
        store: StudyFolder,
        bench: Bench,
        workers: int,
        on_record: Callable[[int, int, Mapping[str, Any]], None] | None,
    ) -> None:
        work = self._work(members)
        for item in work:
            _refuse_changed(store.get(item.key), plan.folder)
        store.complete(
            work,
            lambda todo: compute_members(plan, todo, workers=workers, bench=bench),
            on_record,
        )

    def _front(
        self, results: Mapping[str, Any], source: Source, bench: Bench, store: StudyFolder
    ) -> dict[str, dict[str, Any]]:
        """Test the files of the front, image by image; what is recorded is not read again."""
        found: dict[str, dict[str, Any]] = {}
        for entry in results["front"]:
            path = source.folder / entry["model"]
            if not path.is_file():
                raise InputError(f"{path} is missing; restore it, or run the job again")
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            key = f"front|{entry['id']}|{digest}"
            if store.get(key) is None:
                if not found:
                    RunStore.open(source.folder).event("test_read_by_study", study="value")
                _, height, width = entry["plan"]["input_shape"]
                store.add(key, bench.test_file(path, (height, width)))
            found[entry["id"]] = store.get(key) or {}
        return found

    def _files(
        self,
        source: Source,
        folder: Path,
        results: Mapping[str, Any],
        members: Sequence[Member],
        store: StudyFolder,
    ) -> tuple[dict[str, Path], dict[str, Path]]:
        """Return the files to measure; seeds of a member differ in their weights only."""
        entries = sorted(results["front"], key=lambda entry: entry["costs"]["macs"])
        front = {entry["id"]: source.folder / entry["model"] for entry in entries}
        family = {}
        for member in members:
            for kind in self._kinds():
                record = store.get(MemberWork(member.name, kind, 0).key) or {}
                for name, file in record["files"].items():
                    family[f"{member.name}|{name}"] = folder / "models" / file["file"]
        return front, family

    # ------------------------------------------------------------------ result

    def _result(
        self,
        opened: Opened,
        plan: Plan,
        budget: Mapping[str, Any],
        results: Mapping[str, Any],
        members: Sequence[Member],
        store: StudyFolder,
        front_tests: Mapping[str, Mapping[str, Any]],
        measured: Sequence[Measured],
    ) -> dict[str, Any]:
        images = opened.splits.test_images
        kind_of_metric = opened.task.metric_kind()
        how: dict[str, Any] = {
            "higher": opened.task.higher_is_better,
            "unit": 100.0 if kind_of_metric.share else 1.0,
        }
        front = [
            Point(
                entry["id"],
                float(entry["costs"]["weights_kib"]),
                front_tests[entry["id"]]["validation"],
                front_tests[entry["id"]]["accuracy"],
                _right(front_tests[entry["id"]], images),
                _latencies(measured, entry["id"]),
            )
            for entry in results["front"]
        ]
        families: dict[str, list[list[Point]]] = {}
        rows = []
        for seed in range(self.seeds):
            for kind in self._kinds():
                for member in members:
                    record = store.get(MemberWork(member.name, kind, seed).key) or {}
                    for name, file in record["files"].items():
                        seeds = families.setdefault(name, [[] for _ in range(self.seeds)])
                        latency = _latencies(measured, f"{member.name}|{name}")
                        seeds[seed].append(
                            Point(
                                f"{member.name}|{name}",
                                file["weights_kib"],
                                file["validation"],
                                file["accuracy"],
                                _right(file, images),
                                latency,
                            )
                        )
                        rows.append(
                            {
                                "member": member.name,
                                "kind": name,
                                "seed": seed,
                                **{k: v for k, v in file.items() if k != "right"},
                                "latency_ms": latency,
                                "training": record["training"],
                            }
                        )
        sets = {
            kind: [
                [p for part in parts for p in families[part][seed]] for seed in range(self.seeds)
            ]
            for kind, parts in KINDS.items()
            if all(part in families for part in parts)
        }
        # A member just keeps within the size that it was made for, and so may the front.
        own = {m.weights_kib for m in members} if self.family else set(plan.sizes_kib)
        sizes = sorted(self.sizes or own)
        return {
            "family": self.family or _built_in(opened),
            "metric": opened.task.metric_name,
            **how,
            "budget": {**budget, "of_a_member": plan.seconds},
            "recipe": {**asdict(self.recipe), "quantised_after_training": list(KINDS["int8"])},
            "seeds": self.seeds,
            "test_images": images,
            "chosen_by": f"validation {opened.task.metric_name} among the models within the budget",
            "front": [
                {
                    "id": p.name,
                    "weights_kib": p.weights_kib,
                    "validation": p.validation,
                    "accuracy": p.accuracy,
                    "latency_ms": dict(p.latency_ms),
                }
                for p in sorted(front, key=lambda p: p.weights_kib)
            ],
            "members": rows,
            "latency": [asdict(item) for item in measured],
            "at_size": {kind: compare(front, seeds, sizes, **how) for kind, seeds in sets.items()},
            "at_latency": {
                item.device: {
                    kind: compare(front, seeds, budgets, device=item.device, **how)
                    for kind, seeds in sets.items()
                    if (budgets := _latency_budgets(seeds[0], item.device))
                }
                for item in measured
                if item.models
            },
        }


def _built_in(opened: Opened) -> str:
    """Return what the networks of the built-in family are, in words."""
    signals = opened.splits.input_size[0] == 1
    return f"plain {'convolutional' if signals else 'MBConv'} networks (built-in)"


def _refuse_changed(record: Mapping[str, Any] | None, folder: Path) -> None:
    """Raise InputError unless the files of a recorded training are still what they were."""
    for file in (record or {"files": {}})["files"].values():
        path = folder / "models" / file["file"]
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != file["sha256"]:
            raise InputError(
                f"{path} is missing or was changed since it was trained; restore it, or begin "
                f"the study again by removing {folder}"
            )


def _right(tested: Mapping[str, Any], images: int) -> Any:
    return unpack_bits(tested["right"], images) if "right" in tested else None


def _latencies(measured: Sequence[Measured], name: str) -> dict[str, float]:
    return {
        item.device: item.models[name]["latency_ms"] for item in measured if name in item.models
    }


def _latency_budgets(points: Sequence[Point], device: str) -> list[float]:
    """Return latencies evenly over the logarithm of a family's range, its ends among them."""
    import numpy as np

    known = [p.latency_ms[device] for p in points if device in p.latency_ms]
    if not known:
        return []
    return [float(v) for v in np.geomspace(min(known), max(known), BUDGETS)]


def _accelerator(source: Source) -> str:
    """Return what the run was trained on, and so what its cost is counted on."""
    recorded = RunStore.open(source.folder).manifest().get("accelerator")
    if recorded == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise InputError(
                f"{source.folder} was trained on a GPU, and its cost is counted in seconds of it; "
                "here is none: do the study there"
            )
    return str(recorded or "cpu")
