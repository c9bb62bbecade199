"""A set of grey letters in many fonts, drawn from the fonts of this machine: no download.

Ten classes, A to J, 28x28 pixels, laid out for ``image_folder``: ``train`` and ``test`` with a
folder a class. Whole font families are either in one or in the other, so the test letters are of
fonts never seen. The same fonts, number and seed give the same pictures::

    python -m experiments.value.letters runs/letters --images 20000

Fonts are those that fontconfig lists for English (Debian: packages ``fonts-*``); families that
lack a letter or draw the same sign for all are left out. ``letters.json`` says which were used.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from search_spaces.errors import EnvironmentProblem
from search_spaces.seeds import derive_rng

LETTERS = "ABCDEFGHIJ"
SIDE = 28
SCALE = 4
"""Letters are drawn so many times larger and reduced, which smooths their edges."""
TEST_SHARE = 0.2


def system_fonts() -> dict[str, list[Path]]:
    """Return the scalable fonts of this machine by family, both sorted.

    Raises:
        EnvironmentProblem: fontconfig is not installed.
    """
    command = ["fc-list", "--format", "%{family[0]}\t%{file}\n", ":lang=en:scalable=true"]
    try:
        listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    except FileNotFoundError as error:
        raise EnvironmentProblem("fc-list is missing; install the package fontconfig") from error
    found: dict[str, list[Path]] = {}
    for line in sorted(set(listed.splitlines())):
        family, _, file = line.partition("\t")
        if Path(file).suffix.lower() in (".ttf", ".otf", ".pfb", ".t1"):
            found.setdefault(family, []).append(Path(file))
    return found


def draws_letters(path: Path) -> bool:
    """Whether a font has a sign of its own for each of :data:`LETTERS`."""
    try:
        font = ImageFont.truetype(str(path), SIDE)
    except OSError:
        return False
    shapes = set()
    for letter in LETTERS:
        try:
            mask = font.getmask(letter)
        except OSError:
            return False
        if not mask.size[0] or not mask.size[1]:
            return False
        shapes.add((mask.size, bytes(mask)))
    return len(shapes) == len(LETTERS)


def drawing_fonts() -> dict[str, list[Path]]:
    """Return the fonts of this machine that draw all letters, by family.

    Raises:
        EnvironmentProblem: fontconfig is not installed.
    """
    return {
        family: kept
        for family, paths in system_fonts().items()
        if (kept := [path for path in paths if draws_letters(path)])
    }


def write_part(
    folder: Path, count: int, draw: Callable[[str], Image.Image], digest: hashlib._Hash
) -> None:
    """Write ``count`` pictures of all letters in turn, a folder a letter, and digest their pixels.

    Args:
        folder: of the part; must not exist.
        count: of pictures.
        draw: gives the next picture of a letter.
        digest: is updated.
    """
    for letter in LETTERS:
        (folder / letter).mkdir(parents=True)
    for index in range(count):
        letter = LETTERS[index % len(LETTERS)]
        picture = draw(letter)
        digest.update(picture.tobytes())
        picture.save(folder / letter / f"{index:05d}.png")


def draw(letter: str, path: Path, rng: np.random.Generator) -> Image.Image:
    """Return one picture, (28, 28) grey: a letter turned, shifted, and faint or strong."""
    side = SIDE * SCALE
    font = ImageFont.truetype(str(path), int(rng.uniform(0.5, 0.8) * side))
    left, top, right, bottom = font.getbbox(letter)
    # Fonts differ in how much of their size a letter fills.
    fill = rng.uniform(0.5, 0.72) * side / max(right - left, bottom - top, 1)
    font = ImageFont.truetype(str(path), max(8, int(font.size * fill)))
    left, top, right, bottom = font.getbbox(letter)
    canvas = Image.new("L", (side, side), 0)
    x, y = rng.uniform(-0.06, 0.06, 2) * side
    place = ((side - right - left) / 2 + x, (side - bottom - top) / 2 + y)
    ImageDraw.Draw(canvas).text(place, letter, fill=255, font=font)
    canvas = canvas.rotate(rng.uniform(-12, 12), Image.Resampling.BILINEAR)
    pixels = np.asarray(canvas.resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.float64)
    ink, paper = rng.uniform(150, 255), rng.uniform(0, 60)
    noisy = paper + pixels / 255 * (ink - paper) + rng.normal(0, rng.uniform(2, 14), pixels.shape)
    return Image.fromarray(noisy.round().clip(0, 255).astype(np.uint8))


def write_letters(folder: Path, images: int, seed: int) -> dict[str, Any]:
    """Write the set and return what is in it.

    Args:
        folder: must not exist.
        images: of both parts together, the test part :data:`TEST_SHARE` of them.
        seed: of the division and of the pictures.

    Raises:
        FileExistsError: the folder exists.
        EnvironmentProblem: fewer than ten families.
    """
    fonts = drawing_fonts()
    if len(fonts) < 10:
        raise EnvironmentProblem(
            f"only {len(fonts)} families of fonts draw {LETTERS}; install more, such as "
            "fonts-freefont-ttf, fonts-urw-base35, fonts-aenigma"
        )
    order = derive_rng(seed, "letters", "families").permutation(len(fonts))
    names = [sorted(fonts)[i] for i in order]
    held_out = max(1, round(TEST_SHARE * len(names)))
    parts = {"test": names[:held_out], "train": names[held_out:]}
    counts = {"test": round(TEST_SHARE * images), "train": images - round(TEST_SHARE * images)}
    folder.mkdir(parents=True)
    digest = hashlib.sha256()
    for part, families in parts.items():
        rng = derive_rng(seed, "letters", part)

        def one(letter: str, families: list[str] = families, rng: Any = rng) -> Image.Image:
            # A family first, so that one of many styles is not seen more often.
            paths = fonts[families[rng.integers(len(families))]]
            return draw(letter, paths[rng.integers(len(paths))], rng)

        write_part(folder / part, counts[part], one, digest)
    about = {
        "letters": LETTERS,
        "images": counts,
        "seed": seed,
        "families": {part: sorted(found) for part, found in parts.items()},
        "pixels_sha256": digest.hexdigest(),
    }
    (folder / "letters.json").write_text(json.dumps(about, indent=1) + "\n")
    return about


def main() -> None:
    """Write the set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    about = write_letters(arguments.folder, arguments.images, arguments.seed)
    families = {part: len(found) for part, found in about["families"].items()}
    print(f"{about['images']} pictures, families {families}, pixels {about['pixels_sha256'][:12]}")


if __name__ == "__main__":
    main()
