"""Picture files: what is wrong with them found before any work, and their pixels as 8 bits."""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from search_spaces.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 2**27
"""A picture with more is refused unread: a few kilobytes can unpack to gigabytes."""
_SHOWN = 10
_TAIL = 4096
_ENDS = {"PNG": b"IEND", "JPEG": b"\xff\xd9", "GIF": b"\x3b"}
"""What stands at the end of a whole file of a format."""

LOOKED_AT = 200
"""Pictures whose headers tell what all are like, spread evenly over the files of all classes."""

_GREY = ("1", "L", "LA", "F", "I")
"""Pillow's modes of one channel."""

_TRANSPARENT = ("RGBA", "LA", "PA")
"""Those with a channel of opacity; others may name a colour that is transparent."""

Map = Callable[[Callable[[Path], Any], Iterable[Path]], Iterable[Any]]


class DamagedPicture(InputError):
    """One picture file cannot be used.

    Attributes:
        path: of the file.
        reason: what is wrong with it.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{readable(path)}: cannot be read as an image ({reason})")
        self.path, self.reason = Path(path), reason

    def __reduce__(self) -> tuple[Any, ...]:
        # It travels between processes.
        return DamagedPicture, (self.path, self.reason)


def open_picture(path: Path, channels: int) -> Image:
    """Return a picture as it is to be seen: turned as its camera says, 8 bits, 1 or 3 channels.

    What is transparent is white, as on a page: what lies below is often black, all of it.

    Raises:
        DamagedPicture: no picture, a damaged one, one that is too large, or pixels that have no
            scale of 8 bits.
    """
    from PIL import Image, ImageOps

    try:
        with _opened(path) as opened:
            whole = ImageOps.exif_transpose(opened)
            flat = _on_white(_eight_bits(path, whole))
            return flat.convert("RGB" if channels == 3 else "L")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, DamagedPicture):
            raise
        raise DamagedPicture(path, str(error)) from error


def picture_header(path: Path) -> tuple[int, int, str]:
    """Return width, height and Pillow's mode of a picture, from its header alone.

    Raises:
        DamagedPicture: no picture, or one that is too large.
    """
    from PIL import Image

    try:
        with _opened(path) as opened:
            return opened.width, opened.height, opened.mode
    except DamagedPicture:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DamagedPicture(path, str(error)) from error


@dataclass(frozen=True)
class UsualPicture:
    """What pictures in files are like, from the headers of some of them.

    Attributes:
        shorter, longer: medians of their sides, pixels.
        grey: whether every one that was looked at is.
    """

    shorter: int
    longer: int
    grey: bool

    @property
    def unseen(self) -> str | None:
        """What the middle square, which is what networks see, leaves out where it is half."""
        if self.longer < 2 * self.shorter:
            return None
        return (
            f"pictures have about {self.longer} x {self.shorter} pixels, and networks see the "
            f"square in their middle, {self.shorter / self.longer:.0%} of them; where more "
            "matters, say data.options: {whole: true}, which scales them as a whole"
        )


def usual_picture(paths: Sequence[Path]) -> UsualPicture:
    """Return what the pictures at ``paths`` are like, from at most twice :data:`LOOKED_AT`.

    Raises:
        DamagedPicture: one that is looked at is none.
    """
    headers = [picture_header(path) for path in paths[:: max(1, len(paths) // LOOKED_AT)]]
    return UsualPicture(
        shorter=int(statistics.median(min(width, height) for width, height, _ in headers)),
        longer=int(statistics.median(max(width, height) for width, height, _ in headers)),
        grey=all(mode in _GREY or mode.startswith("I;16") for _, _, mode in headers),
    )


def inspect_pictures(paths: Sequence[Path], each: Map = map) -> None:
    """Look at the header and the end of every file; what looks cut off is decoded.

    Args:
        paths: of the files.
        each: maps a function over them, a pool's for instance.

    Raises:
        InputError: files that cannot be used, all of them told at once by name.
    """
    found = [problem for problem in each(_problem, paths) if problem is not None]
    if not found:
        return
    if len(found) == 1:
        raise found[0]
    shown = [str(problem) for problem in found[:_SHOWN]]
    if len(found) > _SHOWN:
        shown.append(f"... and {len(found) - _SHOWN} more")
    raise InputError("\n".join([f"{len(found)} pictures cannot be used:", *shown]))


def readable(name: Path | str) -> str:
    """Return a name of a file system as text that can be written and shown.

    Names are bytes; those that are no UTF-8 are taken for Latin-1, as they mostly are.
    """
    data = str(name).encode("utf-8", "surrogateescape")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _problem(path: Path) -> DamagedPicture | None:
    from PIL import Image

    try:
        with _opened(path) as opened:
            end = _ENDS.get(opened.format or "")
            # A float TIFF's range and what other formats cut off are known by decoding alone.
            if end is None or end not in _tail(path):
                _eight_bits(path, opened)
                opened.load()
    except DamagedPicture as error:
        return error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return DamagedPicture(path, str(error))
    return None


def _opened(path: Path) -> Image:
    from PIL import Image

    with warnings.catch_warnings():
        # Pillow warns from half of its own limit on; ours says which file it is.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image = Image.open(path)
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise DamagedPicture(
            path, f"{image.width} x {image.height} pixels; at most {MAX_PIXELS} are read"
        )
    return image


def _tail(path: Path) -> bytes:
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL))
        return file.read()


def _eight_bits(path: Path, image: Image) -> Image:
    """Return a grey image of more than 8 bits scaled to 8; Pillow's conversion only clips it."""
    from PIL import Image

    if image.mode == "F":
        values = np.asarray(image)
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
            raise DamagedPicture(
                path,
                f"pixels are floats from {values.min():g} to {values.max():g}, for which there is "
                "no scale; save them as 0 to 1, or as 8 or 16 bits",
            )
        return Image.fromarray(np.round(values * 255).astype(np.uint8))
    if not image.mode.startswith("I;16") and image.mode != "I":
        return image
    levels = np.asarray(image).astype(np.int64)
    # Pillow opens 16-bit PNGs as "I;16" or, in older versions, as 32-bit integers "I".
    if levels.min() < 0 or levels.max() > 65535:
        raise DamagedPicture(
            path,
            f"pixels are integers from {levels.min()} to {levels.max()}, for which there is no "
            "scale; save them as 8 or 16 bits",
        )
    return Image.fromarray(((levels * 255 + 32767) // 65535).astype(np.uint8))


def _on_white(image: Image) -> Image:
    from PIL import Image

    if image.mode not in _TRANSPARENT and "transparency" not in image.info:
        return image
    seen = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen).convert("RGB")


SHIFTED_SIDE = 64
"""Side in pixels up to which pictures are shifted in training; larger ones are cropped."""

CROP_SCALE = 0.6
"""Smallest share of the area that a crop of a larger picture takes."""


def suited_crops(side: int) -> dict[str, Any]:
    """Return ``crop_padding`` and ``scale`` that suit the training of small networks on pictures.

    Crops of a third of the area, as for networks of ImageNet, ask more of a network of few KiB and
    few minutes than it can learn (on letters of 28 pixels, 3 KiB after 2,000 steps: 82 % of the
    validation pictures; shifted by 2 pixels 88 %, by 3 or 4 86 %, as they are 87 %). Networks that
    do not overfit gain by what keeps them from it as little (NetAug; Cai et al., ICLR 2022).

    Args:
        side: of the training pictures, in pixels.
    """
    return suited_shift(side) if side <= SHIFTED_SIDE else {"crop_padding": 0, "scale": CROP_SCALE}


def suited_shift(side: int) -> dict[str, Any]:
    """Return ``crop_padding`` and ``scale`` that move training pictures of ``side`` pixels a bit
    and lose nothing but their edges."""
    return {"crop_padding": max(1, round(side / 14)), "scale": 1.0}
