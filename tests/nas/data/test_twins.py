"""Examples that are there twice are told; a few in a large set are not."""

import shutil

import numpy as np
import torch
from PIL import Image

from nas.data.batches import Subset
from nas.data.images import MemoryImages
from nas.data.splits import load_splits
from nas.data.twins import twins
from nas.job.sections.data import DataConfig

NAMES = ("ant", "bee")


def parts(pixels, labels, **indices):
    images = MemoryImages(torch.from_numpy(pixels))
    labels = torch.tensor(labels)
    return {name: Subset(images, labels, torch.tensor(some)) for name, some in indices.items()}


def noise(count):
    return np.random.default_rng(0).integers(0, 256, (count, 1, 4, 4), dtype=np.uint8)


def test_nothing_is_said_of_examples_that_differ():
    whole = parts(noise(30), [0, 1] * 15, training=range(20), validation=range(20, 25),
                  test=range(25, 30))  # fmt: skip
    assert twins(whole, "classes", NAMES) == []


def test_copies_of_training_examples_in_the_other_sets_are_counted():
    pixels = noise(30)
    pixels[25], pixels[27], pixels[20] = pixels[1], pixels[3], pixels[3]
    whole = parts(pixels, [0, 1] * 15, training=range(20), validation=range(20, 25),
                  test=range(25, 30))  # fmt: skip
    for targets in ("classes", "labels", "values"):
        test, validation = twins(whole, targets, NAMES)
        assert test.startswith("2 of the 5 test examples are in the training set too")
        assert validation.startswith("1 of the 5 validation examples")


def test_few_copies_in_a_large_set_are_no_matter():
    pixels = noise(300)
    pixels[150] = pixels[0]
    whole = parts(pixels, [0] * 300, training=range(100), validation=range(100, 150),
                  test=range(150, 300))  # fmt: skip
    assert twins(whole, "classes", NAMES) == []


def test_the_same_in_two_classes_bounds_what_can_be_told():
    pixels = noise(30)
    pixels[1] = pixels[3] = pixels[0]  # an ant, and two bees of the same looks
    whole = parts(pixels, [0, 1] * 15, training=range(20), validation=range(20, 25),
                  test=range(25, 30))  # fmt: skip
    (told,) = twins(whole, "classes", NAMES)
    assert told.startswith("3 of the 20 training examples") and "ant and bee" in told
    assert "more than 0.95 of them" in told
    # The same value twice is nothing unusual.
    assert twins(whole, "values", NAMES) == []


def test_pictures_that_were_copied_to_fill_a_class_are_told(tmp_path):
    random = np.random.default_rng(1)
    for name in NAMES:
        (tmp_path / name).mkdir()
        for i in range(10):
            # Without compression, so that all files have one size and content alone differs.
            pixels = random.integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.bmp")
    config = DataConfig(name="image_folder", path=str(tmp_path), image_size=8, channels=1)
    assert load_splits(config, 0).warnings() == []
    for i in range(10):
        for copy in range(3):
            shutil.copy(tmp_path / "ant" / f"{i}.bmp", tmp_path / "ant" / f"{i} copy {copy}.bmp")
    splits = load_splits(config, 0)

    def contents(subset):
        return {subset.images.paths[i].read_bytes() for i in subset.indices.tolist()}

    known = [splits.train.images.paths[i].read_bytes() for i in splits.test_indices.tolist()]
    learnt = contents(splits.train)
    count = sum(content in learnt for content in known)
    assert count > 0
    assert splits.warnings()[0].startswith(f"{count} of the {len(known)} test examples")
