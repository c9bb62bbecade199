"""What a folder of pictures holds, seen from its file names and a few headers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

LOOKED_AT = 200
"""Pictures whose headers are read, spread evenly over the files of all classes."""

_GREY = ("1", "L", "LA", "F", "I")
"""Pillow's modes of one channel."""


@dataclass(frozen=True)
class Survey:
    """A folder of pictures, roughly.

    Attributes:
        pictures: for training, those that validation will take included.
        classes: how many.
        side: median of the shorter sides, pixels.
        grey: every picture looked at has one channel.
    """

    pictures: int
    classes: int
    side: int
    grey: bool


def survey_pictures(folder: Path) -> Survey:
    """Return what ``folder``, laid out as data source ``image_folder`` reads it, holds.

    Raises:
        InputError: it is not laid out so, or a picture that is looked at cannot be read.
        EnvironmentProblem: there is no such folder.
    """
    import statistics

    from nas.data.pictures import picture_header
    from nas.data.sources import ImageFiles, image_folder
    from nas.job.sections.data import DataConfig

    files = image_folder(DataConfig(name="image_folder", path=str(folder))).train
    assert isinstance(files, ImageFiles)
    looked_at = files.paths[:: max(1, len(files.paths) // LOOKED_AT)]
    headers = [picture_header(path) for path in looked_at]
    modes = {mode for _, _, mode in headers}
    return Survey(
        pictures=len(files.paths),
        classes=len(set(files.labels.tolist())),
        side=int(statistics.median(min(width, height) for width, height, _ in headers)),
        grey=all(mode in _GREY or mode.startswith("I;16") for mode in modes),
    )
