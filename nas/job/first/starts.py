"""Values of a first job that suit the data: space and preset, minutes, batches, devices."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from nas.job.default_time import default_minutes
from nas.job.first.survey import Survey
from nas.job.registries import registry_for
from nas.tasks.data import TASKS_FOR, kind_for, wrong_targets
from search_spaces.errors import InputError

_CPU = ("  - {name: cpu, runtime: onnxruntime, threads: 1}",)


@dataclass(frozen=True)
class Start:
    """What one job says.

    Attributes:
        preset: of the space.
        minutes: of the budget.
        validation: share or number of training examples.
        task: what is learned.
        space: name of the space.
        needs_path: whether the data lies where the user says.
        measured: processes, runs and models of the measurements before the search, where the
            default would take as long as training.
        evaluations: of the search.
        of_data, of_space, of_training: more lines of these sections; those of the supernet and of
            the winners are sections of their own.
        devices: lines of the devices.
        latency: the latency that is an objective.
    """

    preset: str
    minutes: float
    validation: str = "0.2"
    task: str = "image_classification"
    space: str = "mobilenet"
    needs_path: bool = True
    measured: tuple[int, int, int] | None = None
    evaluations: int = 80
    of_data: tuple[str, ...] = ()
    of_space: tuple[str, ...] = ()
    of_training: tuple[str, ...] = ()
    devices: tuple[str, ...] = _CPU
    latency: str = "latency_ms"


_LESS = (3, 100, 10)

KNOWN = {
    "digits": Start("8x8-lean", 3, needs_path=False, measured=(2, 50, 6), evaluations=48),
    "fashion_mnist": Start("28x28-slim", 25, "5000", needs_path=False),
    "cifar10": Start("32x32-lean", 60, "5000"),
    "cifar100": Start("32x32-lean", 60, "5000"),
    # For a folder that nobody could look at; a survey tells more.
    "image_folder": Start("128x128-lean", 60, "0.1", measured=_LESS),
}
"""Data sets whose contents are known before they are there."""

SURVEYED = (
    "image_folder", "image_csv", "coco_json", "yolo_txt", "pascal_voc", "mask_folder", "signal_ts",
    "signal_csv", "signal_numpy", "audio_folder", "text", "text_pairs",
)  # fmt: skip
"""Sources whose contents have to be looked at."""

_PRESETS = {
    "mobilenet": ((12, "8x8-lean"), (44, "32x32-slim"), (80, "64x64-slim"), (0, "128x128-lean")),
    "detector": ((56, "48x48"), (128, "96x96-lean"), (0, "192x192-lean")),
    "segmenter": ((56, "48x48"), (128, "96x96-lean"), (0, "192x192")),
    "signal": ((63, "32-lean"), (699, "256-short"), (0, "1024-short")),
    "signal_autoencoder": ((0, "256"),),
    # By the characters of the training text, or by the pairs.
    "decoder": ((100_000, "60k"), (1_000_000, "500k"), (0, "2m")),
    "encoder_decoder": ((5_000, "100k"), (50_000, "700k"), (0, "2m")),
}
"""Space -> largest size of the data and the preset for it; 0 is for all that is larger."""

_SPACES = {
    "boxes": "detector",
    "masks": "segmenter",
    "tokens": "decoder",
    "pairs": "encoder_decoder",
}
"""Kinds of targets -> the space that answers as they ask; others have one answer an example."""

_LARGEST_SIDE = 128
"""Side that larger pictures are resized to: what a laptop trains in half an hour."""
_BATCHES = ((250, 16), (1000, 32), (4000, 64))
"""Training examples below which batches are smaller, so that an epoch still has some steps."""


_MIRRORED = (
    "  # augment: {flip: false}  # where a mirrored picture is another class, as with letters"
)
_MIRRORED_VALUES = "  # augment: {flip: true}  # where a mirrored picture has the same values"


def known_start(source: str, *, task: str | None = None) -> Start:
    """Return what suits a data set by its name alone.

    Args:
        source: a data source.
        task: as for :func:`surveyed_start`.

    Raises:
        InputError: nobody can know it without looking at the data; no such task, or one that
            classes do not suit.
    """
    if source not in KNOWN:
        raise InputError(
            f"{source}: the job depends on the data; give its place as --path"
            if source in SURVEYED
            else f"no template for {source!r} (there is one for: {', '.join(choices())})"
        )
    start = KNOWN[source]
    return start if task is None else replace(start, task=_asked(task, source, "classes"))


def choices() -> Sequence[str]:
    """Return the sources that there are jobs for."""
    return list(dict.fromkeys([*KNOWN, *SURVEYED]))


def surveyed_start(
    source: str, found: Survey, *, task: str | None = None, normal: str | None = None
) -> Start:
    """Return what suits the data that was looked at, on the processor of a laptop.

    Args:
        source: a data source.
        found: of it.
        task: where the data suits several, such as signal_embedding; by default the plainest.
        normal: class that ``anomaly_detection`` learns from; by default the one of that name.

    Raises:
        InputError: no such task, or one that such data does not suit; no such class.
    """
    task = _task(source, found, task)
    of_data = _normal(source, found, task, normal)
    space = _space(found, task)
    size = found.width
    if space == "decoder":
        size = found.values
    elif space == "encoder_decoder":
        size = found.examples
    elif found.height > 1:
        size = min(found.side, _LARGEST_SIDE) if space == "mobilenet" else found.side
    preset = next(name for most, name in _PRESETS[space] if size <= most or not most)
    start = Start(
        preset=preset,
        minutes=default_minutes(found.values),
        validation="0.1" if found.examples >= _BATCHES[-1][0] else "0.2",
        task=task,
        space=space,
        measured=_LESS,
        of_training=_batches(
            found.examples, signals=space == "signal" and found.targets == "classes"
        ),
        of_data=of_data,
    )
    if source == "audio_folder":
        return replace(start, preset="49x40-lean")
    if space in ("decoder", "encoder_decoder"):
        return _of_tokens(start)
    if space in ("detector", "segmenter"):
        return _of_places(start, found)
    return _of_pictures(start, found) if found.files else start


def _asked(task: str, source: str, targets: str) -> str:
    registry_for("task").get(task)
    wanted = kind_for(task)
    if wanted is not None and wanted != targets:
        raise wrong_targets(source, targets, wanted, task)
    return task


def _task(source: str, found: Survey, given: str | None) -> str:
    if given is not None:
        return _asked(given, source, found.targets)
    suitable = TASKS_FOR[found.targets]
    medium = "audio" if source == "audio_folder" else "signal" if found.height == 1 else "image"
    return next((task for task in suitable if task.startswith(medium)), suitable[0])


def _normal(source: str, found: Survey, task: str, given: str | None) -> tuple[str, ...]:
    from nas.tasks.anomaly import check_windows, normal_classes

    if not registry_for("task").get(task).from_normal:
        if given is not None:
            raise InputError(f"--normal: {task} learns from all classes; leave it out")
        return ()
    check_windows((found.height, found.width), source)
    normal_classes(found.names, given, source)
    if given is None:
        return ()
    return (f"  normal: {json.dumps(given, ensure_ascii=False)}  # all others are anomalies",)


def _space(found: Survey, task: str) -> str:
    if task == "anomaly_detection":
        return "signal_autoencoder"
    return _SPACES.get(found.targets, "signal" if found.height == 1 else "mobilenet")


def _batch(examples: int) -> int | None:
    """Return the size of batches of few examples; None where the default suits."""
    return next((size for below, size in _BATCHES if examples < below), None)


def _batches(examples: int, *, signals: bool) -> tuple[str, ...]:
    batch = _batch(examples)
    if batch is None:
        return ()
    fewest = examples < _BATCHES[0][0]
    decay = ", weight_decay: 0.1" * (signals and fewest)
    finetune = f"finetune: {{batch_size: {batch}}}"
    if fewest and signals:
        finetune = (
            f"finetune: {{batch_size: {batch}, refit: true}}"
            "  # at last they learn from validation examples too"
        )
    elif fewest:
        finetune += "  # refit: true learns from the validation examples too, at last"
    return (f"supernet: {{batch_size: {batch}{decay}}}  # {examples} examples are few", finetune)


def _of_pictures(start: Start, found: Survey) -> Start:
    side = min(found.side, _LARGEST_SIDE)
    # The largest resolution is that of the data: a smaller picture has nothing to show there. In as
    # many seconds many looks at fewer pixels may teach more.
    shares = (0.5, 0.75, 1.0) if start.preset in ("64x64-slim", "128x128-lean") else (1.0,)
    return replace(
        start,
        minutes=default_minutes(found.examples * found.channels * side * side),
        of_data=(
            f"  image_size: {side}  # the pictures' own are about {found.side} pixels",
            f"  channels: {found.channels}",
            _MIRRORED_VALUES if found.targets == "values" else _MIRRORED,
        ),
        of_space=(f"  resolutions: {[round(side * share) for share in shares]}",),
    )


def _of_places(start: Start, found: Survey) -> Start:
    side = int(start.preset.split("x")[0])
    # On 120 pictures of boxes and two minutes, 16 an update reach 0.56 of AP50 where 64 reach 0.28.
    batch = _batch(found.examples) or _BATCHES[-1][1]
    few = f"  # {found.examples} examples are few" if batch < _BATCHES[-1][1] else ""
    asked = (f"  image_size: {side}", f"  channels: {found.channels}") if found.files else ()
    return replace(
        start,
        minutes=default_minutes(found.examples * found.channels * side * side),
        of_data=asked,
        # In half an hour a teacher learns no more than its students would.
        of_training=(
            f"supernet: {{batch_size: {batch}, distillation: false}}{few}",
            f"finetune: {{batch_size: {batch}, candidates: 1, learning_rate: 0.01, "
            "distillation: false, float_share: 0.6}",
        ),
    )


def _of_tokens(start: Start) -> Start:
    # A teacher would be asked for every text anew, which costs more than the winners themselves.
    batch = 16 if start.space == "decoder" else 128
    others = "source, measures: encode" if start.space == "encoder_decoder" else "window"
    name, _, measures = others.partition(", ")
    first = f"  - {{name: {name}, runtime: onnxruntime{', ' + measures if measures else ''}}}"
    return replace(
        start,
        of_training=(
            f"supernet: {{batch_size: {batch}, learning_rate: 0.003}}",
            f"finetune: {{batch_size: {batch}, learning_rate: 0.003, distillation: false}}",
        ),
        devices=(first, "  - {name: token, runtime: onnxruntime, measures: decode}"),
        latency='"latency_ms[token]"',
    )
