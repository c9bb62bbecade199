"""The job behind ``nas compress``: a trained network, budgets and data, as any other job."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from nas.fronts.metrics import METRICS
from nas.job.first.layouts import guess_source
from nas.job.registries import registry_for
from nas.job.sections.data import IMAGENET, DataConfig
from nas.job.sections.supernet import SupernetConfig
from search_spaces.errors import InputError

if TYPE_CHECKING:
    from torch import nn

SHARED_COSTS = ("macs", "parameters", "weights_kib")
"""Costs that may be bounded by a share of what the network has; weights in float32."""

HERE = "cpu"
"""The device of a budget that names none: this machine."""

USUAL_SIDE = 224
"""Of the pictures that networks are made for, pixels; larger ones are made smaller."""

HELD = 5
"""Copies of each layer's input and output that a step of training holds: before and after
quantisation, batch norm and activation function, and gradients; measured, see the tests."""

STEP_BYTES = 2**30
"""Activations that a step of training may hold, about."""

_LEAST = ("accuracy", "worst_class_accuracy")


@dataclass(frozen=True)
class Limit:
    """One budget of the command line.

    Attributes:
        quantity: a metric's name.
        value: the bound, or a share of what the network has.
        device: where it is measured; empty for what is no measurement.
        share: whether ``value`` is a share.
    """

    quantity: str
    value: float
    device: str = ""
    share: bool = False


INPUTS_OF_DATA = (
    "inputs: mean and deviation of the data; say --normalisation if the network was trained with "
    "others"
)
"""What to tell where nobody knows how a network's inputs were normalised."""


GREY = "images: made grey, since the network takes one channel"
"""What to tell where pictures of colours may have been given."""


@dataclass(frozen=True)
class Trained:
    """A trained network, as a job names it.

    Attributes:
        model, weights, arguments: as in ``space``; files absolute.
        macs, parameters: of the network.
        side: of the images that it was made for, or that suits the data; None where they say it.
        image_bytes: that a step of training holds of an image, about.
        rigid: whether nothing but bits may vary in it.
        grey: whether pictures are made grey for it, since it takes one channel.
        sized: why ``side``, in words, where nobody asked for it and the network does not say.
        normalisation: that it was trained with, as in ``data``; None if nobody knows.
    """

    model: str
    weights: str | None
    arguments: Mapping[str, Any]
    macs: int
    parameters: int
    side: int | None
    normalisation: Any = None
    image_bytes: int = 0
    sized: str = ""
    rigid: bool = False
    grey: bool = False


_OF_BITS = ("w.", "a.")
"""What choices of bits are called, which change no layer's shape."""


def read_limits(texts: Sequence[str]) -> list[Limit]:
    """Return the budgets of texts such as ``latency_ms=3@board,size_kib=500`` or ``macs=50%``.

    Raises:
        InputError: an unknown quantity, no number, a device where none is measured, or none at all.
    """
    registry_for("task").names()  # knows the metrics of tasks once it is read
    found: list[Limit] = []
    for text in (part.strip() for whole in texts for part in whole.split(",")):
        match = re.fullmatch(r"(\w+)=([0-9.eE+-]+)(%?)(?:@([A-Za-z0-9][\w.-]*))?", text)
        if match is None:
            raise InputError(
                f"--budget {text!r} is not of the form QUANTITY=MAX or QUANTITY=MAX@DEVICE, such "
                "as latency_ms=3@board, size_kib=500 or macs=50%"
            )
        quantity, number, percent, device = match.groups()
        if quantity not in METRICS:
            raise InputError(
                f"--budget {text}: there is no quantity {quantity!r} (there are: "
                f"{', '.join(METRICS)})"
            )
        try:
            value = float(number)
        except ValueError:
            raise InputError(f"--budget {text}: {number!r} is no number") from None
        measured = METRICS.get(quantity).per_device
        if device and not measured:
            raise InputError(f"--budget {text}: {quantity} is the same on every device")
        if percent and quantity not in SHARED_COSTS:
            raise InputError(
                f"--budget {text}: a share is for {', '.join(SHARED_COSTS)}; give {quantity} a "
                "number"
            )
        if value <= 0:
            raise InputError(f"--budget {text}: a budget is above 0")
        limit = Limit(quantity, value / 100 if percent else value,
                      (device or HERE) if measured else "", bool(percent))  # fmt: skip
        if any((o.quantity, o.device) == (limit.quantity, limit.device) for o in found):
            raise InputError(f"--budget {text}: {quantity} has a budget already")
        found.append(limit)
    if not found:
        raise InputError("give a budget, such as --budget latency_ms=3@board,size_kib=500")
    return found


def compress_job(
    trained: Trained,
    limits: Sequence[Limit],
    data: Mapping[str, Any],
    *,
    name: str,
    metric: str = "accuracy",
    devices: Mapping[str, Any] | None = None,
    minutes: float | None = None,
    weight_bits: Sequence[int] = (4, 8),
    teacher: Mapping[str, Any] | None = None,
    labels: bool = True,
    evaluations: int = 60,
    front: int = 6,
    seed: int = 0,
) -> dict[str, Any]:
    """Return the job that searches the variants of a trained network within budgets.

    Args:
        trained: the network.
        limits: see :func:`read_limits`.
        data: the job's ``data``, without what follows from the network.
        name: of the job.
        metric: of the task.
        devices: keys that every ``devices`` entry but this machine has, such as ``hub``.
        minutes: of the whole run; None lets the amount of data say.
        weight_bits: that layers may have, beside 8 for the first and last.
        teacher: as ``supernet.teacher``; the network itself by default.
        labels: False learns from the teacher alone.
        evaluations, front, seed: as in a job.
    """
    names = list(dict.fromkeys(limit.device for limit in limits if limit.device)) or [HERE]
    space: dict[str, Any] = {"name": "module", "model": trained.model}
    if trained.weights is not None:
        space["weights"] = trained.weights
    if trained.arguments:
        space["arguments"] = dict(trained.arguments)
    space |= {"trained": True, "elastic": "auto", "weight_bits": list(weight_bits),
              "activation_bits": [8]}  # fmt: skip
    whole = dict(data)
    if trained.side is not None and _resizes(whole):
        whole.setdefault("image_size", trained.side)
    if trained.grey:
        whole.setdefault("channels", 1)
    if trained.normalisation is not None:
        whole.setdefault("normalisation", trained.normalisation)
    # The sandwich trains the network itself in every step, so that its subnets do it no harm.
    supernet: dict[str, Any] = {"schedule": "sandwich", "random_subnets": 2}
    batch = max(8, 2 ** int(math.log2(STEP_BYTES / max(1, trained.image_bytes))))
    finetune: dict[str, Any] = {}
    if batch < SupernetConfig().batch_size:
        supernet["batch_size"] = finetune["batch_size"] = batch
    job: dict[str, Any] = {"name": name, "seed": seed, "data": whole, "space": space}
    if not labels:
        supernet["distillation"] = finetune["distillation"] = "only"
    if finetune:
        job["finetune"] = finetune
    if teacher is not None:
        supernet["teacher"] = dict(teacher)
    if minutes is not None:
        job["budget"] = {"minutes": minutes, "supernet": 0.1, "teacher": 0.01}
    job["supernet"] = supernet
    job["devices"] = [
        {"name": one, **({} if one == HERE and "hub" in (devices or {}) else devices or {})}
        for one in names
    ]
    bounded = [limit.quantity for limit in limits if limit.quantity not in _LEAST]
    job["search"] = {
        "objectives": [metric, *dict.fromkeys(bounded or ["latency_ms"])],
        "constraints": _constraints(limits, trained),
        "evaluations": evaluations,
        "initial": min(20, evaluations),
        "latency_samples": 10,
        "front_size": front,
    }
    return job


def told_size(side: int | None, sized: str) -> str | None:
    """Return what to say of the size that pictures are made where nobody asked for one.

    Costs grow with its square, and a network that was trained at another size does worse.

    Args:
        side: of the pictures, pixels.
        sized: why, in words; empty where somebody said it.
    """
    if not sized:
        return None
    return (
        f"images: made {side} pixels wide and high, {sized}; say --image-size if the network was "
        "trained at another"
    )


def _suiting_side(network: nn.Module, data: Mapping[str, Any]) -> tuple[int, str]:
    """Return the side of pictures that suits a folder of them and a network, and why.

    Raises:
        InputError: the network runs at no usual size.
    """
    from nas.job.first.survey import survey
    from supernet.own_model.pretrained import own_channels, own_side

    own = survey(str(data["name"]), Path(str(data["path"]))).side
    wanted = min(own, USUAL_SIDE)
    side = own_side(network, own_channels(network), wanted)
    if side != wanted:
        return side, f"which the network takes, and their own are about {own}"
    return side, "as most of them are" if side == own else f"their own are about {own}"


def _resizes(data: Mapping[str, Any]) -> bool:
    """Whether pictures of a data set are made the size that a network was trained with."""
    return data["name"] in ("image_folder", "cifar10", "cifar100")


def _constraints(limits: Sequence[Limit], trained: Trained) -> dict[str, Any]:
    found: dict[str, Any] = {}
    whole = {"macs": trained.macs, "parameters": trained.parameters,
             "weights_kib": trained.parameters * 4 / 1024}  # fmt: skip
    for limit in limits:
        value = limit.value * whole[limit.quantity] if limit.share else limit.value
        bound = {"min" if limit.quantity in _LEAST else "max": float(f"{value:.6g}")}
        if limit.device:
            found.setdefault(limit.quantity, {})[limit.device] = bound
        else:
            found[limit.quantity] = bound
    return found


def job_yaml(job: Mapping[str, Any], command: str) -> str:
    """Return the text of a job, with where it comes from and what to do with it."""
    text = yaml.safe_dump(json.loads(json.dumps(job)), sort_keys=False, width=96)
    return (
        f"# Written by: {command}\n# A job as any other: change it, and run it with `nas run`.\n"
        + text
    )


def read_normalisation(text: str) -> Any:
    """Return ``data.normalisation`` of ``imagenet``, ``data`` (None) or ``MEANS/DEVIATIONS``.

    Raises:
        InputError: it is none of them.
    """
    if text == "data":
        return None
    if text == "imagenet":
        return text
    try:
        mean, deviation = ([float(v) for v in part.split(",")] for part in text.split("/"))
    except ValueError:
        raise InputError(
            f"--normalisation {text!r} is neither imagenet nor data nor MEANS/DEVIATIONS, such as "
            "0.5,0.5,0.5/0.25,0.25,0.25 of pixels scaled to 0..1"
        ) from None
    return {"mean": mean, "deviation": deviation}


def trained_with(model: str, network: nn.Module) -> tuple[Any, int | None]:
    """Return ``data.normalisation`` and the side of pictures that a network was trained with.

    Args:
        model: its name; those of torchvision are known by it.
        network: those of timm say it themselves.

    Returns:
        None for what nobody knows.
    """
    known: dict[str, Any] = dict(getattr(network, "default_cfg", {}) or {})
    if known.get("mean") and known.get("std"):
        found = {"mean": list(known["mean"]), "deviation": list(known["std"])}
        usual = {"mean": IMAGENET.mean, "deviation": IMAGENET.deviation}
        side = int(known.get("input_size", (3, USUAL_SIDE))[-1])
        return ("imagenet" if found == usual else found), side
    if model.partition(":")[0] == "torchvision.models":
        return "imagenet", USUAL_SIDE
    return None, None


@dataclass(frozen=True)
class Suited:
    """Pictures made what a network takes.

    Attributes:
        data: the job's ``data`` with the size and the channels of the network.
        side, sized, normalisation, grey: see :class:`Trained`.
    """

    data: dict[str, Any]
    side: int | None
    sized: str
    normalisation: Any
    grey: bool

    def told(self) -> list[str]:
        """Return what to say of what nobody asked for."""
        size = told_size(self.side, self.sized)
        return [*([GREY] if self.grey else []), *([size] if size else [])]


def suited_to(model: str, network: nn.Module, data: Mapping[str, Any]) -> Suited:
    """Return what pictures are made for a network that came trained.

    Args:
        model: its name.
        network: made and with its weights.
        data: the job's ``data``, without what follows from the network.

    Raises:
        InputError: the network runs at no usual size.
    """
    from supernet.own_model.pretrained import takes_grey_alone

    normalisation, own_side = trained_with(model, network)
    chosen, sized_by = data.get("image_size") or own_side, ""
    if chosen is None and data["name"] == "image_folder":
        chosen, sized_by = _suiting_side(network, data)
    # A network for colours takes grey pictures by itself.
    grey = _resizes(data) and data.get("channels") is None and takes_grey_alone(network)
    whole = dict(data)
    if chosen and _resizes(data):
        whole["image_size"] = chosen
    if grey:
        whole["channels"] = 1
    return Suited(whole, chosen, sized_by, normalisation, grey)


def describe_network(
    model: str,
    weights: Path | None,
    arguments: Mapping[str, Any],
    *,
    data: Mapping[str, Any],
    seed: int = 0,
) -> Trained:
    """Return what a job must know of a trained network.

    Args:
        model, weights, arguments: as for :func:`supernet.own_model.sources.load_network`.
        data: the job's ``data``, without what follows from the network.
        seed: of the job.

    Raises:
        InputError: no such network, one that has random weights, or one that the data do not fit.
    """
    from nas.job.paths import absolute, network_file
    from supernet.own_model.pretrained import module_space
    from supernet.own_model.sources import load_network

    model = network_file(model, Path.cwd())
    collection = model.partition(":")[0]
    asked = any(arguments.get(key) for key in ("weights", "pretrained"))
    if collection in ("timm", "torchvision.models") and weights is None and not asked:
        example = "pretrained=true" if collection == "timm" else "weights=DEFAULT"
        raise InputError(
            f"{model} has random weights: give --weights FILE, or --argument {example}, which "
            "downloads them"
        )
    network = load_network(model, weights=weights, arguments=arguments)
    task = registry_for("task").get("image_classification")()
    suited = suited_to(model, network, data)
    splits = task.load(DataConfig.model_validate(suited.data), seed)
    space = module_space(
        model=model, weights=None if weights is None else str(weights), arguments=arguments,
        input_channels=splits.channels, outputs=task.outputs(splits),
        input_size=splits.input_size, trained=True,
    )  # fmt: skip
    plan = space.plan(space.largest())
    return Trained(
        model,
        None if weights is None else absolute(str(weights), Path.cwd()),
        dict(arguments),
        macs=int(plan.macs),
        parameters=sum(p.numel() for p in network.parameters()),
        side=suited.side,
        normalisation=suited.normalisation,
        image_bytes=HELD * 4 * sum(
            layer.input_count + layer.output_count for layer in plan.layers()
        ),
        sized=suited.sized,
        rigid=all(
            len(choice.options) == 1 or choice.name.startswith(_OF_BITS)
            for choice in space.choices
        ),
        grey=suited.grey,
    )  # fmt: skip


def rigid_limits(trained: Trained, limits: Sequence[Limit]) -> None:
    """Refuse limits that bits alone cannot meet, of a network in which nothing else may vary.

    Raises:
        InputError: there is such a limit.
    """
    asked = sorted({limit.quantity for limit in limits} & {"macs", "parameters"})
    if trained.rigid and asked:
        raise InputError(
            f"--budget {asked[0]}: no layer's width or kernel can vary in this network, and bits "
            f"change no {asked[0]}: nas inspect says what stands in the way of each layer. Limits "
            "of weights_kib, size_kib and latency_ms can be met by bits"
        )


def read_data(text: str, path: Path | None, image_size: int | None) -> dict[str, Any]:
    """Return the job's ``data`` for a folder of pictures, or a data set by name.

    Raises:
        InputError: neither a folder nor a name.
    """
    sources = registry_for("data.name")
    if Path(text).is_dir() and not (path is not None and text in sources):
        layout = guess_source(Path(text))
        if layout not in (None, "image_folder"):
            raise InputError(
                f"--data {text}: looks like {layout}, and networks are compressed with classes of "
                "pictures here: a folder for each class. For signals write a job with space: "
                "{name: module} (docs/own-model.md), or choose bits alone with nas bits --images"
            )
        found: dict[str, Any] = {"name": "image_folder", "path": str(Path(text).resolve())}
    elif text in sources:
        found = {"name": text}
        if path is not None:
            found["path"] = str(path.resolve())
    else:
        raise InputError(
            f"--data {text!r} is neither a folder nor a data set (there are: "
            f"{', '.join(sources.names())})"
        )
    if image_size is not None:
        found["image_size"] = image_size
    return found
