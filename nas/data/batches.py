"""Parts of a set, and the training batches that are drawn from them.

Training batches depend on (seed, epoch, index of the batch) alone, so a run that is
resumed in the middle of an epoch sees the same inputs as one that never stopped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from nas.data.augment import Augmentation, Normalisation
from nas.data.held import HeldImages
from nas.data.images import Crops, Images, MemoryImages
from nas.data.placed import cropped, moved, presence
from nas.data.sources import PLACED
from search_spaces.errors import InputError
from search_spaces.seeds import derive_rng
from supernet.resolution import resize_images


@dataclass(frozen=True)
class Subset:
    """A part of a set of examples.

    Attributes:
        images: the inputs of the whole set.
        labels: the targets of the whole set: classes (n,) int64, labels and values
            (n, outputs) float32, boxes (n, most, 6) float32 or masks (n, height, width) uint8.
        indices: which of them belong to the part: (m,) int64.
        placed: ``boxes`` or ``masks`` for targets that have places in their images, which move
            with them; see :mod:`nas.data.placed`.
    """

    images: Images
    labels: Tensor
    indices: Tensor
    placed: str | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def at(self, positions: Tensor, crops: Crops | None = None) -> tuple[Tensor, Tensor]:
        """Return (inputs (n, channels, height, width), targets (n, ...)) at positions (n,)."""
        indices = self.indices[positions]
        inputs, targets = self.images.at(indices, crops), self.labels[indices]
        if self.placed is not None and crops is not None:
            targets = cropped(self.placed, targets, crops, (inputs.shape[-2], inputs.shape[-1]))
        return inputs, targets

    def joined(self, other: Subset) -> Subset:
        """Return the examples of both; raise :class:`InputError` where they are of two sources."""
        if other.images is not self.images:
            raise InputError(
                "finetune.refit: the data has a validation set of its own, which no training set "
                "is joined with; leave refit out"
            )
        return replace(self, indices=torch.cat([self.indices, other.indices]))

    @property
    def digest(self) -> str:
        """SHA-256 of which examples belong to the part, in their order."""
        return hashlib.sha256(self.indices.numpy().astype("<i8").tobytes()).hexdigest()

    def first(self, count: int) -> Subset:
        """Return the first ``count`` images as a subset; the order of a subset is random."""
        return replace(self, indices=self.indices[:count])


def expected_draws(subset: Subset, targets: str, classes: int, balance: float) -> Tensor | None:
    """Return how often each example is drawn in an epoch on average; None for once each.

    An example counts as its rarest class (as in the repeat factors of Gupta et al., LVIS, CVPR
    2019), and a class of share f of the examples is drawn f ** -balance times as often as it is
    there, but for a factor that all have: 1 draws all classes alike, 0.5 by the square root of
    their shares. Examples of no class count as the most frequent.

    Args:
        subset: the n examples.
        targets: ``classes``, ``labels``, ``boxes`` or ``masks``.
        classes: how many there are.
        balance: 0 to 1.

    Returns:
        (n,) float64 with a mean of 1.

    Raises:
        InputError: examples of such targets have no classes.
    """
    if not balance:
        return None
    labels = subset.labels[subset.indices]
    if targets == "classes":
        of_class = F.one_hot(labels, classes) > 0
    elif targets == "labels":
        of_class = labels > 0
    elif targets in PLACED:
        of_class = presence(targets, labels, classes)
    else:
        raise InputError(
            f"data.balance: {balance:g} draws rare classes more often, and the data has {targets}; "
            "leave it out"
        )
    share = of_class.double().mean(0)
    weight = torch.where(share > 0, share, torch.ones_like(share)) ** -balance
    each = (of_class * weight).amax(1)
    each = torch.where(each > 0, each, weight.min())
    return each / each.mean()


class Batches:
    """The training batches of every epoch, each a function of (seed, epoch, index).

    A last batch that is not full is left out, unless it would be the only one.

    Args:
        subset: what to draw from.
        batch_size: examples in each.
        seed: of order and augmentation.
        normalisation, augmentation: of the inputs.
        rounds: epochs that differ from each other; those after them begin anew, as if each
            example had so many copies that were augmented beforehand. None draws every epoch.
        draws: how often each example is drawn in an epoch on average, (examples,), see
            :func:`expected_draws`; None for once each.
        size: height and width to which pixels are scaled, rounded to 8 bits; None for those of the
            images. For a network that takes nothing else, since it is a good deal faster than
            scaling the normalised images.
    """

    def __init__(
        self,
        subset: Subset,
        *,
        batch_size: int,
        seed: int,
        normalisation: Normalisation,
        augmentation: Augmentation | None = None,
        rounds: int | None = None,
        draws: Tensor | None = None,
        size: tuple[int, int] | None = None,
    ) -> None:
        self._draws = None if draws is None else draws.numpy()
        self.size = size
        self.subset = subset
        # A few views of an example are counted already, and need no epoch to be the same again.
        countless = augmentation is not None and augmentation.views is None
        self.rounds = rounds if countless else None
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
            inputs: (batch, channels, height, width) float32, normalised; targets: (batch, ...),
            whose places are those in an image of the set.
        """
        epoch = self._drawn_as(epoch)
        order = self._order(epoch)

        def batch(index: int) -> tuple[Tensor, Tensor]:
            positions = order[index * self.batch_size : (index + 1) * self.batch_size]
            if self.augmentation is None:
                pixels, labels = self.subset.at(positions)
            else:
                rng = derive_rng(self.seed, "augment", epoch, index)
                crops = self.augmentation.crops(len(positions), rng)
                pixels, labels = self.subset.at(positions, crops)
                moves = self.augmentation.moves(len(positions), rng)
                pixels = self.augmentation.blanked(self.augmentation.moved(pixels, *moves), rng)
                if self.subset.placed is not None:
                    labels = moved(
                        self.subset.placed, labels, mirrored=moves[0], offsets=moves[1],
                        pad=self.augmentation.crop_padding,
                        size=(pixels.shape[-2], pixels.shape[-1]),
                    )  # fmt: skip
                return self.augmentation.after(self._normalised(pixels), rng), labels
            return self._normalised(pixels), labels

        yield from ahead(batch, range(start, len(self)), self.subset.images)

    def _normalised(self, pixels: Tensor) -> Tensor:
        if self.size is not None and not pixels.is_floating_point():
            pixels = resize_images(pixels, self.size)
        return self.normalisation(pixels)

    @property
    def views(self) -> int | None:
        """How many different images training can see; None where they are countless."""
        if self.rounds is not None:
            return self.rounds * len(self.subset)
        each = 1 if self.augmentation is None else self.augmentation.views
        return None if each is None else each * len(self.subset)

    def views_of(self, epoch: int, index: int) -> Tensor | None:
        """Return which of the ``views`` each image of a batch is: (batch,) int64, or None.

        Images of the same number are the same, in whatever epoch they come.
        """
        if self.views is None:
            return None
        epoch = self._drawn_as(epoch)
        positions = self._order(epoch)[index * self.batch_size : (index + 1) * self.batch_size]
        if self.rounds is not None:
            return positions + len(self.subset) * epoch
        if self.augmentation is None or not self.augmentation.flip:
            return positions
        # Where nothing else is drawn, whether to mirror is what a batch draws first.
        rng = derive_rng(self.seed, "augment", epoch, index)
        return positions + len(self.subset) * self.augmentation.mirrored(len(positions), rng)

    def _drawn_as(self, epoch: int) -> int:
        """Return the epoch whose draws are those of ``epoch``."""
        return epoch if self.rounds is None else epoch % self.rounds

    def _order(self, epoch: int) -> Tensor:
        """Return the order of the images in ``epoch``: (images,) int64."""
        if self._drawn is None or self._drawn[0] != epoch:
            rng = derive_rng(self.seed, "order", epoch)
            drawn = rng.permutation(len(self.subset))
            if self._draws is not None:
                drawn = rng.permutation(drawn[_systematic(self._draws[drawn], rng)])
            self._drawn = epoch, torch.from_numpy(drawn)
        return self._drawn[1]


def _systematic(expected: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return as many places as there are, each about as often as expected: (n,) int64.

    Each comes the number of times that is expected, rounded up or down (Madow, "On the theory of
    systematic sampling, II", 1949).

    Args:
        expected: (n,) with a mean of 1.
    """
    marks = np.arange(len(expected)) + rng.random()
    return np.searchsorted(np.cumsum(expected), marks, side="right").clip(max=len(expected) - 1)


def ahead(
    batch: Callable[[int], tuple[Tensor, Tensor]], indices: range, images: Images
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield ``batch`` of every index in order; those of files are made while others are used."""
    if isinstance(images, (MemoryImages, HeldImages)):
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
