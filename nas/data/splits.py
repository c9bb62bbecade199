"""Images divided by seed into train, calibration, search-validation and test sets.

Training batches depend on (seed, epoch, index of the batch) alone, so a run that is
resumed in the middle of an epoch sees the same images as one that never stopped.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from nas.data.pictures import inspect_pictures, open_picture, readable
from nas.data.sources import DATA_SOURCES, ImageArrays, ImageFiles, RawData
from nas.job.schema import DataConfig
from search_spaces.errors import InputError
from search_spaces.seeds import derive_rng

STATISTICS_IMAGES = 4096
"""Mean and deviation of images on disk are taken over so many of them; in memory, over all."""

FINGERPRINT_BYTES = 2**31
"""So much is read of the beginnings of a set's files, and of their ends, to know it again."""


@dataclass(frozen=True)
class Crops:
    """One random crop for each of n images, in units that suit an image of any size.

    Attributes:
        area: (n,) share of the image's area.
        ratio: (n,) width over height in pixels.
        x, y: (n,) where the crop lies in the free space: 0 left or top, 1 right or bottom.
    """

    area: np.ndarray
    ratio: np.ndarray
    x: np.ndarray
    y: np.ndarray

    def boxes(self, width: float, height: float) -> np.ndarray:
        """Return (n, 4) float: left, top, width and height in pixels of such an image."""
        pixels = self.area * width * height
        w = np.minimum(np.sqrt(pixels * self.ratio), width)
        h = np.minimum(np.sqrt(pixels / self.ratio), height)
        return np.stack([self.x * (width - w), self.y * (height - h), w, h], axis=1)

    def __getitem__(self, index: int) -> Crops:
        """Return the crop of one image as a set of one."""
        part = slice(index, index + 1)
        return Crops(self.area[part], self.ratio[part], self.x[part], self.y[part])


class Images(Protocol):
    """Where the pixels of a set come from. Implementations are safe to read from threads."""

    def at(self, indices: Tensor, crops: Crops | None = None) -> Tensor:
        """Return images (n,) int64 -> (n, channels, size, size) uint8, each cut by its crop."""
        ...

    def fingerprint(self, instead: Mapping[str, str] | None = None) -> str:
        """Return a SHA-256 that changes when the images change.

        Args:
            instead: path of a file -> digest to count for it, see :meth:`FileImages.digest`.
        """
        ...


class MemoryImages:
    """Images held in one tensor (n, channels, height, width), uint8 or float32."""

    def __init__(self, pixels: Tensor) -> None:
        self.pixels = pixels

    def at(self, indices: Tensor, crops: Crops | None = None) -> Tensor:
        """See :class:`Images`."""
        pixels = self.pixels[indices]
        if crops is None:
            return pixels
        height, width = pixels.shape[-2:]
        boxes = torch.from_numpy(crops.boxes(width, height)).float()
        # Pixel centres of the result, as coordinates in the source: (n, side).
        columns = boxes[:, :1] + (torch.arange(width) + 0.5) * boxes[:, 2:3] / width
        rows = boxes[:, 1:2] + (torch.arange(height) + 0.5) * boxes[:, 3:4] / height
        grid = torch.stack(
            [
                (2 * columns / width - 1)[:, None, :].expand(-1, height, -1),
                (2 * rows / height - 1)[:, :, None].expand(-1, -1, width),
            ],
            dim=-1,
        )
        out = F.grid_sample(pixels.float(), grid, padding_mode="border", align_corners=False)
        return out if pixels.is_floating_point() else out.round_().to(torch.uint8)

    def fingerprint(self, instead: Mapping[str, str] | None = None) -> str:
        """SHA-256 of the pixels."""
        return hashlib.sha256(np.ascontiguousarray(self.pixels.numpy()).data).hexdigest()


class FileImages:
    """Images decoded from files when asked for.

    The shorter side is scaled to 8/7 of ``size`` and the middle is cut out, the usual
    evaluation transform of 256 and 224 pixels.
    """

    def __init__(
        self, paths: tuple[Path, ...], *, size: int, channels: int, threads: int = 4
    ) -> None:
        self.paths = paths
        self.size = size
        self.channels = channels
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    def at(self, indices: Tensor, crops: Crops | None = None) -> Tensor:
        """See :class:`Images`.

        Raises:
            InputError: a file is no image or is damaged.
        """
        each = [None if crops is None else crops[i] for i in range(len(indices))]
        return torch.stack(list(self._pool.map(self._decode, indices.tolist(), each)))

    def fingerprint(self, instead: Mapping[str, str] | None = None) -> str:
        """SHA-256 of the last two parts of every path, the file sizes and what the files hold.

        Of a large set only the beginning and the end of each file are read. Compressed images
        that differ anywhere differ there, or in size: a PNG ends with the checksum of its pixels.
        """
        known = instead or {}
        digest = hashlib.sha256()
        for part in self._pool.map(
            lambda path: known.get(str(path)) or self.digest(path), self.paths
        ):
            digest.update(bytes.fromhex(part))
        return digest.hexdigest()

    def digest(self, path: Path) -> str:
        """Return what a file's name, size and content add to the fingerprint, in hex digits."""
        limit = min(max(FINGERPRINT_BYTES // len(self.paths), 4096), 2**22)
        return _file_digest(path, limit).hex()

    def inspect(self) -> None:
        """Look at every file before any work.

        Raises:
            InputError: files that cannot be used, by name.
        """
        inspect_pictures(self.paths, self._pool.map)

    def _decode(self, index: int, crop: Crops | None) -> Tensor:
        from PIL import Image

        image = open_picture(self.paths[index], self.channels)
        if crop is None:
            width = height = min(image.size) * 7 / 8
            left, top = (image.width - width) / 2, (image.height - height) / 2
        else:
            left, top, width, height = crop.boxes(image.width, image.height)[0].tolist()
        image = image.resize(
            (self.size, self.size),
            Image.Resampling.BILINEAR,
            box=(left, top, left + width, top + height),
        )
        pixels = np.asarray(image, dtype=np.uint8).reshape(self.size, self.size, self.channels)
        return torch.from_numpy(pixels.transpose(2, 0, 1).copy())


def _file_digest(path: Path, limit: int) -> bytes:
    """Return a hash of a file's name, its size, and up to ``limit`` bytes of either end."""
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        # Names are bytes, which need not be UTF-8.
        digest = hashlib.sha256(os.fsencode(f"{path.parent.name}/{path.name}:{size}\n"))
        file.seek(0)
        digest.update(file.read(limit))
        file.seek(max(limit, size - limit))
        digest.update(file.read(limit))
    return digest.digest()


@dataclass(frozen=True)
class Subset:
    """A part of a set of images.

    Attributes:
        images: the pixels of the whole set.
        labels: of the whole set: (n,) int64.
        indices: which of them belong to the part: (m,) int64.
    """

    images: Images
    labels: Tensor
    indices: Tensor

    def __len__(self) -> int:
        return len(self.indices)

    def at(self, positions: Tensor, crops: Crops | None = None) -> tuple[Tensor, Tensor]:
        """Return (images (n, channels, size, size) uint8, labels (n,)) at positions (n,)."""
        indices = self.indices[positions]
        return self.images.at(indices, crops), self.labels[indices]

    def first(self, count: int) -> Subset:
        """Return the first ``count`` images as a subset; the order of a subset is random."""
        return Subset(self.images, self.labels, self.indices[:count])


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of each channel, of pixel values divided by ``scale``.

    Attributes:
        mean, std: of each channel.
        scale: 255 for bytes, which so become 0..1; 1 for floats, which stay as they are.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float = 255.0

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return (n, channels, h, w) pixels as float32 with mean 0 and deviation 1."""
        std = torch.tensor(self.std).view(-1, 1, 1)
        shift = -torch.tensor(self.mean).view(-1, 1, 1) / std
        return torch.addcmul(shift, pixels.float(), 1.0 / (self.scale * std))


@dataclass(frozen=True)
class Augmentation:
    """Random changes to a batch of training images, drawn for each image.

    Attributes:
        scale: smallest share of the area that a crop takes before it is resized; 1 for none.
        crop_padding: pixels of zeros around the image before a random crop of its size.
        flip: mirror half of the images left to right.
        erase: probability of blanking a square of a quarter of the side.
    """

    crop_padding: int = 0
    flip: bool = False
    erase: float = 0.0
    scale: float = 1.0

    @property
    def views(self) -> int | None:
        """How many images one can become, 1 or 2; None where they are countless."""
        if self.crop_padding or self.erase or self.scale != 1.0:
            return None
        return 2 if self.flip else 1

    def crops(self, n: int, rng: np.random.Generator) -> Crops | None:
        """Draw the crops of ``n`` images (Szegedy et al., 2015), or None where none are cut."""
        if self.scale == 1.0:
            return None
        ratio = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3), n))
        return Crops(rng.uniform(self.scale, 1.0, n), ratio, rng.random(n), rng.random(n))

    @staticmethod
    def mirrored(n: int, rng: np.random.Generator) -> Tensor:
        """Draw which of ``n`` images are mirrored: (n,) bool."""
        return torch.from_numpy(rng.random(n) < 0.5)

    def __call__(self, pixels: Tensor, rng: np.random.Generator) -> Tensor:
        """Return the changed images: (n, channels, h, w) uint8 -> the same shape."""
        n, _, height, width = pixels.shape
        if self.crop_padding or self.flip:
            pad = self.crop_padding
            rows = torch.arange(height).expand(n, height)
            columns = torch.arange(width).expand(n, width)
            if self.flip:
                mirrored = self.mirrored(n, rng)
                columns = torch.where(mirrored[:, None], columns.flip(1), columns)
            if pad:
                offsets = torch.from_numpy(rng.integers(0, 2 * pad + 1, size=(2, n, 1)))
                rows, columns = rows + offsets[0], columns + offsets[1]
                pixels = F.pad(pixels, (pad, pad, pad, pad))
            # Advanced indexing puts the channels last: (n, h, w, channels).
            pixels = pixels[
                torch.arange(n)[:, None, None], :, rows[:, :, None], columns[:, None, :]
            ].permute(0, 3, 1, 2)
        if self.erase:
            side = max(1, min(height, width) // 4)
            chosen = torch.from_numpy(rng.random(n) < self.erase)
            top = torch.from_numpy(rng.integers(0, height - side + 1, size=(n, 1)))
            left = torch.from_numpy(rng.integers(0, width - side + 1, size=(n, 1)))
            y, x = torch.arange(height), torch.arange(width)
            in_rows = (y >= top) & (y < top + side) & chosen[:, None]
            in_columns = (x >= left) & (x < left + side)
            blank = in_rows[:, None, :, None] & in_columns[:, None, None, :]
            pixels = pixels.masked_fill(blank, 0)
        return pixels


class Batches:
    """The training batches of every epoch, each a function of (seed, epoch, index).

    A last batch that is not full is left out, unless it would be the only one.
    """

    def __init__(
        self,
        subset: Subset,
        *,
        batch_size: int,
        seed: int,
        normalisation: Normalisation,
        augmentation: Augmentation | None = None,
    ) -> None:
        self.subset = subset
        self.batch_size = min(batch_size, len(subset))
        self.seed = seed
        self.normalisation = normalisation
        self.augmentation = augmentation
        self._drawn: tuple[int, Tensor] | None = None

    def __len__(self) -> int:
        """Batches in one epoch."""
        return len(self.subset) // self.batch_size

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batch ``start`` and those after it of epoch ``epoch``.

        Yields:
            images: (batch, channels, height, width) float32, normalised; labels: (batch,) int64.
        """
        order = self._order(epoch)

        def batch(index: int) -> tuple[Tensor, Tensor]:
            positions = order[index * self.batch_size : (index + 1) * self.batch_size]
            if self.augmentation is None:
                pixels, labels = self.subset.at(positions)
            else:
                rng = derive_rng(self.seed, "augment", epoch, index)
                crops = self.augmentation.crops(len(positions), rng)
                pixels, labels = self.subset.at(positions, crops)
                pixels = self.augmentation(pixels, rng)
            return self.normalisation(pixels), labels

        yield from _ahead(batch, range(start, len(self)), self.subset.images)

    @property
    def views(self) -> int | None:
        """How many different images training can see; None where they are countless."""
        each = 1 if self.augmentation is None else self.augmentation.views
        return None if each is None else each * len(self.subset)

    def views_of(self, epoch: int, index: int) -> Tensor | None:
        """Return which of the ``views`` each image of a batch is: (batch,) int64, or None.

        Images of the same number are the same, in whatever epoch they come.
        """
        if self.views is None:
            return None
        positions = self._order(epoch)[index * self.batch_size : (index + 1) * self.batch_size]
        if self.augmentation is None or not self.augmentation.flip:
            return positions
        # Where nothing else is drawn, whether to mirror is what a batch draws first.
        rng = derive_rng(self.seed, "augment", epoch, index)
        return positions + len(self.subset) * self.augmentation.mirrored(len(positions), rng)

    def _order(self, epoch: int) -> Tensor:
        """Return the order of the images in ``epoch``: (images,) int64."""
        if self._drawn is None or self._drawn[0] != epoch:
            drawn = derive_rng(self.seed, "order", epoch).permutation(len(self.subset))
            self._drawn = epoch, torch.from_numpy(drawn)
        return self._drawn[1]


@dataclass
class DataSplits:
    """The four sets of a run and how they came about.

    The test set is handed out once, with a reason that is told to ``on_test_read``;
    nothing that guides the search may look at it.

    Attributes:
        train: to learn from.
        calibration: a part of ``train``, for batch norm statistics and quantiser ranges.
        validation: guides the search; disjoint from ``train``.
        normalisation: computed from ``train``.
        augmentation: for training batches.
        classes: names, in the order of the labels.
        channels, image_size: of the images.
        origin: where the data was read from.
        seed: that divided the data.
        on_test_read: called with the reason when the test set is handed out.
    """

    train: Subset
    calibration: Subset
    validation: Subset
    normalisation: Normalisation
    augmentation: Augmentation
    classes: tuple[str, ...]
    channels: int
    image_size: int
    origin: str
    seed: int
    _test: Subset
    on_test_read: Callable[[str], None] | None = None
    _test_read: str | None = None

    def test(self, reason: str) -> Subset:
        """Return the test set.

        Raises:
            RuntimeError: it was handed out before.
        """
        if self._test_read is not None:
            raise RuntimeError(
                f"the test set was read already, for {self._test_read!r}; it is read once"
            )
        self._test_read = reason
        if self.on_test_read is not None:
            self.on_test_read(reason)
        return self._test

    def training_batches(self, batch_size: int, *, seed: int) -> Batches:
        """Return augmented batches of the training set."""
        return Batches(
            self.train,
            batch_size=batch_size,
            seed=seed,
            normalisation=self.normalisation,
            augmentation=self.augmentation,
        )

    def evaluation_batches(
        self, subset: Subset, *, batch_size: int = 512
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (images, labels) of a subset in its order, without augmentation.

        images: (batch, channels, height, width) float32, normalised; labels: (batch,) int64.
        The last batch may be smaller.
        """

        def batch(start: int) -> tuple[Tensor, Tensor]:
            pixels, labels = subset.at(torch.arange(start, min(start + batch_size, len(subset))))
            return self.normalisation(pixels), labels

        yield from _ahead(batch, range(0, len(subset), batch_size), subset.images)

    def warnings(self) -> list[str]:
        """Return what makes figures of these sets unsure: a class that a set has no image of."""
        found = []
        for name, part in (
            ("training", self.train),
            ("validation", self.validation),
            ("test", self._test),
        ):
            counts = torch.bincount(part.labels[part.indices], minlength=len(self.classes))
            missing = [self.classes[i] for i in torch.nonzero(counts == 0).flatten().tolist()]
            if missing:
                more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
                found.append(
                    f"the {name} set has no image of {', '.join(missing[:5])}{more}: accuracies "
                    "say nothing of it"
                )
        return found

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of an image."""
        channels, height, width = self.train.at(torch.tensor([0]))[0].shape[1:]
        return channels, height, width

    def digest_of(self, path: Path) -> str | None:
        """Return what the file ``path`` adds to a fingerprint; None for a file of no set."""
        for part in (self.train, self.validation, self._test):
            if isinstance(part.images, FileImages) and path in part.images.paths:
                return part.images.digest(path)
        return None

    def record(self, *, instead: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Return what a manifest must hold to tell whether two runs saw the same data.

        Args:
            instead: path of a file -> digest that counts for it, so that a file which was found
                damaged and then repaired is known.
        """
        parts = {
            "train": self.train,
            "calibration": self.calibration,
            "validation": self.validation,
            "test": self._test,
        }
        fingerprints: dict[int, str] = {}
        for part in parts.values():
            if id(part.images) not in fingerprints:
                fingerprints[id(part.images)] = part.images.fingerprint(instead)
        return {
            "origin": self.origin,
            "seed": self.seed,
            "channels": self.channels,
            "image_size": self.image_size,
            "classes": list(self.classes),
            "mean": list(self.normalisation.mean),
            "std": list(self.normalisation.std),
            # Bytes need no word about it; so it is in manifests of earlier versions.
            **({"pixel_scale": 1.0} if self.normalisation.scale == 1.0 else {}),
            "augmentation": {
                "crop_padding": self.augmentation.crop_padding,
                "flip": self.augmentation.flip,
                "erase": self.augmentation.erase,
                "scale": self.augmentation.scale,
            },
            "splits": {
                name: {
                    "images": len(part),
                    "indices_sha256": _indices_digest(part.indices),
                    "source_sha256": fingerprints[id(part.images)],
                }
                for name, part in parts.items()
            },
        }


def load_splits(config: DataConfig, seed: int) -> DataSplits:
    """Read the data set of ``config`` and divide it by ``seed``.

    Each part holds every class in proportion. Calibration takes at most the whole
    training set.

    Raises:
        InputError: the data is not what its source expects, or too small for the division.
        EnvironmentProblem: the data is not on this machine.
    """
    raw = DATA_SOURCES.get(config.name)(config)
    channels = config.channels or raw.channels
    size = _side(config, raw)
    base, labels = _open(raw.train, size, channels, len(raw.classes))
    order = _stratified_order(labels.numpy(), derive_rng(seed, "data", "order"))
    if raw.test is not None:
        test = _whole(raw.test, size, channels, len(raw.classes))
    else:
        count = _share("data.test", config.test, len(order))
        test = Subset(base, labels, torch.from_numpy(order[:count].copy()))
        order = order[count:]
    if raw.validation is not None:
        validation = _whole(raw.validation, size, channels, len(raw.classes))
    else:
        count = _share("data.validation", config.validation, len(order))
        validation = Subset(base, labels, torch.from_numpy(order[:count].copy()))
        order = order[count:]
    train = Subset(base, labels, torch.from_numpy(order[: config.train].copy()))
    calibration = train.first(config.calibration)
    augment = config.augment
    return DataSplits(
        train=train,
        calibration=calibration,
        validation=validation,
        normalisation=_statistics(train, channels),
        augmentation=Augmentation(
            raw.crop_padding if augment.crop_padding is None else augment.crop_padding,
            raw.flip if augment.flip is None else augment.flip,
            augment.erase,
            raw.scale if augment.scale is None else augment.scale,
        ),
        classes=tuple(map(readable, raw.classes)),
        channels=channels,
        image_size=size or raw.image_size,
        origin=readable(raw.origin),
        seed=seed,
        _test=test,
    )


def _side(config: DataConfig, raw: RawData) -> int | None:
    """Return the side that images are resized to; None leaves those in memory as they are.

    A spectrogram of 49 x 10 values is no square picture: only a job that says
    ``data.image_size`` has it stretched.
    """
    if config.image_size is not None or isinstance(raw.train, ImageFiles):
        return config.image_size or raw.image_size
    height, width = np.shape(raw.train.images)[-2:]
    return raw.image_size if height == width else None


def _open(
    data: ImageArrays | ImageFiles, size: int | None, channels: int, classes: int
) -> tuple[Images, Tensor]:
    labels = torch.from_numpy(np.ascontiguousarray(data.labels, dtype=np.int64))
    if len(labels) == 0:
        raise InputError("the data set holds no images")
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise InputError(
            f"labels run from {int(labels.min())} to {int(labels.max())}, "
            f"but there are {classes} classes"
        )
    if isinstance(data, ImageFiles):
        assert size is not None
        files = FileImages(data.paths, size=size, channels=channels)
        files.inspect()
        return files, labels
    return MemoryImages(_prepare(data.images, size, channels)), labels


def _whole(data: ImageArrays | ImageFiles, size: int | None, channels: int, classes: int) -> Subset:
    images, labels = _open(data, size, channels, classes)
    # In random order, so that the first images are a fair sample of all.
    order = derive_rng(0, "order of a whole set").permutation(len(labels))
    return Subset(images, labels, torch.from_numpy(order))


def _prepare(images: np.ndarray, size: int | None, channels: int) -> Tensor:
    """Return images (n, c, h, w) with the asked channels and size: uint8, or float32 as given.

    Raises:
        InputError: values that are no numbers, or not of four axes.
    """
    images = np.asarray(images)
    if images.ndim != 4:
        raise InputError(
            f"images of shape {images.shape}; a source gives (images, channels, height, width)"
        )
    whole = images.dtype == np.uint8 or (
        images.dtype.kind in "iu" and images.size and images.min() >= 0 and images.max() <= 255
    )
    if not whole and images.dtype.kind not in "iuf":
        raise InputError(f"images of type {images.dtype}; give bytes (0 to 255) or floats")
    if images.dtype.kind == "f" and not np.isfinite(images).all():
        index = int(np.flatnonzero(~np.isfinite(images).reshape(len(images), -1).all(axis=1))[0])
        raise InputError(f"image {index} holds values that are not finite")
    # The copy frees the tensor from arrays that must not be written, such as file buffers.
    # Floats (z-scores, say) stay what they are: bytes of them would be 0, 1 and 255.
    pixels = torch.from_numpy(np.array(images, dtype=np.uint8 if whole else np.float32, order="C"))
    if pixels.shape[1] != channels:
        if channels == 3:
            pixels = pixels.expand(-1, 3, -1, -1).contiguous()
        else:
            # Luma weights of ITU-R BT.601, as Pillow's conversion to grey.
            weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
            grey = (pixels * weights).sum(1, keepdim=True)
            pixels = grey.round().to(torch.uint8) if whole else grey
    if size is not None and pixels.shape[-2:] != (size, size):
        parts = [
            F.interpolate(part.float(), (size, size), mode="bilinear", antialias=True)
            for part in pixels.split(4096)
        ]
        if whole:
            parts = [part.round_().clamp_(0, 255).to(torch.uint8) for part in parts]
        pixels = torch.cat(parts)
    return pixels


def _stratified_order(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a random order of which every stretch holds the classes in proportion: (n,) int64."""
    position = np.empty(len(labels))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        # The k-th of m shuffled members stands at a random point of the k-th m-th of 0..1.
        ranks = rng.permutation(len(members)) + rng.random(len(members))
        position[members] = ranks / len(members)
    return np.argsort(position, kind="stable")


def _share(key: str, wanted: float, available: int) -> int:
    count = round(wanted * available) if wanted < 1 else int(wanted)
    if not 0 < count < available:
        raise InputError(
            f"{key}: {wanted:g} asks for {count} of {available} images; "
            "at least one must be taken and one left"
        )
    return count


def _statistics(train: Subset, channels: int) -> Normalisation:
    """Return the mean and deviation of each channel over the training images."""
    subset = train if isinstance(train.images, MemoryImages) else train.first(STATISTICS_IMAGES)
    if subset.at(torch.tensor([0]))[0].is_floating_point():
        return _float_statistics(subset)
    # Sums of integers are exact, so the result does not depend on threads or chunks.
    histogram = torch.zeros(channels, 256, dtype=torch.int64)
    for positions in torch.arange(len(subset)).split(1024):
        pixels, _ = subset.at(positions)
        for channel in range(channels):
            histogram[channel] += torch.bincount(pixels[:, channel].flatten(), minlength=256)
    weights = histogram.double() / histogram.sum(1, keepdim=True)
    values = torch.arange(256, dtype=torch.float64) / 255.0
    mean = (weights * values).sum(1)
    variance = (weights * (values - mean[:, None]) ** 2).sum(1)
    if bool((variance == 0).any()):
        raise InputError("a channel of the training images has the same value everywhere")
    return Normalisation(tuple(mean.tolist()), tuple(variance.sqrt().tolist()))


def _float_statistics(subset: Subset) -> Normalisation:
    """Return the mean and deviation of each channel of images of floats, as they are."""
    values = subset.at(torch.arange(len(subset)))[0].double().numpy()
    # By NumPy, whose sums do not depend on the number of threads.
    mean, std = values.mean(axis=(0, 2, 3)), values.std(axis=(0, 2, 3))
    if not (std > 0).all():
        raise InputError("a channel of the training images has the same value everywhere")
    return Normalisation(tuple(mean.tolist()), tuple(std.tolist()), scale=1.0)


def _ahead(
    batch: Callable[[int], tuple[Tensor, Tensor]], indices: range, images: Images
) -> Iterator[tuple[Tensor, Tensor]]:
    if isinstance(images, MemoryImages):
        yield from map(batch, indices)
        return
    # Files are decoded while the caller still works on the batch before.
    with ThreadPoolExecutor(1, thread_name_prefix="batch") as pool:
        pending = [pool.submit(batch, index) for index in indices[:1]]
        for index in indices[1:]:
            pending.append(pool.submit(batch, index))
            yield pending.pop(0).result()
        for future in pending:
            yield future.result()


def _indices_digest(indices: Tensor) -> str:
    return hashlib.sha256(indices.numpy().astype("<i8").tobytes()).hexdigest()


__all__ = [
    "Augmentation",
    "Batches",
    "Crops",
    "DataSplits",
    "FileImages",
    "Images",
    "MemoryImages",
    "Normalisation",
    "RawData",
    "Subset",
    "load_splits",
]
