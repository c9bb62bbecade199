"""What a run says of itself while it works: every loss, how far each stage is, the last messages.

Whoever looks (:mod:`nas.record.following`) reads these files beside the study, so that nothing has
to ask the process that works.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from search_spaces.atomic import null_for_undefined, write_json_atomic

LOSSES = "training.jsonl"
"""One line a training step of the supernet: step, losses, learning rate. A run that goes on from
a checkpoint writes the steps after it again; the later line counts."""

PROGRESS = "progress.json"
"""The stages under way, and the last messages."""

EVERY_S = 2.0
"""Seconds between two writings of progress that is no change of stage."""

MOST_MESSAGES = 50


class LossLog:
    """Appends the records of training steps to ``RUN/training.jsonl``, as a context.

    Lines reach the file about once a second, without waiting for the disk: a crash may lose the
    last of them, and a resumed run takes those steps again.

    Args:
        folder: of the run; None writes nothing (processes other than the first).
        clock: seconds, monotonic.
    """

    def __init__(self, folder: Path | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = None if folder is None else Path(folder) / LOSSES
        self._clock = clock

    def __enter__(self) -> LossLog:
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self._path, "a", encoding="utf-8")
            if self._file.tell():
                # A line torn by a crash must not swallow the next one; empty lines are no records.
                self._file.write("\n")
            self._flushed = self._clock()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._path is not None:
            self._file.close()

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one step's record; ``step`` is among its keys."""
        if self._path is None:
            return
        self._file.write(json.dumps(null_for_undefined(record), allow_nan=False) + "\n")
        if self._clock() - self._flushed >= 1.0:
            self._file.flush()
            self._flushed = self._clock()


class ProgressFile:
    """Keeps ``RUN/progress.json``; what :class:`nas.stages.progress.Progress` tells it.

    Args:
        folder: of the run. Nothing is written where there is none.
        clock: seconds, monotonic.
    """

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder, self._clock = Path(folder), clock
        self._stages: list[dict[str, Any]] = []
        self._messages: deque[dict[str, str]] = deque(maxlen=MOST_MESSAGES)
        self._written = float("-inf")

    def message(self, text: str) -> None:
        """Keep a message for people."""
        self._messages.append({"time": _now(), "text": text})
        self._write()

    @contextmanager
    def stage(
        self, name: str, total: float | None, unit: str, done: float
    ) -> Iterator[Callable[[float, str], None]]:
        """Show a stage while the block runs; yields what is told ``(done, note)``.

        Args:
            name: of the stage.
            total: how much there is to do, in ``unit``; None where that is unknown.
            unit: such as ``steps``.
            done: before this process.
        """
        entry: dict[str, Any] = {"name": name, "total": total, "unit": unit, "done": done}
        entry |= {"note": "", "since": None, "from": done}
        self._stages.append(entry)
        self._write()

        def update(now: float, note: str) -> None:
            if entry["since"] is None:
                # What an earlier process did is told at once, and says nothing of this one's pace.
                entry["since"], entry["from"] = _now(), now
            entry["done"] = now
            entry["note"] = note or entry["note"]
            if self._clock() - self._written >= EVERY_S:
                self._write()

        try:
            yield update
        finally:
            self._stages.remove(entry)
            self._write()

    def _write(self) -> None:
        # A run that could not begin takes its folder with it.
        if not self._folder.is_dir():
            return
        value = {"stages": self._stages, "messages": list(self._messages), "time": _now()}
        write_json_atomic(self._folder / PROGRESS, null_for_undefined(value))
        self._written = self._clock()


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")
