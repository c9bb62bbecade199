"""Images with a mask file each, for segmentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nas.data.annotations.arrays import IGNORE
from nas.data.annotations.boxes import picture_size
from nas.data.annotations.parts import PARTS, SIDE, listed_classes, whole_images
from nas.data.folders import folder_of
from nas.data.problems import Problems
from nas.data.sources import DATA_SOURCES, IMAGE_SUFFIXES, ImageFiles, RawData
from search_spaces.errors import EnvironmentProblem, InputError

if TYPE_CHECKING:
    from nas.job.sections.data import DataConfig


@DATA_SOURCES.register("mask_folder")
def mask_folder(
    config: DataConfig,
    *,
    images: str = "images",
    masks: str = "masks",
    names: Sequence[str] | None = None,
    values: Sequence[int] | None = None,
    ignore: int | None = None,
) -> RawData:
    """Return images and, under the same name, masks whose pixels are numbers of classes.

    ``images/train`` and ``masks/train`` (and ``val``, ``test``), or ``train/images`` and
    ``train/masks``, or all in ``images`` and ``masks``. Masks are PNG files of one channel: grey
    values or numbers of a palette. ``classes.txt`` names the classes, a line each, from 0.
    Masks are held in memory at the size of the images, a byte a pixel; images are not.

    Args:
        config: ``path`` is the folder of the data.
        images, masks: names of the folders.
        names: of the classes, in order.
        values: of the pixels of each class, in the same order, where they are not 0, 1, 2, ...;
            such as [0, 255] of black masks with white objects.
        ignore: value of pixels that count for nothing; by default 255, where no class has it.

    Raises:
        InputError: mistakes in the files, all at once: an image without a mask, a mask of another
            size than its image, of three channels, or with a value that no class has; training
            masks of one class alone.
        EnvironmentProblem: the folders are not there.
    """
    root = folder_of(config)
    classes = _classes(root, names)
    numbers = _numbers(values, len(classes), ignore)
    problems = Problems(root)
    size = config.image_size or SIDE
    pairs = {
        part: _pairs(*folders, problems)
        for part in PARTS
        if (folders := _folders(root, part, images, masks)) is not None
    }
    if not pairs.get("train"):
        raise EnvironmentProblem(
            f"{root}: there are no images in {images}/train, train/{images} or {images}"
        )
    found = {}
    with ThreadPoolExecutor(4) as pool:
        for part, files in pairs.items():
            if not files:
                continue
            read = list(pool.map(lambda p: _mask(p[0], p[1], size, numbers), files))
            for (_, mask), (_, trouble) in zip(files, read, strict=True):
                if trouble:
                    problems.add(mask, trouble)
            found[part] = ImageFiles(
                tuple(image for image, _ in files),
                np.stack([mask for mask, _ in read]),
                whole=True,
            )
    problems.raise_any("Mend the masks; nothing was trained.")
    _refuse_one_class(root, found["train"].labels, classes, numbers)
    return whole_images(found, classes, config, targets="masks", origin=str(root))


def _classes(root: Path, names: Sequence[str] | None) -> tuple[str, ...]:
    if names is None:
        names = listed_classes(root)
    if not names or len(names) < 2:
        raise InputError(
            f"{root}: classes.txt must name the classes, a line each, at least two (background "
            "is one); or say data.options: {names: [background, ...]}"
        )
    return tuple(str(name) for name in names)


def _numbers(values: Sequence[int] | None, classes: int, ignore: int | None) -> dict[int, int]:
    """Return the number of the class of each value of a pixel.

    Raises:
        InputError: values that are not one for each class, or one of them that is ignored.
    """
    given = list(range(classes)) if values is None else list(values)
    if len(given) != classes or len(set(given)) != classes:
        raise InputError(f"data.options.values: {given} are not one for each of {classes} classes")
    numbers = {value: number for number, value in enumerate(given)}
    if ignore in numbers:
        raise InputError(f"data.options.ignore: {ignore} is the value of class {numbers[ignore]}")
    if ignore is not None or IGNORE not in numbers:
        numbers[IGNORE if ignore is None else ignore] = IGNORE
    return numbers


def _refuse_one_class(
    root: Path, masks: np.ndarray, classes: Sequence[str], numbers: Mapping[int, int]
) -> None:
    """Refuse training masks in which there is nothing to tell apart."""
    seen = set(np.unique(masks).tolist())
    if len(seen - {IGNORE}) > 1:
        return
    ignored = [value for value, number in numbers.items() if number == IGNORE]
    where = f"{root}: the training masks hold "
    if IGNORE in seen and ignored:
        raise InputError(
            f"{where}one class and pixels of {ignored[0]}, which count for nothing; where "
            f"{ignored[0]} is a class, say the values of all classes in the order of their names, "
            f"such as data.options.values: [0, {ignored[0]}]"
        )
    only = "".join(classes[number] for number in seen - {IGNORE}) or "no class"
    raise InputError(f"{where}{only} alone; two classes at least are needed")


def _folders(root: Path, part: str, images: str, masks: str) -> tuple[Path, Path] | None:
    for word in PARTS[part]:
        for one, other in (
            (root / images / word, root / masks / word),
            (root / word / images, root / word / masks),
        ):
            if one.is_dir():
                return one, other
    if part == "train" and (root / images).is_dir():
        return root / images, root / masks
    return None


def _pairs(images: Path, masks: Path, problems: Problems) -> list[tuple[Path, Path]]:
    found = []
    by_stem = {path.stem: path for path in sorted(masks.glob("*")) if path.is_file()}
    for path in sorted(images.glob("*")):
        if path.suffix.lower() not in IMAGE_SUFFIXES or path.name.startswith("."):
            continue
        mask = by_stem.get(path.stem)
        if mask is None:
            problems.add(path, f"has no mask {masks / path.stem}.png")
        else:
            found.append((path, mask))
    return found


def _mask(
    image: Path, path: Path, size: int, numbers: Mapping[int, int]
) -> tuple[np.ndarray, str | None]:
    """Return a mask (size, size) uint8 and what is wrong with it, or None."""
    from PIL import Image

    nothing = np.full((size, size), IGNORE, np.uint8)
    try:
        with Image.open(path) as opened:
            if opened.mode not in ("L", "P", "1", "I;16", "I"):
                return nothing, (
                    f"has the channels {opened.mode}; a mask has one, of numbers of classes "
                    "(save colours as a palette)"
                )
            values = np.asarray(opened).astype(np.int64)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return nothing, f"cannot be read as an image ({error})"
    expected = picture_size(image)
    if expected is None:
        return nothing, f"{image} cannot be read as an image"
    if values.shape[::-1] != expected:
        return nothing, (
            f"is {values.shape[1]} x {values.shape[0]} pixels, and its image is "
            f"{expected[0]} x {expected[1]}"
        )
    found, places = np.unique(values, return_inverse=True)
    wrong = [value for value in found.tolist() if value not in numbers]
    if wrong:
        told = [value for value, number in numbers.items() if number != IGNORE]
        ordered = told == list(range(len(told)))
        listed = f"0 to {len(told) - 1}" if ordered else ", ".join(map(str, told))
        count = int(np.count_nonzero(values == wrong[0]))
        return nothing, (
            f"has {count} pixels of class {wrong[0]}, and the classes are {listed}"
            + ("; other values are named by data.options.values" if ordered else "")
        )
    classes = np.array([numbers[value] for value in found.tolist()], np.uint8)
    small = Image.fromarray(classes[places].reshape(values.shape)).resize(
        (size, size), Image.Resampling.NEAREST
    )
    return np.asarray(small), None
