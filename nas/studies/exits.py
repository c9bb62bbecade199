"""What leaving early buys: the exits of one architecture, and a cascade of them by confidence."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.stages.evaluator import Evaluator
from nas.studies.source import Opened, Source, load_supernet, open_source
from search_spaces.atomic import write_json_atomic
from search_spaces.errors import InfeasibleError, InputError
from search_spaces.planned import PlannedSpace
from search_spaces.space import Arch

if TYPE_CHECKING:
    from devices.measuring.measurement import Measurement
    from supernet.plain import PlainNetwork

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99)
"""Confidences at which an image leaves a cascade, by default."""

_CHECKED = 64
"""Images on which the file is held against the network."""

_HALVED = 25
"""Images in a row that fall to the same half."""


@dataclass(frozen=True)
class ExitsStudy:
    """The networks that end at each exit of one architecture, alone and one after another.

    A cascade runs the network of the first exit; an image whose largest class probability
    reaches the threshold is done, the others go on to the next network (BranchyNet,
    Teerapittayanon et al., ICPR 2016, with probability in place of entropy). Its latency is
    that of the exported files run one after another, each from the pixels on, since those are
    the files there are; its MACs are the same sum. Sharing the trunk would need fewer.

    Beside it stands one network of all exits on one trunk (:mod:`nas.studies.shared_exits`),
    written as one file.

    Attributes:
        arch: text of the architecture whose exits are compared; None takes the largest.
        device: name of the job's device to measure on; None does not measure.
        thresholds: of a cascade, from 0 to 1.
        images: validation images used; None takes all.
        gates: kinds of gates that the shared network may have.
        loss: accuracy that it may lose against the whole, as a share.
        timed: images of the other half that are timed, one at a time.
    """

    arch: str | None = None
    device: str | None = None
    thresholds: Sequence[float] = THRESHOLDS
    images: int | None = None
    gates: Sequence[str] = ("confidence", "energy", "learned")
    loss: float = 0.003
    timed: int = 500

    def run(self, source: Source, folder: Path) -> dict[str, Any]:
        """Evaluate, measure, write ``exits.json`` to ``folder`` and return it.

        Returns:
            ``exits``: accuracy, MACs and latency of each; ``cascades``: for each choice of
            exits and threshold the accuracy, the share of images that left at each exit, and
            the mean cost of an image; ``shared``: the same of one network, with its gates, its
            file, and where a device is named the mean latency of both files over images.

        Raises:
            InputError: the space has no exits, the task no classes, or the job no such device.
        """
        opened = open_source(source)
        archs = exits_of(opened.space, self.arch)
        if not opened.task.has_classes:
            raise InputError(
                f"the task {source.job.task!r} has no classes, so nothing says how sure a "
                "network is of its output"
            )
        evaluator = Evaluator(load_supernet(source, opened.space), opened.splits, opened.task)
        networks = {stage: evaluator.network(arch) for stage, arch in archs.items()}
        measured = {} if self.device is None else self._measure(source, opened, networks, archs)
        seen = {stage: self._outputs(evaluator, network) for stage, network in networks.items()}
        confidence = {stage: values[0] for stage, values in seen.items()}
        right = {stage: values[1] for stage, values in seen.items()}
        exits: list[dict[str, Any]] = []
        costs: dict[str, dict[int, float]] = {"macs": {}}
        if measured:
            costs["latency_ms"] = {stage: one.latency_ms for stage, one in measured.items()}
        for stage, arch in archs.items():
            plan = opened.space.plan(arch)
            costs["macs"][stage] = float(plan.macs)
            entry: dict[str, Any] = {
                "exit": stage,
                "arch": str(arch),
                "accuracy": float(right[stage].mean()),
                "macs": int(plan.macs),
                "weights_kib": float(plan.weights_kib),
            }
            if stage in measured:
                entry["latency"] = _told(measured[stage])
            exits.append(entry)
        result = {
            "images": len(next(iter(right.values()))),
            "exits": exits,
            "cascades": cascades(confidence, right, costs, self.thresholds),
            "shared": self._shared(source, evaluator, networks, costs, Path(folder)),
        }
        write_json_atomic(Path(folder) / "exits.json", result)
        return result

    def _shared(
        self,
        source: Source,
        evaluator: Evaluator,
        networks: Mapping[int, PlainNetwork],
        costs: Mapping[str, Mapping[int, float]],
        folder: Path,
    ) -> dict[str, Any]:
        """Choose gates on every other batch of validation images, and tell them on the rest."""
        import torch

        from nas.models.exits import export_exits_checked
        from nas.models.parity import export_checked
        from nas.studies import shared_exits
        from supernet.exits.network import ExitNetwork, collect

        whole = ExitNetwork(networks)
        batches = [
            pair
            for x, y in evaluator.validation(whole.plan, self.images)
            for pair in zip(x.split(_HALVED), y.split(_HALVED), strict=True)
        ]
        if len(batches) < 2:
            count = sum(len(y) for _, y in batches)
            raise InputError(f"{count} validation images are too few to choose gates on")
        outputs, targets = collect(whole, batches[::2])
        unit = "latency_ms" if "latency_ms" in costs else "macs"
        last = outputs[-1].argmax(1) == targets
        try:
            setting = shared_exits.cheapest(
                shared_exits.settings(whole, outputs, targets, costs[unit], self.gates),
                float(last.float().mean()),
                self.loss,
            )
        except InfeasibleError as error:
            return {"refused": str(error)}
        network = shared_exits.with_setting(networks, setting)
        right = full = seen = 0
        for x, y in batches[1::2]:
            right += int((network(x)[0].argmax(1) == y).sum())
            full += int((networks[whole.exits[-1]](x).argmax(1) == y).sum())
            seen += len(y)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "exits.onnx"
        checked = torch.cat([x for x, _ in batches[1::2]])[:_CHECKED]
        kib, check = export_exits_checked(network, path, checked)
        found = {
            **shared_exits.told(setting),
            "cost_is": unit,
            "images": seen,
            "accuracy": right / seen,
            "accuracy_of_the_whole": full / seen,
            "model": path.name,
            "size_kib": kib,
            "file": asdict(check),
        }
        if self.device is None:
            return found
        config = next(one for one in source.job.devices if one.name == self.device)
        if config.hub is not None or config.simulator is not None:
            found["not_measured"] = (
                f"{self.device} is not this machine: boards and models of hardware run no branches"
            )
            return found
        runtime = config.runtime
        alone = folder / "whole.onnx"
        export_checked(networks[whole.exits[-1]], alone, batches[0][0][:32])
        images = np.concatenate([x.numpy() for x, _ in batches[1::2]])[: self.timed]
        sessions = {
            name: shared_exits.load_session(runtime, config.options, file)
            for name, file in (("shared", path), ("whole", alone))
        }
        found["latency"] = shared_exits.mean_latencies(sessions, images)
        found["latency_share"] = (
            found["latency"]["shared"]["mean_ms"] / found["latency"]["whole"]["mean_ms"]
        )
        return found

    def _outputs(
        self, evaluator: Evaluator, network: PlainNetwork
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the largest probability and whether the class is right: two (images,)."""
        import torch

        confidence, right = [], []
        with torch.inference_mode():
            for images, targets in evaluator.validation(network.plan, self.images):
                largest, classes = network(images).softmax(dim=1).max(dim=1)
                confidence.append(largest.numpy())
                right.append((classes == targets).numpy())
        return np.concatenate(confidence), np.concatenate(right)

    def _measure(
        self,
        source: Source,
        opened: Opened,
        networks: Mapping[int, PlainNetwork],
        archs: Mapping[int, Arch],
    ) -> dict[int, Measurement]:
        import tempfile

        from devices.measuring.store import MeasurementStore
        from nas.job.devices import make_device
        from nas.models.parity import export_checked
        from supernet.resolution import resize_images

        configs = {config.name: config for config in source.job.devices}
        if self.device not in configs:
            raise InputError(f"the job has no device {self.device!r}; it has {', '.join(configs)}")
        device = make_device(configs[self.device], opened.space)
        some = opened.splits.calibration.first(8)
        images, _ = next(iter(opened.splits.evaluation_batches(some, batch_size=8)))
        with tempfile.TemporaryDirectory() as scratch:
            paths = []
            for stage, network in networks.items():
                paths.append(Path(scratch) / f"exit{stage}.onnx")
                export_checked(network, paths[-1], resize_images(images, network.plan.input_size))
            found = device.measure(
                paths,
                archs=[str(arch) for arch in archs.values()],
                space=opened.space.name,
                variant="verify",
                protocol=source.job.measurement_protocol(),
                store=MeasurementStore(source.folder / "measurements.db"),
            )
        return dict(zip(networks, found, strict=True))


def exits_of(space: PlannedSpace, arch: str | None = None) -> dict[int, Arch]:
    """Return exit -> the architecture that ends there, the last exit being the whole network.

    Args:
        space: with exits.
        arch: text of the architecture; None takes the largest.

    Raises:
        InputError: the space has no exits, or the text is no architecture of it.
    """
    if "exit" not in space.index:
        raise InputError(
            f"the space {space.name!r} has no exits; give it some, such as: space: "
            "{name: mobilenet, exits: [1, 2]}"
        )
    whole = space.largest() if arch is None else space.parse(arch)
    genes = space.genes([whole])
    column = space.index["exit"]
    # An architecture that leaves early says nothing of later stages; they are as in the largest.
    full = space.genes([space.largest()])
    genes = np.where(space.active(genes), genes, full)
    found = {}
    for option, stage in enumerate(space.choices[column].options):
        row = genes.copy()
        row[:, column] = option
        found[int(stage)] = space.decode(space.canonical(row))[0]
    return found


def cascades(
    confidence: Mapping[int, np.ndarray],
    right: Mapping[int, np.ndarray],
    costs: Mapping[str, Mapping[int, float]],
    thresholds: Sequence[float],
) -> list[dict[str, Any]]:
    """Return accuracy and mean cost of every cascade of at least two exits.

    Args:
        confidence: exit -> (images,) largest probability.
        right: exit -> (images,) whether the class is right.
        costs: name -> exit -> cost of running its network once.
        thresholds: confidences at which an image is done.
    """
    stages = sorted(confidence)
    found = []
    for count in range(1, len(stages)):
        for early in itertools.combinations(stages[:-1], count):
            for threshold in thresholds:
                found.append(
                    {
                        "exits": [*early, stages[-1]],
                        "threshold": float(threshold),
                        **_cascade([*early, stages[-1]], threshold, confidence, right, costs),
                    }
                )
    return found


def _cascade(
    stages: Sequence[int],
    threshold: float,
    confidence: Mapping[int, np.ndarray],
    right: Mapping[int, np.ndarray],
    costs: Mapping[str, Mapping[int, float]],
) -> dict[str, Any]:
    images = len(confidence[stages[0]])
    going = np.ones(images, dtype=bool)
    correct = 0
    ran, left = {}, []
    for stage in stages:
        ran[stage] = going.mean()
        last = stage == stages[-1]
        done = going if last else going & (confidence[stage] >= threshold)
        correct += int(right[stage][done].sum())
        left.append(float(done.mean()))
        going = going & ~done
    return {
        "accuracy": correct / images,
        "left_at": left,
        **{
            name: float(sum(ran[stage] * values[stage] for stage in stages))
            for name, values in costs.items()
        },
    }


def _told(measurement: Measurement) -> dict[str, Any]:
    return {
        "latency_ms": measurement.latency_ms,
        "low_ms": measurement.low_ms,
        "high_ms": measurement.high_ms,
        "valid": measurement.valid,
        "runtime": f"{measurement.runtime} {measurement.runtime_version}",
        "device": measurement.device,
        "source": "measured",
    }
