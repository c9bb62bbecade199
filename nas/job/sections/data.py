"""Section ``data``: where examples come from, how they are divided and varied."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    StrictBool,
    StrictStr,
)

from nas.job.findings import Finding, unknown_name
from nas.job.option_types import wrong_options
from nas.job.paths import RelativePath
from nas.job.registries import registry_for
from nas.job.values import (
    AboveZero,
    CountOrShare,
    NonNegative,
    Positive,
    Probability,
    Real,
    Section,
    Share,
    Whole,
)


class AugmentConfig(Section):
    """How training images are varied; calibration and evaluation images never are."""

    crop_padding: Whole | None = None
    """Pixels by which an image is shifted at most, its edge repeated; null takes the data set's own
    default: of pictures up to 64 pixels a fourteenth of the side, of larger ones none."""
    scale: Annotated[float, Field(strict=True, gt=0, le=1)] | None = None
    """Smallest share of the image's area that a random crop takes before it is resized
    (Inception's crop, with aspect ratios 3/4 to 4/3); 1 crops nothing, null takes the data set's
    own default: 0.6 of pictures of more than 64 pixels."""
    flip: StrictBool | None = None
    """Mirror half of the images left to right; null takes the data set's own default."""
    erase: Probability = 0.0
    """Probability that a random square of a quarter of the image's side is blanked; of a signal, a
    quarter of its length."""
    noise: NonNegative | None = None
    """Deviation of the noise added to inputs, in deviations of a channel; null takes the data
    set's own default, which is none for images."""
    gain: Probability | None = None
    """Largest relative change of an input's amplitude, such as 0.2; null as for noise."""


FROM_FILES = ("text", "text_pairs")
"""Sources whose path may be a file."""


class NormalisationConfig(Section):
    """How pixels become what the network is given: (pixels - mean) / deviation, by channel."""

    mean: Annotated[list[Real], Field(min_length=1)]
    """Of each channel, in the order of the network's channels; one entry is for all of them."""
    deviation: Annotated[list[AboveZero], Field(min_length=1)]
    """Of each channel, likewise."""
    range: Literal["unit", "bytes"] = "unit"
    """What mean and deviation are counted in: unit scales 8-bit pixels to 0..1 first (so -1..1 is a
    mean and a deviation of 0.5), bytes takes them as 0..255."""
    order: Literal["rgb", "bgr"] = "rgb"
    """Of the channels that the network takes."""


IMAGENET = NormalisationConfig(mean=[0.485, 0.456, 0.406], deviation=[0.229, 0.224, 0.225])
"""What the networks of torchvision, and most of timm, were trained with."""


class DataConfig(Section):
    """Where the images or signals come from and how they are divided."""

    name: StrictStr
    """digits, fashion_mnist, cifar10, cifar100, image_folder, image_csv, coco_json, yolo_txt,
    pascal_voc, mask_folder, scenes, signal_ts, signal_csv, signal_numpy, cylinder_bell_funnel,
    rotating_machine, audio_folder, text, text_pairs, cmudict, or a source of a plug-in."""
    path: RelativePath | None = None
    """Folder of the data, or a file of text; relative to the job file. Not needed for digits and
    cmudict."""
    download: StrictBool = False
    """Let torchvision fetch the data set into path when it is not there."""
    image_size: Positive | None = None
    """Side in pixels after resizing; null keeps the data set's own (image_folder: 224)."""
    channels: Literal[1, 3] | None = None
    """Colour channels; null keeps the data set's own (image_folder: 3)."""
    train: Positive | None = None
    """Use at most so many training images, drawn by seed; null uses all."""
    validation: CountOrShare = 0.1
    """Images taken from the training set to guide the search: a share of it (below 1), or a
    number (2 and more)."""
    calibration: Positive = 1000
    """Training images (without augmentation) that recalibrate batch norm statistics."""
    test: Share = 0.2
    """Share of test images, for sources that have no test set of their own."""
    stratify: StrictBool = True
    """Divide recordings, speakers and other groups that stay together by class, too; false draws
    them whatever they are of, as runs of earlier versions did."""
    balance: Probability = 0.0
    """How far training shows rare classes more often than they are there: 0 as often, 1 all classes
    alike, 0.5 by the square root of their shares. An image of several classes counts as the rarest.
    Validation and test stay as they are."""
    normalisation: Literal["imagenet"] | NormalisationConfig | None = None
    """What a network that comes trained was trained with: imagenet, or mean and deviation; null
    takes those of the training data."""
    normal: StrictStr | Annotated[list[StrictStr], Field(min_length=1)] | None = None
    """Class, or classes, that anomaly_detection learns from: examples of all others are anomalies.
    null takes the class called normal."""
    augment: AugmentConfig = AugmentConfig()
    options: dict[StrictStr, Any] = {}
    """Settings of the source itself, such as {targets: [height, width]} of image_csv."""


def check_normal(name: str, task: Any, data: DataConfig) -> Iterator[Finding]:
    """Tell normal classes that the task ``name`` has no use for."""
    if data.normal is not None and not task.from_normal:
        yield (
            ("data", "normal"),
            f"data.normal: {name} learns from all classes; leave it out, or use task: "
            "anomaly_detection",
        )


def check_balance(name: str, task: Any, data: DataConfig) -> Iterator[Finding]:
    """Tell a balance of classes where the task ``name`` has none."""
    from nas.tasks.data import CLASSLESS, kind_for

    if data.balance and (task.from_normal or kind_for(name) in CLASSLESS):
        yield (
            ("data", "balance"),
            f"data.balance: {name} has no classes that could be rare; leave it out",
        )


SET_OPTIONS = ("config", "kind", "seed", "open_classes")
"""Keywords of data sources that are no options of a job: the framework sets them."""


def check_data(data: DataConfig, folder: Path) -> Iterator[Finding]:
    """Yield an unknown source, options that it does not take, and a path that is not there."""
    unknown = list(unknown_name("data.name", ("data", "name"), data.name))
    yield from unknown
    if data.options and not unknown:
        source = registry_for("data.name").get(data.name)
        what = f"data source {data.name!r}"
        yield from wrong_options(("data", "options"), data.options, source, what, own=SET_OPTIONS)
    if data.path is not None and not data.download:
        place = folder / data.path
        if not place.exists():
            yield ("data", "path"), f"data.path: {place} does not exist"
        elif not place.is_dir() and data.name not in FROM_FILES:
            yield ("data", "path"), f"data.path: {place} is not a folder"
    if data.path is None and data.download:
        yield ("data", "download"), "data.path: say in which folder the download is to be kept"
    elif data.path is None and data.name in ("cifar10", "cifar100", "image_folder", *FROM_FILES):
        yield ("data", "name"), f"data.path: {data.name} needs the folder that holds it"
