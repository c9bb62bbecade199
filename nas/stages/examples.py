"""A few validation examples with what a model says of them, for the report."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.data.sources import OF_TEXT
from search_spaces.atomic import write_json_atomic

if TYPE_CHECKING:
    from nas.stages.opened_job import RunContext

EXAMPLES = 8
"""So many are shown."""

_MOST_SIDE = 256
_MOST_SAMPLES = 256


def write_examples(
    context: RunContext, folder: Path, model: Path, *, name: str, size: tuple[int, int]
) -> None:
    """Write ``FOLDER/examples.json``: validation examples, and the answers to them.

    They are spread over the set, whose first ones may all be of one class.

    Args:
        context: of the run.
        folder: of the run.
        model: an exported file.
        name: of the model, which is told.
        size: height and width of its input.
    """
    import torch

    from nas.models.parity import evaluate_onnx
    from supernet.resolution import resize_images

    splits, task = context.splits, context.task
    subset = splits.validation
    count = min(EXAMPLES, len(subset))
    pixels, targets = subset.at(torch.linspace(0, len(subset) - 1, count).round().long())
    inputs = resize_images(splits.normalisation(pixels), size)
    outputs = evaluate_onnx(model, [inputs])
    shown = []
    for picture, output, target in zip(pixels, outputs, targets, strict=True):
        drawing = task.drawing(output, target.numpy(), splits.classes)
        shown.append(
            {
                **(_shown(picture.numpy()) if splits.targets not in OF_TEXT else {}),
                "caption": drawing.caption,
                "boxes": [
                    {"corners": [round(c, 4) for c in box.corners], "kind": box.kind,
                     "label": box.label, "wanted": box.wanted}
                    for box in drawing.boxes
                ],
                "mask": None if drawing.mask is None else _png(drawing.mask),
            }
        )  # fmt: skip
    write_json_atomic(
        folder / "examples.json",
        {"model": name, "split": "validation", "classes": splits.classes, "examples": shown},
    )


def _shown(example: np.ndarray) -> dict[str, Any]:
    """Return an example (channels, height, width) as a picture, or as the lines of a signal."""
    if example.shape[1] == 1 and example.shape[2] > 1:
        step = -(-example.shape[2] // _MOST_SAMPLES)
        lines = example[:3, 0, ::step].astype(float)
        return {"lines": [[float(f"{v:.4g}") for v in line] for line in lines.tolist()]}
    pixels = example
    if pixels.dtype != np.uint8:
        if len(pixels) == 1:
            # A spectrogram (1, frames, bands): time goes to the right, low tones are below.
            pixels = pixels.transpose(0, 2, 1)[:, ::-1]
        low, high = float(pixels.min()), float(pixels.max())
        pixels = np.round(255 * (pixels - low) / max(high - low, 1e-9)).astype(np.uint8)
    shape = pixels.shape
    pixels = pixels.transpose(1, 2, 0) if len(pixels) == 3 else pixels[0]
    return {"picture": _png(pixels), "width": shape[2], "height": shape[1]}


def _png(pixels: np.ndarray) -> str:
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(pixels))
    if max(image.size) > _MOST_SIDE:
        share = _MOST_SIDE / max(image.size)
        size = (max(1, round(image.width * share)), max(1, round(image.height * share)))
        image = image.resize(size, Image.Resampling.NEAREST)
    data = io.BytesIO()
    image.save(data, "PNG", optimize=True)
    return base64.b64encode(data.getvalue()).decode()
