"""Measurements on disk, with every raw sample: looked up instead of taken again.

One SQLite file in write-ahead mode with full synchronisation: a measurement is wholly
there or not at all, through kills and power cuts, and several processes may use it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from devices.measuring.measurement import Measurement, Rejected
from devices.sqlite_file import Connect, SqliteFile, translated
from search_spaces.errors import InputError

_APPLICATION_ID = 0x454E4D53
_KIND = "measurement store"
_MIGRATIONS = (
    """
    CREATE TABLE measurements (
        id INTEGER PRIMARY KEY,
        key TEXT NOT NULL,
        created REAL NOT NULL,
        model_sha256 TEXT NOT NULL,
        space TEXT NOT NULL,
        arch TEXT NOT NULL,
        variant TEXT NOT NULL,
        device TEXT NOT NULL,
        runtime TEXT NOT NULL,
        runtime_version TEXT NOT NULL,
        spec_parameters TEXT NOT NULL,
        fingerprint TEXT NOT NULL,
        protocol TEXT NOT NULL,
        valid INTEGER NOT NULL,
        latency_ms REAL,
        low_ms REAL,
        high_ms REAL,
        summary TEXT NOT NULL
    );
    CREATE INDEX measurements_key ON measurements (key);
    CREATE INDEX measurements_arch ON measurements (device, space, arch);
    CREATE TABLE samples (
        measurement INTEGER NOT NULL REFERENCES measurements (id) ON DELETE CASCADE,
        attempt INTEGER NOT NULL,
        process INTEGER NOT NULL,
        samples_ms BLOB NOT NULL,
        PRIMARY KEY (measurement, attempt, process)
    ) WITHOUT ROWID;
    """,
)


@dataclass(frozen=True)
class Query:
    """What is asked of a store.

    A live store answers by ``key``: the same file on the same hardware by the same
    protocol. A replay answers by names: space, architecture, variant, device, runtime
    and the parameters as the job wrote them; then neither file nor hardware is needed.

    Attributes:
        identify: gives ``runtime`` (its description) and ``fingerprint``; called at most
            once, and only when the key is wanted.
    """

    model: Path
    device: str
    runtime: str
    spec_parameters: Mapping[str, Any]
    protocol: Mapping[str, Any]
    identify: Callable[[], Mapping[str, Any]]
    arch: str = ""
    space: str = ""
    variant: str = ""

    @cached_property
    def model_sha256(self) -> str:
        """Hash of the file; an ``InputError`` says that it is missing."""
        digest = hashlib.sha256()
        try:
            with open(self.model, "rb") as file:
                while chunk := file.read(1 << 20):
                    digest.update(chunk)
        except OSError as error:
            raise InputError(f"cannot read the model file {self.model}: {error.strerror}") from None
        return digest.hexdigest()

    def names(self) -> dict[str, str]:
        """Return the columns a replay answers by."""
        return {
            "space": self.space,
            "arch": self.arch,
            "variant": self.variant,
            "device": self.device,
            "runtime": self.runtime,
            "spec_parameters": canonical_json(self.spec_parameters),
        }

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """The runtime's description and the device's fingerprint."""
        return self.identify()

    @cached_property
    def key(self) -> str:
        """SHA-256 over everything that makes two measurements the same."""
        return measurement_key(
            self.model_sha256,
            self.identity["runtime"],
            self.protocol,
            self.identity["fingerprint"],
        )


def measurement_key(
    model_sha256: str,
    runtime: Mapping[str, Any],
    protocol: Mapping[str, Any],
    fingerprint: Mapping[str, Any],
) -> str:
    """Return the key of a measurement: SHA-256 of its canonical JSON.

    Args:
        runtime: name, version and parameters, as :meth:`devices.runtime.Runtime.describe`.
    """
    whole = {
        "model": model_sha256,
        "runtime": dict(runtime),
        "protocol": dict(protocol),
        "fingerprint": dict(fingerprint),
    }
    return hashlib.sha256(canonical_json(whole).encode()).hexdigest()


class Store(ABC):
    """Where measurements are kept. Safe to use from several threads and processes."""

    @abstractmethod
    def find(self, query: Query) -> Measurement | None:
        """Return the newest measurement that answers the query, or None.

        Raises:
            InputError: a replay has no answer; it never measures anew.
        """

    @abstractmethod
    def put(self, query: Query, measurement: Measurement) -> None:
        """Keep a measurement.

        Raises:
            EnvironmentProblem: the disk is full or the file cannot be written; nothing of
                the measurement is kept then.
        """


class MeasurementStore(Store):
    """A store in one SQLite file, made when it is first opened.

    Args:
        path: the file; its folder is made too.
        connect: opens a connection, as :func:`sqlite3.connect` does.

    Raises:
        InputError: the file is something else, or of a later version.
        EnvironmentProblem: it cannot be made or opened.
    """

    def __init__(self, path: Path, *, connect: Connect = sqlite3.connect) -> None:
        self.path = Path(path)
        self._file = SqliteFile(
            self.path,
            application_id=_APPLICATION_ID,
            migrations=_MIGRATIONS,
            kind=_KIND,
            connect=connect,
        )

    @staticmethod
    def replay(path: Path) -> ReplayStore:
        """Open an earlier run's store to answer by architecture; see :class:`ReplayStore`."""
        return ReplayStore(path)

    def find(self, query: Query) -> Measurement | None:
        """Return the newest measurement with the query's key, or None.

        One that was filed under other names (the same file as another variant, the same
        board under another name) is filed under the query's as well, for a replay to find.
        """
        names = query.names()
        where = " AND ".join(f"{name} = ?" for name in names)
        with self._file.session() as db:
            row = db.execute(
                f"{_SELECT} WHERE key = ? ORDER BY ({where}) DESC, id DESC LIMIT 1",
                (query.key, *names.values()),
            ).fetchone()
            if row is None:
                return None
            found = _measurement(db, row)
            filed = dict(zip(_NAMES, row, strict=True))
        if any(filed[name] != value for name, value in names.items()):
            found = replace(found, device=query.device)
            self.put(query, found)
        return found

    def get(self, key: str) -> Measurement | None:
        """Return the newest measurement with this key, or None."""
        with self._file.session() as db:
            row = db.execute(f"{_SELECT} WHERE key = ? ORDER BY id DESC LIMIT 1", (key,)).fetchone()
            return None if row is None else _measurement(db, row)

    def put(self, query: Query, measurement: Measurement) -> None:
        """See :meth:`Store.put`: samples and reasons of rejection stand beside the rest."""
        whole = measurement.to_json()
        for name in ("samples_ms", "rejected"):
            del whole[name]
        whole["rejected_reasons"] = [list(attempt.reasons) for attempt in measurement.rejected]
        values = {
            "key": query.key,
            "created": time.time(),
            "model_sha256": query.model_sha256,
            **query.names(),
            "runtime_version": measurement.runtime_version,
            "fingerprint": canonical_json(query.identity["fingerprint"]),
            "protocol": canonical_json(measurement.protocol),
            "valid": int(measurement.valid),
            "latency_ms": whole["latency_ms"],
            "low_ms": whole["low_ms"],
            "high_ms": whole["high_ms"],
            "summary": json.dumps(whole),
        }
        # Attempt 0 is the one whose figures count, the rejected ones follow.
        attempts = [measurement.samples_ms, *(r.samples_ms for r in measurement.rejected)]
        marks = ", ".join("?" for _ in values)
        with self._file.session(write=True) as db:
            row = db.execute(
                f"INSERT INTO measurements ({', '.join(values)}) VALUES ({marks})",
                tuple(values.values()),
            ).lastrowid
            db.executemany(
                "INSERT INTO samples VALUES (?, ?, ?, ?)",
                [
                    (row, attempt, process, np.asarray(samples, dtype="<f8").tobytes())
                    for attempt, processes in enumerate(attempts)
                    for process, samples in enumerate(processes)
                ],
            )

    def samples(self, measurement: int) -> list[list[list[float]]]:
        """Return the raw samples of a row by its ``id``: attempt, process, run; ms.

        The first attempt is the one whose figures count; the rejected ones follow.
        """
        with self._file.session() as db:
            attempts = _attempts(db, measurement)
        return [[list(runs) for runs in attempts[number]] for number in sorted(attempts)]

    def rows(self) -> list[dict[str, Any]]:
        """Return every measurement without its samples, oldest first: the columns of the file."""
        with self._file.session() as db:
            found = db.execute(f"{_SELECT} ORDER BY id").fetchall()
        rows = [dict(zip(_NAMES, row, strict=True)) for row in found]
        for row in rows:
            row["valid"] = bool(row["valid"])
            for name in ("spec_parameters", "fingerprint", "protocol", "summary"):
                row[name] = json.loads(row[name])
        return rows


class ReplayStore(Store):
    """An earlier run's measurements, read only, found by architecture and device name.

    Args:
        path: the store of that run.

    Raises:
        InputError: no such file, not a store, or of a later version.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise InputError(f"no measurement store at {self.path}")
        with translated(self.path, _KIND), contextlib.closing(self._open()) as db:
            (version,) = db.execute("PRAGMA user_version").fetchone()
            (owner,) = db.execute("PRAGMA application_id").fetchone()
        if owner != _APPLICATION_ID or not 1 <= version <= len(_MIGRATIONS):
            raise InputError(f"{self.path} is no measurement store that this version can replay")

    def find(self, query: Query) -> Measurement:
        """See :meth:`Store.find`: raises where the earlier run has none."""
        wanted = query.names()
        where = " AND ".join(f"{name} = ?" for name in wanted)
        with translated(self.path, _KIND), contextlib.closing(self._open()) as db:
            row = db.execute(
                f"{_SELECT} WHERE {where} ORDER BY id DESC LIMIT 1", tuple(wanted.values())
            ).fetchone()
            if row is None:
                raise InputError(
                    f"{self.path} has no measurement of {query.arch!r} (space {query.space!r}, "
                    f"variant {query.variant!r}) on device {query.device!r} with {query.runtime} "
                    f"{canonical_json(query.spec_parameters)}; a replay measures nothing: run "
                    f"without it, or replay a store of the same job and seed"
                )
            return _measurement(db, row)

    def holds(self, space: str, arch: str, variant: str) -> bool:
        """Whether any device measured this variant of an architecture in the earlier run."""
        with translated(self.path, _KIND), contextlib.closing(self._open()) as db:
            row = db.execute(
                "SELECT 1 FROM measurements WHERE space = ? AND arch = ? AND variant = ? LIMIT 1",
                (space, arch, variant),
            ).fetchone()
        return row is not None

    def put(self, query: Query, measurement: Measurement) -> None:
        """Raise InputError: a replay measures nothing."""
        raise InputError(f"{self.path} is being replayed and takes no measurement")

    def _open(self) -> sqlite3.Connection:
        # A store copied to a read-only place has no shared-memory file and cannot get one;
        # only when nobody can write it may its lock be ignored.
        uri = self.path.absolute().as_uri()
        db = sqlite3.connect(f"{uri}?mode=ro", uri=True, timeout=60.0)
        try:
            db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.OperationalError:
            db.close()
            db = sqlite3.connect(f"{uri}?mode=ro&immutable=1", uri=True)
        return db


_COLUMNS = (
    "id, key, created, model_sha256, space, arch, variant, device, runtime, runtime_version, "
    "spec_parameters, fingerprint, protocol, valid, latency_ms, low_ms, high_ms, summary"
)
_NAMES = _COLUMNS.split(", ")
_SELECT = f"SELECT {_COLUMNS} FROM measurements"


def _measurement(db: sqlite3.Connection, row: tuple[Any, ...]) -> Measurement:
    summary = json.loads(row[-1])
    attempts = _attempts(db, row[0])
    reasons = summary.pop("rejected_reasons")
    whole = Measurement.from_json({**summary, "samples_ms": attempts.get(0, []), "rejected": []})
    return replace(
        whole,
        rejected=tuple(
            Rejected(tuple(why), tuple(attempts.get(number, [])))
            for number, why in enumerate(reasons, start=1)
        ),
    )


def _attempts(db: sqlite3.Connection, measurement: int) -> dict[int, list[tuple[float, ...]]]:
    attempts: dict[int, list[tuple[float, ...]]] = {}
    for attempt, blob in db.execute(
        "SELECT attempt, samples_ms FROM samples WHERE measurement = ? ORDER BY attempt, process",
        (measurement,),
    ):
        samples = tuple(np.frombuffer(blob, dtype="<f8").tolist())
        attempts.setdefault(attempt, []).append(samples)
    return attempts


def canonical_json(value: Any) -> str:
    """Return the one JSON text of a value: keys sorted, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def fingerprint_id(fingerprint: Mapping[str, Any]) -> str:
    """Return the short name of a board's fingerprint that lists show."""
    return short_hash(canonical_json(dict(fingerprint)))


def short_hash(text: str) -> str:
    """Return twelve hexadecimal digits that stand for a text in lists."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]
