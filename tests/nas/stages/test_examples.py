"""Which examples the report shows, and how."""

from __future__ import annotations

import base64
import io
import json
from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image

from nas.data.batches import Subset
from nas.data.images import MemoryImages
from nas.stages.examples import EXAMPLES, write_examples
from nas.tasks import TASKS


def written(tmp_path, monkeypatch, values, labels):
    """What is written of ``values`` (n, channels, height, width), of a model that says 0."""
    subset = Subset(MemoryImages(values), labels, torch.arange(len(labels)))
    splits = SimpleNamespace(
        validation=subset, normalisation=lambda x: x.float(), classes=("a", "b"), targets="classes"
    )
    monkeypatch.setattr(
        "nas.models.parity.evaluate_onnx",
        lambda path, batches: np.tile([1.0, 0.0], (len(batches[0]), 1)),
    )
    context = SimpleNamespace(splits=splits, task=TASKS.get("audio_classification")())
    size = (values.shape[2], values.shape[3])
    write_examples(context, tmp_path, tmp_path / "m.onnx", name="m", size=size)
    return json.loads((tmp_path / "examples.json").read_text())["examples"]


def test_examples_are_spread_over_a_set_that_is_in_the_order_of_its_classes(tmp_path, monkeypatch):
    values = torch.zeros(40, 1, 4, 4, dtype=torch.uint8)
    found = written(tmp_path, monkeypatch, values, torch.arange(40) // 20)
    assert [each["caption"] for each in found] == ["a"] * 4 + ["a, but it is b"] * 4
    assert len(written(tmp_path, monkeypatch, values[:3], torch.zeros(3).long())) == 3 < EXAMPLES


def test_the_time_of_a_spectrogram_goes_to_the_right_and_low_tones_are_below(tmp_path, monkeypatch):
    values = torch.zeros(1, 1, 6, 3)
    values[0, 0, 4, 0] = 1.0  # late, and low
    (one,) = written(tmp_path, monkeypatch, values, torch.zeros(1).long())
    assert (one["width"], one["height"]) == (6, 3)
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(one["picture"]))))
    assert shown.shape == (3, 6) and shown[2, 4] == 255 and shown.sum() == 255
