"""Folders of this user, and what to do where they cannot be used."""

from __future__ import annotations

import os
from pathlib import Path

from search_spaces.errors import EnvironmentProblem

CACHE = "EDGE_NAS_CACHE"


def cache_folder(name: str) -> Path:
    """Return a folder for what can be made again: ``$EDGE_NAS_CACHE``, or one of the user's.

    Raises:
        EnvironmentProblem: this user has no home, so the variable must be given.
    """
    base = os.environ.get(CACHE)
    return (
        Path(base) / name if base else home("XDG_CACHE_HOME", ".cache", CACHE) / "edge-nas" / name
    )


def home(variable: str, default: str, instead: str) -> Path:
    """Return the user's folder that ``variable`` names, by default ``default`` in the home.

    Args:
        instead: what to give where there is no home, for the message.

    Raises:
        EnvironmentProblem: there is none.
    """
    named = os.environ.get(variable)
    if named:
        return Path(named)
    try:
        return Path.home() / default
    except RuntimeError as error:
        raise EnvironmentProblem(
            f"this user has no home folder; say where to keep files with {instead}"
        ) from error


def make_cache(folder: Path) -> None:
    """Make a folder of the cache.

    Raises:
        EnvironmentProblem: it cannot be written, as in a container with a read-only home.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(13, "it cannot be written")
    except OSError as error:
        raise EnvironmentProblem(
            f"cannot use the cache folder {folder}: {error.strerror}; set {CACHE} to a folder that "
            "can be written"
        ) from error
