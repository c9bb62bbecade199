"""The hub's database: every change on one thread, many changes to one flush.

A flush of the disk takes milliseconds, a change takes microseconds. So whatever waits
when a transaction begins goes into it, each change under its own savepoint, and all are
answered after one flush. A change that fails undoes itself alone; when the flush fails
(disk full) none of them happened.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from devices.sqlite_file import Connect, SqliteFile

T = TypeVar("T")

_APPLICATION_ID = 0x454E4855
_MIGRATIONS = (
    """
    CREATE TABLE tokens (
        name TEXT PRIMARY KEY,
        sha256 TEXT NOT NULL,
        scope TEXT NOT NULL,
        device TEXT,
        created REAL NOT NULL,
        expires REAL,
        revoked INTEGER NOT NULL DEFAULT 0
    );
    CREATE TABLE devices (
        name TEXT PRIMARY KEY,
        session INTEGER NOT NULL,
        last_heartbeat REAL,
        description TEXT NOT NULL,
        failures INTEGER NOT NULL DEFAULT 0,
        quarantine TEXT
    );
    CREATE TABLE jobs (
        number INTEGER PRIMARY KEY,
        job TEXT NOT NULL UNIQUE,
        key TEXT NOT NULL,
        device TEXT NOT NULL,
        model TEXT NOT NULL,
        runtime TEXT NOT NULL,
        parameters TEXT NOT NULL,
        protocol TEXT NOT NULL,
        state TEXT NOT NULL,
        fence INTEGER NOT NULL DEFAULT 0,
        attempts INTEGER NOT NULL DEFAULT 0,
        created REAL NOT NULL,
        changed REAL NOT NULL,
        failure TEXT,
        result TEXT,
        result_sha256 TEXT
    );
    CREATE INDEX jobs_key ON jobs (key);
    CREATE INDEX jobs_queue ON jobs (device, state, number);
    CREATE INDEX jobs_model ON jobs (model, state);
    CREATE TABLE events (
        number INTEGER PRIMARY KEY,
        time REAL NOT NULL,
        job TEXT,
        device TEXT,
        what TEXT NOT NULL,
        detail TEXT NOT NULL
    );
    CREATE INDEX events_job ON events (job);
    """,
    """
    ALTER TABLE jobs ADD COLUMN owner TEXT NOT NULL DEFAULT '';
    """,
)


@dataclass
class Transaction:
    """One change: the connection, and what to do once the change is on disk."""

    db: sqlite3.Connection
    _after: list[Callable[[], None]] = field(default_factory=list)

    def after(self, do: Callable[[], None]) -> None:
        """Call ``do`` on the ledger's thread after the commit; not at all without one.

        What is kept in memory changes here only, so that it never differs from the disk.
        Later changes of the same flush must not need it: they read the tables.
        """
        self._after.append(do)

    def event(
        self,
        time: float,
        what: str,
        *,
        job: str | None = None,
        device: str | None = None,
        **detail: Any,
    ) -> None:
        """Add a line to the history."""
        self.db.execute(
            "INSERT INTO events (time, job, device, what, detail) VALUES (?, ?, ?, ?, ?)",
            (time, job, device, what, json.dumps(detail)),
        )


Change = Callable[[Transaction], T]


class Ledger:
    """Runs changes one after another on a thread of its own.

    Args:
        path: the database file.
        connect: opens a connection, as :func:`sqlite3.connect` does.
        most: changes to one flush.
    """

    def __init__(self, path: Path, *, connect: Connect = sqlite3.connect, most: int = 64) -> None:
        self._file = SqliteFile(
            path,
            application_id=_APPLICATION_ID,
            migrations=_MIGRATIONS,
            kind="hub database",
            connect=connect,
            private=True,
        )
        self._most = most
        self._queue: queue.Queue[tuple[Change[Any], Future[Any]] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._serve, name="hub-ledger", daemon=True)
        self._thread.start()

    def submit(self, change: Change[T]) -> Future[T]:
        """Queue a change; the future is set once it is on disk, or was undone."""
        future: Future[T] = Future()
        self._queue.put((change, future))
        return future

    def call(self, change: Change[T]) -> T:
        """Make a change and wait for it."""
        return self.submit(change).result()

    async def run(self, change: Change[T]) -> T:
        """Make a change from an event loop; a cancelled caller does not undo it."""
        return await asyncio.shield(asyncio.wrap_future(self.submit(change)))

    def close(self) -> None:
        """Finish what is queued and stop."""
        self._queue.put(None)
        self._thread.join()

    def _serve(self) -> None:
        db: sqlite3.Connection | None = None
        going = True
        while going:
            batch, going = self._take()
            if not batch:
                continue
            try:
                with self._file.translated():
                    if db is None:
                        db = self._file.open()
                    self._flush(db, batch)
            except Exception as error:
                # The transaction is gone, whatever a change believed; the next batch
                # begins on a fresh connection.
                if db is not None:
                    with contextlib.suppress(sqlite3.Error):
                        db.close()
                    db = None
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
        if db is not None:
            db.close()

    def _take(self) -> tuple[list[tuple[Change[Any], Future[Any]]], bool]:
        batch = []
        item = self._queue.get()
        while item is not None:
            batch.append(item)
            if len(batch) >= self._most:
                return batch, True
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return batch, True
        return batch, False

    def _flush(self, db: sqlite3.Connection, batch: list[tuple[Change[Any], Future[Any]]]) -> None:
        answers: list[tuple[Future[Any], Transaction, Any, Exception | None]] = []
        db.execute("BEGIN IMMEDIATE")
        for change, future in batch:
            transaction = Transaction(db)
            db.execute("SAVEPOINT change")
            try:
                answer = change(transaction)
                problem: Exception | None = None
            except sqlite3.Error:
                raise
            except Exception as error:
                db.execute("ROLLBACK TO change")
                answer, problem = None, error
            db.execute("RELEASE change")
            answers.append((future, transaction, answer, problem))
        db.execute("COMMIT")
        for future, transaction, answer, problem in answers:
            if problem is not None:
                future.set_exception(problem)
                continue
            for do in transaction._after:
                do()
            future.set_result(answer)
