"""A supernet small enough to train in a test, and batches for it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from search_spaces.seeds import derive_seed
from search_spaces.spaces.mobilenet import MobileNetSpace
from supernet.network import Supernet
from supernet.training.train import Trainer

CONFIG = {
    "preset": "8x8",
    "stages": [{"channels": 8, "stride": 1, "depths": [1, 2]}],
    "stem_channels": 4,
    "head_channels": 8,
    "resolutions": [4, 6],
    "expands": [2],
    "weight_bits": [2, 8],
    "activation_bits": [4, 8],
}


def build(seed: int = 0, **changes) -> Supernet:
    torch.manual_seed(seed)
    config = {**CONFIG, **changes}
    return Supernet(MobileNetSpace.from_config(input_channels=1, outputs=3, **config))


class RandomBatches:
    """Three batches an epoch, each a function of (epoch, index)."""

    def __len__(self) -> int:
        return 3

    def epoch(self, epoch, *, start=0):
        for index in range(start, 3):
            generator = torch.Generator().manual_seed(derive_seed(1, epoch, index))
            images = torch.randn(4, 1, 6, 6, generator=generator)
            yield images, torch.randint(3, (4,), generator=generator)


def soft_cross_entropy(outputs, teacher):
    return F.cross_entropy(outputs, teacher.softmax(1))


def everything(run: Trainer) -> dict[str, torch.Tensor]:
    """All that the next step depends on."""
    state = {f"model.{k}": v.clone() for k, v in run.supernet.state_dict().items()}
    for name, parameter in run.supernet.named_parameters():
        for optimizer in run._optimizers:
            for key, value in optimizer.state.get(parameter, {}).items():
                state[f"{key}.{name}"] = value.clone()
    return state


@pytest.fixture(scope="session")
def tiny() -> SimpleNamespace:
    """``build``, ``batches``, ``distillation`` and ``everything`` of the tiny training."""
    return SimpleNamespace(
        build=build,
        batches=RandomBatches,
        distillation=soft_cross_entropy,
        everything=everything,
    )
