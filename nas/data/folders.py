"""The folder of a data source, and what lies in it: classes, and the parts of a divided set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from search_spaces.errors import EnvironmentProblem, InputError

if TYPE_CHECKING:
    from nas.job.sections.data import DataConfig


NO_CLASSES = ("__MACOSX", "lost+found")
"""Folders that file systems and archives leave."""


def class_folders(root: Path, *, left_out: str = ".") -> list[str]:
    """Return the names of the folders in ``root``, each of which holds a class.

    Args:
        root: a folder.
        left_out: letters with which other folders begin.
    """
    return sorted(
        f.name
        for f in root.iterdir()
        if f.is_dir() and f.name[0] not in left_out and f.name not in NO_CLASSES
    )


_PARTS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}


def part_folders(root: Path) -> dict[str, Path]:
    """Return the folders of ``root`` that hold the parts of a divided set; none without train.

    A part holds class folders; a folder called ``train`` full of pictures is a class.
    """
    found: dict[str, Path] = {}
    for name in class_folders(root):
        part = _PARTS.get(name.lower())
        if part is None or not class_folders(root / name):
            continue
        if part in found:
            raise InputError(
                f"{root}: {found[part].name} and {name} could both be the {part} set; "
                "take one of them away"
            )
        found[part] = root / name
    if found and "train" not in found:
        raise InputError(
            f"{root}: there is {next(iter(found.values())).name} and no train folder beside it"
        )
    return found


def folder_of(config: DataConfig, needed: str = "the folder of the data") -> Path:
    """Return the folder that ``data.path`` names.

    Args:
        config: of the job.
        needed: what has to be named, in words.

    Raises:
        InputError: the job names none.
        EnvironmentProblem: it is not there.
    """
    if config.path is None:
        raise InputError(f"data.path: {config.name} needs {needed}")
    root = Path(config.path)
    if not root.is_dir():
        raise EnvironmentProblem(f"data.path: {root} is not a folder")
    return root
