"""The one interface of tools that people watch runs in, and where such tools are registered."""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from search_spaces.errors import MissingExtraError
from search_spaces.registry import Registry

Row = tuple[int, Mapping[str, float]]
"""A step and what is known at it: finite numbers by name."""


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker is told of a run at its beginning.

    Attributes:
        folder: of the run; what a tracker keeps on this machine goes inside it.
        project: the job's name, under which its runs stand together.
        label: of this run among them; the folder's name.
        identity: the same whenever this run is tracked, and of no other run.
        parameters: the job, flattened: dotted key -> text.
    """

    folder: Path
    project: str
    label: str
    identity: str
    parameters: Mapping[str, str]


class Tracker(ABC):
    """Shows one run in one tool. Called by one thread at a time, in this order: begin, end.

    A subclass's constructor takes the options of a job's ``tracking`` entry as keyword arguments.

    Attributes:
        package: that must be importable.
        extra: of this project, which installs it.
    """

    package: ClassVar[str]
    extra: ClassVar[str] = "track"

    @classmethod
    def require(cls) -> None:
        """Find out before any work whether the tool's package is here.

        Raises:
            MissingExtraError: it is not.
        """
        if importlib.util.find_spec(cls.package) is None:
            raise MissingExtraError(cls.package, cls.extra)

    @abstractmethod
    def begin(self, run: TrackedRun, known: str | None) -> str:
        """Begin to show a run, or go on with it.

        Args:
            run: what is shown.
            known: what this returned the last time; None for the first.

        Returns:
            A name by which the same run is found again: ``known`` itself where the run is still
            there, another one where everything has to be told anew.

        Raises:
            InputError: an option is wrong.
            EnvironmentProblem: the tool cannot be reached.
        """

    @abstractmethod
    def log(self, group: str, rows: Sequence[Row]) -> None:
        """Show numbers of one group, each at its step; groups count steps for themselves.

        Args:
            group: ``training`` (steps), ``search`` (evaluations) or ``front`` (rank).
            rows: in the order of steps. Names may hold any characters.

        Raises:
            EnvironmentProblem: the tool cannot be reached.
        """

    @abstractmethod
    def keep(self, files: Mapping[str, Path]) -> None:
        """Keep files of the run: relative path in the tool -> file.

        Raises:
            EnvironmentProblem: the tool cannot be reached.
        """

    @abstractmethod
    def end(self, *, finished: bool) -> None:
        """Let go of the tool; ``finished`` is False for a run that may be resumed.

        Raises:
            EnvironmentProblem: the tool cannot be reached.
        """

    @abstractmethod
    def place(self) -> str:
        """Return in words where the run is to be seen; called after :meth:`begin`."""


TRACKERS: Registry[type[Tracker]] = Registry(
    "tracker",
    group="nas.trackers",
    modules=("nas.trackers.mlflow", "nas.trackers.tensorboard", "nas.trackers.wandb"),
)
"""Classes called as ``tracker(**options)``."""
