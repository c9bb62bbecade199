"""Files named by the SHA-256 of their content, taken in pieces, whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO

from search_spaces.atomic import sync_directory
from search_spaces.errors import EnvironmentProblem, InputError

_NAME = re.compile(r"[0-9a-f]{64}")
_PART = ".part-"


class BlobStore:
    """A folder of files named by their hash.

    Args:
        folder: made when missing; half-written files of an earlier process are removed.
        max_bytes: size of one file.
        max_total_bytes: of all files; :meth:`prune` keeps to it.
        check: looks at a whole file before it counts, says what it is, and raises
            ``InputError``.
        suffixes: what ``check`` said -> the suffix that readers of such a file go by.
        open_file: opens a part for writing (a full disk can be played).
    """

    def __init__(
        self,
        folder: Path,
        *,
        max_bytes: int,
        max_total_bytes: int,
        check: Callable[[Path], str] = lambda path: "",
        suffixes: Mapping[str, str] | None = None,
        open_file: Callable[[int], IO[bytes]] = lambda handle: os.fdopen(handle, "wb"),
    ) -> None:
        self.folder = Path(folder)
        self.max_bytes, self.max_total_bytes = max_bytes, max_total_bytes
        self._check, self._open = check, open_file
        self._suffixes = dict(suffixes or {})
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EnvironmentProblem(f"cannot make {self.folder}: {error.strerror}") from error
        for part in self.folder.glob(f"{_PART}*"):
            part.unlink(missing_ok=True)

    def path(self, sha256: str) -> Path:
        """Return where a file of this hash lies, or would lie.

        Raises:
            InputError: it is no hash, so it could name anything.
        """
        if not _NAME.fullmatch(sha256):
            raise InputError("a model is named by 64 hexadecimal digits")
        plain = self.folder / sha256
        found = (plain.with_suffix(suffix) for suffix in self._suffixes.values())
        return next((path for path in found if path.is_file()), plain)

    def __contains__(self, sha256: str) -> bool:
        return self.path(sha256).is_file()

    def touch(self, sha256: str) -> None:
        """Note that a file is in use, for :meth:`prune`."""
        with contextlib.suppress(FileNotFoundError):
            os.utime(self.path(sha256))

    def receive(self, sha256: str) -> Incoming:
        """Begin to take a file; see :class:`Incoming`."""
        return Incoming(self, sha256)

    def prune(self, in_use: Callable[[str], bool]) -> list[str]:
        """Remove the least recently used files beyond the total; those in use stay.

        Returns:
            The hashes removed.
        """
        files = sorted(self._files(), key=lambda item: item[1].st_mtime)
        total = sum(status.st_size for _, status in files)
        removed = []
        for path, status in files:
            if total <= self.max_total_bytes:
                break
            sha256 = path.stem
            if not in_use(sha256):
                path.unlink(missing_ok=True)
                total -= status.st_size
                removed.append(sha256)
        return removed

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        for path in self.folder.iterdir():
            if _NAME.fullmatch(path.stem):
                with contextlib.suppress(FileNotFoundError):
                    yield path, path.stat()


class Incoming:
    """A file on its way: ``write`` its pieces, then ``finish``; leaving early removes it.

    Used as a context manager. A file that is there already is written over by its twin.
    """

    def __init__(self, store: BlobStore, sha256: str) -> None:
        self._store, self._sha256 = store, sha256
        store.path(sha256)  # refuses a name that is no hash
        self._digest = hashlib.sha256()
        self._size = 0

    def __enter__(self) -> Incoming:
        with _disk():
            handle, name = tempfile.mkstemp(dir=self._store.folder, prefix=_PART)
        self._part: Path | None = Path(name)
        self._file = self._store._open(handle)
        return self

    def write(self, piece: bytes) -> None:
        """Take the next piece.

        Raises:
            InputError: the file grows beyond the limit.
            EnvironmentProblem: the disk is full.
        """
        self._size += len(piece)
        if self._size > self._store.max_bytes:
            raise InputError(f"the file is larger than the {self._store.max_bytes} bytes allowed")
        self._digest.update(piece)
        with _disk():
            self._file.write(piece)

    def finish(self) -> Path:
        """Verify, check and keep the file; it is on disk when this returns.

        Raises:
            InputError: its hash differs from its name, or the check refuses it.
            EnvironmentProblem: the disk is full.
        """
        assert self._part is not None
        with _disk():
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        if self._digest.hexdigest() != self._sha256:
            raise InputError("the content does not have the hash it is named by")
        kind = self._store._check(self._part)
        target = self._store.folder / f"{self._sha256}{self._store._suffixes.get(kind, '')}"
        with _disk():
            os.replace(self._part, target)
            self._part = None
            sync_directory(self._store.folder)
        return target

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._file.close()
        if self._part is not None:
            self._part.unlink(missing_ok=True)


@contextlib.contextmanager
def _disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        what = "no space left for a model file" if full else f"cannot keep a file: {error.strerror}"
        raise EnvironmentProblem(what) from error
