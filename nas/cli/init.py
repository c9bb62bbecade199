"""``nas init``: the first job."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search_spaces.errors import InputError

if TYPE_CHECKING:
    from nas.job.first.survey import Survey


def init(
    job_file: Annotated[Path, typer.Argument(metavar="JOB", help="File to write.")] = Path(
        "job.yaml"
    ),
    data: Annotated[
        str | None,
        typer.Option(
            help="digits, fashion_mnist, cifar10, or how the data lies: image_folder, image_csv, "
            "coco_json, yolo_txt, pascal_voc, mask_folder, signal_ts, signal_csv, signal_numpy, "
            "audio_folder, text, text_pairs. By default told by the files at --path."
        ),
    ] = None,
    path: Annotated[str | None, typer.Option(help="Folder of the data.")] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="Where the data suits several: image_regression, multi_label_classification, "
            "anomaly_detection, signal_embedding, ..."
        ),
    ] = None,
    latency_ms: Annotated[
        float | None, typer.Option(min=0, help="Largest latency in ms; 0 sets no limit.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
) -> None:
    """Write a commented job that suits the data. Asks what the options do not say, on a terminal.

    Three questions: which data, where it is, and how fast the model must be. The data is looked
    at: its size, channels, classes and number say the task, the space, batches and minutes.

    \b
    nas init                                        asks
    nas init job.yaml --data digits --latency-ms 0.5
    nas init job.yaml --path photos --latency-ms 0
    nas init job.yaml --path recordings --task anomaly_detection
    """
    from nas.job.check import load_job
    from nas.job.first.starts import KNOWN, choices
    from nas.job.first.template import job_text
    from search_spaces.atomic import write_text_atomic

    if job_file.exists() and not force:
        raise InputError(f"{job_file} exists; give another name or --force")
    asks = sys.stdin.isatty()
    if data is None and path is None:
        data = typer.prompt(f"Data ({', '.join(choices())})", "digits") if asks else "digits"
    if path is None and asks and (data not in KNOWN or KNOWN[data].needs_path):
        path = typer.prompt("Folder of the data")
    place = None if path is None else job_file.parent / path
    if place is not None and not place.exists():
        raise InputError(f"--path: {place} does not exist; paths in a job are relative to the job "
                         "file")  # fmt: skip
    if latency_ms is None:
        question = "Largest latency in ms (0 for no limit)"
        latency_ms = typer.prompt(question, 0.0, type=float) if asks else 0.0
    if data is None:
        assert place is not None
        data = _told_by(place)
    found = None if place is None else _looked_at(data, place, task)
    text = job_text(data, path=path, latency_ms=latency_ms or None, survey=found, task=task)
    write_text_atomic(job_file, text)
    load_job(job_file)
    typer.echo(f"wrote {job_file}; run it with: nas run {job_file}")


def _told_by(place: Path) -> str:
    from nas.job.first.layouts import guess_source
    from nas.job.first.starts import choices

    found = guess_source(place)
    if found is None:
        raise InputError(
            f"--path: nothing in {place} tells what data it is; say it as --data "
            f"({', '.join(choices())})"
        )
    typer.echo(f"{place} looks like {found} (--data says otherwise)")
    return found


def _looked_at(data: str, place: Path, task: str | None) -> Survey | None:
    """Return what is at ``place``, and None for a data set that is known without it."""
    from nas.job.first.starts import KNOWN, SURVEYED
    from nas.job.first.survey import survey

    if data not in SURVEYED:
        return None
    try:
        return survey(data, place, task=task)
    except InputError as problem:
        if data not in KNOWN:
            raise
        # The job can be written before the folder is filled.
        typer.echo(f"the job is for photographs of any size: {problem}", err=True)
        return None
