"""Options that the commands of ``nas study`` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RunOrJob = Annotated[
    Path, typer.Argument(metavar="RUN|JOB", help="A run folder, or the job whose run it is.")
]
Output = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Folder of the study; by default inside the run."),
]
Seeds = Annotated[int, typer.Option(min=1, help="Trainings alone of each architecture.")]
Steps = Annotated[
    int | None,
    typer.Option(min=1, help="Steps of one training alone; default: the job's epochs."),
]
BatchSize = Annotated[int, typer.Option(min=1, help="Images a step of a training alone.")]
Rate = Annotated[
    float | None, typer.Option(help="Peak rate of a training alone; default: the job's.")
]
FloatShare = Annotated[
    float, typer.Option(min=0, max=1, help="Share of a training alone in float, before bits.")
]
Workers = Annotated[int, typer.Option(min=1, help="Processes, one thread each.")]
Images = Annotated[
    int | None, typer.Option(min=1, help="Validation images of an evaluation; default: all.")
]
