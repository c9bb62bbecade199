"""Normalising and augmenting batches of inputs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nas.data.images import Crops
from nas.data.placed import windows


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of each channel.

    Attributes:
        mean, std: of values divided by ``scale``.
        scale: 255 for pixels of 8 bits, which are scaled to 0..1; 1 for values as they are.
        reversed: the network takes blue, green and red in this order; ``mean`` and ``std`` too.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float = 255.0
    reversed: bool = False

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return (n, channels, h, w), uint8 or float32, as float32 with mean 0, deviation 1."""
        if self.reversed:
            pixels = pixels.flip(1)
        std = torch.tensor(self.std).view(-1, 1, 1)
        shift = -torch.tensor(self.mean).view(-1, 1, 1) / std
        return torch.addcmul(shift, pixels.float(), 1.0 / (self.scale * std))


@dataclass(frozen=True)
class Augmentation:
    """Random changes to a batch of training images, drawn for each image.

    Attributes:
        scale: smallest share of the area that a crop takes before it is resized; 1 for none.
        crop_padding: pixels by which an image is shifted at most; its edge fills what it leaves.
        flip: mirror half of the images left to right.
        erase: probability of blanking a square of a quarter of the side; of a signal, a quarter
            of its length.
        noise: deviation of the normal noise that is added, in deviations of a channel.
        gain: largest relative change of an example's amplitude; 0.2 for factors of 0.8 to 1.2.
    """

    crop_padding: int = 0
    flip: bool = False
    erase: float = 0.0
    scale: float = 1.0
    noise: float = 0.0
    gain: float = 0.0

    @property
    def views(self) -> int | None:
        """How many inputs one can become, 1 or 2; None where they are countless."""
        if self.crop_padding or self.erase or self.scale != 1.0 or self.noise or self.gain:
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

    def moves(self, n: int, rng: np.random.Generator) -> tuple[Tensor | None, Tensor | None]:
        """Draw how ``n`` images are mirrored, (n,) bool, and shifted, (2, n, 1) int64, or None."""
        mirrored = self.mirrored(n, rng) if self.flip else None
        pad = self.crop_padding
        offsets = torch.from_numpy(rng.integers(0, 2 * pad + 1, size=(2, n, 1))) if pad else None
        return mirrored, offsets

    def __call__(self, pixels: Tensor, rng: np.random.Generator) -> Tensor:
        """Return the changed inputs: (n, channels, h, w), uint8 or float32 -> the same shape."""
        return self.blanked(self.moved(pixels, *self.moves(len(pixels), rng)), rng)

    def moved(self, pixels: Tensor, mirrored: Tensor | None, offsets: Tensor | None) -> Tensor:
        """Return inputs (n, channels, h, w) mirrored and shifted as :meth:`moves` drew it."""
        height, width = pixels.shape[-2:]
        if mirrored is None and offsets is None:
            return pixels
        if offsets is not None:
            # A signal has no rows to move along.
            rows = offsets[0] - self.crop_padding if height > 1 else torch.zeros_like(offsets[0])
            offsets = torch.stack([rows, offsets[1] - self.crop_padding])
        return windows(pixels, (height, width), mirrored=mirrored, offsets=offsets)

    def blanked(self, pixels: Tensor, rng: np.random.Generator) -> Tensor:
        """Return inputs (n, channels, h, w) of which some have a square blanked."""
        n, _, height, width = pixels.shape
        values = pixels.is_floating_point()
        if self.erase:
            side = max(1, min(height, width) // 4)
            length = side if height > 1 else max(1, width // 4)
            chosen = torch.from_numpy(rng.random(n) < self.erase)
            top = torch.from_numpy(rng.integers(0, height - side + 1, size=(n, 1)))
            left = torch.from_numpy(rng.integers(0, width - length + 1, size=(n, 1)))
            y, x = torch.arange(height), torch.arange(width)
            in_rows = (y >= top) & (y < top + side) & chosen[:, None]
            in_columns = (x >= left) & (x < left + length)
            blank = in_rows[:, None, :, None] & in_columns[:, None, None, :]
            fill = (
                pixels.mean((2, 3), keepdim=True) if values else torch.zeros((), dtype=torch.uint8)
            )
            pixels = torch.where(blank, fill, pixels)
        return pixels

    def after(self, inputs: Tensor, rng: np.random.Generator) -> Tensor:
        """Return normalised inputs (n, channels, h, w) with amplitudes changed and noise added."""
        if self.gain:
            factors = rng.uniform(1 - self.gain, 1 + self.gain, (len(inputs), 1, 1, 1))
            inputs = inputs * torch.from_numpy(factors).float()
        if self.noise:
            noise = rng.standard_normal(tuple(inputs.shape), dtype=np.float32)
            inputs = inputs + self.noise * torch.from_numpy(noise)
        return inputs
