"""Spaces by name, and by a function of the user's own."""

from __future__ import annotations

import subprocess
import sys

import pytest

MODULE = """
import torch
from torch import nn
from supernet.own_model.wrap import bits_space

def net():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(4, 2),
    )

EARLY = net()  # built as the module is imported

def late(input_channels, outputs):
    return bits_space(net(), input_shape=(1, 8, 8))

def early(input_channels, outputs):
    return bits_space(EARLY, input_shape=(1, 8, 8))
"""

SCRIPT = """
import sys
from search_spaces.spaces.registry import build_space
space = build_space(f"own_net:{sys.argv[1]}", generator_seed=int(sys.argv[2]))
print([p.flatten()[:3].tolist() for p in space.module.parameters()])
"""


def weights(folder, function: str, seed: int) -> str:
    (folder / "own_net.py").write_text(MODULE)
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, function, str(seed)],
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
    ).stdout


@pytest.mark.parametrize("function", ["late", "early"])
def test_two_processes_build_equal_weights_of_a_module_of_ones_own(tmp_path, function):
    pytest.importorskip("torch")
    first = weights(tmp_path, function, 3)
    assert weights(tmp_path, function, 3) == first
    if function == "late":
        assert weights(tmp_path, function, 4) != first
