"""COCO, YOLO and Pascal VOC: the same scene read alike, every mistake told at once."""

import json

import numpy as np
import pytest
import torch

from nas.data.splits import load_splits
from nas.job.sections.data import DataConfig
from search_spaces.errors import EnvironmentProblem, InputError

Image = pytest.importorskip("PIL.Image")

SIDES = (40, 20)
BOXES = {"a.png": [("cat", 4, 2, 20, 12), ("dog", 10, 5, 40, 20)], "b.png": [("dog", 0, 0, 8, 10)],
         "c.png": [("cat", 8, 8, 30, 18)], "d.png": [("cat", 1, 1, 9, 9)]}  # fmt: skip


def pictures(folder, names=BOXES):
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for name in names:
        Image.fromarray(rng.integers(0, 255, (SIDES[1], SIDES[0], 3), dtype=np.uint8)).save(
            folder / name
        )


def coco(root, **changes):
    pictures(root / "images")
    numbers = {"cat": 3, "dog": 7}
    content = {
        "images": [
            {"id": i, "file_name": n, "width": SIDES[0], "height": SIDES[1]}
            for i, n in enumerate(BOXES)
        ],
        "categories": [{"id": i, "name": n} for n, i in numbers.items()],
        "annotations": [
            {"id": 100 + k, "image_id": i, "category_id": numbers[kind],
             "bbox": [x1, y1, x2 - x1, y2 - y1]}
            for k, (i, (kind, x1, y1, x2, y2)) in enumerate(
                (i, box) for i, boxes in enumerate(BOXES.values()) for box in boxes
            )
        ],
    }  # fmt: skip
    content.update(changes)
    (root / "annotations.json").write_text(json.dumps(content))
    return content


def yolo(root, **texts):
    pictures(root / "images")
    (root / "labels").mkdir()
    (root / "data.yaml").write_text("names: [cat, dog]\ntrain: images\n")
    for name, boxes in BOXES.items():
        rows = [
            f"{['cat', 'dog'].index(kind)} {(x1 + x2) / 2 / SIDES[0]} {(y1 + y2) / 2 / SIDES[1]} "
            f"{(x2 - x1) / SIDES[0]} {(y2 - y1) / SIDES[1]}"
            for kind, x1, y1, x2, y2 in boxes
        ]
        stem = name.removesuffix(".png")
        (root / "labels" / f"{stem}.txt").write_text(texts.get(stem, "\n".join(rows) + "\n"))


def voc(root, **texts):
    pictures(root / "JPEGImages")
    (root / "Annotations").mkdir()
    for name, boxes in BOXES.items():
        objects = "\n".join(
            f"<object><name>{kind}</name><difficult>0</difficult><bndbox><xmin>{x1 + 1}</xmin>"
            f"<ymin>{y1 + 1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
            for kind, x1, y1, x2, y2 in boxes
        )
        stem = name.removesuffix(".png")
        whole = (
            f"<annotation>\n<filename>{name}</filename>\n<size><width>{SIDES[0]}</width>"
            f"<height>{SIDES[1]}</height><depth>3</depth></size>\n{objects}\n</annotation>\n"
        )
        (root / "Annotations" / f"{stem}.xml").write_text(texts.get(stem, whole))


def load(name, root, **options):
    config = DataConfig(
        name=name, path=str(root), image_size=32, validation=0.25, test=0.25, options=options
    )
    return load_splits(config, 0, kind="boxes")


@pytest.mark.parametrize(
    "name, make", [("coco_json", coco), ("yolo_txt", yolo), ("pascal_voc", voc)]
)
def test_every_format_gives_the_same_boxes(tmp_path, name, make):
    make(tmp_path)
    splits = load(name, tmp_path)
    assert splits.classes == ("cat", "dog") and splits.targets == "boxes"
    subset = splits.train
    paths = [path.name for path in subset.images.paths]
    pixels, boxes = subset.images.at(torch.arange(4)), subset.labels
    assert pixels.shape == (4, 3, 32, 32) and boxes.shape == (4, 2, 6)
    a = boxes[paths.index("a.png")].numpy()
    np.testing.assert_allclose(a, [[0, 0.1, 0.1, 0.5, 0.6, 0], [1, 0.25, 0.25, 1, 1, 0]], atol=1e-6)
    assert (boxes[paths.index("b.png"), 1, 0] == -1).all()


def test_a_whole_image_is_seen_and_not_its_middle(tmp_path):
    yolo(tmp_path)
    white = np.zeros((SIDES[1], SIDES[0], 3), np.uint8)
    white[:, -4:] = 255
    Image.fromarray(white).save(tmp_path / "images" / "a.png")
    subset = load("yolo_txt", tmp_path).train
    at = [path.name for path in subset.images.paths].index("a.png")
    pixels = subset.images.at(torch.tensor([at]))
    assert pixels[0, 0, :, -1].min() > 200 and pixels[0, 0, :, 0].max() < 50


def told(name, root, **options):
    with pytest.raises(InputError) as error:
        load(name, root, **options)
    return str(error.value)


def test_every_mistake_of_coco_is_told_at_once(tmp_path):
    content = coco(tmp_path)
    rows = content["annotations"]
    rows[0]["bbox"] = [30, 2, 20, 5]
    rows[1]["category_id"] = 9
    rows[2]["bbox"] = [1, 1, 0, 4]
    rows[3]["image_id"] = 77
    content["images"][3]["width"] = 50
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    (tmp_path / "images" / "c.png").write_bytes(b"")
    text = told("coco_json", tmp_path)
    for part in (
        "annotations[0] (id 100): the box from (30, 2) to (50, 7) stands out of the "
        "image of 40 x 20",
        "annotations[1] (id 101): names the category 9, which is unknown (known: 3 cat, 7 dog)",
        "annotations[2] (id 102): the box from (1, 1) to (1, 5) is empty",
        "annotations[3] (id 103): names the image 77, which is not there",
        "images[3] (id 3): d.png is 40 x 20 pixels, and the annotations are for 50 x 20",
        "c.png: is empty or no image that can be read",
    ):
        assert part in text, text


def test_json_that_is_none_is_told_with_its_line(tmp_path):
    coco(tmp_path)
    (tmp_path / "annotations.json").write_text('{\n "images": [\n}')
    assert "annotations.json:3: is no JSON" in told("coco_json", tmp_path)
    (tmp_path / "annotations.json").write_text("[]")
    assert "no mapping with images" in told("coco_json", tmp_path)


def test_crowds_are_ignored_and_names_above_others_are_no_classes(tmp_path):
    content = coco(tmp_path)
    content["categories"].insert(0, {"id": 0, "name": "animals"})
    for entry in content["categories"][1:]:
        entry["supercategory"] = "animals"
    content["annotations"][0]["iscrowd"] = 1
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    splits = load("coco_json", tmp_path)
    assert splits.classes == ("cat", "dog")
    assert splits.train.labels[..., 5].sum() == 1


def test_every_mistake_of_yolo_is_told_with_its_line(tmp_path):
    yolo(
        tmp_path,
        a="0 0.5 0.5 0.2 0.2\n5 0.5 0.5 0.1 0.1\n1 0.95 0.5 0.4 0.1\n",
        b="0 0.1 x 0.1\n",
        c="0 0.1 0.1 0.2\n0 0.1 0.1 0.1 0.1 0.2 0.2\n",
    )
    text = told("yolo_txt", tmp_path)
    for part in (
        "a.txt:2: class 5 is unknown: there are 0 to 1",
        "a.txt:3: the box from (0.75, 0.45) to (1.15, 0.55) stands out of the image of 1 x 1",
        "b.txt:1: '0 0.1 x 0.1' holds words among the numbers",
        "c.txt:1: has 4 numbers and needs 5",
        "c.txt:2: has 7 numbers and needs 5: class x y width height; polygons are not read",
    ):
        assert part in text, text


def test_images_without_a_box_are_background_only_where_that_is_said(tmp_path):
    yolo(tmp_path, b="")
    text = told("yolo_txt", tmp_path)
    assert "b.png has no box; say data.options: {empty: true}" in text
    assert len(load("yolo_txt", tmp_path, empty=True).train.labels) == 4
    # What is wrong with others hides none of them.
    yolo(tmp_path / "wrong", a="0 0.5 half 0.2 0.2\n", b="")
    text = told("yolo_txt", tmp_path / "wrong")
    assert "b.png has no box; say" in text and "a.txt:1: " in text and "a.png has no" not in text
    yolo(tmp_path / "two", b="", d="")
    text = told("yolo_txt", tmp_path / "two")
    assert "b.png has no box, and 2 of 4 images have none; say" in text


def test_every_mistake_of_voc_is_told_with_its_line(tmp_path):
    voc(tmp_path, b="<annotation>\n<object>\n</annotation>\n", d="<annotation/>")
    text = (tmp_path / "Annotations" / "a.xml").read_text().replace("<xmax>40<", "<xmax>400<")
    (tmp_path / "Annotations" / "a.xml").write_text(text)
    (tmp_path / "JPEGImages" / "c.png").unlink()
    found = told("pascal_voc", tmp_path, names=["cat", "wolf"])
    for part in (
        "a.xml:5: class 'dog' is unknown (known: cat, wolf)",
        "a.xml:5: the box from (10, 5) to (400, 20) stands out of the image of 40 x 20",
        "b.xml:3: is no XML: mismatched tag",
        "c.xml: the image",
        "d.xml: has no size with a width and a height above 0",
    ):
        assert part in found, found


def test_xml_cannot_unpack_to_gigabytes(tmp_path):
    bomb = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "bbbb">]><annotation>&b;</annotation>'
    voc(tmp_path, a=bomb)
    assert "a.xml: cannot be read: it declares entities" in told("pascal_voc", tmp_path)


def test_lists_divide_a_voc_set(tmp_path):
    voc(tmp_path)
    lists = tmp_path / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a\nb\n")
    (lists / "val.txt").write_text("c\n")
    (lists / "test.txt").write_text("d\nmissing\n")
    assert "test.txt:2" in told("pascal_voc", tmp_path)
    (lists / "test.txt").write_text("d\n")
    splits = load("pascal_voc", tmp_path)
    assert [len(splits.train), len(splits.validation)] == [2, 1]


def test_masks_of_another_size_or_class_are_told_at_once(tmp_path):
    pictures(tmp_path / "images")
    masks = tmp_path / "masks"
    masks.mkdir()
    (tmp_path / "classes.txt").write_text("background\nroad\n")
    good = np.zeros((SIDES[1], SIDES[0]), np.uint8)
    good[:, :20] = 1
    good[0] = 255
    for name in ("a", "b", "c", "d"):
        Image.fromarray(good).save(masks / f"{name}.png")
    config = DataConfig(
        name="mask_folder", path=str(tmp_path), image_size=32, validation=0.25, test=0.25
    )
    splits = load_splits(config, 0, kind="masks")
    assert splits.train.labels.shape == (4, 32, 32) and splits.classes == ("background", "road")
    assert sorted(splits.train.labels.unique().tolist()) == [0, 1, 255]
    Image.fromarray(good[:10]).save(masks / "a.png")
    Image.fromarray(good + 5).save(masks / "b.png")
    Image.fromarray(np.zeros((*good.shape, 3), np.uint8)).save(masks / "c.png")
    (masks / "d.png").unlink()
    with pytest.raises(InputError) as error:
        load_splits(config, 0, kind="masks")
    for part in (
        "a.png: is 40 x 10 pixels, and its image is 40 x 20",
        "b.png: has 40 pixels of class 4, and the classes are 0 to 1; other values are named by",
        "c.png: has the channels RGB",
        "d.png: has no mask",
    ):
        assert part in str(error.value), str(error.value)


def white_on_black(root, **options):
    """Masks as drawing programs write them: 0 and 255, and the images of ``BOXES``."""
    pictures(root / "images")
    (root / "masks").mkdir(exist_ok=True)
    mask = np.zeros((SIDES[1], SIDES[0]), np.uint8)
    mask[:, :20] = 255
    for name in BOXES:
        Image.fromarray(mask).save(root / "masks" / name)
    return DataConfig(
        name="mask_folder", path=str(root), image_size=20, validation=0.25, test=0.25,
        options={"names": ["ground", "road"], **options},
    )  # fmt: skip


def test_white_objects_are_never_ignored_without_a_word(tmp_path):
    """255 counts for nothing by custom: a network would learn, and be judged by, ground alone."""
    with pytest.raises(InputError, match=r"one class and pixels of 255.*values: \[0, 255\]"):
        load_splits(white_on_black(tmp_path), 0, kind="masks")
    splits = load_splits(white_on_black(tmp_path, values=[0, 255]), 0, kind="masks")
    assert splits.train.labels.unique().tolist() == [0, 1]
    assert splits.train.labels[0].float().mean() == 0.5
    # Either may be the first class, and what is not named is told.
    turned = load_splits(white_on_black(tmp_path, values=[255, 0]), 0, kind="masks")
    assert torch.equal(turned.train.labels, 1 - splits.train.labels)
    with pytest.raises(InputError, match=r"400 pixels of class 0, and the classes are 7, 255\n"):
        load_splits(white_on_black(tmp_path, values=[7, 255]), 0, kind="masks")


@pytest.mark.parametrize(
    "options, words",
    [
        ({"values": [0]}, r"values: \[0\] are not one for each of 2 classes"),
        ({"values": [3, 3]}, "are not one for each of 2 classes"),
        ({"values": [0, 255], "ignore": 255}, "ignore: 255 is the value of class 1"),
        ({"ignore": 1}, "ignore: 1 is the value of class 1"),
    ],
)
def test_values_of_masks_that_contradict_are_refused(tmp_path, options, words):
    with pytest.raises(InputError, match=words):
        load_splits(white_on_black(tmp_path, **options), 0, kind="masks")


def test_masks_of_one_class_teach_nothing(tmp_path):
    config = white_on_black(tmp_path)
    for name in BOXES:
        Image.fromarray(np.ones((SIDES[1], SIDES[0]), np.uint8)).save(tmp_path / "masks" / name)
    with pytest.raises(InputError, match="the training masks hold road alone; two classes"):
        load_splits(config, 0, kind="masks")


@pytest.mark.parametrize("name", ["coco_json", "yolo_txt", "pascal_voc", "mask_folder"])
def test_a_folder_that_is_not_there_is_told(tmp_path, name):
    with pytest.raises((EnvironmentProblem, InputError), match="not a folder"):
        load(name, tmp_path / "nowhere")
