"""A teacher that remembers is asked once for each image, and says what it would say each time."""

from __future__ import annotations

import pytest
import torch

from supernet.training.teacher import RememberingTeacher


class Views:
    """Three batches of four of six images, in another order in every epoch."""

    def __init__(self, countless=False):
        self.views = None if countless else 6

    def views_of(self, epoch, index):
        if self.views is None:
            return None
        generator = torch.Generator().manual_seed(epoch)
        order = torch.cat([torch.randperm(6, generator=generator) for _ in range(2)])
        return order[4 * index : 4 * index + 4]


class Counting:
    def __init__(self):
        self.asked = 0
        self.types = set()

    def __call__(self, images):
        self.asked += len(images)
        found = images.flatten(1)[:, :3] @ (2 * torch.eye(3))
        self.types.add(found.dtype)
        return found


IMAGES = torch.randn(6, 1, 2, 2, generator=torch.Generator().manual_seed(0))


def outputs(views, network):
    teacher = RememberingTeacher(network, views)
    for epoch in range(4):
        for index in range(3):
            numbers = Views().views_of(epoch, index)
            yield IMAGES[numbers], teacher.outputs(IMAGES[numbers], epoch, index)


def test_each_image_is_asked_for_once():
    network = Counting()
    for images, found in outputs(Views(), network):
        assert torch.equal(found, images.flatten(1)[:, :3] * 2)
    assert network.asked == 6


def test_images_without_a_number_are_asked_for_every_time():
    network = Counting()
    for images, found in outputs(Views(countless=True), network):
        assert torch.equal(found, images.flatten(1)[:, :3] * 2)
    assert network.asked == 4 * 3 * 4


def test_a_part_of_a_batch_is_not_taken_for_the_whole():
    teacher = RememberingTeacher(Counting(), Views())
    numbers = Views().views_of(0, 0)
    part = IMAGES[numbers][2:]
    assert torch.equal(teacher.outputs(part, 0, 0), part.flatten(1)[:, :3] * 2)


def test_outputs_that_would_take_too_much_memory_are_asked_for_every_time():
    network = Counting()
    teacher = RememberingTeacher(network, Views(), limit_bytes=6 * 3 * 4 - 1)
    assert teacher.remembers
    for epoch in range(2):
        numbers = Views().views_of(epoch, 0)
        found = teacher.outputs(IMAGES[numbers], epoch, 0)
        assert torch.equal(found, IMAGES[numbers].flatten(1)[:, :3] * 2)
    assert not teacher.remembers
    assert RememberingTeacher(network, Views(), limit_bytes=6 * 3 * 4).remembers


@pytest.mark.parametrize("countless", [False, True])
def test_in_mixed_precision_it_is_asked_in_it_and_says_float32(countless):
    network, numbers = Counting(), Views().views_of(0, 0)
    teacher = RememberingTeacher(network, Views(countless))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = teacher.outputs(IMAGES[numbers], 0, 0)
    assert network.types == {torch.bfloat16}
    assert half.dtype == torch.float32
    exact = IMAGES[numbers].flatten(1)[:, :3] * 2
    assert not torch.equal(half, exact)
    torch.testing.assert_close(half, exact, rtol=0.01, atol=0.01)
