"""Going on from an older run: its supernet, its evaluations and its measurements.

What carries over depends on what the two jobs share. With the same data, space, task and
training, everything does, and a changed budget costs only the search. With the same space
alone, the older front is evaluated first and nothing else is taken over, for accuracies of
another supernet would be compared with those of this one.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.job.schema import Job
from nas.record.run_folder import RunStore
from search_spaces.errors import InputError
from search_spaces.planned import PlannedSpace
from search_spaces.space import Arch
from search_spaces.terminal import quoted

if TYPE_CHECKING:
    from nas.record.evaluations import Evaluation

_TRAINING_KEYS = ("seed", "task", "data", "space", "supernet")
"""Sections of a job that decide the supernet's weights and the validation images."""

_FIXED_BY_TRAINING = ("training_steps", "training_plan", "focus", "pretrained")
"""Keys of a manifest that the training found out when it began: a checkpoint goes with them."""


@dataclass(frozen=True)
class WarmStart:
    """An older run to begin from.

    Attributes:
        store: the older run.
        same_training: whether its supernet and its accuracies hold for this job.
        why: in words, what differs where they do not.
    """

    store: RunStore
    same_training: bool
    why: str = ""

    @classmethod
    def of(cls, job: Job, folder: Path, data: Mapping[str, Any]) -> WarmStart:
        """Compare the run in ``folder`` with ``job``.

        Args:
            job: of the new run.
            folder: the older run.
            data: the new run's record of its data. Files may have changed where a job did not:
                what the older supernet learnt from may then be among the test images.

        Raises:
            InputError: no run there, one whose supernet is not finished, or another space.
        """
        store = RunStore.open(folder)
        # Read as a job, so that a key it does not know yet has its default there too.
        older = store.job().resolved()
        mine = job.resolved()
        if older["space"] != mine["space"]:
            raise InputError(
                f"search.warm_start: the run in {folder} searched the space {older['space']}, "
                f"this job {mine['space']}; only runs of one space can be joined"
            )
        differing = [key for key in _TRAINING_KEYS if older.get(key) != mine[key]]
        if not differing and store.manifest().get("data", {}).get("splits") != data["splits"]:
            differing = [f"the examples at {data['origin']}"]
        same = not differing
        if same and not any(
            event["event"] == "stage_end" and event["stage"] == "supernet"
            for event in store.events()
        ):
            raise InputError(
                f"search.warm_start: the supernet of {folder} is not finished; finish it with "
                f"'nas resume {quoted(folder)}' first"
            )
        why = "" if same else (
            f"only the front of {folder} and its measurements are taken over, not its supernet: "
            f"{', '.join(differing)} differ"
        )  # fmt: skip
        return cls(store, same, why)

    def copy_into(self, store: RunStore) -> None:
        """Copy what holds for the new run too, unless it is there: measurements, the supernet."""
        if self.store.measurements.exists() and not store.measurements.exists():
            _copy(self.store.measurements, store.measurements)
        if not self.same_training:
            return
        # Not found anew: a checkpoint is of so many steps, and these were timed.
        older, mine = self.store.manifest(), store.manifest()
        fixed = {key: older[key] for key in _FIXED_BY_TRAINING if key in older and key not in mine}
        if fixed:
            store.update_manifest(**fixed)
        if not store.checkpoint.exists():
            store.checkpoint.parent.mkdir(parents=True, exist_ok=True)
            _copy(self.store.checkpoint, store.checkpoint)

    def evaluations(self, space: PlannedSpace, images: int | None) -> list[Evaluation]:
        """Return the older evaluations whose accuracy holds for this job.

        Args:
            space: of both runs.
            images: validation images of one evaluation in this job.
        """
        older = self.store.job()
        if not self.same_training or older.search.validation_images != images:
            return []
        from nas.record.evaluations import StudyRecord

        # Opened with its own objectives, which may be others than this job's.
        with StudyRecord(self.store.study, space=space, goals=older.objectives()) as study:
            found = study.evaluations("search")
        return [e for e in found if not e.attributes.get("early_stopped")]

    def front(self, space: PlannedSpace) -> list[Arch]:
        """Return the architectures of the older front; none if the run was not finished."""
        if not self.store.results.exists():
            return []
        results: dict[str, Any] = _read_json(self.store.results)
        return [space.parse(entry["arch"]) for entry in results["front"]]


def _copy(source: Path, target: Path) -> None:
    if source.suffix == ".db":
        import contextlib
        import sqlite3

        # The file of a database in use is not the whole of it; SQLite's own copy is.
        partial = target.with_name(f".{target.name}.tmp")
        with (
            contextlib.closing(sqlite3.connect(source)) as old,
            contextlib.closing(sqlite3.connect(partial)) as new,
        ):
            old.backup(new)
        partial.replace(target)
        return
    partial = target.with_name(f".{target.name}.tmp")
    shutil.copyfile(source, partial)
    partial.replace(target)


def _read_json(path: Path) -> Any:
    import json

    return json.loads(path.read_text(encoding="utf-8"))
