"""Results that wait for delivery, on disk, so that a kill or a lost network loses none."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from pydantic import ValidationError

from devices.fleet.messages import MAX_JOBS, Held, Result
from search_spaces.atomic import write_text_atomic

_LOG = logging.getLogger(__name__)


class Outbox:
    """A folder of results, one file each, written whole or not at all.

    When the disk is full a result stays in memory, where only a kill can lose it; the hub
    then gives the job out again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._results: dict[tuple[str, int], Result] = {}
        for part in self.folder.glob(".*.tmp"):
            part.unlink(missing_ok=True)
        for path in sorted(self.folder.glob("*.json")):
            try:
                result = Result.model_validate_json(path.read_bytes())
            except (ValidationError, ValueError):
                _LOG.warning("%s is not a result; removed", path)
                path.unlink(missing_ok=True)
            else:
                self._results[result.job, result.fence] = result

    def put(self, result: Result) -> None:
        """Keep a result until it is delivered."""
        with self._lock:
            self._results[result.job, result.fence] = result
        try:
            write_text_atomic(self._path(result), result.model_dump_json())
        except OSError as error:
            _LOG.warning("a result could not be written to %s: %s", self.folder, error.strerror)

    def waiting(self) -> list[Result]:
        """Return what is not delivered yet."""
        with self._lock:
            return list(self._results.values())

    def holding(self) -> list[Held]:
        """Return the leases that the waiting results answer."""
        # As many as a message may name; the others are told of when these are delivered.
        waiting = self.waiting()[:MAX_JOBS]
        return [Held(job=result.job, fence=result.fence) for result in waiting]

    def remove(self, result: Result) -> None:
        """Forget a result: it was delivered, or refused for good."""
        self._path(result).unlink(missing_ok=True)
        with self._lock:
            self._results.pop((result.job, result.fence), None)

    def _path(self, result: Result) -> Path:
        return self.folder / f"{result.job}-{result.fence}.json"
