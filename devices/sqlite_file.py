"""SQLite files that survive kills, power cuts and full disks: the one way to open them.

Write-ahead mode with full synchronisation: a transaction is wholly there or not at all,
and several processes may use a file at once.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from search_spaces.errors import EnvironmentProblem, InputError

Connect = Callable[..., sqlite3.Connection]


class SqliteFile:
    """One database file with an owner and numbered migrations, made when first opened.

    Args:
        path: the file; its folder is made too.
        application_id: 32-bit number that marks the file as ours.
        migrations: SQL scripts, one a format version, without triggers (statements are
            split at semicolons).
        kind: what the file is, for error messages ("measurement store").
        connect: opens a connection, as :func:`sqlite3.connect` does.
        private: only its owner may read it, or the files beside it that SQLite makes.

    Raises:
        InputError: the file is something else, or of a later version.
        EnvironmentProblem: it cannot be made or opened.
    """

    def __init__(
        self,
        path: Path,
        *,
        application_id: int,
        migrations: Sequence[str],
        kind: str,
        connect: Connect = sqlite3.connect,
        private: bool = False,
    ) -> None:
        self.path = Path(path)
        self._application_id = application_id
        self._migrations = migrations
        self._kind = kind
        self._connect = connect
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EnvironmentProblem(
                f"cannot make the folder {self.path.parent}: {error.strerror}"
            ) from error
        if private:
            self._make_private()
        self._prepare()

    def _make_private(self) -> None:
        try:
            # Made here, so that it is never readable; what SQLite makes beside it follows it.
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
            for suffix in ("", "-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    os.chmod(f"{self.path}{suffix}", 0o600)
        except OSError as error:
            raise EnvironmentProblem(f"cannot open {self.path}: {error.strerror}") from error

    def open(self) -> sqlite3.Connection:
        """Return a new connection in autocommit mode; the caller begins and closes."""
        db = self._connect(self.path, timeout=60.0, isolation_level=None)
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA foreign_keys = ON")
        return db

    @contextlib.contextmanager
    def session(self, *, write: bool = False) -> Iterator[sqlite3.Connection]:
        """Give a connection for one use; with ``write`` in a transaction, kept or undone whole.

        A connection for each use: none crosses a fork or a thread.
        """
        with self.translated(), contextlib.closing(self.open()) as db:
            if not write:
                yield db
                return
            with _transaction(db):
                yield db

    @contextlib.contextmanager
    def translated(self) -> Iterator[None]:
        """Turn SQLite's errors into ones that name the file and what to do."""
        with translated(self.path, self._kind):
            yield

    def _prepare(self) -> None:
        with self.translated():
            # Two processes that both find a new file: the second waits for the lock and
            # then finds the tables made. The switch to write-ahead mode ignores the busy
            # timeout, hence the loop.
            for wait in (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 4.0, None):
                try:
                    self._migrate()
                    return
                except sqlite3.OperationalError as error:
                    if wait is None or "locked" not in str(error):
                        raise
                    time.sleep(wait)

    def _migrate(self) -> None:
        with contextlib.closing(self.open()) as db:
            (version,) = db.execute("PRAGMA user_version").fetchone()
            (owner,) = db.execute("PRAGMA application_id").fetchone()
            (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if owner != self._application_id and (version or tables):
                raise InputError(f"{self.path} is a database of something else")
            if version > len(self._migrations):
                raise InputError(
                    f"{self.path} was written by a later version (format {version}, this one "
                    f"reads up to {len(self._migrations)}); upgrade the package"
                )
            (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
            if mode != "wal":
                raise EnvironmentProblem(
                    f"{self.path} lies on a file system without write-ahead logging; "
                    f"put the {self._kind} on a local disk"
                )
            if version == len(self._migrations):
                return
            with _transaction(db):
                (version,) = db.execute("PRAGMA user_version").fetchone()
                for script in self._migrations[version:]:
                    for statement in script.split(";"):
                        db.execute(statement)
                db.execute(f"PRAGMA application_id = {self._application_id}")
                db.execute(f"PRAGMA user_version = {len(self._migrations)}")


@contextlib.contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Keep what is done within, or undo it whole."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        # A full disk may have rolled back already.
        with contextlib.suppress(sqlite3.Error):
            db.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def translated(path: Path, kind: str) -> Iterator[None]:
    """Turn SQLite's errors about ``path`` into ones that name it and what to do."""
    try:
        yield
    except sqlite3.OperationalError as error:
        text = str(error)
        if "full" in text:
            message = f"no space left for {path}; free some and resume"
        elif "readonly" in text or "unable to open" in text:
            message = f"cannot write {path}: {text}; check its permissions"
        elif "locked" in text:
            message = f"{path} stayed locked by another process for a minute"
        else:
            message = f"cannot use {path}: {text}"
        raise EnvironmentProblem(message) from error
    except sqlite3.DatabaseError as error:
        raise InputError(f"{path} is not a {kind}: {error}") from error
