"""Scenes composed of small pictures: boxes, masks, labels and counts without a download."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from nas.data.annotations.arrays import stack_boxes
from nas.data.sources import DATA_SOURCES, PLACED, ImageArrays, RawData
from search_spaces.errors import InputError
from search_spaces.seeds import derive_rng

if TYPE_CHECKING:
    from nas.job.sections.data import DataConfig

OBJECTS = ("digits", "fashion_mnist")
VISIBLE = 40
"""Pixels of an object above this value belong to it."""

_MOST_COVERED = 0.4
_TRIES = 12


@DATA_SOURCES.register("scenes")
def scenes(
    config: DataConfig,
    *,
    objects: str = "digits",
    side: int = 96,
    images: int = 1200,
    most: int = 5,
    clutter: float = 0.5,
    kind: str | None = None,
) -> RawData:
    """Return made scenes: objects of random size in front of clutter, partly one over another.

    Sides of objects are between 1/7 and 1/2 of the scene's, uniform in their logarithm; each may
    be covered to 40 % by later ones. The background has waves, lines and patches torn out of
    other objects. Training, validation and test scenes are made of different objects.

    Args:
        config: of the job; ``path`` is Fashion-MNIST's, where it is used.
        objects: ``digits`` of scikit-learn, 8 x 8 pixels each, or ``fashion_mnist``.
        side: of a scene in pixels, at least 32.
        images: training scenes, at least 20; there are a quarter as many for validation and for
            test.
        most: objects in a scene, at least one; 1 to 20.
        clutter: 0 for a plain background to 1.
        kind: ``boxes``, ``masks``, ``labels`` (which classes are in a scene) or ``values`` (how
            many objects); by default the task's. Class 0 of masks is background.

    Raises:
        InputError: a value that is not possible; classes, of which a scene has none of its own.
        EnvironmentProblem: Fashion-MNIST is not on this machine.
    """
    for name, value, least, largest in (
        ("side", side, 32, 1024), ("images", images, 20, 10**6), ("most", most, 1, 20),
    ):  # fmt: skip
        if type(value) is not int or not least <= value <= largest:
            raise InputError(
                f"data.options.{name}: {value!r} is no whole number from {least} to {largest}"
            )
    if type(clutter) not in (int, float) or not 0 <= clutter <= 1:
        raise InputError(f"data.options.clutter: {clutter!r} is no number from 0 to 1")
    if objects not in OBJECTS:
        raise InputError(f"data.options.objects: {objects!r} is none of {', '.join(OBJECTS)}")
    if config.image_size not in (None, side):
        raise InputError(
            f"data.image_size: scenes are made {side} pixels large; say data.options: "
            f"{{side: {config.image_size}}} instead"
        )
    kind = kind or "boxes"
    if kind not in ("boxes", "masks", "labels", "values"):
        raise InputError(
            f"scenes have boxes, masks, labels and values, no {kind}; use task: object_detection, "
            "semantic_segmentation, multi_label_classification or image_regression"
        )
    pools, classes = _pools(objects, config)
    rest = max(10, images // 4)
    drawn = {}
    for part, count in (("train", images), ("validation", rest), ("test", rest)):
        rng = derive_rng(0, "scenes", objects, part)
        drawn[part] = _told(
            kind, len(classes), *_draw(pools[part], count, side, most, clutter, rng)
        )
    return RawData(
        train=drawn["train"],
        validation=drawn["validation"],
        test=drawn["test"],
        classes={"masks": ("background", *classes), "values": ("objects",)}.get(kind, classes),
        channels=1,
        image_size=side,
        origin=f"scenes of {objects}, made",
        # A shift would take what is named or counted out of the scene.
        crop_padding=max(1, side // 16) if kind in PLACED else 0,
        flip=objects != "digits",
        targets=kind,
        input_text="Scale the whole grey image to the input's height and width, and its pixels "
        "to 0..1 (divide by 255)",
    )


@dataclass(frozen=True)
class _Pool:
    """Small pictures (n, h, w) uint8 with their classes (n,)."""

    images: np.ndarray
    labels: np.ndarray


def _pools(objects: str, config: DataConfig) -> tuple[dict[str, _Pool], tuple[str, ...]]:
    source = DATA_SOURCES.get(objects)(config)
    assert isinstance(source.train, ImageArrays)
    images, labels = source.train.images[:, 0], source.train.labels
    order = derive_rng(0, "scenes", objects, "objects").permutation(len(images))
    if isinstance(source.test, ImageArrays):
        test = _Pool(source.test.images[:, 0], source.test.labels)
        cuts = [0, 9 * len(order) // 10, len(order)]
    else:
        cuts = [0, 6 * len(order) // 10, 8 * len(order) // 10]
        last = order[cuts[2] :]
        test = _Pool(images[last], labels[last])
    train, validation = (_Pool(images[order[a:b]], labels[order[a:b]]) for a, b in pairwise(cuts))
    return {"train": train, "validation": validation, "test": test}, source.classes


def _draw(
    pool: _Pool,
    count: int,
    side: int,
    most: int,
    clutter: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Return scenes (count, 1, side, side), masks (count, side, side) and the boxes of each."""
    images = np.empty((count, 1, side, side), np.uint8)
    masks = np.zeros((count, side, side), np.uint8)
    boxes = []
    for i in range(count):
        scene = _background(pool, side, clutter, rng)
        boxes.append(_place(pool, scene, masks[i], int(rng.integers(1, most + 1)), rng))
        noisy = scene + rng.normal(0, 6, scene.shape)
        images[i, 0] = np.clip(noisy, 0, 255).astype(np.uint8)
    return images, masks, boxes


def _told(
    kind: str, classes: int, images: np.ndarray, masks: np.ndarray, boxes: list[np.ndarray]
) -> ImageArrays:
    """Return scenes with the targets of ``kind``."""
    if kind == "masks":
        return ImageArrays(images, masks)
    if kind == "boxes":
        return ImageArrays(images, stack_boxes(boxes))
    counts = np.array([[(b[:, 0] == c).sum() for c in range(classes)] for b in boxes], np.float32)
    if kind == "labels":
        return ImageArrays(images, (counts > 0).astype(np.float32))
    return ImageArrays(images, counts.sum(1, keepdims=True))


def _background(pool: _Pool, side: int, clutter: float, rng: np.random.Generator) -> np.ndarray:
    """Return waves, lines and torn patches, (side, side) float64."""
    y, x = np.mgrid[:side, :side] / side
    scene = np.full((side, side), rng.uniform(10, 50 + 40 * clutter))
    if not clutter:
        return scene
    for _ in range(3):
        fx, fy = rng.uniform(-4, 4, 2)
        wave = np.sin(2 * np.pi * (fx * x + fy * y + rng.random()))
        scene += rng.uniform(0, 14) * clutter * wave
    for _ in range(int(rng.integers(0, 1 + round(6 * clutter)))):
        ax, ay, c = np.cos(a := rng.uniform(0, np.pi)), np.sin(a), rng.uniform(-0.5, 1.5)
        near = np.abs(ax * x + ay * y - c) < rng.uniform(0.004, 0.015)
        scene[near] = rng.uniform(30, 200)
    for _ in range(int(rng.integers(0, 1 + round(8 * clutter)))):
        # Pieces of objects that are none of the classes as a whole.
        piece = pool.images[rng.integers(len(pool.images))]
        h, w = piece.shape
        part = piece[: h // 2, : w // 2] if rng.random() < 0.5 else piece[h // 2 :, w // 2 :]
        patch = _scaled(part, int(side * rng.uniform(0.05, 0.14)) + 2)
        top, left = (
            rng.integers(0, side - patch.shape[0] + 1),
            rng.integers(0, side - patch.shape[1] + 1),
        )
        view = scene[top : top + patch.shape[0], left : left + patch.shape[1]]
        np.copyto(view, np.where(patch > VISIBLE, patch * rng.uniform(0.4, 0.9), view))
    return scene


def _place(
    pool: _Pool, scene: np.ndarray, mask: np.ndarray, count: int, rng: np.random.Generator
) -> np.ndarray:
    """Put objects into ``scene`` and ``mask`` in place; returns their boxes, (count, 6)."""
    side = len(scene)
    owner = np.full(scene.shape, -1)
    areas: list[int] = []
    boxes: list[tuple[float, ...]] = []
    for _ in range(count):
        index = int(rng.integers(len(pool.images)))
        length = int(np.exp(rng.uniform(np.log(side / 7), np.log(side / 2))))
        patch = _scaled(pool.images[index], max(8, length))
        visible = patch > VISIBLE
        rows, columns = np.flatnonzero(visible.any(1)), np.flatnonzero(visible.any(0))
        if not len(rows):
            continue
        patch = patch[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        visible = patch > VISIBLE
        height, width = patch.shape
        seen = np.bincount(owner[owner >= 0], minlength=len(areas))
        for _ in range(_TRIES):
            top = int(rng.integers(0, side - height + 1))
            left = int(rng.integers(0, side - width + 1))
            under = owner[top : top + height, left : left + width][visible]
            left_over = seen - np.bincount(under[under >= 0], minlength=len(areas))
            if (left_over >= (1 - _MOST_COVERED) * np.array(areas)).all():
                break
        else:
            continue
        window = np.s_[top : top + height, left : left + width]
        scene[window] = np.where(visible, patch * rng.uniform(0.7, 1.0), scene[window])
        mask[window] = np.where(visible, pool.labels[index] + 1, mask[window])
        owner[window] = np.where(visible, len(areas), owner[window])
        areas.append(int(visible.sum()))
        corners = (left, top, left + width, top + height)
        boxes.append((float(pool.labels[index]), *(c / side for c in corners), 0.0))
    return np.array(boxes, np.float32).reshape(-1, 6)


def _scaled(picture: np.ndarray, side: int) -> np.ndarray:
    """Return a picture whose longer side is ``side``, (h, w) float64."""
    from PIL import Image

    height, width = picture.shape
    share = side / max(height, width)
    size = (max(1, round(width * share)), max(1, round(height * share)))
    image = Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(image, dtype=np.float64)
