"""``nas compare``: the fronts of several runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from search_spaces.errors import InputError

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN RUN...", help="Run folders; the first is the one to beat."),
    ],
    objectives: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="Metrics such as accuracy,latency_ms[cpu],weights_kib; by default the "
            "objectives of the first run.",
        ),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Device of latency and energy; by default every one.")
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="Reference point of the hypervolume, in the objectives' own units; by default "
            "the worst of all runs and a tenth of the range.",
        ),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write everything as JSON.")
    ] = None,
) -> None:
    """Compare the fronts of two or more runs.

    Hypervolume against one reference point, knee, how far each front covers the first one, and
    which points half and all of the runs attain.
    """
    from nas.fronts.compare import compare_runs
    from search_spaces.atomic import write_json_atomic

    result = compare_runs(
        runs,
        objectives=None if objectives is None else _words(objectives),
        device=device,
        reference=None if reference is None else [_number(v) for v in _words(reference)],
    )
    for line in result.lines():
        typer.echo(line)
    if json_file is not None:
        write_json_atomic(json_file, result.to_json())
        typer.echo(f"wrote {json_file}")


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"--reference: {text!r} is not a number") from None
