"""Arrays of one's own as inputs of a model file, which says how pixels become inputs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nas.models.formats.preprocessing import prepared
from search_spaces.errors import InputError

_FAR = 1.0
"""From where on means, or binary logarithms of deviations, are not those of normalised inputs."""


def preprocessing_in(model: Path) -> dict[str, Any]:
    """Return how pixels become inputs of a model file; empty where it does not say so.

    Raises:
        InputError: what the file says is no such description.
    """
    import onnx

    stored = onnx.load(str(model), load_external_data=False).metadata_props
    for entry in stored:
        if entry.key == "preprocessing":
            try:
                found = json.loads(entry.value)
                return dict(found) if all(found.get(k) for k in ("mean", "std")) else {}
            except (json.JSONDecodeError, AttributeError, TypeError) as error:
                raise InputError(f"{model}: its 'preprocessing' is no JSON object: {error}") from (
                    error
                )
    return {}


def as_inputs(array: np.ndarray, rule: Mapping[str, Any], name: str) -> tuple[np.ndarray, str, str]:
    """Return inputs of a model, where they are from in words, and what is doubtful about them.

    Whole numbers are pixels, for inputs that are normalised have fractions. Floats are taken as
    they are; it is told where their means and deviations are those of pixels.

    Args:
        array: (n, channels, height, width), of any type.
        rule: of the model's file, as of :func:`preprocessing_in`; empty takes all as it is.
        name: of the array.

    Returns:
        (n, channels, height, width) float32.
    """
    values = np.asarray(array, np.float32)
    images = values.ndim == 4 and values.size
    if not rule or not images or len(rule["mean"]) not in {1, values.shape[1]}:
        return values, name, ""
    if array.dtype.kind in "iu":
        if rule.get("channel_order", "rgb") != "rgb":
            values = values[:, ::-1]
        return prepared(values, rule), f"{name}, pixels normalised as the model's file says", ""
    given = _distance(values)
    units = {**rule, "pixel_scale": 1.0}
    taken_for = {
        f"pixels of 0 to {1 / rule['pixel_scale']:.0f}": _distance(prepared(values, rule)),
        "pixels of 0 to 1": _distance(prepared(values, units)),
    }
    what = min(taken_for, key=lambda one: taken_for[one])
    if given < _FAR or taken_for[what] > given / 2:
        return values, name, ""
    return values, name, (
        f"the images of {name} look like {what}, and the model takes them normalised by mean "
        f"{_text(rule['mean'])} and deviation {_text(rule['std'])}: accuracies are those of wrong "
        "inputs; store uint8 pixels, which are normalised here, or inputs that are"
    )  # fmt: skip


def _distance(values: np.ndarray) -> float:
    """Return how far the channels are from mean 0 and deviation 1, the farthest of them."""
    means, deviations = values.mean((0, 2, 3)), values.std((0, 2, 3))
    known = deviations > 0
    scales = np.abs(np.log2(deviations[known])) if known.any() else np.zeros(1)
    return float(max(np.abs(means).max(), scales.max()))


def _text(values: list[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
