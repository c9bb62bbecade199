"""Weights & Biases: online, or offline in ``RUN/wandb`` until ``wandb sync`` sends it."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nas.trackers.base import TRACKERS, Row, TrackedRun, Tracker
from search_spaces.errors import EnvironmentProblem, InputError

MODES = ("online", "offline")

LENGTH = 16
"""Characters of an identity that make the run's id; W&B takes 64 at most."""


@TRACKERS.register("wandb")
class WandB(Tracker):
    """Job as configuration, numbers as ``group/name`` over the group's own steps, one artefact.

    Nothing of the machine is sent: neither the console, code, git, nor system metrics.

    Args:
        project: by default the job's name.
        entity: team or user; by default that of the login.
        mode: ``online``, which needs a login (``wandb login``, or WANDB_API_KEY), or ``offline``.
        group: under which several runs stand together.
        tags: of the run.

    Raises:
        InputError: a mode that there is not.
    """

    package = "wandb"
    extra = "wandb"

    def __init__(
        self,
        project: str | None = None,
        entity: str | None = None,
        mode: str = "online",
        group: str | None = None,
        tags: Sequence[str] = (),
    ) -> None:
        if mode not in MODES:
            raise InputError(f"mode {mode!r} of Weights & Biases is none of: {', '.join(MODES)}")
        self._project, self._entity, self._mode = project, entity, mode
        self._group, self._tags = group, tuple(tags)
        self._run: Any = None

    def begin(self, run: TrackedRun, known: str | None) -> str:
        """Begin a run whose id follows from its identity, so that a resumed one goes on."""
        import wandb

        name = run.identity[:LENGTH]
        there = any((run.folder / "wandb").glob(f"offline-run-*-{name}"))
        if self._mode == "online" and not wandb.login(relogin=False, anonymous="never"):
            raise EnvironmentProblem(_NO_LOGIN)
        with self._problems():
            self._run = wandb.init(
                project=self._project or run.project,
                entity=self._entity,
                mode=self._mode,
                id=name,
                name=run.label,
                group=self._group,
                tags=self._tags,
                config=dict(run.parameters),
                dir=str(run.folder),
                resume="allow" if self._mode == "online" else None,
                reinit="create_new",
                settings=wandb.Settings(
                    console="off",
                    host="",
                    silent=True,
                    disable_git=True,
                    save_code=False,
                    x_disable_stats=True,
                    x_disable_machine_info=True,
                    x_disable_meta=True,
                    x_save_requirements=False,
                ),
            )
            for kind in ("training", "search", "front"):
                self._run.define_metric(f"{kind}/step", hidden=True)
                self._run.define_metric(f"{kind}/*", step_metric=f"{kind}/step")
        if self._mode == "online":
            return name
        # Offline files that were removed hold nothing, so everything is written anew.
        return known if there and known else f"{name}#{uuid.uuid4().hex[:8]}"

    def log(self, group: str, rows: Sequence[Row]) -> None:
        """Log each row as one step of W&B's own, with the group's step beside it."""
        with self._problems():
            for step, values in rows:
                named = {f"{group}/{name}": value for name, value in values.items()}
                self._run.log({**named, f"{group}/step": step})

    def keep(self, files: Mapping[str, Path]) -> None:
        """Log all files as one artefact, the run's."""
        import wandb

        with self._problems():
            artifact = wandb.Artifact(f"run-{self._run.id}", type="run")
            for name, path in files.items():
                artifact.add_file(str(path), name=name)
            self._run.log_artifact(artifact)

    def end(self, *, finished: bool) -> None:
        """Finish the run; one that may be resumed is marked as failed."""
        with self._problems():
            self._run.finish(exit_code=0 if finished else 1)

    def place(self) -> str:
        """Return the address of the run, or how an offline one is sent."""
        if self._mode == "online":
            return str(self._run.url)
        return f"wandb sync {Path(self._run.dir).parent}"

    @contextlib.contextmanager
    def _problems(self) -> Iterator[None]:
        import wandb

        try:
            yield
        except wandb.errors.Error as error:
            raise EnvironmentProblem(f"Weights & Biases: {error}") from error
        except OSError as error:
            raise EnvironmentProblem(f"Weights & Biases cannot be reached: {error}") from error


_NO_LOGIN = (
    "Weights & Biases knows no login here: run 'wandb login', set WANDB_API_KEY, or give the "
    "tracker the option mode: offline"
)
