"""TensorBoard: event files, by default in ``RUN/tensorboard``."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nas.trackers.base import TRACKERS, Row, TrackedRun, Tracker
from search_spaces.errors import EnvironmentProblem

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


@TRACKERS.register("tensorboard")
class TensorBoard(Tracker):
    """Writes scalars ``group/name`` and the job as text; files stay in the run folder.

    Args:
        folder: of the event files; ``FOLDER/NAME`` of each run where it is given, so that one
            TensorBoard shows several runs.
    """

    package = "tensorboard"

    def __init__(self, folder: str | None = None) -> None:
        self._parent = None if folder is None else Path(folder)
        self._folder = Path()
        self._writer: SummaryWriter | None = None

    def begin(self, run: TrackedRun, known: str | None) -> str:
        """Open the event files of ``run``; their folder is the name by which it is found again."""
        self._folder = (
            run.folder / "tensorboard" if self._parent is None else self._parent / run.label
        ).absolute()
        # A folder that was cleared holds nothing, so everything is written anew, by another name.
        there = known is not None and any(self._folder.glob("events.out.tfevents.*"))
        name = known if there and known else f"{self._folder}#{uuid.uuid4().hex[:8]}"
        from torch.utils.tensorboard import SummaryWriter

        try:
            self._writer = SummaryWriter(str(self._folder))
            if name != known:
                rows = "".join(f"| {k} | {v} |\n" for k, v in run.parameters.items())
                self._writer.add_text("job", f"| key | value |\n| --- | --- |\n{rows}", 0)
        except OSError as error:
            raise _unwritable(self._folder, error) from error
        return name

    def log(self, group: str, rows: Sequence[Row]) -> None:
        """Write scalars."""
        assert self._writer is not None
        try:
            for step, values in rows:
                for name, value in values.items():
                    self._writer.add_scalar(f"{group}/{name}", value, step)
            self._writer.flush()
        except OSError as error:
            raise _unwritable(self._folder, error) from error

    def keep(self, files: Mapping[str, Path]) -> None:
        """Keep nothing: the files are in the run folder, and TensorBoard shows none."""

    def end(self, *, finished: bool) -> None:
        """Close the event files."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def place(self) -> str:
        """Return the command that shows the run."""
        return f"tensorboard --logdir {self._folder}"


def _unwritable(folder: Path, error: OSError) -> EnvironmentProblem:
    return EnvironmentProblem(f"TensorBoard's files in {folder} cannot be written: {error}")
