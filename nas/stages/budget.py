"""How long a run may take, what it has taken so far, and how that is divided.

What was spent is in the run folder, so a run that was cut off goes on with what is left.
"""

from __future__ import annotations

import contextlib
import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devices.measuring.conditions import allowed_cores
from nas.job.default_time import default_minutes
from nas.record.spending import tree_cpu_seconds
from search_spaces.atomic import write_json_atomic
from search_spaces.errors import InputError

if TYPE_CHECKING:
    from devices.measuring.protocol import Protocol
    from nas.data.splits import DataSplits
    from nas.job.schema import Job
    from nas.job.sections.budget import BudgetConfig
    from nas.record.run_folder import RunStore

SAVED_EVERY_S = 2.0
"""So much of the time is lost to the record when a run is killed."""

SEARCH_SHARE = 0.05
"""Of the budget that the search may take at most, its evaluations and its own computing."""

ENDING_S, ENDING_SHARE, MOST_ENDING_SHARE = 10.0, 0.01, 0.12
"""Of the budget kept for what nobody can time beforehand, files, test set, report: so many seconds,
which even a few small models take, and a share of it, and at most another share."""

RETRIES_OVER = 0.05
"""Of a budget, what further attempts at disturbed latencies may take beyond it."""

PASSED_S, PASSED_SHARE = 5.0, 0.1
"""Beyond a budget, seconds and a share of it that are not worth a word."""

EXPECTED_PLACES = 8
"""Places for which time to measure is set apart where a job leaves their number open."""

PROCESS_START_S = 0.5
"""Seconds of a fresh measuring process for each model, its samples apart: a start that several
share, loading, and a warm-up that goes on where the machine is busy."""


ESTIMATE_S = 0.5
"""Seconds in which a simulator estimates a model; most take less."""


def winner_lanes(job: Job) -> int:
    """Return how many winners of ``job`` train at once and take no time from each other."""
    assert job.budget is not None
    return 1 if job.budget.cpu_minutes is not None else winner_workers(job)


def winner_workers(job: Job) -> int:
    """Return how many workers train winners of ``job``, in each other's time or not."""
    return 1 if job.executor == "local" else job.workers or len(allowed_cores())


def measurement_seconds(protocol: Protocol, inference_ms: float = 0.0) -> float:
    """Return about how long one model is measured that takes ``inference_ms``."""
    return protocol.processes * (
        PROCESS_START_S
        + protocol.warmup_windows * protocol.warmup_window_ms / 1e3
        + protocol.runs * max(protocol.min_sample_ms, inference_ms) / 1e3
    )


def round_seconds(job: Job, one: float) -> float:
    """Return the seconds of one round of measurements, each of ``one``: samples or the front."""
    return models_seconds(job, max(job.search.latency_samples, expected_places(job)), one)


def models_seconds(job: Job, models: int, one: float) -> float:
    """Return the seconds in which every device of ``job`` measures, or estimates, ``models``.

    Args:
        job: checked.
        models: on each device.
        one: seconds of a measurement; an estimate takes :data:`ESTIMATE_S`.
    """
    return models * sum(one if d.simulator is None else ESTIMATE_S for d in job.devices)


def expected_places(job: Job) -> int:
    """Return how many places of a front are to be measured, by what is known before the search."""
    search = job.search
    if search.front_size is not None or job.budget is None:
        return search.places
    return min(EXPECTED_PLACES, search.evaluations)


def minutes_for(job: Job, splits: DataSplits) -> float:
    """Return the minutes that ``job`` gets where it says nothing of time."""
    one = measurement_seconds(job.measurement_protocol())
    values = len(splits.train) * math.prod(splits.input_shape)
    return default_minutes(values, measuring=round_seconds(job, one))


@dataclass(frozen=True)
class Division:
    """Seconds of a whole budget for each stage.

    Attributes:
        supernet: the shared weights, the teacher included.
        search: evaluations of candidates, with the latencies measured before them.
        winners: training of the architectures that go into the front.
        verification: measuring the finished files, and the test set.
    """

    supernet: float
    search: float
    winners: float
    verification: float


def divide(seconds: float, config: BudgetConfig, *, measuring: float) -> Division:
    """Divide ``seconds`` between the stages of a run.

    Args:
        seconds: of the whole budget.
        config: gives the share of the shared weights.
        measuring: seconds that one round of measurements takes; there is one before the search
            and one after it.

    Raises:
        InputError: measuring alone takes more than half of the budget.
    """
    ending = measuring + ending_seconds(seconds)
    if 2 * measuring > 0.5 * seconds:
        raise InputError(
            f"budget: measuring alone takes about {2 * measuring:.0f} of {seconds:.0f} s; give "
            "more, or lower search.latency_samples, search.front_size, protocol.processes or "
            "protocol.runs; with as many measurements, at least "
            f"{math.ceil(40 * measuring / 60) / 10:g} minutes"
        )
    supernet = config.supernet * seconds
    search = SEARCH_SHARE * seconds + measuring
    return Division(supernet, search, seconds - supernet - search - ending, ending)


def ending_seconds(seconds: float) -> float:
    """Return what of a budget is kept for files, test set and report."""
    return min(MOST_ENDING_SHARE * seconds, ENDING_S + ENDING_SHARE * seconds)


class Budget:
    """The time of one run, across all processes that worked on it.

    Args:
        limit_s: what the run may take.
        path: file that holds what was spent before.
        now: seconds that pass; :func:`time.monotonic` or :func:`tree_cpu_seconds`.
        counted_from: reading of ``now`` from which this process counts; its present one by
            default.
    """

    def __init__(
        self,
        limit_s: float,
        *,
        path: Path,
        now: Callable[[], float],
        counted_from: float | None = None,
    ) -> None:
        self.limit_s = limit_s
        self.path = path
        self.now = now
        self._from = now() if counted_from is None else counted_from
        record = _recorded(path)
        self._before, self._started = record["spent_s"], bool(record.get("started"))

    @classmethod
    def of(cls, config: BudgetConfig, path: Path, *, whole_process: bool = False) -> Budget:
        """Return the budget that a job gives, going on from what is recorded at ``path``.

        Args:
            config: of the job.
            path: file that holds what was spent before.
            whole_process: processor time counts from the start of this process, imports
                included, and not from now.
        """
        if config.cpu_minutes is not None:
            start = 0.0 if whole_process else None
            limit = 60.0 * config.cpu_minutes
            return cls(limit, path=path, now=tree_cpu_seconds, counted_from=start)
        return cls(60.0 * float(config.minutes or 0), path=path, now=time.monotonic)

    @property
    def in_processor_time(self) -> bool:
        """Whether seconds are those of processors, not of the wall clock."""
        return self.now is tree_cpu_seconds

    def spent(self) -> float:
        """Return the seconds taken so far, by this process and those before it."""
        return self._before + self.now() - self._from

    def left(self) -> float:
        """Return the seconds left, at least 0."""
        return max(0.0, self.limit_s - self.spent())

    def start(self) -> None:
        """Begin, or go on with, what the budget is for; imports and data are ready.

        Getting there counts once: a run that is cut off several times gets its time all the same.
        """
        if self._started:
            self._from = self.now()
        self._started = True
        self.save()

    def passed(self) -> str | None:
        """Return in words by how much more than told the run passed its budget; None if hardly."""
        over = self.spent() - self.limit_s
        if over <= max(PASSED_S, PASSED_SHARE * self.limit_s):
            return None
        kind = "processor time" if self.in_processor_time else "the wall clock"
        return (
            f"the run took {self.spent():.0f} s of {kind}, and its budget is {self.limit_s:.0f} s: "
            "starts of processes, measurements and files take what they take, longer on a busy "
            "machine; give more, or lower search.front_size, search.latency_samples, "
            "protocol.processes or protocol.runs"
        )

    def save(self) -> None:
        """Write what was spent to the run folder."""
        write_json_atomic(
            self.path,
            {
                "limit_s": self.limit_s,
                "spent_s": round(self.spent(), 3),
                "started": self._started,
            },
        )

    @contextlib.contextmanager
    def running(self, *, every_s: float = SAVED_EVERY_S) -> Iterator[None]:
        """Save what was spent every ``every_s`` seconds, in a thread, and at the end."""
        over = threading.Event()

        def keep() -> None:
            while not over.wait(every_s):
                self.save()

        thread = threading.Thread(target=keep, name="budget", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self.save()


class SearchTime:
    """When the search of a run with a budget has used up its share of the time.

    When it began, and after how many evaluations it ended, stay on record, so that a resumed run
    ends it there, too, and does not take another share from the winners.

    Args:
        budget: of the run.
        path: file that holds what of the budget was spent when the search began, and the number
            of evaluations after which it ended.
        tell: told once that it ends before all evaluations are made.
    """

    def __init__(self, budget: Budget, path: Path, *, tell: Callable[[str], None]) -> None:
        self._budget, self._path, self._tell = budget, path, tell
        self._ended: int | None = None
        begun_s = budget.spent()
        if path.is_file():
            try:
                found = json.loads(path.read_text(encoding="utf-8"))
                # Earlier versions recorded the end alone.
                begun_s = float(found.get("begun_s", begun_s))
                if "evaluations" in found or "begun_s" not in found:
                    self._ended = int(found["evaluations"])
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise InputError(
                    f"{path} is damaged ({error}): it should say when the search began and after "
                    "how many evaluations it ended; delete it, and the search may go on"
                ) from error
        else:
            write_json_atomic(path, {"begun_s": begun_s})
        self._begun_s = begun_s
        self._end = begun_s + SEARCH_SHARE * budget.limit_s

    def over(self, done: int) -> bool:
        """Return whether the search is to end after ``done`` evaluations."""
        if self._ended is None and self._budget.spent() >= self._end:
            self._ended = done
            write_json_atomic(self._path, {"begun_s": self._begun_s, "evaluations": done})
        if self._ended is None or done < self._ended:
            return False
        self._tell(
            f"the search ends after {done} evaluations: its share of the budget "
            f"({SEARCH_SHARE:.0%}) is used up"
        )
        return True


@contextlib.contextmanager
def measuring_timed(
    budget: Budget | None, store: RunStore, front_factor: Callable[[], float]
) -> Iterator[None]:
    """Record what one round of measurements takes from the budget, as the front is measured.

    Args:
        budget: of the run; None records nothing.
        store: the run folder.
        front_factor: what measuring the front takes of what measuring the samples took.
    """
    if budget is None:
        yield
        return
    # What a run that was cut off had measured is part of the round.
    begun_s = store.first("measuring_begun_s", budget.spent())
    yield
    store.first("measuring_s", round(front_factor() * (budget.spent() - begun_s), 3))


class EndTime:
    """What measuring, testing and writing the models of a run take at its end.

    Args:
        budget: of the run.
        store: the run folder, whose manifest holds what measuring the samples took.
        job: of the run.
    """

    def __init__(self, budget: Budget, store: RunStore, job: Job) -> None:
        self._budget, self._store, self._job = budget, store, job

    def kept(self, verified: int) -> float:
        """Return the seconds of the budget that ``verified`` models will need."""
        # What is reported is measured again more often than what a predictor learns from.
        return 1.25 * self._measuring_s(verified) + ending_seconds(self._budget.limit_s)

    def retries(self, verified: int) -> int:
        """Return for how many further attempts at each latency there is time, at least one.

        The same in a resumed run, which would measure again under another protocol.
        """
        recorded = self._store.manifest().get("verify_retries")
        if recorded is None:
            # Of the samples, on a busy machine, each had two attempts.
            attempt_s = max(1e-9, 0.5 * self._measuring_s(verified))
            left = self._budget.left() + RETRIES_OVER * self._budget.limit_s
            free = left - ending_seconds(self._budget.limit_s)
            most = self._job.measurement_protocol().retries
            recorded = min(most, max(1, int(free / attempt_s) - 1))
            self._store.update_manifest(verify_retries=recorded)
        return int(recorded)

    def _measuring_s(self, verified: int) -> float:
        measured = self._job.search.latency_samples
        return float(self._store.manifest()["measuring_s"]) * verified / measured


def _recorded(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {"spent_s": 0.0}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {**found, "spent_s": float(found["spent_s"])}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is damaged ({error}): it should say how much of the budget was spent; write "
            '{"spent_s": SECONDS} into it, or begin a new run'
        ) from error
