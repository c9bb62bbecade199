"""What becomes of a trained ResNet-20 on Fashion-MNIST when it shrinks, against training it small.

The network of ``resnet20_training`` becomes a supernet (``space: {name: module}``). Told are: it at
half of all widths without any training, channels sorted and not, and fitted to
it layer by layer by least squares on calibration images; in W8A8; and sub-networks
at 21 % and 73 % of its MACs, each found by validation accuracy and trained on its own, with
the network as teacher, in less time than the network took (``resnet20_sizes``). The simplest thing
that a good engineer would do instead, plain networks scaled in width to the same MACs and trained
from scratch, has the same processor time in the same process. What is finished is kept in the
folder, so it can be stopped and repeated. Run from the repository, after ``resnet20_training``::

    python -m experiments.own.resnet20 runs/resnet20
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from experiments.own.resnet20_sizes import from_scratch, material, plain_macs, shrunk
from experiments.own.resnet20_training import accuracy, data
from experiments.results_index import record_claim
from nas.stages.evaluator import Evaluator
from nas.tasks import TASKS
from search_spaces.atomic import write_json_atomic
from search_spaces.space import Arch
from supernet.network import Supernet
from supernet.own_model.pretrained import find_elastic, module_space
from supernet.own_model.wrap import ModuleSpace, wrap
from supernet.training.reconstruct import reconstruct

COMMAND = "python -m experiments.own.resnet20 runs/resnet20"
RESULT = Path("experiments/results/own/resnet20.json")
MODEL = "experiments.own.resnet20_network:make"
SIZES = {"21": 0.21, "73": 0.73}
"""Shares of the network's MACs that sub-networks have at most."""
SECONDS = {"21": 0.45, "73": 0.4}
"""Of the processor seconds that the network took: what each sub-network is searched and trained
for; what the network is asked as teacher comes on top, of those that ask first."""


def space_of(weights: Path, shares: Sequence[float]) -> ModuleSpace:
    """Return the space of the trained network, for its images."""
    return module_space(
        model=MODEL, weights=str(weights), input_channels=1, outputs=10, input_size=(28, 28),
        shares=shares, weight_bits=(8, 32), activation_bits=(8, 32), edge_bits=None,
    )  # fmt: skip


def at_bits(space: ModuleSpace, arch: Arch, bits: int) -> Arch:
    """Return ``arch`` with every layer at ``bits``."""
    values = {k: bits if k.startswith(("w.", "a.")) else v for k, v in arch.items}
    return space.arch(values)


def half(space: ModuleSpace) -> Arch:
    """Return the network at half of every width that can vary, in float."""
    values = {k: 0.5 if k.startswith("width.") else v for k, v in space.largest().items}
    return space.arch(values)


def main() -> None:
    """Measure, and record the claims."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="*", default=None, help="half_width, 'plain 21', ...")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    weights = arguments.folder / "resnet20.safetensors"
    trained = json.loads((arguments.folder / "resnet20.json").read_text(encoding="utf-8"))
    splits, task = data(), TASKS.get("image_classification")()
    test = splits.test("sub-networks of a trained ResNet-20")
    space = space_of(weights, (0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0))
    supernet: Supernet = Supernet(space)
    evaluator = Evaluator(supernet, splits, task)
    result: dict[str, Any] = {
        "command": COMMAND, "seed": 0, "torch": torch.__version__, "machine": platform.machine(),
        "load": os.getloadavg(), "network": trained, "macs": int(space.plan(space.largest()).macs),
    }  # fmt: skip
    kept = arguments.folder / "parts.json"
    parts: dict[str, Any] = json.loads(kept.read_text("utf-8")) if kept.exists() else {}

    def part(name: str, make_it: Callable[[], Any]) -> Any:
        """Return what was found before, or find it: the whole takes most of an hour."""
        if name not in parts and (arguments.only is None or name in arguments.only):
            parts[name] = make_it()
            write_json_atomic(kept, parts)
        return parts.get(name)

    result["half_width"] = part(
        "half_width", lambda: untrained(space, weights, splits, task, test, evaluator)
    )
    result["w8a8"] = part("w8a8", lambda: quantised(space, splits, test, evaluator))
    result["sizes"] = {}
    # Sub-networks that were tried before, with other recipes or less time.
    result["tried"] = parts.get("tried", [])
    shared = material(space, evaluator, splits, test)
    for name, share in SIZES.items():
        seconds = SECONDS[name] * trained["cpu_s"]
        row = part(name, lambda share=share, s=seconds: shrunk(shared, share, s))
        if row is None:
            continue
        row["cpu_s"] = sum(row[k] for k in ("search_cpu_s", "training_cpu_s", "teacher_cpu_s"))
        row["drop"] = trained["test"] - row["test"]
        macs, spent = float(row["macs"]), row["cpu_s"]
        plain = part(f"plain {name}", lambda m=macs, s=spent: from_scratch(shared, m, s))
        result["sizes"][name] = row
        if plain is not None:
            row["scratch"] = {**plain, "macs": plain_macs(plain["width"])}
            row["ahead"] = row["test"] - plain["test"]
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    write_json_atomic(RESULT, result)
    claims(result)
    print(json.dumps(result, indent=1))


def untrained(
    space: ModuleSpace, weights: Path, splits: Any, task: Any, test: Any, evaluator: Evaluator
) -> dict[str, float]:
    """Return the accuracies of half of every width, channels sorted and as they came."""
    from supernet.own_model.sources import load_network

    network = load_network(MODEL, weights=weights)
    unsorted = wrap(
        copy.deepcopy(network), input_shape=(1, 28, 28), weight_bits=(8, 32),
        activation_bits=(8, 32), edge_bits=None,
        **find_elastic(network, (1, 28, 28), shares=(0.5, 1.0)),
    )  # fmt: skip
    other = Evaluator(Supernet(unsorted), splits, task)
    return {
        "sorted": accuracy(evaluator.network(half(space)), splits, test),
        "unsorted": accuracy(other.network(half(unsorted)), splits, test),
        "rebuilt": accuracy(rebuilt(space, splits, task, evaluator), splits, test),
        "macs_share": space.plan(half(space)).macs / space.plan(space.largest()).macs,
    }


def rebuilt(space: ModuleSpace, splits: Any, task: Any, evaluator: Evaluator) -> nn.Module:
    """Return half of every width with weights by least squares: no labels, no gradients."""
    arch = half(space)
    batches = evaluator.batches("calibration", splits.calibration, (28, 28))
    own = reconstruct(evaluator.supernet, space.plan(arch), (images for images, _ in batches))
    return Evaluator(own, splits, task).network(arch)


def quantised(space: ModuleSpace, splits: Any, test: Any, evaluator: Evaluator) -> dict[str, float]:
    """Return the accuracy of the network at 8 bits, and how often it answers alike."""
    eight = evaluator.network(at_bits(space, space.largest(), 8))
    return {
        "test": accuracy(eight, splits, test),
        "agreement": agreement(eight, space.module, splits, test),
    }


def agreement(one: nn.Module, other: nn.Module, splits: Any, test: Any) -> float:
    """Return the share of test images to which two networks give the same answer."""
    same = 0
    with torch.no_grad():
        for images, _ in splits.evaluation_batches(test):
            same += int((one(images).argmax(1) == other(images).argmax(1)).sum())
    return same / len(test)


def claims(result: dict[str, Any]) -> None:
    """Record what is published."""
    if result["half_width"] is not None:
        row = result["half_width"]
        value = f"{row['rebuilt']:.4f} by least squares without labels"
        value += f"; {row['sorted']:.4f} with batch norm recalibrated alone"
        record_claim("own.half_width_untrained", value, ">= 0.82", row["rebuilt"] >= 0.82,
                     str(RESULT), COMMAND)  # fmt: skip
    took = result["network"]["cpu_s"]
    for name, allowed, key in (("73", 0.003, "own.resnet20_drop_at_73_percent"),
                               ("21", 0.007, "own.resnet20_drop_at_21_percent")):  # fmt: skip
        row = result["sizes"].get(name)
        if row is None:
            continue
        met = row["drop"] <= allowed and row["cpu_s"] < took
        record_claim(key, round(row["drop"], 4), f"<= {allowed}", met, str(RESULT), COMMAND)
    ahead = {name: row["ahead"] for name, row in result["sizes"].items() if "ahead" in row}
    if ahead:
        mean = sum(ahead.values()) / len(ahead)
        value = f"{mean:.4f} on average ("
        value += ", ".join(f"{found:+.4f} at {name} %" for name, found in ahead.items()) + ")"
        record_claim("own.value_ahead", value, "> 0", mean > 0, str(RESULT), COMMAND)


if __name__ == "__main__":
    main()
