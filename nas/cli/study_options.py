"""Options that the commands of ``nas study`` share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from search_spaces.errors import InputError

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
KneeArch = Annotated[
    str | None,
    typer.Option(help="An architecture, as front.csv writes it; default: the front's knee."),
]
LargestArch = Annotated[
    str | None, typer.Option(help="An architecture, as front.csv writes it; default: largest.")
]


def studied(
    study: Any, source: Any, output: Path | None, name: str, **rest: Any
) -> tuple[Any, Path]:
    """Run a study; its result, and its folder, by default ``name`` inside the run."""
    folder = output or source.folder / "studies" / name
    return study.run(source, folder, **rest), folder


def tell(text: str) -> None:
    """Print a line of progress."""
    print(text, file=sys.stderr, flush=True)


def dashed(value: float | None, form: str) -> str:
    """Return a number, or a dash where there is none."""
    return "-" if value is None else format(value, form)


def listed(
    text: str, refusal: str, fits: Callable[[Any], bool], kind: type[float] = float
) -> tuple[Any, ...]:
    """Return the numbers of an option, which commas part.

    Raises:
        InputError: other text, no number, or one that does not fit; with the message ``refusal``.
    """
    try:
        found = tuple(kind(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or not all(map(fits, found)):
        raise InputError(refusal)
    return found
