import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.data.annotations.arrays import stack_boxes
from nas.data.augment import Augmentation
from nas.data.batches import Batches, Subset
from nas.data.images import MemoryImages
from nas.data.placed import presence, windows
from nas.data.splits import Normalisation, load_splits
from nas.job.sections.data import DataConfig
from search_spaces.errors import InputError
from supernet.resolution import resize_images

SIDE = 48


def spots(count=6):
    """Images with one bright rectangle each, its box and its mask."""
    rng = np.random.default_rng(0)
    images = np.zeros((count, 1, SIDE, SIDE), np.uint8)
    masks = np.zeros((count, SIDE, SIDE), np.uint8)
    boxes = []
    for i in range(count):
        x, y = rng.integers(8, 26, 2)
        w, h = rng.integers(6, 14, 2)
        images[i, 0, y : y + h, x : x + w] = 255
        masks[i, y : y + h, x : x + w] = 1
        boxes.append(np.array([[0, x, y, x + w, y + h, 0]]) / [1, SIDE, SIDE, SIDE, SIDE, 1])
    return images, stack_boxes(boxes), masks


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), sides=st.tuples(st.integers(1, 7), st.integers(1, 7)),
       size=st.tuples(st.integers(1, 9), st.integers(1, 9)), far=st.integers(0, 5),
       flip=st.booleans(), floats=st.booleans())  # fmt: skip
def test_windows_hold_the_nearest_pixel_of_each_place(seed, sides, size, far, flip, floats):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (3, 2, *sides), dtype=np.uint8)
    images = images.astype(np.float32) / 7 if floats else images
    offsets = rng.integers(-far, far + 1, (2, 3, 1))
    mirrored = rng.random(3) < 0.5
    found = windows(
        torch.from_numpy(images),
        size,
        mirrored=torch.from_numpy(mirrored) if flip else None,
        offsets=torch.from_numpy(offsets) if far else None,
    )
    assert found.shape == (3, 2, *size) and found.numpy().dtype == images.dtype
    for i, y, x in np.ndindex(3, *size):
        row = min(max(y + offsets[0, i, 0] * bool(far), 0), sides[0] - 1)
        column = size[1] - 1 - x if flip and mirrored[i] else x
        column = min(max(column + offsets[1, i, 0] * bool(far), 0), sides[1] - 1)
        assert found[i, :, y, x].tolist() == images[i, :, row, column].tolist()


def test_batches_of_another_size_are_what_scaling_them_afterwards_gives():
    rng = np.random.default_rng(0)
    pixels = torch.from_numpy(rng.integers(0, 256, (8, 3, 20, 28), dtype=np.uint8))
    normal = Normalisation((0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
    moved = Augmentation(crop_padding=3, flip=True, erase=0.5)

    def drawn(inputs, size):
        subset = Subset(MemoryImages(inputs), torch.arange(8), torch.arange(8))
        batches = Batches(
            subset, batch_size=4, seed=1, normalisation=normal, augmentation=moved, size=size
        )
        return list(batches.epoch(0))

    for (small, labels), (whole, same) in zip(
        drawn(pixels, (10, 12)), drawn(pixels, None), strict=True
    ):
        assert torch.equal(labels, same) and small.shape == (4, 3, 10, 12)
        # Within the rounding to 8 bits, half a step or, in fixed point, a little more.
        assert (small - resize_images(whole, (10, 12))).abs().max() <= 1.0 / 255 / 0.2
    # Values, as of signals, are no pixels, and left as they are.
    assert drawn(pixels.float(), (10, 12))[0][0].shape == (4, 3, 20, 28)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), flip=st.booleans(), pad=st.integers(0, 6),
       scale=st.sampled_from([1.0, 0.6]))  # fmt: skip
def test_boxes_and_masks_stay_on_what_they_mark(seed, flip, pad, scale):
    images, boxes, masks = spots()
    augmentation = Augmentation(crop_padding=pad, flip=flip, scale=scale)
    for placed, labels in (("boxes", boxes), ("masks", masks)):
        subset = Subset(
            MemoryImages(torch.from_numpy(images)),
            torch.from_numpy(labels),
            torch.arange(6),
            placed,
        )
        batches = Batches(
            subset, batch_size=6, seed=seed, normalisation=Normalisation((0.0,), (1.0,)),
            augmentation=augmentation,
        )  # fmt: skip
        ((pixels, targets),) = list(batches.epoch(0))
        bright = pixels[:, 0] > 0.5
        for seen, target in zip(bright, targets, strict=True):
            if placed == "masks":
                differ = (seen != (target == 1)) & (target != 255)
                # Where a crop is enlarged, edges are a mean of two pixels.
                assert differ.float().mean() < 0.05
                continue
            if not seen.any():
                assert target[0, 0] == -1 or target[0, 5] == 1
                continue
            rows, columns = seen.any(1).nonzero().flatten(), seen.any(0).nonzero().flatten()
            found = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            np.testing.assert_allclose(
                target[0, 1:5].numpy() * SIDE, [int(v) for v in found], atol=2.1
            )


def test_presence_names_the_classes_of_an_example():
    boxes = stack_boxes([np.zeros((0, 6)), np.array([[2, 0, 0, 1, 1, 0], [0, 0, 0, 1, 1, 0]])])
    assert presence("boxes", torch.from_numpy(boxes), 3).tolist() == [
        [False] * 3,
        [True, False, True],
    ]
    masks = torch.tensor([[[0, 1]], [[255, 255]]], dtype=torch.uint8)
    assert presence("masks", masks, 2).tolist() == [[True, True], [False, False]]


@pytest.mark.parametrize("kind", ["boxes", "masks"])
def test_scenes_are_made_alike_each_time_and_parts_share_no_object(kind):
    config = DataConfig(name="scenes", options={"side": 32, "images": 30})
    splits = load_splits(config, 0, kind=kind)
    again = load_splits(config, 0, kind=kind)
    assert (splits.train.labels == again.train.labels).all()
    assert splits.train.images.fingerprint() == again.train.images.fingerprint()
    assert len(splits.train) == 30 and len(splits.validation) == 10
    assert splits.channels == 1 and splits.input_size == (32, 32)
    assert ("background" in splits.classes) == (kind == "masks")


def test_scenes_tell_which_objects_are_there_and_how_many():
    config = DataConfig(name="scenes", options={"side": 32, "images": 30})
    boxes, labels, values = (
        load_splits(config, 0, kind=kind).train for kind in ("boxes", "labels", "values")
    )
    assert boxes.images.fingerprint() == labels.images.fingerprint()
    there = [set(box[box[:, 0] >= 0, 0].int().tolist()) for box in boxes.labels]
    told = [set(row.nonzero().flatten().tolist()) for row in labels.labels]
    assert told == there
    many = (boxes.labels[:, :, 0] >= 0).sum(1).float()
    assert values.labels[:, 0].tolist() == many.tolist()


def test_boxes_of_scenes_are_tight_about_the_visible_pixels():
    one = {"side": 64, "images": 20, "most": 1, "clutter": 0}
    boxes, masks = (
        load_splits(DataConfig(name="scenes", options=one), 0, kind=kind).train
        for kind in ("boxes", "masks")
    )
    for box, mask in zip(boxes.labels, masks.labels, strict=True):
        rows = (mask > 0).any(1).nonzero().flatten()
        columns = (mask > 0).any(0).nonzero().flatten()
        found = [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]
        np.testing.assert_allclose(box[0, 1:5].numpy() * 64, found, atol=1e-3)
        assert int(mask.max()) == int(box[0, 0]) + 1


@pytest.mark.parametrize(
    "options, message",
    [
        ({"side": 8}, "side: 8"),
        ({"objects": "cars"}, "'cars' is none of digits"),
        ({"clutter": 2}, "clutter: 2"),
        ({"clutter": True}, "clutter: True is no number"),
        ({"most": True}, "most: True is no whole number"),
        ({"most": 0}, "most: 0"),
        ({"kind": "classes"}, "use task: object_detection, semantic_segmentation, multi_label"),
    ],
)
def test_scenes_that_are_not_possible_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        load_splits(DataConfig(name="scenes", options=options), 0)
