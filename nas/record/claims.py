"""Who works on what, among processes that share a study.

A claim is a row of a table beside Optuna's: (study, architecture) -> owner. The primary key
lets one process insert it. While its owner lives, a counter in the row goes up; a claim whose
counter stands still is free for others. Watchers time it by their own clocks, so clocks of
different machines need not agree.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import sqlalchemy

BEAT_S = 3.0
"""Seconds between two beats of an owner."""
PATIENCE_S = 30.0
"""Seconds without a beat after which an owner counts as dead."""
_TABLE = "nas_claims"


class Claims:
    """Claims of one process. The beat runs in a thread of its own; the rest in one thread.

    Args:
        engine: of the study's database.
        owner: name of this process, the same after it was killed and resumed; two processes
            alive at one time must not share it.
        beat_s, patience_s: as ``BEAT_S`` and ``PATIENCE_S``; all processes need the same.
    """

    def __init__(
        self,
        engine: sqlalchemy.Engine,
        owner: str,
        *,
        beat_s: float = BEAT_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        import sqlalchemy as sa

        self._engine, self.owner = engine, owner
        self._beat_s, self._patience_s = beat_s, patience_s
        self._table = sa.Table(
            _TABLE,
            sa.MetaData(),
            sa.Column("study", sa.String(255), primary_key=True),
            sa.Column("item", sa.String(64), primary_key=True),
            sa.Column("owner", sa.String(1024), nullable=False),
            sa.Column("beat", sa.Integer, nullable=False),
        )
        self._table.create(engine, checkfirst=True)
        self._held: set[tuple[str, str]] = set()
        self._watched: dict[tuple[str, str], tuple[str, int, float]] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def take(self, study: str, item: str) -> bool:
        """Claim ``item`` and return whether this process has it now.

        Whoever has it must look for a finished result once more: the owner before may have
        finished between the last look and this call.
        """
        import sqlalchemy as sa

        t, key = self._table, (study, item)
        if key in self._held:
            return True
        try:
            self._run(sa.insert(t).values(study=study, item=item, owner=self.owner, beat=0))
        except sa.exc.IntegrityError:
            if not self._take_over(key):
                return False
        self._held.add(key)
        self._watched.pop(key, None)
        self._start()
        return True

    def release(self, study: str, item: str) -> None:
        """Give up a claim, once the result is on record; nothing where it is not held."""
        import sqlalchemy as sa

        if (study, item) not in self._held:
            return
        self._held.discard((study, item))
        t = self._table
        self._run(sa.delete(t).where(*self._is((study, item)), t.c.owner == self.owner))

    def close(self) -> None:
        """Stop the beat and give up every claim."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        for study, item in list(self._held):
            self.release(study, item)

    def _take_over(self, key: tuple[str, str]) -> bool:
        import sqlalchemy as sa

        t = self._table
        with self._engine.connect() as connection:
            row = connection.execute(sa.select(t.c.owner, t.c.beat).where(*self._is(key))).first()
        if row is None:
            return False  # released this very moment; the caller asks again
        if row.owner != self.owner:
            before = self._watched.get(key)
            if before is None or before[:2] != (row.owner, row.beat):
                self._watched[key] = (row.owner, row.beat, time.monotonic())
                return False
            if time.monotonic() - before[2] < self._patience_s:
                return False
        # Only where nobody beat or took it since it was read.
        return bool(
            self._run(
                sa.update(t)
                .where(*self._is(key), t.c.owner == row.owner, t.c.beat == row.beat)
                .values(owner=self.owner, beat=row.beat + 1)
            )
        )

    def _is(self, key: tuple[str, str]) -> tuple[Any, Any]:
        return self._table.c.study == key[0], self._table.c.item == key[1]

    def _run(self, statement: Any) -> int:
        # One statement a transaction: SQLite never has to turn a read lock into a write lock.
        with self._engine.begin() as connection:
            return int(connection.execute(statement).rowcount)

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._beat, name="claims", daemon=True)
            self._thread.start()

    def _beat(self) -> None:
        import sqlalchemy as sa

        t = self._table
        while not self._stop.wait(self._beat_s):
            if self._held:
                # A beat that a busy database refuses is made up for by the next one; at worst
                # another process works on the same item, and the first result counts.
                with contextlib.suppress(sa.exc.SQLAlchemyError):
                    self._run(sa.update(t).where(t.c.owner == self.owner).values(beat=t.c.beat + 1))
