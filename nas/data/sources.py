"""Where images come from, without any framework: arrays in memory or files in folders.

A source is registered under the name that a job's ``data.name`` holds; other packages
add theirs through the entry point ``nas.data_sources``.
"""

from __future__ import annotations

import gzip
import inspect
import os
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.data.folders import NO_CLASSES, class_folders, folder_of, part_folders
from nas.data.pictures import suited_crops
from search_spaces.errors import EnvironmentProblem, InputError, MissingExtraError
from search_spaces.registry import Registry

if TYPE_CHECKING:
    from nas.data.text.pair_tokens import PairTokens
    from nas.data.text.tokens import Tokens
    from nas.job.sections.data import DataConfig

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts its files."""

PLACED = ("boxes", "masks")
"""Kinds of targets that have places in their images."""

OF_TEXT = ("tokens", "pairs")
"""Kinds of targets that are numbers of a text's tokens."""

VIDEO_SUFFIXES = {".mp4", ".avi", ".mov", ".mkv", ".webm", ".mpg", ".mpeg", ".m4v"}
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff"}


@dataclass(frozen=True)
class ImageArrays:
    """Examples in memory.

    Attributes:
        images: (n, channels, height, width), bytes (0 to 255) or floats, which are kept as they
            are but for the normalisation; a signal has height 1.
        labels: classes (n,) int64, labels and values (n, outputs) float32, boxes (n, most, 6)
            float32 or masks (n, height, width) uint8 of the images' size, see
            :mod:`nas.data.annotations.arrays`; of texts the tokens that follow (n, length) int64,
            of pairs the target, 0 after its last symbol, (n, length) int64.
    """

    images: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class ImageFiles:
    """Labelled images on disk, decoded when they are needed.

    Attributes:
        paths: of each image.
        labels: see :class:`ImageArrays`.
        whole: each image is scaled as a whole, because its targets have places in it or may be
            about any part of it; otherwise the middle is cut out.
    """

    paths: tuple[Path, ...]
    labels: np.ndarray
    whole: bool = False


@dataclass(frozen=True)
class RawData:
    """What a source delivers, before it is divided.

    Attributes:
        train: the images to learn from.
        test: the official test set, or None where the source has none.
        validation: the official validation set, or None.
        classes: name of each class, label or value, in the order of the targets.
        channels: colour channels of the images (files: those they are decoded to).
        image_size: side of the square images in pixels (files: the side they are resized to), or
            (height, width); a signal has height 1.
        origin: where the data was read from, for the manifest.
        crop_padding, scale, flip, noise, gain: the augmentation that suits the data.
        targets: ``classes`` (one an example), ``labels`` (0 or 1 each), ``values``, ``boxes``,
            ``masks``, ``tokens`` (that follow, of a text) or ``pairs`` (of sequences).
        groups: by example of ``train``, a number that examples share which must not be divided
            among the sets (one speaker, patient or recording), (n,) int64; None for none.
        input_text: how a user makes an input of the network, for the model card; empty for images.
        sound: how a recording becomes an input, see :meth:`nas.data.audio.LogMel.to_json`; None for
            other data.
        tokens: of a text; None for other data.
        pairs: vocabularies of pairs of sequences; None for other data.
    """

    train: ImageArrays | ImageFiles
    test: ImageArrays | ImageFiles | None
    classes: tuple[str, ...]
    channels: int
    image_size: int | tuple[int, int]
    origin: str
    validation: ImageArrays | ImageFiles | None = None
    crop_padding: int = 0
    scale: float = 1.0
    flip: bool = False
    noise: float = 0.0
    gain: float = 0.0
    targets: str = "classes"
    groups: np.ndarray | None = None
    input_text: str = ""
    sound: Mapping[str, float] | None = None
    tokens: Tokens | None = None
    pairs: PairTokens | None = None

    @property
    def placed(self) -> str | None:
        """``boxes`` or ``masks``, whose targets move with their images; None for others."""
        return self.targets if self.targets in PLACED else None


DATA_SOURCES: Registry[Callable[..., RawData]] = Registry(
    "data source",
    group="nas.data_sources",
    modules=(
        "nas.data.sources",
        "nas.data.audio",
        "nas.data.annotations.coco",
        "nas.data.labelled",
        "nas.data.signals.made",
        "nas.data.annotations.masks",
        "nas.data.scenes",
        "nas.data.signals.rows",
        "nas.data.signals.source",
        "nas.data.text.pairs",
        "nas.data.text.pronunciations",
        "nas.data.text.source",
        "nas.data.annotations.voc",
        "nas.data.annotations.yolo",
    ),
)
"""Functions that read one data set: ``source(config, **options) -> RawData``.

``config`` is the job's section and ``options`` are its ``options``; the keywords a source names are
those it takes. ``kind``, of targets, and the job's ``seed`` are given to those that name them. A
source raises :class:`InputError` where the files at the path are not what it expects, and
:class:`EnvironmentProblem`, saying how to get it, where the data is not there.
"""


def taken(source: Callable[..., RawData], **given: Any) -> dict[str, Any]:
    """Return what a data source takes of what the framework may tell it, but for what is None."""
    takes = inspect.signature(source).parameters
    return {name: value for name, value in given.items() if value is not None and name in takes}


@DATA_SOURCES.register("digits")
def digits(config: DataConfig) -> RawData:
    """Return scikit-learn's 1,797 handwritten digits of 8x8 pixels; they need no download."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "search") from error
    bunch = load_digits()
    # Sixteen grey levels, stretched to the range of a byte.
    images = np.round(bunch.images * (255.0 / 16.0)).astype(np.uint8)[:, None]
    return RawData(
        train=ImageArrays(images, bunch.target.astype(np.int64)),
        test=None,
        classes=tuple(str(name) for name in bunch.target_names),
        channels=1,
        image_size=8,
        origin="scikit-learn load_digits",
        crop_padding=1,
    )


FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip


@DATA_SOURCES.register("fashion_mnist")
def fashion_mnist(config: DataConfig) -> RawData:
    """Return Fashion-MNIST (Xiao et al., 2017): 60,000 + 10,000 grey images of 28x28 pixels.

    Read from ``path`` (the four idx files, packed or not), else from Debian's package, else
    fetched by torchvision when the job allows a download.
    """
    folder = _fashion_folder(config)
    if folder is None:
        if not config.download:
            raise EnvironmentProblem(
                "Fashion-MNIST is not on this machine; give data.path, install Debian's package "
                "dataset-fashion-mnist, or set data.download: true"
            )
        folder = _download("FashionMNIST", config)
    train, test = (
        ImageArrays(
            read_idx(_idx_file(folder, f"{part}-images-idx3-ubyte"))[:, None],
            read_idx(_idx_file(folder, f"{part}-labels-idx1-ubyte")).astype(np.int64),
        )
        for part in ("train", "t10k")
    )
    for part, arrays in (("train", train), ("t10k", test)):
        if arrays.images.ndim != 4 or len(arrays.images) != len(arrays.labels):
            raise InputError(f"{folder}: images and labels of the {part} files do not match")
    return RawData(
        train=train,
        test=test,
        classes=FASHION_CLASSES,
        channels=1,
        image_size=train.images.shape[-1],
        origin=str(folder),
        crop_padding=2,
        flip=True,
    )


@DATA_SOURCES.register("cifar10")
def cifar10(config: DataConfig) -> RawData:
    """Return CIFAR-10 (Krizhevsky, 2009): 50,000 + 10,000 colour images of 32x32 pixels."""
    return _cifar(config, "CIFAR10", "cifar-10-batches-bin", label_bytes=1)


@DATA_SOURCES.register("cifar100")
def cifar100(config: DataConfig) -> RawData:
    """Return CIFAR-100 (Krizhevsky, 2009) with its 100 fine classes."""
    return _cifar(config, "CIFAR100", "cifar-100-binary", label_bytes=2)


@DATA_SOURCES.register("image_folder")
def image_folder(config: DataConfig, *, whole: bool = False) -> RawData:
    """Return images laid out as torchvision's ``ImageFolder`` reads them: one folder a class.

    ``path`` holds the class folders themselves, or ``train/`` and optionally ``val/`` and
    ``test/`` with class folders inside; ``training/``, ``valid/``, ``validation/``, ``dev/`` and
    ``testing/``, in large or small letters, are the same. Hidden folders and files (``.name``)
    are left out, links to folders followed.

    Args:
        config: ``path`` is the folder.
        whole: scale images as a whole to a square; otherwise the square in their middle is cut out.

    Raises:
        InputError: fewer than two classes, or folders without images.
        EnvironmentProblem: the folder is not there.
    """
    root = folder_of(config, "the path of a folder of images")
    folders = part_folders(root)
    train_root = folders.get("train", root)
    classes = class_folders(train_root)
    if len(classes) < 2:
        inside = [name for name in classes if len(class_folders(train_root / name)) > 1]
        hint = "".join(
            f"; those in it may be meant: data.path: {train_root / name}" for name in inside
        )
        raise InputError(
            f"{train_root}: needs at least two class folders, found {len(classes)}{hint}"
        )
    parts: dict[str, ImageFiles] = {}
    if train_root != root:
        parts = {p: _image_files(f, classes, whole) for p, f in folders.items() if p != "train"}
    side = config.image_size or 224
    return RawData(
        train=_image_files(train_root, classes, whole),
        test=parts.get("test"),
        validation=parts.get("validation"),
        classes=tuple(classes),
        channels=config.channels or 3,
        image_size=side,
        origin=str(root),
        **suited_crops(side),
        flip=True,
    )


# ---------------------------------------------------------------------------- idx files


def read_idx(path: Path) -> np.ndarray:
    """Return the array of an idx file (LeCun's MNIST format), gzip-packed or not.

    Raises:
        InputError: the file is no idx file of bytes, or is cut short.
    """
    data = path.read_bytes()
    if path.suffix == ".gz":
        try:
            data = gzip.decompress(data)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise InputError(f"{path}: damaged gzip file ({error})") from error
    if len(data) < 4 or data[:3] != b"\x00\x00\x08":
        raise InputError(f"{path}: not an idx file of unsigned bytes")
    rank = data[3]
    start = 4 + 4 * rank
    if len(data) < start:
        raise InputError(f"{path}: the header is cut short")
    shape = struct.unpack(f">{rank}I", data[4:start])
    count = int(np.prod(shape, dtype=np.int64))
    if len(data) - start != count:
        raise InputError(f"{path}: holds {len(data) - start} values, its header says {count}")
    return np.frombuffer(data, np.uint8, count, start).reshape(shape)


def _idx_file(folder: Path, name: str) -> Path:
    for candidate in (folder / name, folder / f"{name}.gz"):
        if candidate.is_file():
            return candidate
    raise EnvironmentProblem(f"{folder}: {name} (or {name}.gz) is missing")


def _fashion_folder(config: DataConfig) -> Path | None:
    first = "train-images-idx3-ubyte"
    if config.path is not None:
        root = Path(config.path)
        candidates = [root, root / "FashionMNIST" / "raw"]
    else:
        candidates = [DEBIAN_FASHION_MNIST]
    for folder in candidates:
        if (folder / first).is_file() or (folder / f"{first}.gz").is_file():
            return folder
    if config.path is not None and not config.download:
        raise EnvironmentProblem(
            f"data.path: {config.path} holds no {first} (or {first}.gz); give the folder of the "
            "four idx files or set data.download: true"
        )
    return None


# -------------------------------------------------------------------------- torchvision


def _download(dataset: str, config: DataConfig) -> Path:
    if config.path is None:
        raise InputError("data.path: say in which folder the download is to be kept")
    _torchvision_set(dataset, config, train=True)
    return Path(config.path) / dataset / "raw"


def _torchvision_set(dataset: str, config: DataConfig, *, train: bool) -> Any:
    try:
        from torchvision import datasets
    except ImportError as error:
        raise MissingExtraError("torchvision", "search") from error
    try:
        return getattr(datasets, dataset)(config.path, train=train, download=config.download)
    except RuntimeError as error:
        raise EnvironmentProblem(
            f"data.path: {dataset} is not in {config.path}, or a file there is damaged; "
            f"set data.download: true to fetch it ({error})"
        ) from error
    except OSError as error:
        raise EnvironmentProblem(f"{dataset} cannot be fetched: {error}") from error


def _cifar(config: DataConfig, dataset: str, binary: str, *, label_bytes: int) -> RawData:
    if config.path is None:
        raise InputError(f"data.path: {config.name} needs the folder that holds it")
    root = Path(config.path)
    folder = next((f for f in (root / binary, root) if any(f.glob("*.bin"))), None)
    if folder is not None:
        # The binary version: plain records, read without unpickling anything.
        train_files = sorted(folder.glob("data_batch_*.bin")) or [folder / "train.bin"]
        test_files = [f for f in (folder / "test_batch.bin", folder / "test.bin") if f.is_file()]
        if not test_files or not train_files[0].is_file():
            raise EnvironmentProblem(f"{folder}: a training or test .bin file is missing")
        train = _read_cifar_records(train_files, label_bytes)
        test = _read_cifar_records(test_files, label_bytes)
        names = _cifar_names(folder, 10 if label_bytes == 1 else 100)
    else:
        sets = [_torchvision_set(dataset, config, train=part) for part in (True, False)]
        train, test = (
            ImageArrays(
                np.ascontiguousarray(part.data.transpose(0, 3, 1, 2)),
                np.asarray(part.targets, dtype=np.int64),
            )
            for part in sets
        )
        names, folder = tuple(sets[0].classes), root
    return RawData(
        train=train,
        test=test,
        classes=names,
        channels=3,
        image_size=32,
        origin=str(folder),
        crop_padding=4,
        flip=True,
    )


def _read_cifar_records(files: Sequence[Path], label_bytes: int) -> ImageArrays:
    width = label_bytes + 3 * 32 * 32
    parts = []
    for file in files:
        data = np.fromfile(file, np.uint8)
        if data.size == 0 or data.size % width:
            raise InputError(f"{file}: {data.size} bytes are no whole number of CIFAR records")
        parts.append(data.reshape(-1, width))
    records = np.concatenate(parts)
    # CIFAR-100 has a coarse label before the fine one.
    labels = records[:, label_bytes - 1].astype(np.int64)
    return ImageArrays(
        np.ascontiguousarray(records[:, label_bytes:]).reshape(-1, 3, 32, 32), labels
    )


def _cifar_names(folder: Path, count: int) -> tuple[str, ...]:
    for name in ("batches.meta.txt", "fine_label_names.txt"):
        if (folder / name).is_file():
            names = (folder / name).read_text(encoding="utf-8").split()
            if len(names) == count:
                return tuple(names)
    return tuple(map(str, range(count)))


# -------------------------------------------------------------------------- image files


def _pictures(folder: Path) -> list[Path]:
    """Return every picture under ``folder``, links to folders followed, hidden ones left out.

    Raises:
        InputError: there is a video, of which nobody could know which frames are wanted.
    """
    found: list[Path] = []
    videos: list[Path] = []
    # A link back to a folder around it would have no end, and one folder is read once.
    visited: set[str] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in visited:
            folders[:] = []
            continue
        visited.add(real)
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f not in NO_CLASSES)
        found += [
            Path(place) / name
            for name in files
            if not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES
        ]
        videos += [Path(place) / n for n in files if Path(n).suffix.lower() in VIDEO_SUFFIXES]
    if videos:
        first, more = min(videos), f", one of {len(videos)}" * (len(videos) > 1)
        raise InputError(
            f"{first} is a video{more}; save its frames as pictures (ffmpeg -i {first.name} -vf "
            f"fps=1 {first.stem}_%05d.png), those of one video in one of train, val and test, or "
            "take it away"
        )
    return sorted(found)


def _image_files(root: Path, classes: Sequence[str], whole: bool) -> ImageFiles:
    index = {name: i for i, name in enumerate(classes)}
    unknown = [name for name in class_folders(root) if name not in index]
    if unknown:
        raise InputError(f"{root}: class {unknown[0]!r} is not among the training classes")
    paths: list[Path] = []
    labels: list[int] = []
    for name in class_folders(root):
        files = _pictures(root / name)
        if not files:
            raise InputError(
                f"{root / name}: holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})"
            )
        paths.extend(files)
        labels.extend([index[name]] * len(files))
    return ImageFiles(tuple(paths), np.asarray(labels, dtype=np.int64), whole)
