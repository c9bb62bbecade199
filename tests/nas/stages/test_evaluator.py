"""Accuracy of subnets: calibrated at their own bits, at their own resolution."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nas.data.splits import Augmentation, DataSplits, MemoryImages, Normalisation, Subset
from nas.stages import evaluator as module
from nas.stages.evaluator import EarlyStop, Evaluator
from nas.tasks import ImageClassification
from search_spaces.spaces.mobilenet import MobileNetSpace
from supernet.network import Supernet
from supernet.resolution import resize_images

CONFIG = {
    "preset": "8x8",
    "stages": [{"channels": 8, "stride": 1, "depths": [1, 2]}],
    "stem_channels": 4,
    "head_channels": 8,
    "resolutions": [6, 8],
    "expands": [2],
}


@pytest.fixture
def splits() -> DataSplits:
    rng = np.random.default_rng(0)
    pixels = torch.from_numpy(rng.integers(0, 256, (90, 1, 8, 8), dtype=np.uint8))
    labels = torch.arange(90) % 3
    parts = [Subset(MemoryImages(pixels), labels, torch.arange(a, a + 30)) for a in (0, 30, 60)]
    return DataSplits(
        train=parts[0],
        calibration=parts[0].first(20),
        validation=parts[1],
        normalisation=Normalisation((0.5,), (0.25,)),
        augmentation=Augmentation(),
        classes=("a", "b", "c"),
        channels=1,
        input_size=(8, 8),
        origin="made up",
        seed=0,
        _test=parts[2],
    )


@pytest.fixture
def supernet() -> Supernet:
    torch.manual_seed(0)
    return Supernet(MobileNetSpace.from_config(input_channels=1, outputs=3, **CONFIG))


@pytest.fixture
def evaluator(supernet, splits) -> Evaluator:
    return Evaluator(supernet, splits, ImageClassification(), batch_size=8)


def test_the_accuracy_is_that_of_the_validation_set(evaluator, splits):
    space = evaluator.supernet.space
    for arch in (space.largest(), space.smallest()):
        network = evaluator.network(arch)
        size = space.plan(arch).input_shape[1]
        images, labels = splits.validation.at(torch.arange(30))
        with torch.no_grad():
            outputs = network(resize_images(splits.normalisation(images), size))
        right = (outputs.argmax(1) == labels).float()
        # Batches of another size may round a logit the other way.
        assert evaluator.accuracy(network) == pytest.approx(right.mean().item(), abs=0.07)
        assert 0 <= evaluator.accuracy(network, images=6) <= 1
        assert evaluator.accuracy(network, images=6) * 6 == pytest.approx(
            round(evaluator.accuracy(network, images=6) * 6)
        )


def test_the_test_set_is_never_read(supernet, splits):
    class Closed:
        def at(self, indices, crops=None):
            raise AssertionError("pixels of the test set were read")

    splits._test = Subset(Closed(), splits._test.labels, splits._test.indices)
    evaluator = Evaluator(supernet, splits, ImageClassification(), batch_size=8)
    evaluator.quality(
        evaluator.network(supernet.space.largest()),
        early_stop=EarlyStop(images=10, risk=0.1, needed=0.0),
    )
    assert splits._test_read is None


@pytest.mark.parametrize("kinds", [(".w.", ".a."), (".w.",), (".a.",)])
def test_a_network_has_statistics_of_its_bits(evaluator, kinds):
    space = evaluator.supernet.space
    values = dict(space.largest().items)
    layers = []
    for bits in (8, 2):
        at = {n: bits if any(k in n for k in kinds) else v for n, v in values.items()}
        network = evaluator.network(space.arch(at))
        layers.append({layer.layer.name: layer for layer in network.plain_layers()})
    high, low = (found["s1.b1.project"].norm.running_var for found in layers)
    assert not torch.allclose(high, low, rtol=1e-2)


def test_evaluation_repeats_exactly_and_leaves_the_supernet_alone(evaluator):
    arch = evaluator.supernet.space.sample(np.random.default_rng(0))
    evaluator.network(arch)
    before = {k: v.clone() for k, v in evaluator.supernet.state_dict().items()}
    first, second = evaluator.network(arch), evaluator.network(arch)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
    assert all(torch.equal(before[k], v) for k, v in evaluator.supernet.state_dict().items())


def test_batches_are_resized_once_for_each_size(evaluator, splits):
    small = evaluator.batches("validation", splits.validation, (6, 6))
    assert [len(images) for images, _ in small] == [8, 8, 8, 6]
    assert {tuple(images.shape[1:]) for images, _ in small} == {(1, 6, 6)}
    assert evaluator.batches("validation", splits.validation, (6, 6)) is small
    part = evaluator.batches("validation", splits.validation.first(5), (6, 6))
    assert [len(images) for images, _ in part] == [5]
    assert evaluator.batches("validation", splits.validation, (8, 8))[0][0].shape[-1] == 8
    labels = torch.cat([targets for _, targets in small])
    assert torch.equal(labels, splits.validation.labels[30:60])


def test_large_sets_are_not_kept(evaluator, splits, monkeypatch):
    monkeypatch.setattr(module, "_CACHE_BYTES", 30 * 6 * 6 * 4 + 10)
    first = evaluator.batches("validation", splits.validation, (6, 6))
    other = evaluator.batches("validation", splits.validation, (8, 8))
    assert evaluator.batches("validation", splits.validation, (6, 6)) is first
    again = evaluator.batches("validation", splits.validation, (8, 8))
    assert again is not other
    assert torch.equal(next(iter(again))[0], next(iter(other))[0])


def test_weights_of_its_own_are_used_for_a_finetuned_architecture(evaluator):
    space = evaluator.supernet.space
    arch, other = space.largest(), space.smallest()
    shared = {a: evaluator.network(a).state_dict() for a in (arch, other)}
    torch.manual_seed(1)
    evaluator.finetuned[arch] = Supernet(space)
    name = "0.ops.stem.op.weight"
    assert not torch.equal(evaluator.network(arch).state_dict()[name], shared[arch][name])
    assert torch.equal(evaluator.network(other).state_dict()[name], shared[other][name])


def test_fewer_images_at_once_where_maps_are_large(supernet, splits, monkeypatch):
    assert Evaluator(supernet, splits, ImageClassification()).batch_size == 250
    monkeypatch.setattr(module, "_PASS_BYTES", 2**17)
    few = Evaluator(supernet, splits, ImageClassification()).batch_size
    layers = supernet.plan(supernet.space.largest()).layers()
    assert few == 2**17 // (4 * max(layer.input_count + layer.output_count for layer in layers))
    assert 1 < few < 250
