"""Which data source a folder or file is laid out for, told by the names in it alone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from itertools import islice
from pathlib import Path

_LOOKED_AT = 2000
"""Names that are looked at in a folder, so that a very large one is told as quickly."""


def guess_source(path: Path) -> str | None:
    """Return the name of the data source that reads ``path``, or None if no layout is known."""
    return next((name for name, fits in _LAYOUTS if fits(path)), None)


def layout_hint(path: Path) -> str:
    """Return how files of the kinds at ``path`` have to lie, for the message that none fits."""
    if path.is_file():
        return f"{path} is a file; give the folder that it lies in"
    patterns = ("*", "*/*", "*/*/*")
    suffixes = {each.suffix.lower() for pattern in patterns for each in _names(path, pattern)}
    hints = [text for kinds, text in _HINTS if suffixes & set(kinds)]
    return "; ".join(hints)


_HINTS = (
    ((".csv",), "CSV files are read as train.csv (a signal a row), as recordings in one folder, or "
     "one for each class (signal_csv), or as labels.csv beside images (image_csv)"),
    ((".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"), "pictures lie in a folder for "
     "each class (image_folder) or beside a CSV file of theirs (image_csv)"),
    ((".wav", ".flac"), "sounds lie in a folder for each class (audio_folder)"),
    ((".npy",), "arrays are called x_train.npy and y_train.npy (signal_numpy)"),
    ((".ts",), "archives of signals are called NAME_TRAIN.ts and NAME_TEST.ts (signal_ts)"),
    ((".json",), "boxes of COCO are in train.json, annotations.json or "
     "annotations/instances_train.json (coco_json)"),
)  # fmt: skip
"""Endings of files, and the layouts that hold such files."""


def _names(folder: Path, pattern: str = "*") -> Iterator[Path]:
    """Return what lies in ``folder`` and is not hidden."""
    found = folder.glob(pattern) if folder.is_dir() else iter(())
    return islice((each for each in found if not each.name.startswith(".")), _LOOKED_AT)


def _has(folder: Path, *patterns: str) -> bool:
    return any(True for pattern in patterns for _ in _names(folder, pattern))


def _coco(path: Path) -> bool:
    return _has(
        path, "annotations/instances_*.json", "*/_annotations.coco.json", "train.json",
        "annotations.json",
    )  # fmt: skip


def _yolo(path: Path) -> bool:
    places = [path / "labels", path / "train" / "labels", path / "labels" / "train"]
    return _has(path, "data.yaml") or any(_has(place, "*.txt") for place in places)


def _pictures(path: Path) -> bool:
    """Whether several folders of one hold pictures, which are its classes."""
    from nas.data.sources import IMAGE_SUFFIXES

    places = [path, *(each for each in _names(path) if each.is_dir())]
    return any(sum(_holds(each, IMAGE_SUFFIXES) for each in _names(place)) >= 2 for place in places)


def _holds(folder: Path, suffixes: Collection[str]) -> bool:
    return any(each.suffix.lower() in suffixes for each in _names(folder))


def table_of_pictures(path: Path) -> str | None:
    """Return the name of the one CSV file beside pictures, or beside a folder of them."""
    from nas.data.sources import IMAGE_SUFFIXES

    tables = [each.name for each in _names(path, "*.csv")]
    places = [path, *(each for each in _names(path) if each.is_dir())]
    shown = [place for place in places if _holds(place, IMAGE_SUFFIXES)]
    if "labels.csv" in tables:
        return "labels.csv"
    return tables[0] if len(tables) == 1 and len(shown) == 1 else None


def _sounds(path: Path) -> bool:
    """Whether folders of one, or of its parts, hold sounds, or a table names those in it."""
    from nas.data.sound_table import table_of_sounds

    folders = [each for pattern in ("*", "*/*") for each in _names(path, pattern) if each.is_dir()]
    if any(_holds(each, (".wav", ".flac")) for each in folders):
        return True
    return _holds(path, (".wav", ".flac")) and table_of_sounds(path) is not None


_LAYOUTS: tuple[tuple[str, Callable[[Path], bool]], ...] = (
    ("signal_ts", lambda path: _has(path, "*_TRAIN.ts")),
    ("signal_numpy", lambda path: _has(path, "x_train.npy", "*.npz")),
    ("image_csv", lambda path: table_of_pictures(path) is not None),
    ("coco_json", _coco),
    ("pascal_voc", lambda path: _has(path, "Annotations/*.xml", "train/*.xml", "*.xml")),
    ("mask_folder", lambda path: any(_has(path / part, "masks") for part in ("", "train"))),
    ("yolo_txt", _yolo),
    ("text_pairs", lambda path: path.suffix == ".tsv" or _has(path, "train.tsv")),
    ("signal_csv", lambda path: _has(path, "train.csv", "train/*.csv", "train/*/*.csv")),
    ("audio_folder", _sounds),
    ("image_folder", _pictures),
    ("signal_csv", lambda path: _has(path, "*.csv", "*/*.csv")),
    ("text", lambda path: path.suffix == ".txt" or _has(path, "*.txt")),
)
"""Sources by how particular their layout is: the first that fits is meant."""
