"""Locks between processes: one measurement to a machine, one process to a data folder."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from search_spaces.errors import EnvironmentProblem

_LOG = logging.getLogger(__name__)


@contextlib.contextmanager
def machine_lock(path: Path | None = None, *, accelerator: str = "") -> Iterator[None]:
    """Hold this machine for one measurement; others wait, a killed holder lets go.

    Args:
        path: the lock file; by default one of this user's for the machine.
        accelerator: a part of the machine that does not disturb the rest, with a lock of
            its own.
    """
    try:
        import fcntl
    except ImportError:  # no POSIX locks on this system, so nothing to wait for
        yield
        return
    name = f"edge-nas-{os.getuid()}{accelerator and '-'}{accelerator}.lock"
    path = path or Path(tempfile.gettempdir()) / name
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise EnvironmentProblem(f"cannot open the lock {path}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _LOG.info("waiting for another measurement on this machine to end (%s)", path)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def folder_lock(folder: Path, what: str) -> Iterator[None]:
    """Hold a data folder for one process; a killed holder lets go.

    Raises:
        EnvironmentProblem: another process holds it, or it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise EnvironmentProblem(f"cannot use the folder {folder}: {error.strerror}") from error
    try:
        try:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:  # no POSIX locks on this system
            pass
        except BlockingIOError:
            raise EnvironmentProblem(f"another {what} is using the folder {folder}") from None
        yield
    finally:
        os.close(handle)
