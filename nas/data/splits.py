"""Examples divided by seed into train, calibration, search-validation and test sets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor
from torch.nn import functional as F

from nas.data.augment import Augmentation, Normalisation
from nas.data.batches import Batches, Subset, ahead, expected_draws
from nas.data.doubts import doubts
from nas.data.held import HeldImages, holds
from nas.data.images import Crops, FileImages, Images, MemoryImages
from nas.data.normalisation import normalisation_of
from nas.data.pictures import readable, usual_picture
from nas.data.placed import checked, presence
from nas.data.sources import DATA_SOURCES, OF_TEXT, PLACED, ImageArrays, ImageFiles, RawData, taken
from nas.data.twins import twins
from nas.job.sections.data import DataConfig
from search_spaces.errors import InputError
from search_spaces.seeds import derive_rng

if TYPE_CHECKING:
    from nas.data.text.pair_tokens import PairTokens
    from nas.data.text.tokens import Tokens


_OF_DATA = ("crop_padding", "flip", "scale", "noise", "gain")
"""Of augmentation, what a source chooses where a job does not."""


@dataclass
class DataSplits:
    """The four sets of a run and how they came about.

    The test set is handed out once, with a reason that is told to ``on_test_read``;
    nothing that guides the search may look at it.

    Attributes:
        train: to learn from.
        calibration: a part of ``train``, for batch norm statistics and quantiser ranges.
        validation: guides the search; disjoint from ``train``.
        normalisation: computed from ``train``, or what the job says.
        augmentation: for training batches.
        classes: names of the classes, labels or values, in the order of the targets.
        channels: of the inputs.
        input_size: height and width of the inputs; a signal has height 1.
        origin: where the data was read from.
        seed: that divided the data.
        targets: ``classes``, ``labels``, ``values``, ``boxes``, ``masks``, ``tokens`` or ``pairs``;
            see :class:`nas.data.sources.RawData`.
        input_text: how a user makes an input of the network; empty for images.
        sound: how a recording becomes an input; None for other data.
        tokens, pairs: of a text, or of pairs of sequences; None for other data.
        judged: validation and test without what a task put beside their examples, if it did.
        balance: how far rare classes are drawn more often in training; see ``data.balance``.
        on_test_read: called with the reason when the test set is handed out.
    """

    train: Subset
    calibration: Subset
    validation: Subset
    normalisation: Normalisation
    augmentation: Augmentation
    classes: tuple[str, ...]
    channels: int
    input_size: tuple[int, int]
    origin: str
    seed: int
    _test: Subset
    targets: str = "classes"
    input_text: str = ""
    sound: Mapping[str, float] | None = None
    tokens: Tokens | None = None
    pairs: PairTokens | None = None
    judged: Mapping[str, Subset] | None = None
    balance: float = 0.0
    on_test_read: Callable[[str], None] | None = None
    _test_read: str | None = None

    @property
    def image_size(self) -> int:
        """Width of the inputs; the side, where they are square."""
        return self.input_size[1]

    @property
    def test_images(self) -> int:
        """How many examples the test set has; to know it is not to read them."""
        return len(self._test)

    @property
    def test_indices(self) -> Tensor:
        """Numbers of the test examples within their source, (n,) int64; no example is read."""
        return self._test.indices

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

    def training_batches(
        self,
        batch_size: int,
        *,
        seed: int,
        rounds: int | None = None,
        subset: Subset | None = None,
        size: tuple[int, int] | None = None,
    ) -> Batches:
        """Return augmented batches of ``subset``, by default of the training set.

        Other arguments are those of :class:`~nas.data.batches.Batches`.
        """
        part = self.train if subset is None else subset
        return Batches(
            part,
            draws=expected_draws(part, self.targets, len(self.classes), self.balance),
            batch_size=batch_size,
            seed=seed,
            rounds=rounds,
            size=size,
            normalisation=self.normalisation,
            augmentation=self.augmentation,
        )

    def evaluation_batches(
        self, subset: Subset, *, batch_size: int = 512
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (inputs, targets) of a subset in its order, without augmentation.

        inputs: (batch, channels, height, width) float32, normalised; targets: (batch, ...).
        The last batch may be smaller.
        """

        def batch(start: int) -> tuple[Tensor, Tensor]:
            pixels, labels = subset.at(torch.arange(start, min(start + batch_size, len(subset))))
            return self.normalisation(pixels), labels

        yield from ahead(batch, range(0, len(subset), batch_size), subset.images)

    def warnings(self, *, told_by_class: bool = False) -> list[str]:
        """Return what makes figures unsure: absent classes, unseen pixels, copies of examples.

        Args:
            told_by_class: whether the metric is the share of examples whose class is told rightly,
                which classes that are rare hardly change.
        """
        found: list[str] = []
        images = self.train.images
        if isinstance(images, FileImages) and not images.whole:
            unseen = usual_picture(images.paths).unseen
            found += [unseen] if unseen else []
        parts = {"training": self.train, "validation": self.validation, "test": self._test}
        told = {name: part.labels[part.indices] for name, part in parts.items()}
        found += doubts(self.targets, told, self.classes, told_by_class=told_by_class)
        return found + twins({**parts, **(self.judged or {})}, self.targets, self.classes)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of an input."""
        return self.channels, *self.input_size

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
        square = self.input_size if self.input_size[0] == self.input_size[1] else None
        # Classes of 8-bit images need no word about it; so it is in manifests of earlier versions.
        rest: dict[str, Any] = {}
        if self.targets != "classes":
            rest["targets"] = self.targets
        if self.normalisation.scale != 255.0:
            rest["pixel_scale"] = self.normalisation.scale
        if self.normalisation.reversed:
            rest["channel_order"] = "bgr"
        images = self.train.images
        if isinstance(images, FileImages) and images.whole and self.targets not in PLACED:
            rest["pictures"] = "whole"
        return {
            "origin": self.origin,
            "seed": self.seed,
            "channels": self.channels,
            "image_size": square[0] if square else list(self.input_size),
            "classes": list(self.classes),
            "mean": list(self.normalisation.mean),
            "std": list(self.normalisation.std),
            **rest,
            "augmentation": {
                name: value
                for name in ("crop_padding", "flip", "erase", "scale", "noise", "gain")
                # Pictures need no word about what is for signals alone.
                if (value := getattr(self.augmentation, name)) or name not in ("noise", "gain")
            },
            "splits": {
                name: {
                    "images": len(part),
                    "indices_sha256": part.digest,
                    "source_sha256": fingerprints[id(part.images)],
                }
                for name, part in parts.items()
            },
        }


def load_splits(
    config: DataConfig, seed: int, *, kind: str | None = None, open_classes: bool = False
) -> DataSplits:
    """Read the data set of ``config`` and divide it by ``seed``.

    Args:
        config: the job's section.
        seed: of the division.
        kind: of the targets that a task needs, for the sources that can give several:
            ``classes``, ``labels``, ``values``, ``boxes``, ``masks``, ``tokens`` or ``pairs``.
        open_classes: whether validation and test may have classes that training has not.

    Each part holds every class in proportion. Calibration takes at most the whole
    training set.

    Raises:
        InputError: the data is not what its source expects, or too small for the division.
        EnvironmentProblem: the data is not on this machine.
    """
    source = DATA_SOURCES.get(config.name)
    by_default, always = taken(source, kind=kind), {"seed": seed, "open_classes": open_classes}
    raw = source(config, **{**by_default, **config.options, **taken(source, **always)})
    channels = config.channels or raw.channels
    size = _size(config, raw)
    base, labels = _open(raw, raw.train, size, channels)
    rng = derive_rng(seed, "data", "order")
    order = _order(raw, labels.numpy(), rng, config.stratify)

    def part(key: str, given: ImageArrays | ImageFiles | None, wanted: int | float) -> Subset:
        nonlocal order
        if given is not None:
            return _whole(raw, given, size, channels)
        count = _share(key, wanted, order, raw.groups)
        taken, order = order[:count].copy(), order[count:]
        return Subset(base, labels, torch.from_numpy(taken), raw.placed)

    test = part("data.test", raw.test, config.test)
    validation = part("data.validation", raw.validation, config.validation)
    if raw.groups is not None:
        # Sets are divided by group; within the training set the order is that of all others.
        order = order[_stratified_order(_strata(raw, labels.numpy()[order]), rng)]
    train = Subset(base, labels, torch.from_numpy(order[: config.train].copy()), raw.placed)
    calibration = train.first(config.calibration)
    augment = config.augment

    def chosen(name: str) -> Any:
        given = getattr(augment, name)
        return getattr(raw, name) if given is None else given

    return DataSplits(
        train=train,
        calibration=calibration,
        validation=validation,
        normalisation=normalisation_of(config, train, channels, names=raw.targets in OF_TEXT),
        augmentation=Augmentation(erase=augment.erase, **{name: chosen(name) for name in _OF_DATA}),
        classes=tuple(map(readable, raw.classes)),
        channels=channels,
        input_size=size,
        origin=readable(raw.origin),
        seed=seed,
        _test=test,
        targets=raw.targets,
        input_text=raw.input_text,
        sound=raw.sound,
        tokens=raw.tokens,
        pairs=raw.pairs,
        balance=config.balance,
    )


def _size(config: DataConfig, raw: RawData) -> tuple[int, int]:
    """Return height and width of the inputs.

    Raises:
        InputError: a side is asked for of signals, or images are not of four axes.
    """
    if isinstance(raw.train, ImageFiles):
        side = config.image_size or raw.image_size
        return (side, side) if isinstance(side, int) else side
    shape = np.shape(raw.train.images)
    if len(shape) != 4:
        raise InputError(
            f"images of shape {shape}; a source gives (images, channels, height, width)"
        )
    if config.image_size is None:
        # A spectrogram of 49 x 40 values is no square picture: only a job that says
        # data.image_size has it stretched.
        own = raw.image_size if isinstance(raw.image_size, int) else max(raw.image_size)
        return (own, own) if shape[2] == shape[3] else (shape[2], shape[3])
    if shape[2] == 1 and shape[3] > 1:
        raise InputError(
            f"data.image_size: {config.name} holds signals of {shape[3]} values, which are no "
            "images; leave data.image_size out"
        )
    return config.image_size, config.image_size


def _open(
    raw: RawData, data: ImageArrays | ImageFiles, size: tuple[int, int], channels: int
) -> tuple[Images, Tensor]:
    labels = _targets(raw, data.labels)
    if isinstance(data, ImageFiles):
        if size[0] != size[1]:
            raise InputError(f"images of files become squares, not {size[0]} x {size[1]}")
        files = FileImages(data.paths, size=size[0], channels=channels, whole=data.whole)
        files.inspect()
        if holds(files):
            files = HeldImages(files)
        return files, labels
    return MemoryImages(_prepare(data.images, size, channels)), labels


def _targets(raw: RawData, given: np.ndarray) -> Tensor:
    if len(given) == 0:
        raise InputError("the data set holds no images" if raw.targets == "classes" else
                         f"{raw.origin} holds no examples")  # fmt: skip
    if raw.targets in PLACED:
        return checked(raw.targets, given, len(raw.classes), raw.origin)
    if raw.targets in OF_TEXT:
        return torch.from_numpy(np.ascontiguousarray(given, dtype=np.int64))
    if raw.targets != "classes":
        values = torch.from_numpy(np.ascontiguousarray(given, dtype=np.float32))
        if values.ndim != 2 or values.shape[1] != len(raw.classes):
            raise InputError(
                f"{raw.origin}: targets of shape {tuple(values.shape)} do not fit the "
                f"{len(raw.classes)} names of their columns"
            )
        return values
    labels = torch.from_numpy(np.ascontiguousarray(given, dtype=np.int64))
    if int(labels.min()) < 0 or int(labels.max()) >= len(raw.classes):
        raise InputError(
            f"labels run from {int(labels.min())} to {int(labels.max())}, "
            f"but there are {len(raw.classes)} classes"
        )
    return labels


def _whole(
    raw: RawData, data: ImageArrays | ImageFiles, size: tuple[int, int], channels: int
) -> Subset:
    images, labels = _open(raw, data, size, channels)
    # In random order, so that the first images are a fair sample of all.
    order = derive_rng(0, "order of a whole set").permutation(len(labels))
    return Subset(images, labels, torch.from_numpy(order), raw.placed)


def _prepare(images: np.ndarray, size: tuple[int, int], channels: int) -> Tensor:
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
    if pixels.shape[-2:] != size:
        parts = [
            F.interpolate(part.float(), size, mode="bilinear", antialias=True)
            for part in pixels.split(4096)
        ]
        if whole:
            parts = [part.round_().clamp_(0, 255).to(torch.uint8) for part in parts]
        pixels = torch.cat(parts)
    return pixels


def _stratified_order(labels: np.ndarray, rng: Generator) -> np.ndarray:
    """Return a random order of which every stretch holds the classes in proportion: (n,) int64."""
    position = np.empty(len(labels))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        # The k-th of m shuffled members stands at a random point of the k-th m-th of 0..1.
        ranks = rng.permutation(len(members)) + rng.random(len(members))
        position[members] = ranks / len(members)
    return np.argsort(position, kind="stable")


def _strata(raw: RawData, targets: np.ndarray) -> np.ndarray:
    """Return the stratum of each example, (n,): its class, its quantile, or one for all."""
    if raw.targets == "classes":
        return targets
    if raw.targets in OF_TEXT:
        return np.zeros(len(targets), np.int64)
    if raw.targets in PLACED:
        targets = presence(raw.targets, torch.from_numpy(targets), len(raw.classes)).numpy()
    if raw.targets in ("labels", *PLACED):
        # Rare labels first: where an example has one, it decides.
        rare = np.argsort(targets.sum(0), kind="stable")
        first = np.argmax(targets[:, rare] > 0, axis=1)
        return np.where(targets.any(axis=1), first, len(rare))
    ranks = np.argsort(np.argsort(targets[:, 0], kind="stable"), kind="stable")
    return ranks * min(10, len(targets)) // len(targets)


def _order(raw: RawData, targets: np.ndarray, rng: Generator, by_class: bool) -> np.ndarray:
    """Return a random order whose stretches hold the classes in proportion: (n,) int64.

    Examples of a group stand together, so that a cut between groups divides none; a group counts
    for the class that most of it has, unless ``by_class`` is false.
    """
    if raw.groups is None:
        return _stratified_order(_strata(raw, targets), rng)
    names, group = np.unique(raw.groups, return_inverse=True)
    if not by_class:
        return np.argsort(rng.permutation(len(names))[group], kind="stable")
    classes, stratum = np.unique(_strata(raw, targets), return_inverse=True)
    counts = np.bincount(group * len(classes) + stratum, minlength=len(names) * len(classes))
    place = np.argsort(_stratified_order(counts.reshape(len(names), -1).argmax(1), rng))
    return np.argsort(place[group], kind="stable")


def _share(key: str, wanted: float, order: np.ndarray, groups: np.ndarray | None) -> int:
    """Return how many of the examples in ``order`` to take, whole groups where there are any."""
    available = len(order)
    count = round(wanted * available) if wanted < 1 else int(wanted)
    if groups is not None and 0 < count < available:
        ends = np.flatnonzero(np.diff(groups[order])) + 1
        if not len(ends):
            raise InputError(
                f"{key}: the {available} examples left are all of one group, so none can be "
                "set aside; give more groups, or a set of its own"
            )
        return int(ends[np.argmin(np.abs(ends - count))])
    if not 0 < count < available:
        raise InputError(
            f"{key}: {wanted:g} asks for {count} of {available} images; "
            "at least one must be taken and one left"
        )
    return count


__all__ = [
    "Augmentation", "Batches", "Crops", "DataSplits", "FileImages", "Images", "MemoryImages",
    "Normalisation", "Subset", "load_splits",
]  # fmt: skip
