"""Pictures that are decoded once and then held in memory."""

from __future__ import annotations

import threading

import torch
from torch import Tensor

from nas.data.images import Crops, FileImages, MemoryImages
from nas.data.pictures import picture_header

HELD_BYTES = 2**29
"""Most bytes of decoded pictures of one set that are held."""

_LOOKED_AT = 256
"""Pictures, spread over the set, whose size decides whether holding them loses anything."""


class HeldImages(FileImages):
    """The images of :class:`FileImages`, decoded when the first is asked for.

    A small network takes less time for a batch than decoding its pictures does. Random crops are
    cut from the scaled image, which loses detail where a file has more of it: see :func:`holds`.

    Args:
        files: where they come from.
    """

    def __init__(self, files: FileImages) -> None:
        super().__init__(files.paths, size=files.size, channels=files.channels, whole=files.whole)
        self._held: MemoryImages | None = None
        self._lock = threading.Lock()

    def at(self, indices: Tensor, crops: Crops | None = None) -> Tensor:
        """See :class:`~nas.data.images.Images`.

        Raises:
            InputError: a file is no image or is damaged.
        """
        with self._lock:
            if self._held is None:
                everything = torch.arange(len(self.paths))
                # In parts: what each thread decodes is there a second time until it is joined.
                decode = super().at
                parts = [decode(part) for part in everything.split(4096)]
                self._held = MemoryImages(torch.cat(parts))
        return self._held.at(indices, crops)


def holds(files: FileImages) -> bool:
    """Whether the images of ``files`` fit in memory, and lose nothing by being scaled once.

    They lose nothing where the pictures are hardly larger than the images made of them, and where
    targets have places in them: then crops are cut from the scaled image in any case.
    """
    count = len(files.paths)
    if count * files.channels * files.size**2 > HELD_BYTES:
        return False
    if files.whole:
        return True
    looked_at = files.paths[:: max(1, count // _LOOKED_AT)]
    sides = [min(picture_header(path)[:2]) for path in looked_at]
    return max(sides) <= files.size * 8 / 7
