"""What the sources of boxes and of masks share: names of parts, lists of classes, the data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nas.data.sources import ImageFiles, RawData

if TYPE_CHECKING:
    from nas.job.sections.data import DataConfig

PARTS = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
"""Part of a data set -> what its folder may be called."""

SIDE = 192
"""Of the images in pixels, where the job does not say it."""


def listed_classes(root: Path) -> list[str]:
    """Return the names of classes in ``classes.txt``, a line each; none without the file."""
    listed = root / "classes.txt"
    if not listed.is_file():
        return []
    return [line.strip() for line in listed.read_text("utf-8").splitlines() if line.strip()]


def whole_images(
    parts: Mapping[str, ImageFiles],
    classes: Sequence[str],
    config: DataConfig,
    *,
    targets: str,
    origin: str,
) -> RawData:
    """Return images that are seen whole, and their boxes or masks, as a data set.

    Args:
        parts: images of ``train``, and perhaps ``validation`` and ``test``.
        classes: their names.
        config: of the job.
        targets: ``boxes`` or ``masks``.
        origin: of the data.
    """
    return RawData(
        train=parts["train"],
        validation=parts.get("validation"),
        test=parts.get("test"),
        classes=tuple(classes),
        channels=config.channels or 3,
        image_size=config.image_size or SIDE,
        origin=origin,
        scale=0.5,
        flip=True,
        targets=targets,
        input_text=(
            "Scale the whole image to the input's height and width, and 8-bit pixels to 0..1 "
            "(divide by 255)"
        ),
    )
