"""Coloured letters on photographs, 64x64, drawn from fonts and wallpapers of this machine.

Ten classes, A to J, each in the middle of a crop of a photograph with a part of another letter
beside it: a task as of signs in a street, which needs more training than letters on grey paper.
Laid out for ``image_folder``. Whole font families and whole photographs are either in ``train`` or
in ``test``. The same fonts, photographs, number and seed give the same pictures::

    python -m experiments.value.scenes runs/scenes --images 15000

Fonts are those of :mod:`experiments.value.letters`; photographs lie under ``/usr/share/wallpapers``
and ``/usr/share/backgrounds`` (Debian: ``plasma-workspace-wallpapers``, ``gnome-backgrounds``,
``lomiri-wallpapers-16.04``). ``scenes.json`` says which were used.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont, UnidentifiedImageError

from experiments.value.letters import LETTERS, TEST_SHARE, drawing_fonts, write_part
from search_spaces.errors import EnvironmentProblem
from search_spaces.seeds import derive_rng

SIDE, SCALE = 64, 2
FOLDERS = (Path("/usr/share/wallpapers"), Path("/usr/share/backgrounds"))
KINDS = (".jpg", ".jpeg", ".png", ".webp")
LEAST_SIDE, KEPT_SIDE = 500, 900
CONTRAST = 40.0
"""Least difference of brightness, of 255, between a letter and the mean of what is behind it."""
BRIGHTNESS = np.array([0.3, 0.6, 0.1])


def photographs() -> dict[str, np.ndarray]:
    """Return the photographs of this machine, (height, width, 3) uint8, by file, without copies."""
    found: dict[tuple[int, ...], tuple[str, np.ndarray]] = {}
    files = [path for folder in FOLDERS for path in folder.rglob("*")]
    for path in sorted(path for path in files if path.suffix.lower() in KINDS):
        try:
            picture = Image.open(path).convert("RGB")
        except (UnidentifiedImageError, OSError):
            continue
        if min(picture.size) < LEAST_SIDE:
            continue
        picture.thumbnail((KEPT_SIDE, KEPT_SIDE))
        pixels = np.asarray(picture)
        # The same wallpaper in another size has the same mean colour.
        mean = tuple(int(v) for v in pixels.mean((0, 1)) // 3)
        found.setdefault(mean, (str(path), pixels))
    return dict(found.values())


def mask(letter: str, font_file: Path, rng: np.random.Generator) -> Image.Image:
    """Return where ink is, twice the picture's side: a letter, and parts of two beside it."""
    side = SIDE * SCALE
    canvas = Image.new("L", (side, side), 0)
    pen = ImageDraw.Draw(canvas)
    for number in range(3):
        sign = letter if number == 0 else LETTERS[rng.integers(len(LETTERS))]
        font = ImageFont.truetype(str(font_file), int(rng.uniform(0.5, 0.8) * side))
        left, top, right, bottom = font.getbbox(sign)
        fill = rng.uniform(0.45, 0.7) * side / max(right - left, bottom - top, 1)
        font = ImageFont.truetype(str(font_file), max(8, int(font.size * fill)))
        left, top, right, bottom = font.getbbox(sign)
        beside = 0.0 if number == 0 else rng.choice([-1.0, 1.0]) * 0.62 * side
        x, y = rng.uniform(-0.06, 0.06, 2) * side
        place = ((side - right - left) / 2 + beside + x, (side - bottom - top) / 2 + y)
        pen.text(place, sign, fill=255, font=font)
    canvas = canvas.rotate(rng.uniform(-12, 12), Image.Resampling.BILINEAR)
    return canvas.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 2)))


def draw(
    letter: str, font_file: Path, photograph: np.ndarray, rng: np.random.Generator
) -> Image.Image:
    """Return one picture, (64, 64) RGB."""
    height, width = photograph.shape[:2]
    side = int(rng.integers(SIDE, min(height, width) // 2))
    y, x = int(rng.integers(height - side)), int(rng.integers(width - side))
    behind = Image.fromarray(photograph[y : y + side, x : x + side])
    behind = behind.resize((SIDE * SCALE, SIDE * SCALE), Image.Resampling.BILINEAR)
    mean = np.asarray(behind).mean((0, 1))
    while True:
        colour = rng.integers(0, 256, 3)
        if abs((colour - mean) @ BRIGHTNESS) > CONTRAST:
            break
    ink = Image.new("RGB", behind.size, tuple(int(v) for v in colour))
    picture = Image.composite(ink, behind, mask(letter, font_file, rng))
    pixels = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.float64)
    noisy = pixels + rng.normal(0, rng.uniform(0, 10), pixels.shape)
    return Image.fromarray(noisy.round().clip(0, 255).astype(np.uint8))


def write_scenes(folder: Path, images: int, seed: int) -> dict[str, Any]:
    """Write the set and return what is in it.

    Args:
        folder: must not exist.
        images: of both parts together, the test part :data:`TEST_SHARE` of them.
        seed: of the division and of the pictures.

    Raises:
        FileExistsError: the folder exists.
        EnvironmentProblem: fewer than ten families of fonts, or ten photographs.
    """
    fonts, behind = drawing_fonts(), photographs()
    if min(len(fonts), len(behind)) < 10:
        raise EnvironmentProblem(
            f"{len(fonts)} families of fonts and {len(behind)} photographs: ten of each are "
            "needed; install more (see the head of this file)"
        )
    rng = derive_rng(seed, "scenes", "division")
    divided: dict[str, dict[str, list[str]]] = {"test": {}, "train": {}}
    for kind, names in (("families", sorted(fonts)), ("photographs", sorted(behind))):
        order = [names[i] for i in rng.permutation(len(names))]
        cut = max(1, round(TEST_SHARE * len(names)))
        divided["test"][kind], divided["train"][kind] = order[:cut], order[cut:]
    counts = {"test": round(TEST_SHARE * images), "train": images - round(TEST_SHARE * images)}
    folder.mkdir(parents=True)
    digest = hashlib.sha256()
    for part, names in divided.items():
        rng = derive_rng(seed, "scenes", part)

        def one(letter: str, names: dict[str, list[str]] = names, rng: Any = rng) -> Image.Image:
            paths = fonts[names["families"][rng.integers(len(names["families"]))]]
            photograph = behind[names["photographs"][rng.integers(len(names["photographs"]))]]
            return draw(letter, paths[rng.integers(len(paths))], photograph, rng)

        write_part(folder / part, counts[part], one, digest)
    about = {
        "letters": LETTERS,
        "images": counts,
        "seed": seed,
        "parts": divided,
        "pixels_sha256": digest.hexdigest(),
    }
    (folder / "scenes.json").write_text(json.dumps(about, indent=1) + "\n")
    return about


def main() -> None:
    """Write the set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=15_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    about = write_scenes(arguments.folder, arguments.images, arguments.seed)
    sizes = {part: {k: len(v) for k, v in names.items()} for part, names in about["parts"].items()}
    print(f"{about['images']} pictures, {sizes}, pixels {about['pixels_sha256'][:12]}")


if __name__ == "__main__":
    main()
