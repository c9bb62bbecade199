"""MLflow: a tracking server, or a database by its URI."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nas.trackers.base import TRACKERS, Row, TrackedRun, Tracker
from search_spaces.errors import EnvironmentProblem, InputError

MOST_PARAMETER = 500
"""Characters of a parameter that every tracking server takes."""

MOST_PARAMETERS = 100
"""Parameters in one request."""

MOST_METRICS = 1000
"""Metrics in one request."""

IDENTITY = "edge_nas.run"
"""Tag by which a run that was logged before is known again."""


@TRACKERS.register("mlflow")
class MLflow(Tracker):
    """Job as parameters, numbers as metrics ``group.name``, files as artefacts.

    Args:
        uri: such as ``http://host:5000`` or ``sqlite:///mlflow.db``.
        experiment: name; by default the job's.
    """

    package = "mlflow"

    def __init__(self, uri: str, experiment: str | None = None) -> None:
        self._uri, self._experiment = uri, experiment
        self._client: Any = None
        self._id = ""

    def begin(self, run: TrackedRun, known: str | None) -> str:
        """Go on with the run that carries the identity, or create one."""
        from mlflow.entities import Param, RunTag
        from mlflow.tracking import MlflowClient

        name = self._experiment or run.project
        with self._problems():
            self._client = MlflowClient(tracking_uri=self._uri)
            found = self._client.get_experiment_by_name(name)
            number = found.experiment_id if found else self._client.create_experiment(name)
            there = self._client.search_runs([number], f"tags.`{IDENTITY}` = '{run.identity}'")
            if there:
                self._id = str(there[0].info.run_id)
                self._client.update_run(self._id, status="RUNNING")
                return self._id
            created = self._client.create_run(number, run_name=run.label)
            self._id = str(created.info.run_id)
            parameters = [Param(_key(k), v[:MOST_PARAMETER]) for k, v in run.parameters.items()]
            for start in range(0, len(parameters), MOST_PARAMETERS):
                self._client.log_batch(self._id, params=parameters[start : start + MOST_PARAMETERS])
            self._client.log_batch(self._id, tags=[RunTag(IDENTITY, run.identity)])
        return self._id

    def log(self, group: str, rows: Sequence[Row]) -> None:
        """Log metrics, as many in a request as a server takes."""
        from mlflow.entities import Metric

        metrics = [
            Metric(_key(f"{group}.{name}"), float(value), 0, step)
            for step, values in rows
            for name, value in values.items()
        ]
        with self._problems():
            for start in range(0, len(metrics), MOST_METRICS):
                self._client.log_batch(self._id, metrics=metrics[start : start + MOST_METRICS])

    def keep(self, files: Mapping[str, Path]) -> None:
        """Log artefacts."""
        with self._problems():
            for name, path in files.items():
                folder, _, _ = name.rpartition("/")
                self._client.log_artifact(self._id, str(path), folder or None)

    def end(self, *, finished: bool) -> None:
        """Set the run's status: finished, or killed while it may be resumed."""
        with self._problems():
            self._client.set_terminated(self._id, "FINISHED" if finished else "KILLED")

    def place(self) -> str:
        """Return the run's id and where it is."""
        return f"MLflow run {self._id} at {self._uri}"

    @contextlib.contextmanager
    def _problems(self) -> Iterator[None]:
        from mlflow.exceptions import MlflowException

        try:
            yield
        except MlflowException as error:
            # What a server refuses is the caller's to mend; what it does not answer to is not.
            kind = EnvironmentProblem if "API request to" in str(error) else InputError
            raise kind(f"MLflow at {self._uri} refused the run: {error}") from error
        except OSError as error:
            raise EnvironmentProblem(f"MLflow at {self._uri} cannot be reached: {error}") from error


def _key(name: str) -> str:
    """Return a name that MLflow takes: letters, digits and ``_-. /``."""
    return re.sub(r"[^\w\-. /]+", ".", name).strip(".")
