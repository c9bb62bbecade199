"""A run told to its trackers while it works, by a thread that reads the run folder.

The search never waits for a tracker: one that fails is told of and left out, and what it missed can
be told afterwards from the run folder.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from nas.record.following import RunFollower
from nas.trackers.base import Row
from nas.trackers.rows import search_rows, training_rows
from nas.trackers.told import Told
from search_spaces.errors import NasError
from search_spaces.terminal import quoted

if TYPE_CHECKING:
    from nas.job.sections.tracking import TrackerConfig
    from nas.record.run_folder import RunStore
    from nas.stages.progress import Progress

EVERY_S = 5.0
"""Seconds between two looks at the run folder."""

ENDING_S = 120.0
"""Seconds that the end of a run waits for its trackers at most."""

INTERRUPTED_S = 10.0
"""The same for a run that was interrupted or failed; a resumed one tells the rest."""


class Following:
    """Tells a run to its trackers as long as the block runs; a block that ends well completes it.

    Args:
        configs: of the trackers.
        store: the run folder.
        progress: where to tell about trackers.
        every_s, ending_s: see :data:`EVERY_S`, :data:`ENDING_S`.
    """

    def __init__(
        self,
        configs: Sequence[TrackerConfig],
        store: RunStore,
        progress: Progress,
        *,
        every_s: float = EVERY_S,
        ending_s: float = ENDING_S,
    ) -> None:
        self._store, self._progress = store, progress
        self._every_s, self._ending_s = every_s, ending_s
        self._told = [Told(config.name, config.options, store) for config in configs]
        self._over = threading.Event()
        self._finished = False
        self._thread = threading.Thread(target=self._follow, name="trackers", daemon=True)

    def begin(self) -> Following:
        """Open every tracker, so that a wrong address is told before any work.

        Raises:
            InputError, EnvironmentProblem: of a tracker.
        """
        begun: list[Told] = []
        try:
            for told in self._told:
                told.begin()
                begun.append(told)
                self._progress.log(f"tracked by {told.name}: {told.tracker.place()}")
        except NasError:
            for told in begun:
                told.tracker.end(finished=False)
            raise
        return self

    def __enter__(self) -> Following:
        if self._told:
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        if not self._told:
            return
        self._finished = kind is None
        self._over.set()
        waited = self._ending_s if self._finished else min(INTERRUPTED_S, self._ending_s)
        self._thread.join(waited)
        if self._thread.is_alive():
            names = " and ".join(told.name for told in self._told)
            self._progress.log(
                f"warning: {names} did not take everything in {waited:g} s; tell it again "
                f"with: nas report {quoted(self._store.folder)} --track NAME"
            )

    def _follow(self) -> None:
        with RunFollower(self._store.folder) as follower:
            while not self._over.wait(self._every_s):
                self._tell(follower)
        for told in list(self._told):
            self._safely(told, partial(self._end, told))

    def _tell(self, follower: RunFollower) -> None:
        try:
            training = training_rows(follower.losses())
            search = search_rows((one.number, one.metrics) for one in follower.evaluations())
        except NasError:
            return  # the run itself tells of a database that went away
        for told in list(self._told):
            self._safely(told, partial(_log, told, training, search))

    def _end(self, told: Told) -> None:
        complete = False
        try:
            if self._finished:
                told.complete()
            complete = self._finished
        finally:
            told.tracker.end(finished=complete)

    def _safely(self, told: Told, tell: Callable[[], object]) -> None:
        """Tell a tracker, or leave it out from now on."""
        try:
            tell()
        except NasError as error:
            self._told.remove(told)
            self._progress.log(
                f"warning: {error}; the run goes on without {told.name}, and can be told to it "
                f"afterwards with: nas report {quoted(self._store.folder)} --track {told.name}"
            )


def _log(told: Told, training: Sequence[Row], search: Sequence[Row]) -> None:
    told.log("training", training)
    told.log("search", search)
