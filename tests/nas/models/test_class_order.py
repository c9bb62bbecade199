"""A trained network that means other classes than the data is found out."""

import numpy as np
import torch

from nas.models.class_order import answers, better_than_chance, doubt

NAMES = ["ant", "bee", "cat", "dog"]


def batches(targets):
    """Images that hold their own class, in two batches."""
    images = torch.nn.functional.one_hot(torch.tensor(targets), len(NAMES)).float()
    return list(zip(images.split(5), torch.tensor(targets).split(5), strict=True))


TARGETS = [0, 1, 2, 3, 0, 1, 2, 3, 1, 2]


def test_answers_are_counted_by_output_and_class():
    counts = answers(lambda images: images.roll(1, dims=1), batches(TARGETS), 4)
    expected = np.zeros((4, 4))
    for target in TARGETS:
        expected[(target + 1) % 4, target] += 1
    assert (counts == expected).all()


def test_another_order_is_named():
    assert doubt("the network", lambda images: images, batches(TARGETS), NAMES) is None
    told = doubt("it", lambda images: images.roll(1, dims=1), batches(TARGETS), NAMES)
    # Output 0 is largest for a dog, output 1 for an ant, and so on.
    assert "it answers 0.00" in told and "1.00 if its outputs" in told
    assert "data's: dog, ant, bee, cat." in told


def test_no_order_helps_a_network_that_always_says_the_same():
    told = doubt("it", lambda images: torch.eye(4)[[1] * len(images)], batches(TARGETS), NAMES)
    assert "only 0.30" in told and "data.normalisation" in told


def test_outputs_that_are_no_classes_say_nothing():
    assert doubt("it", lambda images: images[:, :2], batches(TARGETS), NAMES) is None
    labels = [(images, images) for images, _ in batches(TARGETS)]
    assert doubt("it", lambda images: images, labels, NAMES) is None


def test_chance_is_not_enough():
    assert not better_than_chance(0.45, 10) and better_than_chance(0.47, 10)
    assert not better_than_chance(0.69, 2) and better_than_chance(0.71, 2)
