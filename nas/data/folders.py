"""The folder of a data source."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from search_spaces.errors import EnvironmentProblem, InputError

if TYPE_CHECKING:
    from nas.job.sections.data import DataConfig


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
