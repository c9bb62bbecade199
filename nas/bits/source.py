"""Where the network and the images of ``nas bits`` come from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.bits.allocation import Bits
from nas.bits.named_network import load_source
from search_spaces.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class BitsSource:
    """A trained float network and images for it.

    Attributes:
        module: in evaluation mode.
        calibration: batches of images.
        validation: (images, targets) batches to report accuracy on; None without labels.
        evaluate: (network, batches) -> metric.
        metric_name: of ``evaluate``.
        about: what it is, for the JSON.
        unmeasured: why there is no metric although there are labels; empty where there is one.
        change: of :data:`supernet.ptq.sensitivity.METRICS`, what a layer's bits cost by default.
        from_data: whether inputs are normalised by the data's own mean and deviation, as nobody
            said what the network was trained with.
        told: what pictures were made that nobody asked for, in words.
    """

    module: nn.Module
    calibration: list[Tensor]
    validation: list[tuple[Tensor, Tensor]] | None
    evaluate: Callable[[Any, Iterable[Any]], float] | None
    metric_name: str
    about: dict[str, Any]
    unmeasured: str = ""
    change: str = "kl"
    from_data: bool = False
    told: Sequence[str] = ()


_OF_CLASSES = ("classes", "masks", "tokens", "pairs")
"""Kinds of targets of which a softmax over the outputs means something."""


def run_source(run: Path, pick: str = "knee", *, images: int = 512) -> BitsSource:
    """Return an architecture of a run's front with its inherited weights, in float.

    Args:
        run: folder of a run that has ended, or a model file in its ``models`` folder.
        pick: ``knee`` or an id; ignored for a model file.
        images: calibration images.
    """
    from nas.models.hand_over import picked
    from nas.record.run_folder import RunStore
    from nas.report.results import load_results
    from nas.stages.opened_job import RunContext
    from supernet.training.subnets import float_plan

    if run.suffix == ".onnx":
        run, pick = run.parent.parent, run.stem
    entry = picked(load_results(run), pick, run)
    store = RunStore.open(run)
    context = RunContext.of(store.job())
    evaluator = context.evaluator(store)
    plan = float_plan(context.space.plan(context.space.parse(str(entry["arch"]))))
    network = evaluator.network(plan).cpu().eval()
    size = plan.input_size
    calibration = context.splits.calibration.first(images)
    return BitsSource(
        module=network,
        calibration=[x.cpu() for x, _ in evaluator.batches("bits", calibration, size)],
        validation=[
            (x.cpu(), y.cpu())
            for x, y in evaluator.batches("validation", context.splits.validation, size)
        ],
        evaluate=context.task.evaluate,
        metric_name=context.task.metric_name,
        about={"source": str(run), "arch": str(entry["arch"]), "data": context.splits.origin},
        change="kl" if context.splits.targets in _OF_CLASSES else "logits_mse",
    )


def module_source(
    name: str,
    *,
    weights: Path | None = None,
    arguments: Mapping[str, Any] | None = None,
    data: str | None = None,
    data_path: Path | None = None,
    image_size: int | None = None,
    normalisation: Any = None,
    array: Path | None = None,
    images: int = 512,
    seed: int = 0,
) -> BitsSource:
    """Return the network that ``module:callable`` makes.

    Args:
        name: as in :func:`load_source`; modules of the current folder are found too.
        weights: a .safetensors file with its state; the network's own otherwise.
        arguments: for what makes the network.
        data, data_path, image_size: a data set as in a job, or a folder of pictures by class; its
            calibration images are used, and accuracy is reported on its validation images.
        normalisation: as ``data.normalisation``, what the network was trained with; by default
            what is known of torchvision's and timm's networks, otherwise that of the data.
        array: a .npy file instead of a data set: images (n, channels, height, width) or other
            inputs, float32, as the network takes them; or pixels, uint8, with ``normalisation``.
        images: calibration images.
        seed: that divides the data.

    Raises:
        InputError: no such callable, weights that do not fit, or no images.
    """
    module = load_source(name, weights, arguments=arguments)
    about: dict[str, Any] = {"source": name}
    if weights is not None:
        about["weights"] = str(weights)
    if arguments:
        about["arguments"] = dict(arguments)
    if array is not None:
        given = _read_array(array, images, normalisation)
        _outputs(
            module,
            given[0][:1],
            f"{array}: the network does not take its inputs",
            "give arrays of the shape that it takes",
        )
        return BitsSource(module, given, None, None, "", {**about, "data": str(array)})
    if data is None:
        raise InputError("give calibration images: --data NAME or --images FILE.npy")
    from nas.job.compress import read_data, suited_to
    from nas.job.sections.data import DataConfig
    from nas.tasks import TASKS

    task = TASKS.get("image_classification")(label_smoothing=0.0)
    suited = suited_to(name, module, read_data(data, data_path, image_size))
    known = suited.normalisation if normalisation is None else normalisation
    config = DataConfig.model_validate(
        {**suited.data, "normalisation": None if known == "data" else known}
    )
    splits = task.load(config, seed)

    def read(subset: Any) -> list[tuple[Tensor, Tensor]]:
        return list(splits.evaluation_batches(subset, batch_size=128))

    calibration = [x for x, _ in read(splits.calibration.first(images))]
    inputs = splits.normalisation
    about = {**about, "data": splits.origin, "mean": inputs.mean, "deviation": inputs.std}
    if unmeasured := _no_classes(module, calibration[0][:1], f"--data {data}"):
        return BitsSource(
            module, calibration, None, None, "", about, unmeasured, from_data=known is None,
            told=suited.told(),
        )  # fmt: skip
    return BitsSource(
        module=module,
        calibration=calibration,
        validation=read(splits.validation),
        evaluate=task.evaluate,
        metric_name=task.metric_name,
        about=about,
        from_data=known is None,
        told=suited.told(),
    )


def _no_classes(module: nn.Module, image: Tensor, data: str) -> str:
    """Return why labels of classes do not tell the accuracy of a network; empty where they do.

    Args:
        module: the network.
        image: one input (1, channels, height, width).
        data: where it comes from, to name it.

    Raises:
        InputError: the network does not take the image.
    """
    import torch

    refusal = f"{data}: the network does not take its images"
    outputs = _outputs(module, image, refusal, "give another --image-size, or --images FILE.npy")
    if not isinstance(outputs, torch.Tensor):
        what = "several outputs"
    elif outputs.ndim != 2:
        what = f"outputs of shape {tuple(outputs.shape[1:])}"
    else:
        return ""
    return f"accuracy is not measured: the network has {what}, and the labels of {data} are classes"


def read_layer_latencies(path: Path) -> Callable[[str, Bits], float]:
    """Return latencies of layers from a CSV ``layer,weight_bits,activation_bits,latency_ms``.

    Raises:
        InputError: a column or a cell is missing, or (when asked) a layer's bits are.
    """
    import csv

    known: dict[tuple[str, int, int], float] = {}
    columns = ("layer", "weight_bits", "activation_bits", "latency_ms")
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        try:
            rows = list(reader)
        except (csv.Error, UnicodeDecodeError) as error:
            raise InputError(f"{path}:{reader.line_num}: cannot be read as CSV: {error}") from error
        missing = [c for c in columns if c not in (reader.fieldnames or ())]
        if missing:
            raise InputError(f"{path}:1: no column {missing[0]!r}; needed: {', '.join(columns)}")
        for number, row in enumerate(rows, start=2):
            try:
                key = row["layer"], int(row["weight_bits"]), int(row["activation_bits"])
                known[key] = float(row["latency_ms"])
            except (TypeError, ValueError):
                raise InputError(f"{path}:{number}: bits and latency must be numbers") from None

    def latency(layer: str, bits: Bits) -> float:
        key = layer, bits.weight, bits.activation
        if key not in known:
            raise InputError(f"{path} has no latency of {layer} at {bits}")
        return known[key]

    return latency


def _outputs(module: nn.Module, image: Tensor, refusal: str, fix: str) -> Any:
    """Return what a network gives for one input.

    Raises:
        InputError: it does not take it.
    """
    import torch

    shape = "x".join(map(str, image.shape[1:]))
    stated = tuple(getattr(module, "input_shape", ()) or ())
    try:
        # A network of no fixed size may run on other shapes, and mean something else by them.
        if stated and stated != tuple(image.shape[1:]):
            raise ValueError(f"it takes {'x'.join(map(str, stated))}")
        with torch.no_grad():
            return module(image)
    except (RuntimeError, ValueError, IndexError) as error:
        raise InputError(f"{refusal} of {shape}: {str(error).splitlines()[0]}; {fix}") from error


def _read_array(path: Path, images: int, normalisation: Any) -> list[Tensor]:
    import numpy as np
    import torch

    from nas.job.sections.data import IMAGENET, NormalisationConfig

    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is no .npy file of numbers: {error}") from error
    if array.ndim < 2 or not len(array):
        raise InputError(
            f"{path} has shape {array.shape}; it must be (n, ...), with what the network takes: "
            "(n, channels, height, width) of images, (n, channels, samples) of signals"
        )
    if not np.isfinite(array).all():
        raise InputError(f"{path} holds values that are not finite")
    tensor = torch.from_numpy(array[:images].astype(np.float32))
    pixels = array.dtype == np.uint8
    if pixels != (normalisation not in (None, "data")):
        raise InputError(
            f"{path} holds {array.dtype}: "
            + (
                "pixels, and nobody says what the network was trained with; give --normalisation "
                "MEANS/DEVIATIONS of pixels of 0 to 1, or save what it takes as float32"
                if pixels
                else "floats are taken as the network takes them, so --normalisation is not used; "
                "leave it out, or save pixels as uint8"
            )
        )
    if pixels:
        rule = (
            IMAGENET
            if normalisation == "imagenet"
            else NormalisationConfig.model_validate(normalisation)
        )
        channels = (-1, *[1] * (array.ndim - 2))
        mean, deviation = (torch.tensor(v).reshape(channels) for v in (rule.mean, rule.deviation))
        tensor = (tensor / 255 - mean) / deviation
    return list(tensor.split(128))
