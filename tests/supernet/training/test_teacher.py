"""A teacher that remembers is asked once for each image, and says what it would say each time."""

from __future__ import annotations

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

    def __call__(self, images):
        self.asked += len(images)
        return images.flatten(1)[:, :3] * 2


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
