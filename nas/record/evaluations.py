"""The record of real evaluations: Optuna studies in one database, one for each stage.

Every evaluation is a complete trial with its choices as categorical parameters, its
objectives, its constraint violations and everything else as user attributes, so
optuna-dashboard and ``optuna.visualization`` work on the file as it is. A trial is written
in one transaction (SQLite, write-ahead log): after a kill it is there or it is not.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.fronts.metrics import Constraint, Goal, violations
from nas.record.claims import Claims
from nas.record.database_server import ServerLock, driver_hint, first_line, is_postgresql
from nas.record.database_url import scrubbed, without_password
from nas.record.quiet_optuna import quiet_optuna
from search_spaces.errors import EnvironmentProblem, InputError, MissingExtraError
from search_spaces.space import Arch, SearchSpace

if TYPE_CHECKING:
    import optuna

_WAIT_SECONDS = 60.0


@dataclass(frozen=True)
class Evaluation:
    """One recorded evaluation.

    Attributes:
        arch: what was evaluated.
        stage: at which stage of the job (``search``, ``verify``, ...).
        metrics: by ``str(metric)``; NaN where a metric is undefined.
        violations: by constraint name, as judged when it was recorded.
        number: of the trial in its stage's study.
        attributes: everything else that was stored (round, seed, ...).
    """

    arch: Arch
    stage: str
    metrics: dict[str, float]
    violations: dict[str, float]
    number: int
    attributes: dict[str, Any]


class StudyRecord:
    """Evaluations by (architecture, stage), each recorded once.

    Several processes may use one record at the same time; the first to record an
    evaluation wins and the others get its metrics back. One object belongs to one thread.

    Args:
        location: path of the SQLite file, made if missing, or a database URL
            (``postgresql://...``) for a record shared between machines. Writing twice is
            prevented by a lock: ``<file>.lock`` for SQLite, an advisory lock for PostgreSQL.
            With other databases a double entry is possible, and the one with the lower
            number counts.
        space: the architectures.
        goals: objectives of the studies, in their natural direction.
        constraints: judged for every evaluation; they may change from run to run.
        name: prefix of the studies' names, ``<name>/<stage>``.
        owner: name of this process among those that share the record at the same time, for
            :meth:`claim`; it must be the same when a killed process is resumed. None where
            nobody else uses the record.

    Raises:
        InputError: the record belongs to another space or has other objectives.
        EnvironmentProblem: the file cannot be opened or written.
        MissingExtraError: Optuna is not installed.
    """

    def __init__(
        self,
        location: Path | str,
        *,
        space: SearchSpace,
        goals: Sequence[Goal],
        constraints: Sequence[Constraint] = (),
        name: str = "nas",
        owner: str | None = None,
    ) -> None:
        self.space = space
        self.goals = tuple(goals)
        self.constraints = tuple(constraints)
        self.name = name
        self.url, self._path = locate(location)
        self._studies: dict[str, optuna.Study] = {}
        self._known: dict[str, dict[Arch, Evaluation]] = {}
        self._read: dict[str, int] = {}
        self._server_lock = ServerLock(self.url) if is_postgresql(self.url) else None
        self._storage = self._open()
        self._claims: Claims | None = None
        if owner is not None:
            with self._lock(), self._problems():
                self._claims = Claims(self._storage.engine, owner)
        from optuna.distributions import CategoricalDistribution

        self._distributions = {
            choice.name: CategoricalDistribution(choice.options) for choice in space.choices
        }

    def narrow(self, context: str) -> None:
        """Use the studies of one evaluation context, ``<name>/<context>/<stage>``, from now on.

        Runs that share a database share evaluations only where these mean the same.
        """
        self.name = f"{self.name}/{context}"
        self._studies, self._known, self._read = {}, {}, {}

    def close(self) -> None:
        """Close the database connections; the object cannot be used afterwards."""
        if self._claims is not None:
            with self._problems():
                self._claims.close()
        if self._server_lock is not None:
            self._server_lock.close()
        self._storage.remove_session()
        self._storage.engine.dispose()

    def __enter__(self) -> StudyRecord:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def study(self, stage: str = "search") -> optuna.Study:
        """Return the Optuna study of a stage, made if missing; for plots and the dashboard."""
        if stage not in self._studies:
            with self._lock():
                self._studies[stage] = self._load(stage)
        return self._studies[stage]

    @property
    def shown(self) -> str:
        """The database's address as it may be shown: without a password."""
        return without_password(self.url)

    @property
    def shared(self) -> bool:
        """Whether other processes may use the record at the same time."""
        return self._claims is not None

    def claim(self, arch: Arch, stage: str = "search") -> bool:
        """Return whether this process is to evaluate ``arch``; always, where nobody shares.

        False while another process is at it, which its death ends after half a minute. Having
        got a claim, look the architecture up once more before the work. :meth:`record` and
        :meth:`close` give claims up.
        """
        if self._claims is None:
            return True
        with self._problems():
            return self._claims.take(f"{self.name}/{stage}", arch.id)

    def unclaim(self, arch: Arch, stage: str = "search") -> None:
        """Give up a claim without a result; nothing where there is none."""
        if self._claims is not None:
            with self._problems():
                self._claims.release(f"{self.name}/{stage}", arch.id)

    def lookup(self, arch: Arch, stage: str = "search") -> dict[str, float] | None:
        """Return the recorded metrics of ``arch`` at ``stage``, or None."""
        evaluation = self._find(arch, stage)
        return None if evaluation is None else dict(evaluation.metrics)

    def evaluations(self, stage: str = "search") -> list[Evaluation]:
        """Return every recorded evaluation of a stage in the order of recording."""
        self._refresh(stage)
        return sorted(self._known[stage].values(), key=lambda e: e.number)

    def record(
        self,
        arch: Arch,
        metrics: Mapping[str, float],
        *,
        stage: str = "search",
        attributes: Mapping[str, Any] | None = None,
    ) -> dict[str, float]:
        """Record one real evaluation, durably, unless there is one already.

        Args:
            arch: of the record's space.
            metrics: by ``str(metric)``; must hold every goal's and constraint's metric.
                Other values may be NaN.
            stage: a job evaluates an architecture at most once at each.
            attributes: JSON values to keep with it (round, seed, ...).

        Returns:
            the metrics on record: those given, or those that were there before.

        Raises:
            InputError: a metric that is missing or, where it is bounded or an objective, not
                finite; an architecture of another space.
            EnvironmentProblem: the database cannot be written.
        """
        if arch.space != self.space.name:
            raise InputError(
                f"an architecture of space {arch.space!r} cannot be recorded in a study of "
                f"{self.space.name!r}"
            )
        values = [self._finite(metrics, str(goal.metric)) for goal in self.goals]
        for constraint in self.constraints:
            self._finite(metrics, str(constraint.metric))
        stored = {
            key: float(v) if v is not None and math.isfinite(v) else None
            for key, v in metrics.items()
        }
        trial = self._trial(
            arch,
            stage,
            attributes or {},
            metrics=stored,
            values=values,
            constraints=violations(self.constraints, metrics),
        )
        study = self.study(stage)
        with self._lock():
            existing = self._find(arch, stage)
            if existing is None:
                with quiet_optuna(), self._problems():
                    study.add_trial(trial)
                existing = self._find(arch, stage)
        assert existing is not None
        self.unclaim(arch, stage)
        return dict(existing.metrics)

    def record_failure(
        self,
        arch: Arch,
        reason: str,
        *,
        stage: str = "search",
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        """Add a failed trial with its reason; ``lookup`` still returns None."""
        from optuna.trial import TrialState

        trial = self._trial(
            arch, stage, {**(attributes or {}), "failure": reason}, state=TrialState.FAIL
        )
        study = self.study(stage)
        with self._lock(), quiet_optuna(), self._problems():
            study.add_trial(trial)

    def failures(self, stage: str = "search") -> list[tuple[Arch, str]]:
        """Return (architecture, reason) of every failed evaluation of a stage."""
        import optuna

        study = self.study(stage)
        with self._problems():
            trials = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.FAIL,))
        return [
            (self.space.parse(t.user_attrs["arch"]), t.user_attrs["failure"])
            for t in trials
            if "failure" in t.user_attrs
        ]

    # ------------------------------------------------------------------ inside

    def _trial(
        self,
        arch: Arch,
        stage: str,
        attributes: Mapping[str, Any],
        *,
        metrics: Mapping[str, float | None] | None = None,
        **of_trial: Any,
    ) -> optuna.trial.FrozenTrial:
        """Return a trial of ``arch`` with what the record itself keeps of it.

        ``of_trial``: state, or values and constraints, as Optuna takes them.
        """
        import optuna

        own: dict[str, Any] = {"arch": str(arch), "id": arch.id, "stage": stage}
        if metrics is not None:
            own["metrics"] = dict(metrics)
        reserved = (set(own) | {"metrics"}) & set(attributes)
        if reserved:
            raise InputError(f"attribute {min(reserved)!r} is set by the record itself")
        try:
            json.dumps(dict(attributes))
        except TypeError as error:
            raise InputError(f"attributes must be JSON values: {error}") from error
        return optuna.trial.create_trial(
            params=dict(arch.items),
            distributions={name: self._distributions[name] for name, _ in arch.items},
            user_attrs={**attributes, **own},
            **of_trial,
        )

    @staticmethod
    def _finite(metrics: Mapping[str, float], name: str) -> float:
        value = metrics.get(name)
        if value is None or not math.isfinite(value):
            raise InputError(
                f"an evaluation without a finite {name} (got {value}) cannot be recorded as "
                "complete; record it as a failure"
            )
        return float(value)

    def _find(self, arch: Arch, stage: str) -> Evaluation | None:
        found = self._known.get(stage, {}).get(arch)
        if found is None:
            self._refresh(stage)
            found = self._known[stage].get(arch)
        return found

    def _refresh(self, stage: str) -> None:
        """Read the trials that were added since the last time, by any process."""
        from optuna.trial import TrialState

        study = self.study(stage)
        known = self._known.setdefault(stage, {})
        with self._problems():
            trials = study.get_trials(deepcopy=False)
        for trial in trials[self._read.get(stage, 0) :]:
            # A trial that another tool started is read again until it is finished.
            if not trial.state.is_finished():
                break
            self._read[stage] = trial.number + 1
            if trial.state == TrialState.COMPLETE and "arch" in trial.user_attrs:
                arch = self.space.parse(trial.user_attrs["arch"])
                known.setdefault(arch, _evaluation(arch, stage, trial))

    def _open(self) -> optuna.storages.RDBStorage:
        try:
            import optuna
        except ModuleNotFoundError as error:
            raise MissingExtraError("optuna", "search") from error
        options: dict[str, Any] = {}
        if self._path is not None:
            # Write-ahead logging is a property of the file, so it is set once, before use.
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with self._lock(), contextlib.closing(sqlite3.connect(self._path)) as connection:
                    connection.execute("PRAGMA journal_mode=WAL")
            except (OSError, sqlite3.Error) as error:
                raise EnvironmentProblem(
                    f"the study {self._path} cannot be opened: {error}"
                ) from error
            # By a function: in a URL, ? # % and braces of a folder's name mean something else.
            options = {"creator": functools.partial(_connect, self._path)}
        # Optuna fills in braces of a URL.
        url = self.url if self._path is None else "sqlite:///study.db"
        try:
            with self._lock(), quiet_optuna(), self._problems():
                return optuna.storages.RDBStorage(url, engine_kwargs=options)
        except ImportError as error:
            scheme = self.url.partition("://")[0]
            hint = driver_hint(scheme)
            raise EnvironmentProblem(
                f"the study's database needs a driver for {scheme}:// that is not installed{hint}"
            ) from error

    def _load(self, stage: str) -> optuna.Study:
        import optuna

        directions = [goal.direction for goal in self.goals]
        metric_names = [str(goal.metric) for goal in self.goals]
        with quiet_optuna(), self._problems():
            study = optuna.create_study(
                storage=self._storage,
                study_name=f"{self.name}/{stage}",
                directions=directions,
                load_if_exists=True,
            )
            if "objectives" not in study.user_attrs:
                study.set_metric_names(metric_names)
                study.set_user_attr("space", self.space.name)
                study.set_user_attr("objectives", metric_names)
        for what, mine, theirs in (
            ("objectives", metric_names, study.user_attrs["objectives"]),
            ("space", self.space.name, study.user_attrs["space"]),
        ):
            if mine != theirs:
                raise InputError(
                    f"study {study.study_name!r} in {self.shown} has {what} {theirs!r}, the job "
                    f"has {mine!r}; use another output folder or change the job back"
                )
        return study

    @contextlib.contextmanager
    def _problems(self) -> Iterator[None]:
        """Turn storage errors (disk full, read-only file) into one that says where."""
        import optuna
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield
        except (optuna.exceptions.StorageInternalError, SQLAlchemyError) as error:
            cause = error.__cause__ or error
            raise EnvironmentProblem(
                f"the study {self.shown} failed: {scrubbed(first_line(cause), self.url)}; what "
                "was finished is kept: see that the database answers, then: nas resume RUN"
            ) from None

    def _lock(self) -> contextlib.AbstractContextManager[Any]:
        if self._server_lock is not None:
            return self._server_lock
        if self._path is None:
            return contextlib.nullcontext()
        import filelock

        # Held by the operating system for the process, so a kill releases it. Re-entrant for
        # one object, which is why it is kept.
        if not hasattr(self, "_file_lock"):
            self._file_lock = filelock.FileLock(f"{self._path}.lock", timeout=_WAIT_SECONDS)
        return self._file_lock


def locate(location: Path | str) -> tuple[str, Path | None]:
    """Return the URL of a study and, for an SQLite file, its path."""
    text = str(location)
    scheme, mark, rest = text.partition(":///")
    if mark and scheme.partition("+")[0] == "sqlite" and rest and "?" not in rest:
        text = rest  # a file all the same, with a lock and write-ahead logging
    elif "://" in text:
        return text, None
    path = Path(text).absolute()
    return f"sqlite:///{path}", path


def _connect(path: Path) -> sqlite3.Connection:
    # As SQLAlchemy opens a file: its pool hands a connection from thread to thread.
    return sqlite3.connect(path, timeout=_WAIT_SECONDS, check_same_thread=False)


def _evaluation(arch: Arch, stage: str, trial: optuna.trial.FrozenTrial) -> Evaluation:
    attributes = dict(trial.user_attrs)
    stored = attributes.pop("metrics")
    for name in ("arch", "id", "stage"):
        attributes.pop(name)
    return Evaluation(
        arch=arch,
        stage=stage,
        metrics={key: math.nan if value is None else value for key, value in stored.items()},
        violations=dict(trial.constraints),
        number=trial.number,
        attributes=attributes,
    )
