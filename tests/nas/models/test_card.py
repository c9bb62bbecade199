"""Model cards hold what the run recorded, and say so where it recorded nothing."""

from __future__ import annotations

import hashlib
import json

import pytest

from nas.models.card import ModelCard
from search_spaces.errors import InputError


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "m7.onnx"
    path.write_bytes(b"weights" * 300)
    return path


def results() -> dict:
    layer = {
        "name": "stem", "role": "stem", "in_channels": 1, "out_channels": 8, "kernel": 3,
        "stride": 2, "groups": 1, "in_size": 28, "out_size": 14, "weight_bits": 4,
        "activation_bits": 32, "activation": "relu", "source": "none", "kind": "conv",
        "batch_norm": True,
    }  # fmt: skip
    return {
        "name": "fashion",
        "seed": 3,
        "command": "nas run job.yaml",
        "metric": "accuracy",
        "space": {"name": "mobilenet", "preset": "28x28", "cardinality": "12"},
        "devices": [
            {
                "name": "cpu",
                "runtime": "onnxruntime",
                "runtime_version": "1.32.0",
                "parameters": {"threads": 1},
            }
        ],
        "front": [
            {
                "id": "m7",
                "arch": "w=1|k=3",
                "test_accuracy": 0.9123,
                "validation_accuracy": 0.92,
                "per_class": {"0": 0.8},
                "costs": {"macs": 123456.0, "weights_kib": 21.5, "flash_kib": 22.5},
                "model": "models/m7.onnx",
                "devices": {
                    "cpu": {
                        "latency_ms": 0.25, "low_ms": 0.24, "high_ms": 0.27, "valid": False,
                        "reasons": ["drift"], "predicted_ms": 0.3,
                    },
                    "board": {
                        "latency_ms": None, "predicted_ms": 4.0,
                        "predicted_low_ms": 3.5, "predicted_high_ms": 4.5,
                    },
                },
                "parity": {"agreement": 0.999, "float_fallbacks": ["s1.expand"]},
                "plan": {
                    "input_shape": [1, 28, 28],
                    "blocks": [{"name": "stem", "kind": "stem", "layers": [layer]}],
                },
            }
        ],
        "provenance": {
            "versions": {"torch": "2.14"},
            "splits": {"mean": [0.5], "std": [0.25], "classes": ["shirt", "shoe"]},
            "created": "2026-01-01T00:00:00",
        },
    }  # fmt: skip


def test_card_of_a_full_entry(model):
    whole = results()
    card = ModelCard.from_results(whole, whole["front"][0], model)
    assert card.sha256 == hashlib.sha256(model.read_bytes()).hexdigest()
    assert card.size_kib == pytest.approx(2100 / 1024)
    measured, predicted = card.latency
    assert (measured["source"], measured["latency_ms"], measured["low_ms"]) == (
        "measured", 0.25, 0.24,
    )  # fmt: skip
    assert (predicted["source"], predicted["latency_ms"], predicted["high_ms"]) == (
        "predicted", 4.0, 4.5,
    )  # fmt: skip
    assert card.preprocessing["mean"] == [0.5]
    assert card.layers[0]["block"] == "stem"
    assert card.provenance["seed"] == 3


def test_markdown_shows_the_facts(model):
    whole = results()
    text = ModelCard.from_results(whole, whole["front"][0], model).to_markdown()
    for fact in (
        "0.9123", "class shirt", "0.24 to 0.27", "INVALID (drift)", "onnxruntime 1.32.0",
        "| board |", "predicted", "3.5 to 4.5", "123,456", "subtract the mean (0.5)", "s1.expand",
        "1 -> 8", "3x3 / 2", "| 4 | float |", "w=1|k=3", "nas run job.yaml", "shirt, shoe",
        "as a microcontroller stores them (KiB) | 22.5",
    ):  # fmt: skip
        assert fact in text, fact


@pytest.mark.parametrize(
    ("image_size", "channels", "side", "told"),
    [
        (64, 3, 48, "In the data pictures are 64 x 64; they are scaled to 48 x 48 by bilinear"),
        ([60, 80], 1, [30, 40], "pictures are 60 x 80; they are scaled to 30 x 40 by bilinear"),
        (64, 3, 64, None),
        (None, 3, 64, None),
    ],
)
def test_the_card_says_how_pictures_of_another_size_become_inputs(
    model, image_size, channels, side, told
):
    whole = results()
    sides = side if isinstance(side, list) else [side, side]
    whole["front"][0]["plan"]["input_shape"] = [channels, *sides]
    whole["provenance"]["splits"]["image_size"] = image_size
    text = ModelCard.from_results(whole, whole["front"][0], model).to_markdown()
    assert (told in text) if told else "In the data pictures are" not in text
    assert ("the channels are red, green, blue" in text) == (channels == 3)
    whole["task"] = {"input": "A signal of so many values"}
    text = ModelCard.from_results(whole, whole["front"][0], model).to_markdown()
    assert "pictures" not in text and "red, green" not in text


def test_the_card_says_which_part_of_a_picture_networks_were_shown(model):
    whole = results()
    cut = {"part": "middle", "share": 0.875, "size": 64}
    whole["task"] = {"name": "image_regression", "pictures": cut}
    card = ModelCard.from_results(whole, whole["front"][0], model)
    assert card.preprocessing["pictures"] == cut
    told = "square in its middle was taken and scaled to 64 x 64, by bilinear interpolation"
    assert (
        told in card.to_markdown() and "0.875 of the picture's shorter side" in card.to_markdown()
    )
    whole["task"]["pictures"] = {"part": "whole", "size": 64}
    text = ModelCard.from_results(whole, whole["front"][0], model).to_markdown()
    assert "as a whole: what is not square is stretched" in text and "64 x 64" in text
    whole["task"]["input"] = "Scale the whole image"
    text = ModelCard.from_results(whole, whole["front"][0], model).to_markdown()
    assert "stretched" not in text and "turned first as their EXIF says;" in text
    del whole["task"]["pictures"]
    card = ModelCard.from_results(whole, whole["front"][0], model)
    assert "pictures" not in card.preprocessing and "middle" not in card.to_markdown()


def test_json_round_trip(model, tmp_path):
    whole = results()
    card = ModelCard.from_results(whole, whole["front"][0], model)
    paths = card.write(tmp_path / "out")
    assert [p.name for p in paths] == ["m7.json", "m7.md"]
    assert ModelCard.from_json(json.loads(paths[0].read_text())) == card
    with pytest.raises(InputError, match="format 9"):
        ModelCard.from_json(card.to_json() | {"format": 9})
    with pytest.raises(InputError, match="lacks sha256"):
        ModelCard.from_json({k: v for k, v in card.to_json().items() if k != "sha256"})


def test_what_was_not_recorded_is_said_to_be(model):
    card = ModelCard.from_results({}, {"id": "m7"}, model)
    text = card.to_markdown()
    assert "Not measured." in text
    assert "not recorded" in text
    json.dumps(card.to_json(), allow_nan=False)


def test_missing_model(tmp_path):
    with pytest.raises(InputError, match="model of 'm7' is missing"):
        ModelCard.from_results({}, {"id": "m7"}, tmp_path / "m7.onnx")


@pytest.mark.parametrize(
    ("outputs", "classes", "said"),
    [
        (1, ["0", "1", "2"], "batch x 1: the outputs of the task"),  # regression on labelled data
        (
            2,
            ["shirt", "shoe"],
            "batch x 2: the outputs of the task as it trained them. In order: shirt, shoe.",
        ),
    ],
)
def test_a_task_without_one_right_class_has_no_softmax(model, outputs, classes, said):
    whole = results()
    entry = whole["front"][0]
    entry["per_class"] = None
    entry["plan"]["outputs"] = outputs
    whole["provenance"]["splits"]["classes"] = classes
    text = ModelCard.from_results(whole, entry, model).to_markdown()
    assert "softmax" not in text and "a class" not in text
    assert said in text
    assert ("In order" in text) == (outputs == len(classes))


def test_a_classifier_names_its_classes_and_floats_their_scale(model):
    whole = results()
    text = ModelCard.from_results(whole, whole["front"][0], model).to_markdown()
    assert "before softmax. Classes in order: shirt, shoe." in text and "divide by 255" in text
    whole["provenance"]["splits"]["pixel_scale"] = 1.0
    text = ModelCard.from_results(whole, whole["front"][0], model).to_markdown()
    assert "divide by 255" not in text and "Take the values as they are" in text
