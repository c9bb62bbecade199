"""The recorded evaluations of a run, read by somebody else than the run: nothing is written."""

from __future__ import annotations

import functools
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.record.database_server import driver_hint, first_line
from nas.record.database_url import scrubbed, without_password
from nas.record.evaluations import locate
from nas.record.quiet_optuna import quiet_optuna
from search_spaces.errors import EnvironmentProblem, MissingExtraError

if TYPE_CHECKING:
    from optuna.storages import RDBStorage

_WAIT_S = 20.0


@dataclass(frozen=True)
class RecordedTrial:
    """One finished evaluation.

    Attributes:
        number: of the trial in its study.
        id, arch: of the architecture; its id and its text.
        metrics: by name; None where one is undefined.
    """

    number: int
    id: str
    arch: str
    metrics: dict[str, float | None]


class RunTrials:
    """Reads the studies of one database; a file that is not there yet has none.

    Args:
        location: path of the SQLite file, or a database URL.
    """

    def __init__(self, location: Path | str) -> None:
        self.url, self._path = locate(location)
        self._storage: RDBStorage | None = None
        self._studies: dict[str, Any] = {}

    def read(self, study: str) -> list[RecordedTrial]:
        """Return the complete trials of a study in order; empty where there is none yet.

        Raises:
            EnvironmentProblem: the database cannot be read.
            MissingExtraError: Optuna is not installed.
        """
        if self._path is not None and not self._path.is_file():
            return []
        storage = self.storage()
        import optuna
        from sqlalchemy.exc import SQLAlchemyError

        try:
            if study not in self._studies:
                with quiet_optuna():
                    self._studies[study] = optuna.load_study(study_name=study, storage=storage)
            trials = self._studies[study].get_trials(
                deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,)
            )
        except KeyError:  # no study of that name
            return []
        except (optuna.exceptions.StorageInternalError, SQLAlchemyError) as error:
            raise self._problem(error.__cause__ or error) from None
        return [
            RecordedTrial(
                trial.number,
                trial.user_attrs["id"],
                trial.user_attrs["arch"],
                dict(trial.user_attrs["metrics"]),
            )
            for trial in trials
            if "arch" in trial.user_attrs
        ]

    def storage(self) -> RDBStorage:
        """Return Optuna's storage of an existing database, which it does not change on opening.

        Raises:
            EnvironmentProblem: there is none, or its driver is missing.
            MissingExtraError: Optuna is not installed.
        """
        if self._storage is not None:
            return self._storage
        try:
            import optuna
        except ModuleNotFoundError as error:
            raise MissingExtraError("optuna", "search") from error
        from sqlalchemy.exc import SQLAlchemyError

        if self._path is not None and not self._path.is_file():
            raise EnvironmentProblem(f"there is no study at {self._path} yet")
        options = {} if self._path is None else {"creator": functools.partial(_connect, self._path)}
        url = self.url if self._path is None else "sqlite:///study.db"
        try:
            with quiet_optuna():
                self._storage = optuna.storages.RDBStorage(
                    url,
                    engine_kwargs=options,
                    skip_compatibility_check=True,
                    skip_table_creation=True,
                )
        except ImportError as error:
            scheme = self.url.partition("://")[0]
            raise EnvironmentProblem(
                f"the study's database needs a driver for {scheme}:// that is not installed"
                f"{driver_hint(scheme)}"
            ) from error
        except (optuna.exceptions.StorageInternalError, SQLAlchemyError) as error:
            raise self._problem(error.__cause__ or error) from None
        return self._storage

    def close(self) -> None:
        """Close the connections."""
        if self._storage is not None:
            self._storage.remove_session()
            self._storage.engine.dispose()
            self._storage, self._studies = None, {}

    def _problem(self, cause: BaseException) -> EnvironmentProblem:
        told = scrubbed(first_line(cause), self.url)
        return EnvironmentProblem(f"the study {without_password(self.url)} cannot be read: {told}")


def _connect(path: Path) -> sqlite3.Connection:
    # An address, so that a file that went away is not made anew; its characters are quoted.
    address = path.absolute().as_uri()
    try:
        connection = _opened(f"{address}?mode=rw")
    except sqlite3.OperationalError:
        # In a folder that cannot be written nobody writes, and no log can be kept beside the file.
        connection = _opened(f"{address}?mode=ro&immutable=1")
    connection.execute("PRAGMA query_only = ON")
    return connection


def _opened(address: str) -> sqlite3.Connection:
    # As SQLAlchemy opens a file: its pool hands a connection from thread to thread.
    connection = sqlite3.connect(address, uri=True, timeout=_WAIT_S, check_same_thread=False)
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error:
        connection.close()
        raise
    return connection
