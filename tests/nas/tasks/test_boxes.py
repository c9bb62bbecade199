import numpy as np
import pytest

from nas.tasks.boxes import (
    THRESHOLDS,
    AveragePrecision,
    boxes_of,
    cells_of,
    detections,
    grids_of,
    overlaps,
)
from search_spaces.errors import InputError


def scene(rng, classes=3, images=25):
    """Boxes with noisy detections of them, equal scores among these, crowds and false alarms."""
    for _ in range(images):
        corner = rng.uniform(0, 0.7, (rng.integers(0, 5), 2))
        size = rng.uniform(0.05, 0.3, corner.shape)
        kinds = rng.integers(0, classes, (len(corner), 1))
        crowd = rng.random((len(corner), 1)) < 0.2
        truth = np.concatenate([kinds, corner, corner + size, crowd], 1)
        near = np.repeat(truth[:, :5], 2, 0)
        near[:, 1:] += rng.normal(0, 0.03, near[:, 1:].shape)
        far = rng.uniform(0, 0.5, (rng.integers(0, 4), 2))
        alarms = np.concatenate([rng.integers(0, classes, (len(far), 1)), far, far + 0.2], 1)
        every = np.concatenate([near, alarms])
        every[:, 3:] = np.maximum(every[:, 3:], every[:, 1:3] + 0.01)
        scores = np.round(rng.random((len(every), 1)), 2)
        yield np.concatenate([every[:, :1], scores, every[:, 1:]], 1), truth


def by_coco(scenes, classes, side=100.0):
    """AP of faster-coco-eval, the fast twin of pycocotools, at each threshold and class."""
    eval_of = pytest.importorskip("faster_coco_eval")
    images, annotations, found = [], [], []
    for i, (told, truth) in enumerate(scenes):
        images.append({"id": i, "width": int(side), "height": int(side), "file_name": str(i)})
        for row in truth:
            x, y, w, h = row[1] * side, row[2] * side, *(side * (row[3:5] - row[1:3]))
            annotations.append(
                {"id": len(annotations) + 1, "image_id": i, "category_id": int(row[0]),
                 "bbox": [x, y, w, h], "area": w * h, "iscrowd": int(row[5])}
            )  # fmt: skip
        for row in told:
            x, y, w, h = row[2] * side, row[3] * side, *(side * (row[4:6] - row[2:4]))
            found.append(
                {"image_id": i, "category_id": int(row[0]), "bbox": [x, y, w, h],
                 "score": float(row[1])}
            )  # fmt: skip
    truth = eval_of.COCO(
        {"images": images, "annotations": annotations,
         "categories": [{"id": k, "name": str(k)} for k in range(classes)]}
    )  # fmt: skip
    run = eval_of.COCOeval_faster(
        truth, truth.loadRes(found), "bbox", print_function=lambda *a: None
    )
    run.evaluate()
    run.accumulate()
    precision = run.eval["precision"][:, :, :, 0, -1]
    return np.where((precision < 0).all(1), np.nan, precision.mean(1))


@pytest.mark.parametrize("seed", range(4))
def test_average_precision_is_cocos(seed):
    scenes = list(scene(np.random.default_rng(seed)))
    own = AveragePrecision(3)
    for told, truth in scenes:
        own.add(told, truth)
    expected = by_coco(scenes, 3)
    assert np.isfinite(expected).any()
    np.testing.assert_allclose(own.by_class(), expected, atol=2e-3)


def test_boxes_that_are_found_exactly_give_one_and_none_gives_nothing():
    truth = np.array([[1, 0.1, 0.1, 0.4, 0.5, 0], [2, 0.5, 0.5, 0.9, 0.9, 0]])
    told = np.concatenate([truth[:, :1], [[0.9], [0.8]], truth[:, 1:5]], 1)
    perfect, silent = AveragePrecision(3), AveragePrecision(3)
    perfect.add(told, truth)
    silent.add(told[:0], truth)
    np.testing.assert_allclose(perfect.by_class()[:, 1:], 1.0)
    np.testing.assert_allclose(silent.by_class()[:, 1:], 0.0)
    assert np.isnan(perfect.by_class()[:, 0]).all()
    assert len(perfect.by_class()) == len(THRESHOLDS) == 10


def test_overlaps_by_hand():
    one = np.array([[0.0, 0.0, 1.0, 1.0]])
    others = np.array([[0.5, 0.0, 1.5, 1.0], [2.0, 2.0, 3.0, 3.0], [0.0, 0.0, 1.0, 1.0]])
    np.testing.assert_allclose(overlaps(one, others), [[1 / 3, 0, 1]])


def test_grids_follow_from_the_number_of_cells():
    assert grids_of(144) == [12] and grids_of(180) == [12, 6] and grids_of(1) == [1]
    for side in range(2, 200, 2):
        assert grids_of(side * side + (side // 2) ** 2) == [side, side // 2]
        assert grids_of(side * side) == [side]
    with pytest.raises(InputError, match="7 cells are no square grid"):
        grids_of(7)


def test_a_box_is_where_its_cell_says():
    outputs = np.full((1, 20, 3 + 4), -20.0)
    outputs[0, 5] = [-20, 9, -20, 0.5, 0.0, np.log(np.e - 1), np.log(np.exp(0.5) - 1)]
    # Cell 5 of 4 x 4 is at (1, 1): middle (.375, .375) plus half a cell; two cells wide, one high.
    ((found,),) = [detections(outputs)]
    np.testing.assert_allclose(found[0], [1, 1, 0.25, 0.25, 0.75, 0.5], atol=2e-4)
    assert boxes_of(outputs).shape == (1, 20, 4)
    middle, side = cells_of(20)
    np.testing.assert_allclose(middle[16], [0.25, 0.25])
    assert side[0, 0] == 0.25 and side[16, 0] == 0.5


def test_the_less_sure_of_two_boxes_of_a_class_is_left_out():
    outputs = np.full((3, 4, 2 + 4), -20.0)
    outputs[:, :, 2:] = 0.0
    outputs[:, :, 4:] = np.log(np.exp(1.0) - 1)
    # Every cell's box is two cells large, about its own middle; all moved onto the first cell's.
    outputs[:, 1, 2] = outputs[:, 2, 3] = -1.0
    outputs[0, 0, 0], outputs[0, 1, 0] = 3.0, 2.0
    outputs[1, 0, 0], outputs[1, 1, 1] = 3.0, 2.0
    outputs[2, 0, 0], outputs[2, 3, 0] = 3.0, 2.0
    same, other_class, apart = detections(outputs)
    assert len(same) == 1 and same[0, 1] == pytest.approx(1 / (1 + np.exp(-3)))
    assert len(other_class) == 2 and len(apart) == 2
    assert (np.diff(apart[:, 1]) <= 0).all()
    assert all(len(found) == 0 for found in detections(np.full((2, 4, 6), -9.0)))


@pytest.mark.parametrize("seed", range(3))
def test_suppression_is_torchvisions(seed):
    torch = pytest.importorskip("torch")
    ops = pytest.importorskip("torchvision.ops")
    rng = np.random.default_rng(seed)
    outputs = rng.normal(0, 1.5, (2, 64, 3 + 4))
    for image, found in zip(outputs, detections(outputs, most=10**6), strict=True):
        scores = 1 / (1 + np.exp(-image[:, :3]))
        cell, kind = np.nonzero(scores >= 0.05)
        boxes = torch.from_numpy(np.clip(boxes_of(image[None])[0], 0, 1)[cell])
        score = torch.from_numpy(scores[cell, kind])
        kept = ops.batched_nms(boxes, score, torch.from_numpy(kind), 0.6)
        np.testing.assert_allclose(found[:, 1], score[kept].numpy())
        assert (found[:, 0] == kind[kept.numpy()]).all()
