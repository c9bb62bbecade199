"""One run told to one tracker: what it has been told already is kept in the run folder.

A run that is resumed, or logged afterwards, so tells only what is new, and nothing twice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.record.following import Losses
from nas.record.live import LOSSES
from nas.record.run_folder import RunStore
from nas.trackers.base import TRACKERS, Row, Tracker
from nas.trackers.rows import (
    front_rows,
    hypervolume_rows,
    kept_files,
    search_rows,
    tracked_run,
    training_rows,
)
from search_spaces.atomic import write_json_atomic
from search_spaces.errors import InputError

if TYPE_CHECKING:
    from nas.job.sections.tracking import TrackerConfig

FOLDER = "tracking"
"""In a run folder: one file a tracker, with what it has been told."""


class Told:
    """A tracker and what it knows of a run.

    Args:
        name, options: as in a job.
        store: the run folder.

    Raises:
        InputError: there is no such tracker, or it refuses its options.
        MissingExtraError: its package is not installed.
    """

    def __init__(self, name: str, options: Mapping[str, Any], store: RunStore) -> None:
        self.name, self._store = name, store
        self.tracker = make_tracker(name, options)
        key = hashlib.sha256(json.dumps(options, sort_keys=True, default=str).encode()).hexdigest()
        self._path = store.folder / FOLDER / f"{name}-{key[:8]}.json"
        self._state: dict[str, Any] = {}

    def begin(self) -> None:
        """Open the tracker.

        Raises:
            InputError, EnvironmentProblem: as :meth:`nas.trackers.base.Tracker.begin`.
        """
        self._state = _state(self._path)
        known = self._state.get("known")
        found = self.tracker.begin(tracked_run(self._store), known)
        if found != known:
            self._state = {"known": found, "steps": {}}
            self._save()

    def log(self, group: str, rows: Sequence[Row]) -> None:
        """Tell the rows that come after those that were told."""
        last = self._state["steps"].get(group, -1)
        new = [row for row in rows if row[0] > last and row[1]]
        if new:
            self.tracker.log(group, new)
            self._state["steps"][group] = new[-1][0]
            self._save()

    def complete(self) -> None:
        """Tell everything of a finished run that has not been told yet.

        Raises:
            InputError: the run has not ended.
        """
        from nas.report.results import load_results

        folder = self._store.folder
        results = load_results(folder)
        digest = hashlib.sha256(self._store.results.read_bytes()).hexdigest()
        if self._state.get("results") == digest:
            return
        losses = sorted(Losses(folder / LOSSES).read().items())
        self.log("training", training_rows([one for _, one in losses] or results["training"]))
        evaluations = sorted((row["number"], row["metrics"]) for row in results["evaluations"])
        self.log("search", search_rows(evaluations))
        for group, rows in (("search", hypervolume_rows(results)), ("front", front_rows(results))):
            if rows:
                self.tracker.log(group, rows)
        self.tracker.keep(kept_files(folder))
        self._state["results"] = digest
        self._save()

    def _save(self) -> None:
        write_json_atomic(self._path, self._state)


def make_tracker(name: str, options: Mapping[str, Any]) -> Tracker:
    """Return a tracker whose package is installed.

    Raises:
        InputError: there is no such tracker, or it refuses its options.
        MissingExtraError: its package is not installed.
    """
    kind = TRACKERS.get(name)
    kind.require()
    try:
        return kind(**options)
    except TypeError as error:
        raise InputError(f"tracker {name!r} cannot take its options: {error}") from error


def log_run(run: Path, name: str, options: Mapping[str, Any] | None = None) -> str:
    """Log a finished run to a tracker, now.

    Args:
        run: folder of a run that has ended.
        name: of the tracker.
        options: as in a job.

    Returns:
        Where it is to be seen. The same results are not logged twice.

    Raises:
        InputError: the run has not ended, or the tracker refuses what it is given.
        EnvironmentProblem: the tracker cannot be reached, or its package is not installed.
    """
    from nas.report.results import load_results

    load_results(Path(run))  # first: nothing is begun for a run that has not ended
    told = Told(name, options or {}, RunStore.open(Path(run)))
    told.begin()
    finished = False
    try:
        told.complete()
        finished = True
    finally:
        told.tracker.end(finished=finished)
    return told.tracker.place()


def require_trackers(configs: Iterable[TrackerConfig]) -> None:
    """Find out before any work whether every tracker's package is here.

    Raises:
        MissingExtraError: one is not.
    """
    for config in configs:
        TRACKERS.get(config.name).require()


def _state(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {"known": str(found["known"]), "steps": dict(found["steps"]), **found}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is damaged ({error!r}); delete it, and everything is told to the tracker anew"
        ) from None
