"""One interface for progress: bars on a terminal, plain log lines anywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol, TextIO

from search_spaces.terminal import plain_text

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

LOG_EVERY_S = 15.0
"""Seconds between two log lines of one stage when there is no terminal."""


class Listener(Protocol):
    """Whoever else is told of progress, such as :class:`nas.record.live.ProgressFile`."""

    def message(self, text: str) -> None:
        """Take a line for people."""

    def stage(
        self, name: str, total: float | None, unit: str, done: float
    ) -> AbstractContextManager[Callable[[float, str], None]]:
        """Take a stage while the block runs; gives what takes how much is done, and a note."""


class Stage:
    """One stage under way; the only thing a worker has to know is :meth:`advance`."""

    def __init__(self, update: Callable[[float, str], None]) -> None:
        self.done = 0.0
        self._update = update

    def advance(self, amount: float = 1.0, note: str = "") -> None:
        """Add ``amount`` of the stage's unit; ``note`` is shown beside it ("loss 0.31")."""
        self.done += amount
        self._update(self.done, note)

    def heard_by(self, other: Callable[[float, str], None]) -> Stage:
        """Return this stage, which tells ``other`` from now on what it shows."""
        own = self._update

        def both(now: float, note: str) -> None:
            own(now, note)
            other(now, note)

        self._update = both
        return self


class Progress:
    """Shows the stages of a run on standard error.

    Args:
        stream: where to write; standard error by default.
        bars: force bars on or off; by default they are drawn on a terminal.
        clock: seconds, monotonic; for tests.
    """

    def __init__(
        self,
        *,
        stream: TextIO | None = None,
        bars: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.stream = stream if stream is not None else sys.stderr
        self.bars = self.stream.isatty() if bars is None else bars
        self._clock = clock
        self._start = clock()
        self._rich: RichProgress | None = None
        self.listener: Listener | None = None
        """Told of every stage and message too."""

    def log(self, message: str) -> None:
        """Write one line, with the time since the start in front of it."""
        if self.listener is not None:
            self.listener.message(plain_text(message))
        self._line(message)

    def _line(self, message: str) -> None:
        line = f"[{_duration(self._clock() - self._start)}] {plain_text(message)}"
        if self._rich is not None:
            self._rich.console.print(line, markup=False, highlight=False)
        else:
            print(line, file=self.stream, flush=True)

    @contextmanager
    def stage(
        self, name: str, total: float | None = None, *, unit: str = "", done: float = 0.0
    ) -> Iterator[Stage]:
        """Show one stage while the block runs.

        Args:
            name: what is being done ("training the supernet").
            total: how much there is to do; None when unknown.
            unit: of ``total`` ("steps").
            done: how much an earlier, interrupted run did already.
        """
        drawn = self._bar if self.bars else self._lines
        with drawn(name, total, unit, done) as stage:
            if self.listener is None:
                yield stage
                return
            with self.listener.stage(name, total, unit, done) as heard:
                yield stage.heard_by(heard)

    @contextmanager
    def _bar(self, name: str, total: float | None, unit: str, done: float) -> Iterator[Stage]:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        outermost = self._rich is None
        if self._rich is None:
            self._rich = RichProgress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[unit]}"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}", markup=False),
                console=Console(file=self.stream),
            )
            self._rich.start()
        bars = self._rich
        task: TaskID = bars.add_task(name, total=total, completed=int(done), unit=unit, note="")

        def update(now: float, note: str) -> None:
            bars.update(task, completed=int(now))
            if note:
                bars.update(task, note=note)

        stage = Stage(update)
        stage.done = done
        try:
            yield stage
        finally:
            if outermost:
                bars.stop()
                self._rich = None

    @contextmanager
    def _lines(self, name: str, total: float | None, unit: str, done: float) -> Iterator[Stage]:
        begin = last = self._clock()
        # Before the first is done, workers start and files are read, which is no pace to go by.
        since: tuple[float, float] | None = None
        of = "" if total is None else f" of {total:g}"
        self._line(
            f"{name}: {f'{done:g}{of}' if done else f'{total:g}' if total else ''} {unit}".rstrip(
                ": "
            )
        )

        def update(now: float, note: str) -> None:
            nonlocal last, since
            clock = self._clock()
            since = since or (clock, now)
            if clock - last < LOG_EVERY_S:
                return
            last = clock
            text = f"{name}: {now:g}{of} {unit}".rstrip()
            if total and now > since[1]:
                left = (clock - since[0]) / (now - since[1]) * (total - now)
                text += f", {_duration(left)} left"
            self._line(f"{text}, {note}" if note else text)

        stage = Stage(update)
        stage.done = done
        yield stage
        self._line(f"{name}: done in {_duration(self._clock() - begin)}")


def _duration(seconds: float) -> str:
    whole = max(0, round(seconds))
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
