"""What the sources of boxes share: the checks of a box, and images with boxes as one data set."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nas.data.annotations.arrays import stack_boxes
from nas.data.annotations.parts import whole_images
from nas.data.problems import Problems
from nas.data.sources import ImageFiles, RawData
from search_spaces.errors import InputError

if TYPE_CHECKING:
    from nas.job.sections.data import DataConfig

FIX = "Mend the annotations; nothing was trained."


@dataclass
class BoxedFile:
    """An image file and its boxes.

    Attributes:
        path: of the image.
        place: file, and record where there is one, that describes it; for mistakes.
        size: width and height in pixels as the annotations say, or None where they do not.
        boxes: (class, left, top, right, bottom, ignored), the corners as shares of the sides.
        line: of the file that describes it.
        described: objects that the annotations tell of, wrong ones included.
    """

    path: Path
    place: str
    size: tuple[int, int] | None = None
    boxes: list[tuple[float, ...]] = field(default_factory=list)
    line: int | None = None
    described: int = 0

    def add(
        self,
        problems: Problems,
        kind: int | None,
        corners: Sequence[float],
        *,
        place: str,
        sides: tuple[float, float],
        line: int | None = None,
        ignored: bool = False,
        tolerance: float = 1.0,
    ) -> None:
        """Take a box, or note what is wrong with it.

        Args:
            problems: where mistakes go.
            kind: number of its class; None where a mistake of it is noted already.
            corners: left, top, right, bottom.
            place: what it is called in a mistake.
            sides: width and height of the image, in the unit of the corners.
            line: of the file at ``place``.
            ignored: neither to be found nor wrong to be found.
            tolerance: it may stand out of the image by so much.
        """
        left, top, right, bottom = corners
        width, height = sides
        told = ", ".join(f"{value:g}" for value in corners)
        if not all(math.isfinite(value) for value in corners):
            problems.add(place, f"the box ({told}) holds values that are no numbers", line=line)
        elif right <= left or bottom <= top:
            problems.add(
                place, f"the box from ({left:g}, {top:g}) to ({right:g}, {bottom:g}) is empty",
                line=line,
            )  # fmt: skip
        elif (
            min(left, top) < -tolerance or right > width + tolerance or bottom > height + tolerance
        ):
            problems.add(
                place,
                f"the box from ({left:g}, {top:g}) to ({right:g}, {bottom:g}) stands out of the "
                f"image of {width:g} x {height:g}",
                line=line,
            )
        elif kind is not None:
            shares = (left / width, top / height, right / width, bottom / height)
            x1, y1, x2, y2 = (min(max(value, 0.0), 1.0) for value in shares)
            self.boxes.append((kind, x1, y1, x2, y2, float(ignored)))


def boxed_data(
    parts: Mapping[str, Sequence[BoxedFile]],
    classes: Sequence[str],
    config: DataConfig,
    problems: Problems,
    *,
    origin: str,
    empty: bool,
) -> RawData:
    """Return images with boxes as a data set, once every mistake is told.

    Args:
        parts: images of ``train``, and perhaps ``validation`` and ``test``.
        classes: their names.
        config: of the job.
        problems: those of the annotations; those of the images come in addition.
        origin: of the data.
        empty: whether images without a box are background; otherwise they are mistakes.

    Raises:
        InputError: there is at least one mistake.
    """
    for files in parts.values():
        _check_files(files, problems)
    if not empty:
        _tell_empty([file for files in parts.values() for file in files], problems)
    problems.raise_any(FIX)
    if not parts.get("train"):
        raise InputError(f"{origin} holds no training images")
    found = {
        part: ImageFiles(
            tuple(file.path for file in files),
            stack_boxes([np.array(file.boxes, np.float32).reshape(-1, 6) for file in files]),
            whole=True,
        )
        for part, files in parts.items()
        if files
    }
    return whole_images(found, classes, config, targets="boxes", origin=origin)


def _tell_empty(files: Sequence[BoxedFile], problems: Problems) -> None:
    """Note how many images have no box, and the first of them."""
    # An image whose boxes are wrong has none that is kept, and is not empty.
    bare = [file for file in files if not file.described and not file.boxes]
    if not bare:
        return
    first = bare[0].path.name
    what = f"{first} has no box" if len(bare) == 1 else (
        f"{first} has no box, and {len(bare)} of {len(files)} images have none"
    )  # fmt: skip
    shows = "it shows" if len(bare) == 1 else "they show"
    problems.add(
        bare[0].place,
        f"{what}; say data.options: {{empty: true}} if {shows} background alone",
        line=bare[0].line,
    )


def _check_files(files: Sequence[BoxedFile], problems: Problems) -> None:
    seen: dict[Path, str] = {}
    for file in files:
        if not file.path.is_file():
            problems.add(file.place, f"the image {file.path} is not there", line=file.line)
            continue
        if file.path in seen:
            problems.add(
                file.place, f"{file.path.name} is described twice, first by {seen[file.path]}",
                line=file.line,
            )  # fmt: skip
        seen[file.path] = file.place
        size = picture_size(file.path)
        if size is None:
            problems.add(file.path, "is empty or no image that can be read")
        elif file.size is not None and size != file.size:
            problems.add(
                file.place,
                f"{file.path.name} is {size[0]} x {size[1]} pixels, and the annotations are for "
                f"{file.size[0]} x {file.size[1]}",
                line=file.line,
            )


def picture_size(path: Path) -> tuple[int, int] | None:
    """Return width and height of a picture as it is to be seen; None for a damaged one."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
            return (image.height, image.width) if turned else (image.width, image.height)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None


__all__ = ["FIX", "BoxedFile", "boxed_data", "picture_size"]
