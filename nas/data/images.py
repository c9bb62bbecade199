"""Where the inputs of a set come from: held in memory, or decoded from files when asked for."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from nas.data.in_parts import map_in_parts
from nas.data.pictures import inspect_pictures, open_picture
from nas.data.placed import cut

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
        if height == 1:
            # A signal has one direction to be cut in.
            w = self.area * width
            return np.stack([self.x * (width - w), 0 * w, w, np.ones_like(w)], axis=1)
        pixels = self.area * width * height
        w = np.minimum(np.sqrt(pixels * self.ratio), width)
        h = np.minimum(np.sqrt(pixels / self.ratio), height)
        return np.stack([self.x * (width - w), self.y * (height - h), w, h], axis=1)

    def __getitem__(self, index: int) -> Crops:
        """Return the crop of one image as a set of one."""
        part = slice(index, index + 1)
        return Crops(self.area[part], self.ratio[part], self.x[part], self.y[part])


class Images(Protocol):
    """Where the inputs of a set come from. Implementations are safe to read from threads."""

    def at(self, indices: Tensor, crops: Crops | None = None) -> Tensor:
        """Return inputs (n,) int64 -> (n, channels, height, width), each cut by its crop.

        Pixels are uint8; signals and other values float32.
        """
        ...

    def fingerprint(self, instead: Mapping[str, str] | None = None) -> str:
        """Return a SHA-256 that changes when the images change.

        Args:
            instead: path of a file -> digest to count for it, see :meth:`FileImages.digest`.
        """
        ...


class MemoryImages:
    """Inputs held in one tensor (n, channels, height, width), uint8 or float32."""

    def __init__(self, pixels: Tensor) -> None:
        self.pixels = pixels

    def at(self, indices: Tensor, crops: Crops | None = None) -> Tensor:
        """See :class:`Images`."""
        pixels = self.pixels[indices]
        if crops is None:
            return pixels
        return cut(pixels, crops)

    def fingerprint(self, instead: Mapping[str, str] | None = None) -> str:
        """SHA-256 of the values."""
        return hashlib.sha256(np.ascontiguousarray(self.pixels.numpy()).data).hexdigest()


class FileImages:
    """Images decoded from files when asked for.

    Of a picture that is large enough the shorter side is scaled to 8/7 of ``size`` and the middle
    is cut out, the usual evaluation transform of 256 and 224 pixels. A picture that is no larger
    than the image made of it is seen to its edges. Or the whole picture is scaled to a square.

    Args:
        paths: of the files.
        size: side of the images in pixels.
        channels: 1 or 3.
        whole: scale each picture as a whole, for targets that have places in it.
        threads: that decode.
    """

    def __init__(
        self,
        paths: tuple[Path, ...],
        *,
        size: int,
        channels: int,
        whole: bool = False,
        threads: int = 4,
    ) -> None:
        self.paths = paths
        self.whole = whole
        self.size = size
        self.channels = channels
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    def at(self, indices: Tensor, crops: Crops | None = None) -> Tensor:
        """See :class:`Images`.

        Raises:
            InputError: a file is no image or is damaged.
        """
        if self.whole and crops is not None:
            # The targets are shares of the sides, so both are cut from the square.
            return cut(self.at(indices), crops)
        numbers = indices.tolist()

        def decode(place: int) -> Tensor:
            return self._decode(numbers[place], None if crops is None else crops[place])

        return torch.stack(list(map_in_parts(self._pool, decode, range(len(numbers)))))

    def fingerprint(self, instead: Mapping[str, str] | None = None) -> str:
        """SHA-256 of the last two parts of every path, the file sizes and what the files hold.

        Of a large set only the beginning and the end of each file are read. Compressed images
        that differ anywhere differ there, or in size: a PNG ends with the checksum of its pixels.
        """
        known = instead or {}
        digest = hashlib.sha256()

        def of(path: Path) -> str:
            return known.get(str(path)) or self.digest(path)

        for part in map_in_parts(self._pool, of, self.paths):
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
        inspect_pictures(self.paths, partial(map_in_parts, self._pool))

    def _decode(self, index: int, crop: Crops | None) -> Tensor:
        from PIL import Image

        image = open_picture(self.paths[index], self.channels)
        if self.whole:
            left, top, width, height = 0.0, 0.0, float(image.width), float(image.height)
        elif crop is None:
            width = height = _seen(min(image.size), self.size)
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


SEEN = 7 / 8
"""Share of a picture's shorter side that an image made of its middle shows."""


def _seen(side: int, size: int) -> float:
    """Return how much of a picture's shorter side an image of ``size`` pixels shows."""
    return min(side, max(size, side * SEEN))


def cut_of(images: Images) -> dict[str, Any] | None:
    """Return what of a picture in a file becomes an image of ``size`` pixels; None for no file.

    Returns:
        ``part``: ``whole``; or ``middle`` and its ``share`` of the shorter side, where that leaves
        ``size`` pixels.
    """
    if not isinstance(images, FileImages):
        return None
    if images.whole:
        return {"part": "whole", "size": images.size}
    return {"part": "middle", "share": SEEN, "size": images.size}


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
