"""The architectures of the latency table, and their model files: random weights suffice.

python -m experiments.devices.table_models FOLDER
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from search_spaces.atomic import write_json_atomic
from search_spaces.seeds import derive_rng
from search_spaces.space import Arch
from search_spaces.spaces.mobilenet import MobileNetSpace

PRESETS = {"28x28": 120, "96x96": 100}
"""Preset of ``mobilenet`` -> number of architectures."""

SEED = 0


def space_of(preset: str) -> MobileNetSpace:
    """Return the preset as users get it by default."""
    return MobileNetSpace.from_config(preset=preset)


def architectures(preset: str) -> list[Arch]:
    """Return the largest, the smallest, and distinct random architectures."""
    space = space_of(preset)
    rng = derive_rng(SEED, "table", preset)
    found = dict.fromkeys([space.largest(), space.smallest()])
    while len(found) < PRESETS[preset]:
        found[space.sample(rng)] = None
    return list(found)


def smallest(preset: str) -> str:
    """Return the id of the smallest architecture: the reference model of the table."""
    return space_of(preset).smallest().id


def export_all(folder: Path) -> None:
    """Write ``PRESET-ID-float.onnx`` and ``PRESET-ID-int8.onnx`` of every architecture.

    The integer files hold the architecture's own bits; runtimes run all of them on 8.
    Existing files are kept.
    """
    import torch

    from supernet.network import Supernet
    from supernet.onnx.export import export_onnx
    from supernet.training.subnets import float_plan

    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    for preset in PRESETS:
        torch.manual_seed(SEED)
        supernet = Supernet(space_of(preset), zero_init_residual=False)
        for arch in architectures(preset):
            plan = supernet.plan(arch)
            for kind, variant in (("float", float_plan(plan)), ("int8", plan)):
                path = folder / f"{preset}-{arch.id}-{kind}.onnx"
                if path.exists():
                    continue
                images = torch.from_numpy(
                    np.random.default_rng(SEED).standard_normal((4, *plan.input_shape))
                ).float()
                with torch.no_grad():
                    statistics = supernet.statistics(variant, [images])
                network = supernet.extract(variant, statistics).eval()
                # OpenVINO and others do not read 2- and 4-bit tensors; the speed is the same.
                export_onnx(network, path, weight_storage="int8")
        index = {arch.id: str(arch) for arch in architectures(preset)}
        write_json_atomic(folder / f"{preset}.json", index)


def read_index(folder: Path, preset: str) -> dict[str, str]:
    """Return id -> canonical string of the exported architectures, in order."""
    return json.loads((folder / f"{preset}.json").read_text(encoding="utf-8"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    export_all(parser.parse_args().folder)


if __name__ == "__main__":
    main()
