"""Is a model right, small and fast on a device? Measured beside its float twin, never assumed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.boards.comparison import Comparison, Images
from nas.boards.pixels import as_inputs, preprocessing_in
from nas.tasks.data import each_of, kind_for
from search_spaces.errors import EnvironmentProblem, InputError
from search_spaces.model_files.graph import inputs_of

if TYPE_CHECKING:
    from devices.device import Device
    from devices.measuring.measurement import Measurement
    from devices.measuring.protocol import Protocol
    from devices.measuring.store import MeasurementStore

RANDOM_IMAGES = 64
"""Images that outputs are compared on where no data is given."""

INTEGER_ONLY = {"lowbit": "onnxruntime"}
"""Runtimes without float kernels -> the runtime in which float twins are measured instead."""

LARGE_CLASS_LOSS = 0.05
"""Of the task's metric, lost by a class against the float twin, that is warned of."""

_EXECUTION_ERROR = 0.05
"""Relative error against unoptimised execution beyond which a kernel is wrong, as in
:mod:`nas.models.parity`."""


@dataclass(frozen=True)
class DeployReport:
    """What :func:`check_deployment` found.

    Attributes:
        model, device, runtime, parameters: what was measured where.
        outputs_of: runtime whose outputs were compared: the device's own where it is this
            machine, else ONNX Runtime here, as a board sends latencies and no outputs.
        images: how many, ``images_source``: from where.
        task: registered name of the task whose metric and decisions are told; empty for one class
            an image.
        execution: the optimised execution against the unoptimised one.
        against_float: the model against its float twin; ``None`` for a float model.
        size_kib, float_size_kib: bytes of the files.
        weights_kib: packed weights, scales and biases, where the model card records them.
        latency, float_latency: measurements, without raw samples.
        float_runtime: in which the twin was measured.
        speedup: the twin's latency over the model's; ``None`` where one was not measured.
        arithmetic: products by the type they run in, where the runtime tells.
        float_fallbacks: operators of a quantised file that compute in floats.
        problems: why the model must not be used there; empty for a sound one.
        warnings: what a user should know.
    """

    model: str
    device: str
    runtime: str
    parameters: Mapping[str, Any]
    outputs_of: str
    images: int
    images_source: str
    task: str
    execution: Comparison
    against_float: Comparison | None
    size_kib: float
    float_size_kib: float | None
    weights_kib: float | None
    latency: Mapping[str, Any]
    float_latency: Mapping[str, Any] | None
    float_runtime: str | None
    speedup: float | None
    arithmetic: Mapping[str, int] | None
    float_fallbacks: tuple[str, ...]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether the model may be used on the device."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """Return all attributes and :attr:`passed` as plain values."""
        return asdict(self) | {
            "passed": self.passed,
            "float_fallbacks": list(self.float_fallbacks),
            "problems": list(self.problems),
            "warnings": list(self.warnings),
        }


def check_deployment(
    model: Path,
    device: Device,
    *,
    images: Images | None = None,
    float_model: Path | None = None,
    protocol: Protocol | None = None,
    store: MeasurementStore | None = None,
) -> DeployReport:
    """Measure a model and its float twin on a device, and compare their outputs.

    Args:
        model: an ONNX file with one input, whose first output is compared: by the task of the
            images, else by that of the model card beside it, else as one class an image.
        device: from :func:`devices.fleet.remote.make_device`: this machine or a board.
        images: to compare outputs on; random ones by default.
        float_model: the twin; by default made from ``model`` by
            :func:`nas.models.float_twin.float_twin`.
        protocol: how to measure.
        store: where to look for measurements first, and to keep them.

    Raises:
        InputError: no ONNX file, or images that do not fit it.
        EnvironmentProblem: the device cannot measure.
    """
    from nas.models.parity import check_optimised, evaluate_onnx

    model = Path(model)
    if model.suffix.lower() != ".onnx" or not model.is_file():
        raise InputError(f"{model} is no ONNX file; give the .onnx that 'nas export' wrote")
    device.check()
    shape = input_shape(model)
    images = with_task(images or random_images(shape), model)
    if images.pixels.shape[1:] != shape:
        raise InputError(
            f"the images have shape {list(images.pixels.shape[1:])}, {model.name} takes "
            f"{list(shape)}"
        )
    check = check_optimised(model, images.pixels[:RANDOM_IMAGES])
    with tempfile.TemporaryDirectory() as folder:
        twin = float_model if float_model is not None else _twin(model, Path(folder))
        measured = _measure(model, twin, device, protocol, store)
        outputs, outputs_of = _outputs(model, device, images)
        plain = evaluate_onnx(model, _batches(images.pixels), optimise=False)
        execution = Comparison.of(outputs, plain, images)
        against = None
        if twin is not None:
            float_outputs = evaluate_onnx(twin, _batches(images.pixels))
            against = Comparison.of(outputs, float_outputs, images)
        float_size = None if twin is None else twin.stat().st_size / 1024
    speedup = _speedup(measured)
    arithmetic = dict(measured[0].conditions).get("arithmetic")
    problems, warnings = _judged(measured, execution, against, check, images, speedup)
    if images.doubt:
        warnings.insert(0, images.doubt)
    if not np.isfinite(outputs).all():
        problems.append("outputs are not finite")
    return DeployReport(
        model=str(model),
        device=device.spec.name,
        runtime=device.spec.runtime,
        parameters=dict(device.spec.parameters),
        outputs_of=outputs_of,
        images=len(images.pixels),
        images_source=images.source,
        task="" if images.task is None else images.task.registered_name(),
        execution=execution,
        against_float=against,
        size_kib=model.stat().st_size / 1024,
        float_size_kib=float_size,
        weights_kib=_recorded_weights(model),
        latency=_latency(measured[0]),
        float_latency=_latency(measured[1]) if len(measured) > 1 else None,
        float_runtime=None if twin is None else _float_runtime(device),
        speedup=speedup,
        arithmetic=arithmetic if isinstance(arithmetic, Mapping) else None,
        float_fallbacks=check.float_fallbacks,
        problems=tuple(problems),
        warnings=tuple(warnings),
    )


def update_card(model: Path, report: DeployReport) -> Path | None:
    """Add the device to the model card beside ``model``; returns its path, ``None`` without one."""
    import json

    from nas.models.card import ModelCard

    path = Path(model).with_suffix(".json")
    if not path.is_file():
        return None
    try:
        card = ModelCard.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (json.JSONDecodeError, TypeError) as error:
        raise InputError(f"{path} is no model card: {error}") from error
    row = {
        "device": report.device,
        "runtime": report.runtime,
        "runtime_version": None,
        "parameters": dict(report.parameters),
        "source": "measured",
        **{k: report.latency[k] for k in ("latency_ms", "low_ms", "high_ms", "valid", "reasons")},
    }
    others = [
        dict(entry)
        for entry in card.latency
        if (entry.get("device"), entry.get("runtime")) != (report.device, report.runtime)
    ]
    replace(card, latency=(*others, row)).write(path.parent)
    return path


def input_shape(model: Path) -> tuple[int, ...]:
    """Return (channels, height, width) of an ONNX file's input.

    Raises:
        InputError: the input is no batch of images of a fixed size.
    """
    import onnx

    inputs = inputs_of(onnx.load(str(model), load_external_data=False).graph)
    sizes = [d.dim_value for d in inputs[0].type.tensor_type.shape.dim] if inputs else []
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs)
        raise InputError(f"{model}: it has {len(inputs)} inputs ({names}); one is checked")
    if len(sizes) != 4 or not all(sizes[1:]):
        shown = [size or "open" for size in sizes]
        raise InputError(
            f"{model}: the input is {shown}, not (batch, channels, height, width) of a fixed size; "
            "export it with the size that the device gets"
        )
    if inputs[0].type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
        raise InputError(
            f"{model}: the input {inputs[0].name!r} is no float32, which outputs are compared on; "
            "check the file without pre-processing inside, which has the same layers"
        )
    return tuple(sizes[1:])


def random_images(shape: tuple[int, ...], *, seed: int = 0) -> Images:
    """Return standard normal images; they show wrong kernels, not what quantisation costs."""
    pixels = np.random.default_rng(seed).standard_normal((RANDOM_IMAGES, *shape))
    return Images(pixels.astype(np.float32), None, "random")


def read_images(
    path: Path, shape: tuple[int, ...], *, limit: int | None = None, model: Path | None = None
) -> Images:
    """Return images from an ``.npz`` file, or the search-validation images of a run or job.

    Args:
        path: ``.npz`` with ``images`` (n, channels, height, width) and perhaps ``labels``, (n,)
            classes or what the model's task takes as targets; a run folder; or a job file.
        shape: what the model takes; images of a run are resized to it, as in the search.
        limit: most images.
        model: whose file says how whole numbers of an ``.npz``, which are pixels, become inputs.

    Raises:
        InputError: no such file, or one without images.
    """
    path = Path(path)
    if path.suffix == ".npz":
        try:
            with np.load(path, allow_pickle=False) as arrays:
                given = arrays["images"][:limit]
                labels = arrays["labels"][:limit] if "labels" in arrays else None
        except (OSError, KeyError, ValueError) as error:
            raise InputError(f"{path}: no .npz file with an array 'images': {error}") from error
        rule = {} if model is None else preprocessing_in(model)
        pixels, source, doubt = as_inputs(given, rule, path.name)
        return Images(pixels, labels, source, doubt=doubt)
    from nas.job.check import load_job
    from nas.record.run_folder import RunStore
    from nas.stages.opened_job import RunContext
    from supernet.resolution import resize_images

    job = load_job(path) if path.is_file() else None
    if job is None:
        job = RunStore.open(path).job()
    context = RunContext.of(job)
    splits = context.splits
    subset = splits.validation if limit is None else splits.validation.first(limit)
    batches = [
        (resize_images(x, (shape[-2], shape[-1])).numpy(), y.numpy())
        for x, y in splits.evaluation_batches(subset)
    ]
    return Images(
        np.concatenate([x for x, _ in batches]).astype(np.float32),
        # Of boxes, masks and values no output is the right one.
        np.concatenate([y for _, y in batches]) if splits.targets == "classes" else None,
        f"search-validation images of {job.name}",
        targets=tuple(y for _, y in batches),
        task=context.task,
        classes=tuple(splits.classes),
        each=each_of(splits.targets),
    )


def with_task(images: Images, model: Path) -> Images:
    """Return ``images`` with the task that the model card beside ``model`` names, if any does.

    Raises:
        InputError: a card that is none, or of a task that is not known here, or that cannot be
            judged without its data.
    """
    import json

    path = Path(model).with_suffix(".json")
    if images.task is not None or not path.is_file():
        return images
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        name = card.get("task") if "format" in card else None
        classes = (card.get("preprocessing") or {}).get("classes") or ()
    except (json.JSONDecodeError, AttributeError) as error:
        raise InputError(f"{path} is no model card: {error}") from error
    if not name:
        return images
    from nas.tasks import TASKS

    task = TASKS.get(str(name))()
    if task.from_data and images.labels is not None:
        raise InputError(
            f"labels of {images.source}: {name} is judged by what its data say beside them, such "
            "as scales, tokens and normal windows; give its run or job with --data"
        )
    return replace(
        images,
        task=None if task.has_classes else task,
        targets=() if images.labels is None else images.targets or (images.labels,),
        classes=images.classes or tuple(map(str, classes)),
        each=each_of(kind_for(str(name))),
    )


def _twin(model: Path, folder: Path) -> Path | None:
    import onnx

    from nas.models.float_twin import write_float_twin

    graph = onnx.load(str(model)).graph
    if not any(node.op_type == "QuantizeLinear" for node in graph.node):
        return None
    return write_float_twin(model, folder / f"{model.stem}.float.onnx")


def _float_runtime(device: Device) -> str:
    return INTEGER_ONLY.get(device.spec.runtime, device.spec.runtime)


def _measure(
    model: Path,
    twin: Path | None,
    device: Device,
    protocol: Protocol | None,
    store: MeasurementStore | None,
) -> list[Measurement]:
    """Measure both on the device, interleaved where one runtime runs both."""
    from devices.fleet.remote import make_device

    if twin is None or _float_runtime(device) == device.spec.runtime:
        models = [model] if twin is None else [model, twin]
        return device.measure(models, protocol=protocol, store=store)
    other = make_device(replace(device.spec, runtime=_float_runtime(device), options={}))
    other.check()
    return [
        *device.measure([model], protocol=protocol, store=store),
        *other.measure([twin], protocol=protocol, store=store),
    ]


def _outputs(model: Path, device: Device, images: Images) -> tuple[np.ndarray, str]:
    """Return the outputs as the device computes them, where it is this machine."""
    from nas.models.parity import evaluate_onnx

    if device.spec.address is not None:
        return evaluate_onnx(model, _batches(images.pixels)), "onnxruntime here"
    session = device.spec.make_runtime().load(model)
    size = session.inputs[0].shape[0]
    parts = []
    for start in range(0, len(images.pixels), size):
        part = images.pixels[start : start + size]
        full = np.concatenate([part, np.zeros((size - len(part), *part.shape[1:]), np.float32)])
        parts.append(session(np.ascontiguousarray(full))[0][: len(part)].copy())
    return np.concatenate(parts), device.spec.runtime


def _judged(
    measured: list[Measurement],
    execution: Comparison,
    against: Comparison | None,
    check: Any,
    images: Images,
    speedup: float | None,
) -> tuple[list[str], list[str]]:
    problems: list[str] = list(check.problems)
    warnings: list[str] = []
    alike = execution.agreement is not None and execution.agreement >= 0.99
    if execution.relative_error > _EXECUTION_ERROR and not alike:
        problems.append(
            f"the device's outputs differ from unoptimised execution by "
            f"{execution.relative_error:.3g} (relative): a kernel saturates or is wrong"
        )
    for kind, measurement in zip(("model", "float twin"), measured, strict=False):
        if np.isnan(measurement.latency_ms):
            reasons = measurement.detail or ", ".join(measurement.reasons)
            problem = f"the {kind} could not be measured: {reasons}"
            (problems if kind == "model" else warnings).append(problem)
        elif not measurement.valid:
            reasons = ", ".join(measurement.reasons)
            warnings.append(f"the latency of the {kind} is not valid: {reasons}")
    warnings += [str(doubt) for doubt in dict(measured[0].conditions).get("doubts") or ()]
    if speedup is not None:
        warnings += _gain(*measured)
    if check.float_fallbacks:
        warnings.append(
            f"{len(check.float_fallbacks)} operators compute in floats: "
            f"{', '.join(check.float_fallbacks[:5])}"
        )
    if images.labels is None and images.source == "random":
        warnings.append(
            "outputs were compared on random images, which do not show what quantisation costs in "
            "accuracy; give --data"
        )
    elif against is not None:
        warnings += _lost(against)
    return problems, warnings


def _lost(against: Comparison) -> list[str]:
    """Say what is lost against the float twin, in all and in the class that loses most."""
    from nas.fronts.metrics import METRICS

    found: list[str] = []
    lost = against.loss
    if lost is None or not METRICS.get(against.metric).share:
        return found
    if lost > 0.01:
        found.append(
            f"{100 * lost:.1f} points of {against.metric} below the float twin, which has the same "
            "weights and does not round activations"
        )
    worst = against.largest_loss
    if worst is not None and worst[1] > max(LARGE_CLASS_LOSS, lost + 0.01):
        found.append(
            f"the class {worst[0]} loses {100 * worst[1]:.1f} points of {against.metric} against "
            "the float twin, more than the others"
        )
    return found


def _batches(pixels: np.ndarray, size: int = 256) -> Iterator[np.ndarray]:
    for start in range(0, len(pixels), size):
        yield pixels[start : start + size]


def _gain(model: Measurement, twin: Measurement) -> list[str]:
    """Say where the model is no faster than its float twin, as far as the intervals tell."""
    if model.high_ms < twin.low_ms:
        return []
    told = "as fast as its float twin here, as far as the intervals tell"
    if model.low_ms > twin.high_ms:
        ratio = model.latency_ms / twin.latency_ms
        told = f"slower than its float twin here: {ratio:.2f} times the latency"
    return [f"the quantised model is {told}; its gain is size alone"]


def _speedup(measured: list[Measurement]) -> float | None:
    if len(measured) < 2 or any(np.isnan(m.latency_ms) for m in measured):
        return None
    return measured[1].latency_ms / measured[0].latency_ms


def _latency(measurement: Measurement) -> dict[str, Any]:
    names = ("latency_ms", "low_ms", "high_ms", "iqr_ms", "p90_ms", "p99_ms", "valid")
    values = {name: getattr(measurement, name) for name in names}
    known = {k: None if isinstance(v, float) and np.isnan(v) else v for k, v in values.items()}
    return known | {"reasons": list(measurement.reasons), "source": "measured"}


def _recorded_weights(model: Path) -> float | None:
    import json

    card = model.with_suffix(".json")
    if not card.is_file():
        return None
    try:
        return json.loads(card.read_text(encoding="utf-8"))["costs"].get("weights_kib")
    except (json.JSONDecodeError, KeyError, AttributeError, TypeError):
        return None


def unusable(report: DeployReport) -> EnvironmentProblem:
    """Return the error that says why a model must not be used on a device."""
    return EnvironmentProblem(
        f"{report.model} is not usable on {report.device}: {'; '.join(report.problems)}"
    )
