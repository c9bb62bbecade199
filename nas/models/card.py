"""What a user must know about one exported model, as JSON and as Markdown."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from nas.models.sparsity import ESTIMATE
from nas.record.result_types import Results
from nas.report.results import is_file_name, number
from search_spaces.atomic import write_json_atomic, write_text_atomic
from search_spaces.errors import InputError
from search_spaces.plan import FLOAT_BITS
from search_spaces.sparsity import DENSE

FORMAT = 1
"""Version of the card's JSON."""


@dataclass(frozen=True)
class ModelCard:
    """Facts about one model; what was not recorded is ``None`` or empty.

    Attributes:
        id: the model's name in its run.
        file: name of the model file, beside the card.
        sha256, size_kib: of the file.
        architecture: canonical string.
        space: ``name`` and ``preset`` of the search space.
        metric: name of the task's metric.
        accuracy: ``test``, ``validation`` and ``per_class`` values of the metric, the
            ``worst_class_loss`` against float where it was asked for, and the
            ``further`` metrics of the test split by name.
        costs: macs, bops, parameters, weights_kib, weight_bits_mean, activation_bits_mean.
        latency: one mapping a device: ``device, runtime, runtime_version, parameters,
            latency_ms, low_ms, high_ms, source`` ("measured", "estimated" or "predicted"),
            ``valid``, ``reasons``.
        parity: agreement with the PyTorch network, see :class:`nas.models.parity.Parity`.
        preprocessing: ``input_shape`` (channels, height, width), ``pixel_scale``, ``mean``,
            ``std``, ``classes``, ``outputs``, ``one_class`` (whether one class is right),
            ``pictures`` (what of a file becomes an image: ``part``, ``share``, ``size``),
            ``sound`` (how a recording becomes a spectrogram, see
            :meth:`nas.data.audio.LogMel.to_json`), and in
            words ``input`` and ``output``: how an input is made where it is no image, and how the
            output is decoded.
        task: registered name of the task.
        layers: one mapping a layer, the fields of
            :class:`search_spaces.plan.LayerPlan` with ``block`` before them.
        provenance: run, command, seed, versions, hardware, data splits, time.
    """

    id: str
    file: str
    sha256: str
    size_kib: float
    architecture: str
    space: Mapping[str, Any]
    metric: str
    accuracy: Mapping[str, Any]
    costs: Mapping[str, Any]
    latency: tuple[Mapping[str, Any], ...]
    parity: Mapping[str, Any]
    preprocessing: Mapping[str, Any]
    layers: tuple[Mapping[str, Any], ...]
    provenance: Mapping[str, Any]
    task: str = "image_classification"

    @classmethod
    def from_results(cls, results: Results, entry: Mapping[str, Any], model: Path) -> ModelCard:
        """Build the card of one entry of a run's front.

        Args:
            results: content of ``results.json``.
            entry: of its ``front``.
            model: the model file.

        Raises:
            InputError: the model file is missing.
        """
        model = Path(model)
        if not model.is_file():
            raise InputError(f"{model} does not exist; the model of {entry['id']!r} is missing")
        data = model.read_bytes()
        provenance = dict(results.get("provenance") or {})
        space = results.get("space") or {}
        task = results.get("task") or {}
        return cls(
            id=str(entry["id"]),
            file=model.name,
            sha256=hashlib.sha256(data).hexdigest(),
            size_kib=len(data) / 1024,
            architecture=str(entry.get("arch", "")),
            space={key: space[key] for key in ("name", "preset") if key in space},
            metric=str(results.get("metric") or "accuracy"),
            accuracy={
                "test": entry.get("test_accuracy"),
                "validation": entry.get("validation_accuracy"),
                "per_class": entry.get("per_class"),
                # Of the validation images, where the job asked for it.
                "worst_class_loss": (entry.get("metrics") or {}).get("worst_class_loss"),
                "further": {
                    name: (entry.get("test") or {}).get(name)
                    for name in task.get("further_metrics") or {}
                },
            },
            task=str(task.get("name") or "image_classification"),
            # The peak of memory of a network of one's own is not known.
            costs={
                name: value
                for name, value in (entry.get("costs") or {}).items()
                if number(value) is not None
            },
            latency=tuple(_latency(results, entry)),
            parity=dict(entry.get("parity") or {}),
            preprocessing=_preprocessing(entry, provenance.get("splits") or {}, task),
            layers=tuple(
                {"block": block.get("name", ""), **layer}
                for block in (entry.get("plan") or {}).get("blocks", ())
                for layer in block.get("layers", ())
            ),
            provenance={
                "run": results.get("name"),
                "command": results.get("command"),
                "seed": results.get("seed"),
                **provenance,
            },
        )

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ModelCard:
        """Rebuild a card from :meth:`to_json`.

        Raises:
            InputError: another format, or a field is missing.
        """
        if value.get("format") != FORMAT:
            raise InputError(
                f"model card format {value.get('format')!r} cannot be read; known is {FORMAT}"
            )
        names = [f.name for f in fields(cls)]
        # Cards of earlier versions are of images and name no task.
        missing = [name for name in names if name not in value and name != "task"]
        if missing:
            raise InputError(f"the model card lacks {', '.join(missing)}")
        values = {name: value[name] for name in names if name in value}
        return cls(
            **values | {"latency": tuple(value["latency"]), "layers": tuple(value["layers"])}
        )

    def to_json(self) -> dict[str, Any]:
        """Return the card as plain values."""
        return (
            {"format": FORMAT}
            | asdict(self)
            | {
                "latency": [dict(item) for item in self.latency],
                "layers": [dict(item) for item in self.layers],
            }
        )

    def to_markdown(self) -> str:
        """Return the card as a page to read."""
        parts = [
            f"# {self.id}",
            _sentence(self),
            "## Quality\n\n" + _pairs(_accuracy_rows(self)),
            "## Latency\n\n" + _latency_table(self.latency),
            "## Size and cost\n\n" + _pairs(_cost_rows(self)),
            "## Input and output\n\n" + input_output_text(self.preprocessing),
            "## Parity with the trained network\n\n"
            + _pairs(_parity_rows(self.parity, self.metric)),
            "## Layers\n\n" + _layer_table(self.layers),
            f"## Architecture\n\n```\n{self.architecture}\n```",
            "## How it was made\n\n" + _pairs(_provenance_rows(self)),
        ]
        return "\n\n".join(parts) + "\n"

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Write ``ID.json`` and ``ID.md`` into ``folder`` and return their paths.

        Raises:
            InputError: an id that leads out of the folder.
        """
        folder = Path(folder)
        for name in (self.id, self.file):
            if not is_file_name(name):
                raise InputError(f"the model card's {name[:80]!r} is no name of a file")
        paths = folder / f"{self.id}.json", folder / f"{self.id}.md"
        write_json_atomic(paths[0], self.to_json())
        write_text_atomic(paths[1], self.to_markdown())
        return paths


def _latency(results: Results, entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    devices = {d.get("name"): d for d in results.get("devices") or []}
    rows = []
    for name, values in (entry.get("devices") or {}).items():
        device = devices.get(name, {})
        measured = values.get("latency_ms") is not None
        prefix = "" if measured else "predicted_"
        rows.append(
            {
                "device": name,
                "runtime": device.get("runtime"),
                "runtime_version": device.get("runtime_version"),
                "parameters": device.get("parameters") or {},
                "latency_ms": values.get("latency_ms" if measured else "predicted_ms"),
                "low_ms": values.get(f"{prefix}low_ms"),
                "high_ms": values.get(f"{prefix}high_ms"),
                "source": values.get("source", "measured") if measured else "predicted",
                "valid": values.get("valid") if measured else None,
                "reasons": list(values.get("reasons") or []),
                "busy": bool(values.get("busy")) and measured,
            }
        )
    return rows


def _preprocessing(
    entry: Mapping[str, Any], splits: Mapping[str, Any], task: Mapping[str, Any]
) -> dict[str, Any]:
    plan = entry.get("plan") or {}
    classes = list(splits.get("classes") or [])
    outputs = plan.get("outputs")
    # A detector has values beside those of its classes.
    own = task.get("targets") == "boxes"
    if outputs is not None and len(classes) != outputs and not own:
        classes = []  # names of the data that the outputs of its task have nothing to do with
    return {
        "input_shape": list(plan.get("input_shape") or []),
        "input": str(task.get("input") or ""),
        "output": str(task.get("output") or ""),
        "pixel_scale": splits.get("pixel_scale", 1 / 255),
        "mean": list(splits.get("mean") or []),
        "std": list(splits.get("std") or []),
        "layout": "NCHW",
        "image_size": splits.get("image_size"),
        **{key: dict(task[key]) for key in ("pictures", "sound") if task.get(key)},
        "channel_order": splits.get("channel_order", "rgb"),
        "classes": classes,
        "outputs": outputs,
        # Of boxes, masks and several labels each class has a value, and none is the right one.
        "one_class": bool(task.get("has_classes", entry.get("per_class") is not None)),
    }


def _sentence(card: ModelCard) -> str:
    space = " ".join(str(card.space[key]) for key in ("name", "preset") if card.space.get(key))
    origin = f" from the search space {space}" if space else ""
    return (
        f"An ONNX model for {card.task.replace('_', ' ')}{origin}: "
        f"`{card.file}`, {card.size_kib:.1f} KiB, SHA-256 `{card.sha256}`."
    )


def _accuracy_rows(card: ModelCard) -> list[tuple[str, str]]:
    rows = [
        (f"{name} {card.metric}", _number(card.accuracy.get(name), 4))
        for name in ("test", "validation")
    ]
    if card.accuracy.get("worst_class_loss") is not None:
        lost = _number(card.accuracy["worst_class_loss"], 4)
        rows.append(("most lost by a class against float (validation)", lost))
    for name, value in (card.accuracy.get("further") or {}).items():
        rows.append((f"test {name}", _number(value, 4)))
    per_class = card.accuracy.get("per_class") or {}
    classes = card.preprocessing.get("classes") or []
    for label, value in per_class.items():
        known = str(label).isdigit() and int(label) < len(classes)
        word = "output" if card.task.endswith("regression") else "class"
        rows.append((f"{word} {classes[int(label)] if known else label}", _number(value, 4)))
    return rows


def _latency_table(latency: tuple[Mapping[str, Any], ...]) -> str:
    if not latency:
        return "Not measured."
    rows = []
    for item in latency:
        low, high = number(item.get("low_ms")), number(item.get("high_ms"))
        interval = f"{low:.4g} to {high:.4g}" if low is not None and high is not None else "-"
        source = str(item.get("source"))
        if item.get("valid") is False:
            reasons = "; ".join(map(str, item.get("reasons") or [])) or "no reason recorded"
            source += f", INVALID ({reasons})"
        elif item.get("busy"):
            source += " on a busy machine (fastest samples)"
        runtime = " ".join(str(item[k]) for k in ("runtime", "runtime_version") if item.get(k))
        parameters = ", ".join(f"{k}={v}" for k, v in (item.get("parameters") or {}).items())
        rows.append(
            (
                str(item.get("device")),
                runtime or "-",
                parameters or "-",
                _number(item.get("latency_ms"), 4),
                interval,
                source,
            )
        )
    return _table(
        ("device", "runtime", "parameters", "latency (ms)", "95 % interval (ms)", "source"), rows
    )


def _cost_rows(card: ModelCard) -> list[tuple[str, str]]:
    words = {
        "macs": "multiply-accumulates",
        "bops": "bit operations",
        "parameters": "parameters",
        "weights_kib": "packed weights, scales and biases (KiB)",
        "peak_memory_kib": "activations at once (KiB)",
        "flash_kib": "weights and layers as a microcontroller stores them (KiB)",
        "weight_bits_mean": "mean bits of a weight",
        "activation_bits_mean": "mean bits of a layer input",
        "training_memory_kib": "at once in a step of training on the device (KiB)",
        ESTIMATE: "weights in sparse storage, an estimate: the file stores zeros (KiB)",
    }
    rows = [("file (KiB)", f"{card.size_kib:.1f}")]
    for key, value in card.costs.items():
        # Counts are recorded as floats beside shares and means.
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        whole = number and float(value).is_integer()
        rows.append((words.get(key, key), f"{int(value):,}" if whole else _number(value, 5)))
    return rows


def input_output_text(values: Mapping[str, Any]) -> str:
    """Return in words how inputs are made and outputs decoded.

    Args:
        values: a card's ``preprocessing``.
    """
    shape = values.get("input_shape") or []
    size = " x ".join(map(str, shape)) if shape else "not recorded"
    bytes_ = values.get("pixel_scale") != 1
    text = f"`input`: float32, batch x {size} (channels, height, width). "
    text += str(values.get("input") or "") or (
        "Scale 8-bit pixels to 0..1 (divide by 255)" if bytes_ else "Take the values as they are"
    )
    changed = any(values.get("mean") or ()) or any(s != 1 for s in values.get("std") or ())
    if values.get("mean") and values.get("std") and changed:
        mean = ", ".join(f"{m:.6g}" for m in values["mean"])
        std = ", ".join(f"{s:.6g}" for s in values["std"])
        text += f", subtract the mean ({mean}) and divide by the deviation ({std}), by channel"
    if values.get("channel_order") == "bgr":
        text += "; the channels are blue, green, red"
    elif shape[:1] == [3] and bytes_ and not values.get("input"):
        text += "; the channels are red, green, blue"
    text += _cut_text(values.get("pictures") or {}, scaled=bool(values.get("input")))
    text += _resized_text(values.get("image_size"), shape, own=bool(values.get("input")))
    if values.get("output"):
        return f"{text}.\n\n`logits`: float32, {values['output']}"
    names = ", ".join(map(str, values.get("classes") or []))
    # Cards of earlier versions are all of classifications.
    if values.get("one_class", True):
        text += ". `logits`: float32, one value a class before softmax."
        return text + (f" Classes in order: {names}." if names else "")
    outputs = values.get("outputs") or "not recorded"
    text += f". `logits`: float32, batch x {outputs}: the outputs of the task as it trained them."
    return text + (f" In order: {names}." if names else "")


def _cut_text(cut: Mapping[str, Any], *, scaled: bool) -> str:
    """Say which part of a picture of any size the networks were shown.

    Args:
        cut: see :func:`nas.data.images.cut_of`.
        scaled: whether it is said already that all of it was scaled.
    """
    if cut.get("part") not in ("middle", "whole"):
        return ""
    size = cut["size"]
    how = f"scaled to {size} x {size}, by bilinear interpolation with anti-aliasing"
    turned = "Pictures are turned first as their EXIF says{}; what is transparent in them is white"
    if cut["part"] == "whole":
        if scaled:
            return ". " + turned.format("")
        return (
            f". A picture of another size was {how}, as a whole: what is not square is stretched. "
            + turned.format("")
        )
    return (
        f". Of a picture of another size the square in its middle was taken and {how}: its side is "
        f"{cut['share']:.3g} of the picture's shorter side, and at least {size} pixels where the "
        "picture has as many. " + turned.format(", and not stretched")
    )


def _resized_text(size: Any, shape: Sequence[Any], *, own: bool) -> str:
    """Say how pictures of the data's size become inputs of another; nothing where they are one."""
    sides = [size, size] if isinstance(size, int) else list(size or [])
    if own or len(sides) != 2 or len(shape) != 3 or sides == list(shape[1:]):
        return ""
    before, after = (" x ".join(map(str, each)) for each in (sides, shape[1:]))
    return (
        f". In the data pictures are {before}; they are scaled to {after} by bilinear "
        "interpolation with anti-aliasing, as image libraries shrink"
    )


def _parity_rows(parity: Mapping[str, Any], metric: str) -> list[tuple[str, str]]:
    words = {
        "images": "validation examples",
        "agreement": "same prediction (share)",
        "reference_accuracy": f"{metric} of the network",
        "accuracy": f"{metric} of the file",
        "accuracy_difference": "difference",
        "max_logit_error": "largest error of a logit",
        "relative_error": "relative error of the logits",
        "optimisation_error": "optimised against unoptimised execution",
    }
    rows = [(word, _number(parity[key], 4)) for key, word in words.items() if key in parity]
    if "float_fallbacks" in parity:
        rows.append(("run on floats", ", ".join(parity["float_fallbacks"]) or "nothing"))
    return rows


def _layer_table(layers: tuple[Mapping[str, Any], ...]) -> str:
    if not layers:
        return "Not recorded."
    rows = []
    for layer in layers:
        kernel = layer.get("kernel")
        rows.append(
            (
                str(layer.get("name")),
                str(layer.get("kind", "")),
                f"{layer.get('in_channels')} -> {layer.get('out_channels')}",
                f"{1 if layer.get('dimensions') == 1 else kernel}x{kernel} / {layer.get('stride')}",
                str(layer.get("groups")),
                f"{layer.get('in_size')} -> {layer.get('out_size')}",
                _weights(layer),
                _bits(layer.get("activation_bits")),
                str(layer.get("activation", "")),
            )
        )
    return _table(
        (
            "layer", "kind", "channels", "kernel / stride", "groups", "size",
            "weight bits", "input bits", "activation",
        ),
        rows,
    )  # fmt: skip


def _weights(layer: Mapping[str, Any]) -> str:
    told = f"{_bits(layer.get('weight_bits'))} {layer.get('weight_format', '')}".strip()
    sparsity = layer.get("sparsity", DENSE)
    return told if sparsity == DENSE else f"{told}, {sparsity} sparse"


def _provenance_rows(card: ModelCard) -> list[tuple[str, str]]:
    facts = card.provenance
    rows = [
        (key, str(facts[key])) for key in ("run", "command", "seed") if facts.get(key) is not None
    ]
    if facts.get("created"):
        rows.append(("created", str(facts["created"])))
    for key in ("versions", "hardware"):
        value = facts.get(key)
        if isinstance(value, Mapping):
            rows.append((key, ", ".join(f"{k} {v}" for k, v in value.items())))
    splits = facts.get("splits")
    if isinstance(splits, Mapping) and splits.get("origin"):
        rows.append(("data", str(splits["origin"])))
    return rows


def _pairs(rows: list[tuple[str, str]]) -> str:
    return _table(("", ""), rows) if rows else "Not recorded."


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _bits(value: Any) -> str:
    return "float" if isinstance(value, int) and value >= FLOAT_BITS else str(value)


def _number(value: Any, digits: int) -> str:
    known = number(value)
    return "not recorded" if known is None else f"{known:.{digits}g}"
