"""Fine-tuning trains one architecture and leaves the shared weights alone."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from search_spaces import build_space
from supernet.network import Supernet
from supernet.training.finetune import finetune


class Batches:
    """Eight fixed batches whose label is whether the left half is brighter."""

    def __len__(self):
        return 8

    def epoch(self, epoch, *, start=0):
        for index in range(start, len(self)):
            generator = torch.Generator().manual_seed(index)
            x = torch.randn(32, 1, 8, 8, generator=generator)
            yield x, (x[..., :4].sum((1, 2, 3)) > x[..., 4:].sum((1, 2, 3))).long()


@pytest.fixture(scope="module")
def supernet():
    torch.manual_seed(0)
    space = build_space("mobilenet", preset="8x8", input_channels=1, outputs=2)
    return Supernet(space)


def loss_of(network, plan):
    with torch.no_grad():
        return sum(F.cross_entropy(network(x, plan), y).item() for x, y in Batches().epoch(0))


def run(supernet, plan, **options):
    return finetune(
        supernet,
        plan,
        batches=Batches(),
        loss=F.cross_entropy,
        epochs=3,
        learning_rate=0.005,
        **options,
    )


def test_the_architecture_gets_better_and_the_shared_weights_stay(supernet):
    plan = supernet.plan(supernet.space.smallest())
    before = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    own = run(supernet, plan)
    assert loss_of(own, plan) < loss_of(supernet, plan)
    for name, tensor in supernet.state_dict().items():
        if "initialized" not in name and "log_step" not in name and "offset" not in name:
            assert torch.equal(tensor, before[name]), name


def test_an_interrupted_fine_tuning_ends_the_same(supernet, tmp_path):
    plan = supernet.plan(supernet.space.largest())
    whole = run(supernet, plan, checkpoint=tmp_path / "a.safetensors")
    again = run(supernet, plan, checkpoint=tmp_path / "a.safetensors")
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_distillation_comes_from_the_largest_network_as_it_was(supernet):
    plan = supernet.plan(supernet.space.smallest())
    taught = []

    def distil(outputs, teacher):
        taught.append(teacher.clone())
        return F.cross_entropy(outputs, teacher.softmax(1))

    run(supernet, plan, distillation_loss=distil)
    assert len(taught) == 24 and not any(t.requires_grad for t in taught)
    x, _ = next(Batches().epoch(0))
    with torch.no_grad():
        expected = supernet(x, supernet.space.largest())
    # The same batch gives the same lesson in every epoch: the teacher does not move.
    assert all(torch.equal(taught[i], taught[i + 8]) for i in range(8))
    assert torch.allclose(taught[0], expected, atol=1e-5)
