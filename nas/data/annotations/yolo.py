"""Boxes in text files beside the images, as YOLO trainers read them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.data.annotations.boxes import BoxedFile, boxed_data
from nas.data.annotations.parts import PARTS, listed_classes
from nas.data.folders import folder_of
from nas.data.problems import Problems
from nas.data.sources import DATA_SOURCES, IMAGE_SUFFIXES, RawData
from search_spaces.errors import EnvironmentProblem, InputError

if TYPE_CHECKING:
    from nas.job.sections.data import DataConfig

_TOLERANCE = 0.002
"""A box may stand out of its image by this share of a side: files round to few digits."""


@DATA_SOURCES.register("yolo_txt")
def yolo_txt(
    config: DataConfig, *, names: Sequence[str] | None = None, empty: bool = False
) -> RawData:
    """Return images with a text file each, a line a box: ``class x y width height``.

    x and y are the middle, and all four are shares of the image's sides. Images are in
    ``images/train``, ``images/val`` and ``images/test`` with their text files under ``labels``;
    or in ``train/images`` and ``train/labels`` and so on; or all in ``images`` and ``labels``.
    ``data.yaml`` says the names of the classes, and perhaps where the parts are; otherwise
    ``classes.txt`` or ``names`` does.

    Args:
        config: ``path`` is the folder of the data.
        names: of the classes, in order.
        empty: images without a text file, or with an empty one, are background; otherwise they
            are mistakes.

    Raises:
        InputError: mistakes in the files, all at once, each with its file and line.
        EnvironmentProblem: there are no images.
    """
    root = folder_of(config)
    classes, places = _description(root)
    classes = list(names) if names is not None else classes
    if not classes:
        raise InputError(
            f"{root}: neither data.yaml nor classes.txt says what the classes are called; say "
            "data.options: {names: [...]}"
        )
    problems = Problems(root)
    parts = {}
    for part in PARTS:
        folder = places.get(part) or _folder(root, part)
        if folder is None:
            continue
        if not folder.is_dir():
            raise EnvironmentProblem(f"{root / 'data.yaml'}: {part}: {folder} is not a folder")
        parts[part] = [
            _image(path, len(classes), problems)
            for path in sorted(folder.rglob("*"))
            if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
        ]
    if not parts.get("train"):
        raise EnvironmentProblem(
            f"{root}: there are no images in images/train, train/images or images"
        )
    return boxed_data(parts, classes, config, problems, origin=str(root), empty=empty)


def _description(root: Path) -> tuple[list[str], dict[str, Path]]:
    path = next((root / n for n in ("data.yaml", "dataset.yaml") if (root / n).is_file()), None)
    if path is None:
        return listed_classes(root), {}
    import yaml

    try:
        content: Any = yaml.safe_load(path.read_text("utf-8"))
    except yaml.YAMLError as error:
        raise InputError(f"{path}: {error}") from error
    content = content if isinstance(content, dict) else {}
    names = content.get("names") or []
    if isinstance(names, dict):
        names = [names[key] for key in sorted(names)]
    places = {}
    for part, keys in PARTS.items():
        key = next((k for k in keys if isinstance(content.get(k), str)), None)
        if key is not None:
            # Exports write ../train/images and mean train/images beside the file.
            inside = root / str(content.get("path") or "") / content[key]
            plain = root / str(content[key]).removeprefix("../")
            places[part] = inside if inside.is_dir() or not plain.is_dir() else plain
    return [str(name) for name in names], places


def _folder(root: Path, part: str) -> Path | None:
    for word in PARTS[part]:
        for place in (root / "images" / word, root / word / "images"):
            if place.is_dir():
                return place
    if part == "train":
        return root / "images" if (root / "images").is_dir() else root
    return None


def _image(path: Path, classes: int, problems: Problems) -> BoxedFile:
    text = _labels(path)
    file = BoxedFile(path, str(text))
    if not text.is_file():
        return file
    try:
        lines = text.read_text("utf-8").splitlines()
    except UnicodeDecodeError:
        problems.add(text, "is no UTF-8 text")
        file.described = 1
        return file
    for number, line in enumerate(lines, start=1):
        cells = line.split()
        if not cells:
            continue
        file.described += 1
        try:
            values = [float(cell) for cell in cells]
        except ValueError:
            problems.add(text, f"{line.strip()!r} holds words among the numbers", line=number)
            continue
        if len(values) != 5:
            more = "; polygons are not read" if len(values) > 5 else ""
            problems.add(
                text, f"has {len(values)} numbers and needs 5: class x y width height{more}",
                line=number,
            )  # fmt: skip
            continue
        kind = int(values[0]) if values[0].is_integer() else -1
        if not 0 <= kind < classes:
            problems.add(
                text, f"class {cells[0]} is unknown: there are 0 to {classes - 1}", line=number
            )
        x, y, w, h = values[1:]
        file.add(
            problems, kind if 0 <= kind < classes else None,
            (x - w / 2, y - h / 2, x + w / 2, y + h / 2), place=str(text), line=number,
            sides=(1.0, 1.0), tolerance=_TOLERANCE,
        )  # fmt: skip
    return file


def _labels(path: Path) -> Path:
    """Return the text file of an image: under ``labels`` where the image is under ``images``."""
    parts = list(path.parts)
    if "images" in parts:
        at = len(parts) - 1 - parts[::-1].index("images")
        parts[at] = "labels"
    return Path(*parts).with_suffix(".txt")
