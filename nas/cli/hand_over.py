"""``nas export`` and ``nas demo``: from a finished run to files, and a run to begin with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from search_spaces.errors import InputError
from search_spaces.terminal import quoted


def export(
    run_folder: Annotated[
        Path | None, typer.Argument(metavar="RUN", help="Folder of a run.", show_default=False)
    ] = None,
    pick: Annotated[
        str, typer.Option(metavar="knee|ID", help="The knee of the front, or an id of front.csv.")
    ] = "knee",
    output: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where to write; by default RUN/export/ID."),
    ] = None,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            metavar="F",
            help="onnx (default), c, litert, ...; several with commas, or repeated.",
        ),
    ] = None,
    embed_preprocessing: Annotated[
        bool,
        typer.Option(
            "--embed-preprocessing",
            help="Scaling or log-mel inside the model: bytes or samples in, class out.",
        ),
    ] = False,
    list_formats: Annotated[
        bool, typer.Option("--list-formats", help="Say which formats there are.")
    ] = False,
) -> None:
    """Write one model of the front as ONNX and other formats, with its model card.

    The knee is the model after which more accuracy costs most. The card says how the file was
    made, what goes in and comes out, and every figure with where it comes from. Each format is
    checked against the ONNX file; formats.json records by how much its outputs differ.

    \b
    nas export runs/digits
    nas export runs/digits --pick 66ee79e702 --output handover
    nas export runs/digits --format onnx --format c --format litert
    nas export runs/digits --embed-preprocessing
    """
    if list_formats:
        from nas.models.formats.base import FORMATS

        for name in FORMATS:
            typer.echo(f"{name:<11} {FORMATS.get(name).summary}")
        return
    if run_folder is None:
        raise InputError("give the folder of a run, as in: nas export runs/digits")
    if not run_folder.is_dir():
        raise InputError(f"{run_folder} is no run folder: it does not exist")
    from nas.models.export_formats import export_formats
    from nas.models.hand_over import export_model

    if not formats and not embed_preprocessing:
        typer.echo(str(export_model(run_folder, pick, output)))
        return
    written = export_formats(
        run_folder,
        pick,
        output,
        formats=[name.strip() for text in formats or ["onnx"] for name in text.split(",")],
        embed_preprocessing=embed_preprocessing,
    )
    for item in written:
        error = "not run here" if item.relative_error is None else f"{item.relative_error:.2g}"
        note = f"; {item.note}" if item.note else ""
        typer.echo(f"{item.format}: {item.files[0]}, relative error {error}{note}")


def demo(
    output: Annotated[
        Path, typer.Option(metavar="RUN", help="Run folder of the demo; must be new.")
    ] = Path("runs/demo"),
    small: Annotated[
        bool, typer.Option("--small", help="A tenth of the training: to see it work, in a minute.")
    ] = False,
) -> None:
    """Run the main job on the digits that come with scikit-learn, and hand over its knee.

    Needs the extra search, no data and no repository: the job is part of the package. About three
    minutes on two cores; with --small one, and a front that means nothing.
    """
    if output.exists():
        raise InputError(
            f"{output} exists; go on with nas resume {quoted(output)}, or give --output"
        )
    minutes = "a minute" if small else "three minutes"
    typer.echo(f"handwritten digits, about {minutes} on two cores; all of it goes to {output}/")
    from nas.job.demo import demo_job
    from nas.models.export_formats import export_formats
    from nas.stages import pipeline
    from nas.stages.progress import Progress

    pipeline.run(demo_job(small=small), output, progress=Progress())
    typer.echo(f"front:  {output / 'front.csv'}")
    typer.echo(f"report: {output / 'report.html'}")
    for item in export_formats(output, formats=["onnx", "c"]):
        typer.echo(f"{item.format + ':':<7} {item.files[0]} {item.note}".rstrip())
