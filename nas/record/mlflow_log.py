"""A finished run in MLflow: job as parameters, evaluations as metrics, models as artefacts.

It is written afterwards, from the run folder, so a tracking server that is slow or away never
holds up a search, and old runs can be logged too.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nas.report.results import load_results, number
from search_spaces.errors import InputError, MissingExtraError

MOST_PARAMETER = 500
"""Characters of a parameter that every tracking server takes."""

MOST_METRICS = 1000
"""Metrics in one request."""

MARK = "edge_nas.results_sha256"
"""Tag by which a run that was logged before is known again."""


def log_run(run: Path, tracking_uri: str, *, experiment: str | None = None) -> str:
    """Log a finished run to an MLflow tracking server, or to a database by its URI.

    Args:
        run: folder of a run that has ended.
        tracking_uri: such as ``http://host:5000`` or ``sqlite:///mlflow.db``.
        experiment: name; by default the job's.

    Returns:
        The id of the run in MLflow. The same results are not logged twice.

    Raises:
        InputError: the run has not ended, or MLflow refuses what it is given.
        MissingExtraError: MLflow is not installed.
    """
    try:
        from mlflow.entities import Metric, Param, RunTag
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient
    except ImportError as error:
        raise MissingExtraError("mlflow", "track") from error
    from nas.record.run_folder import RunStore

    run = Path(run)
    results = load_results(run)
    name = experiment or str(results.get("name") or "edge-nas")
    digest = hashlib.sha256((run / "results.json").read_bytes()).hexdigest()
    parameters = dict(_flat(RunStore.open(run).manifest().get("job") or {}))
    try:
        client = MlflowClient(tracking_uri=tracking_uri)
        found = client.get_experiment_by_name(name)
        number_of = found.experiment_id if found else client.create_experiment(name)
        known = client.search_runs([number_of], f"tags.`{MARK}` = '{digest}'")
        if known:
            return str(known[0].info.run_id)
        created = client.create_run(number_of, run_name=run.resolve().name)
        id = str(created.info.run_id)
        metrics = [Metric(key, value, 0, step) for key, value, step in _metrics(results)]
        for start in range(0, len(metrics), MOST_METRICS):
            client.log_batch(id, metrics=metrics[start : start + MOST_METRICS])
        client.log_batch(
            id, params=[Param(k, v[:MOST_PARAMETER]) for k, v in list(parameters.items())[:100]]
        )
        for file in ("report.html", "front.csv", "results.json", "manifest.json"):
            if (run / file).exists():
                client.log_artifact(id, str(run / file))
        if (run / "models").is_dir():
            client.log_artifacts(id, str(run / "models"), "models")
        # The mark comes last: a run that was cut off is logged anew.
        tags = {MARK: digest, "edge_nas.command": str(results.get("command") or "")}
        client.log_batch(id, tags=[RunTag(k, v) for k, v in tags.items()])
        client.set_terminated(id)
    except MlflowException as error:
        raise InputError(f"MLflow at {tracking_uri} refused the run: {error}") from error
    return id


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{prefix}.{key}" if prefix else str(key))
    elif value is not None:
        yield _key(prefix), str(value)


def _metrics(results: Mapping[str, Any]) -> Iterator[tuple[str, float, int]]:
    """Yield ``(key, value, step)``: training by step, search by evaluation, the front by rank."""
    for row in results["training"]:
        if number(row.get("loss")) is not None:
            yield "training.loss", float(row["loss"]), int(row["step"])
    for row in results["evaluations"]:
        for key, value in (row.get("metrics") or {}).items():
            if number(value) is not None:
                yield _key(f"search.{key}"), float(value), int(row["number"])
    for row in (results.get("hypervolume") or {}).get("values") or []:
        if number(row.get("value")) is not None:
            yield "search.hypervolume", float(row["value"]), int(row["evaluations"])
    for rank, entry in enumerate(results["front"]):
        figures = {"test_accuracy": entry.get("test_accuracy"), **(entry.get("costs") or {})}
        for device, measured in (entry.get("devices") or {}).items():
            figures[f"latency_ms.{device}"] = measured.get("latency_ms")
        for key, value in figures.items():
            if number(value) is not None:
                yield _key(f"front.{key}"), float(value), rank


def _key(name: str) -> str:
    """Return a name that MLflow takes: letters, digits and ``_-. /``."""
    return re.sub(r"[^\w\-. /]+", ".", name).strip(".")
