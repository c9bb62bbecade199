"""Locks between processes: one measurement to a machine, one process to a folder or a file."""

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
    if path is None:
        # Without users there are no POSIX locks either, and the name is not needed.
        user = os.getuid() if hasattr(os, "getuid") else ""
        name = f"edge-nas-{user}{accelerator and '-'}{accelerator}.lock"
        path = Path(tempfile.gettempdir()) / name
    with file_lock(path, "another measurement on this machine to end"):
        yield


@contextlib.contextmanager
def file_lock(path: Path, until: str) -> Iterator[None]:
    """Hold a file for one process; others wait, a killed holder lets go.

    Args:
        path: the lock file, made if need be.
        until: what is waited for, for the log of whoever has to wait.

    Raises:
        EnvironmentProblem: the file cannot be opened.
    """
    try:
        import fcntl
    except ImportError:  # no POSIX locks on this system, so nothing to wait for
        yield
        return
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise EnvironmentProblem(f"cannot open the lock {path}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _LOG.info("waiting for %s (%s)", until, path)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def is_locked(path: Path) -> bool | None:
    """Return whether a process holds the lock at ``path``; None where that cannot be told.

    It is taken for an instant to find out.
    """
    try:
        import fcntl

        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (ImportError, OSError):  # no POSIX locks, no such file, or one that may not be read
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return None
    finally:
        os.close(handle)
    return False


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
