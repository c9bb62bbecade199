"""A run seen from outside while it works: stages, losses, evaluations, the front so far.

Everything is read from the run folder and its study; the process that works is not asked, and
nothing is written. The same readings feed the page of a run and the tools that track it.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.fronts.spec import FrontSpec
from nas.record.live import LOSSES, PROGRESS
from nas.record.run_folder import RunStore
from nas.record.run_trials import RecordedTrial, RunTrials
from nas.record.spending import spent
from search_spaces.errors import InputError

if TYPE_CHECKING:
    from nas.job.schema import Job

SILENT_S = 30.0
"""Seconds without a sign of life, of which a working run gives one every few, until a run counts
as stopped whose lock says nothing: one that works on another machine."""

STAGES = ("supernet", "latency", "search", "winners", "verification", "test")
"""The stages of a run in their order; ``winners`` only where a budget trains them."""


@dataclass(frozen=True)
class Losses:
    """Training records of a run by step; ``read`` takes in what was written since.

    Attributes:
        path: of the file, one JSON object a line.
    """

    path: Path
    by_step: dict[int, dict[str, Any]] = field(default_factory=dict)
    _at: list[int] = field(default_factory=lambda: [0])

    def read(self) -> dict[int, dict[str, Any]]:
        """Return every record, those of steps that were taken twice as they were the last time."""
        if not self.path.is_file():
            return self.by_step
        with open(self.path, "rb") as file:
            if file.seek(0, 2) < self._at[0]:
                # Another file than before: a run was begun anew in this folder.
                self._at[0] = 0
                self.by_step.clear()
            file.seek(self._at[0])
            text = file.read()
        whole = text.rfind(b"\n") + 1
        self._at[0] += whole
        for line in text[:whole].splitlines():
            try:
                record = json.loads(line)
            except ValueError:  # torn by a crash
                continue
            if isinstance(record, dict) and isinstance(record.get("step"), int):
                self.by_step[record["step"]] = record
        return self.by_step


class RunFollower:
    """Reads a run again and again; each reading takes in only what is new.

    Args:
        folder: of the run, which need not have ended.
        now: seconds since 1970.

    Raises:
        InputError: the folder holds no run.
    """

    def __init__(self, folder: Path, *, now: Callable[[], float] = time.time) -> None:
        self.store = RunStore.open(Path(folder))
        self._now = now
        self._losses = Losses(self.store.folder / LOSSES)
        self._trials: RunTrials | None = None

    def close(self) -> None:
        """Close the study."""
        if self._trials is not None:
            self._trials.close()

    def __enter__(self) -> RunFollower:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @cached_property
    def job(self) -> Job:
        """The job that the run began with."""
        return self.store.job()

    @cached_property
    def fronts(self) -> list[FrontSpec]:
        """The fronts that the job asks for."""
        return self.job.fronts()

    def losses(self) -> list[dict[str, Any]]:
        """Return the records of the supernet's training so far, by step."""
        return [record for _, record in sorted(self._losses.read().items())]

    def evaluations(self) -> list[RecordedTrial]:
        """Return the evaluations of the search so far, in order.

        Raises:
            EnvironmentProblem: the study's database cannot be read.
        """
        if self._trials is None:
            self._trials = RunTrials(self.job.study or self.store.study)
        name = "nas/search"
        if self.job.study is not None:
            # The studies of runs that share a database are named after what they evaluate.
            if not self.store.checkpoint.is_file() or "data" not in self.store.manifest():
                return []
            name = f"nas/{self.store.evaluation_context(self.job)}/search"
        return self._trials.read(name)

    def members(self, evaluations: Sequence[RecordedTrial]) -> dict[str, list[int]]:
        """Return the places in ``evaluations`` that are on each front so far, by its name."""
        metrics = [
            {name: math.nan if v is None else v for name, v in one.metrics.items()}
            for one in evaluations
        ]
        return {
            front.name: [i for i, on in enumerate(front.members(metrics)) if on]
            for front in self.fronts
        }

    def state(self) -> str:
        """Return ``running``, ``finished``, ``infeasible`` or ``stopped``."""
        for event in reversed(self.store.events()):
            if event["event"] == "finished":
                return "finished"
            if event["event"] == "infeasible":
                return "infeasible"
            if event["event"] in ("resumed", "stage_begin"):
                break
        held = self.store.is_held()
        return "running" if (self.silent_s() <= SILENT_S if held is None else held) else "stopped"

    def silent_s(self) -> float:
        """Return the seconds since the run's process last gave a sign of life."""
        folder = self.store.folder
        signs = [self.store.manifest_path, folder / PROGRESS, self.store.budget]
        signs += (folder / "spending").glob("*.json")
        newest = max((path.stat().st_mtime for path in signs if path.is_file()), default=0.0)
        return max(0.0, self._now() - newest)

    def look(self, *, most_losses: int = 400, most_evaluations: int = 3000) -> dict[str, Any]:
        """Return what there is to see, as JSON.

        Args:
            most_losses: points of the curve at most, evenly spaced.
            most_evaluations: drawn at most, the last ones; those on a front are never left out.

        Raises:
            InputError, EnvironmentProblem: the run, or its study, cannot be read.
        """
        state = self.state()
        job, folder = self.job, self.store.folder
        evaluations = self.evaluations()
        members = self.members(evaluations)
        on_front = {i for places in members.values() for i in places}
        first = max(0, len(evaluations) - most_evaluations)
        shown = [i for i in range(len(evaluations)) if i >= first or i in on_front]
        losses = self.losses()
        told = _json(folder / PROGRESS)
        budget = _json(self.store.budget)
        cost = spent(folder)
        return {
            "name": job.name,
            "task": job.task,
            "state": state,
            "silent_s": round(self.silent_s(), 1),
            "created": self.store.manifest().get("created"),
            "report": (folder / "report.html").is_file() and state == "finished",
            "stages": self._stages(state),
            "activities": self._activities(told) if state == "running" else [],
            "messages": [m for m in told.get("messages", []) if isinstance(m, Mapping)],
            "budget": {k: budget.get(k) for k in ("limit_s", "spent_s")} if budget else None,
            "cpu_s": None if cost is None else cost.cpu_seconds,
            "wall_s": None if cost is None else cost.wall_seconds,
            "losses": [
                [record["step"], record.get("loss"), record.get("subnet_loss")]
                for record in _spaced(losses, most_losses)
            ],
            "goals": [
                {"metric": str(goal.metric), "maximise": goal.sign < 0} for goal in job.objectives()
            ],
            "constraints": [
                {"metric": str(one.metric), "bound": one.bound, "upper": one.upper}
                for one in job.constraints()
            ],
            "wanted": job.search.evaluations,
            "evaluated": len(evaluations),
            "evaluations": [
                {
                    "number": evaluations[i].number,
                    "id": evaluations[i].id,
                    "metrics": evaluations[i].metrics,
                    "fronts": [name for name, places in members.items() if i in places],
                }
                for i in shown
            ],
        }

    def _stages(self, state: str) -> list[dict[str, Any]]:
        """Return each stage with its seconds and whether it is done, under way or still to come."""
        seconds = {row["stage"]: row["seconds"] for row in self.store.timing()}
        begun: dict[str, str] = {}
        for event in self.store.events():
            if event["event"] == "stage_begin":
                begun[event["stage"]] = event["time"]
            elif event["event"] == "stage_end":
                begun.pop(event["stage"], None)
        trained = self.job.budget is not None and self.job.finetune.epochs is None
        names = [name for name in STAGES if name != "winners" or trained]
        names += [name for name in seconds if name not in names]
        rows = []
        for name in names:
            if name in begun:
                doing = "running" if state == "running" else "stopped"
                took = self._now() - datetime.fromisoformat(begun[name]).timestamp()
                if doing == "stopped":
                    took = max(0.0, took - self.silent_s())
            else:
                doing = "done" if name in seconds else "waiting"
                took = seconds.get(name, 0.0)
            rows.append({"stage": name, "state": doing, "seconds": round(took, 1)})
        return rows

    def _activities(self, told: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return what is being counted: done, total, and the seconds that are left at this pace."""
        rows = []
        for stage in told.get("stages", []):
            total, done, start = stage.get("total"), stage["done"], stage.get("from", 0.0)
            left = None
            if stage.get("since") and total and start < done <= total:
                seen = datetime.fromisoformat(told["time"]).timestamp()
                passed = seen - datetime.fromisoformat(stage["since"]).timestamp()
                left = round(passed / (done - start) * (total - done), 1)
            keys = ("name", "total", "unit", "done", "note")
            rows.append({**{key: stage.get(key) for key in keys}, "left_s": left})
        return rows


def _spaced(rows: Sequence[Any], most: int) -> list[Any]:
    """Return at most ``most`` rows, evenly spaced, the first and the last among them."""
    if len(rows) <= most:
        return list(rows)
    return [rows[round(i * (len(rows) - 1) / (most - 1))] for i in range(most)]


def _json(path: Path) -> dict[str, Any]:
    """Return an object that is written atomically; empty where there is none yet."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise InputError(f"{path} is damaged: {error}; delete it, a run makes it anew") from None
    return found if isinstance(found, dict) else {}
