"""``nas init``: the first job."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from search_spaces.errors import InputError
from search_spaces.terminal import quoted

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
    option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="Of how the data is read (data.options), such as targets=[height]; repeatable.",
        ),
    ] = None,
    normal: Annotated[
        str | None,
        typer.Option(
            metavar="CLASS",
            help="Class that anomaly_detection learns from, where none is called normal.",
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
    nas init job.yaml --path recordings --task anomaly_detection --normal healthy
    nas init job.yaml --path recordings --option window=64 --option targets=[state]
    """
    from nas.cli.device_options import key_values
    from nas.job.check import load_job
    from nas.job.first.starts import KNOWN, SURVEYED, choices
    from nas.job.first.template import job_text
    from search_spaces.atomic import write_text_atomic

    if job_file.exists() and not force:
        raise InputError(f"{job_file} exists; give another name or --force")
    asks = sys.stdin.isatty()
    if data is None and path is None:
        data = typer.prompt(f"Data ({', '.join(choices())})", "digits") if asks else "digits"
    if path is None and asks and (data not in KNOWN or KNOWN[data].needs_path):
        path = typer.prompt("Folder of the data")
    place = None if path is None else _place(job_file, path)
    if path is not None and place is not None and place != job_file.parent / path:
        # As the job must have it.
        path = os.path.relpath(place, job_file.parent)
    if latency_ms is None:
        question = "Largest latency in ms (0 for no limit)"
        latency_ms = typer.prompt(question, 0.0, type=float) if asks else 0.0
    if data is None:
        assert place is not None
        data = _told_by(place)
    options = key_values(option, "--option")
    if options and data not in SURVEYED:
        raise InputError(f"--option: {data} has no options")
    found = None if place is None else _looked_at(data, place, task, options)
    if normal is None and asks and found is not None and _asks_normal(task, found):
        normal = typer.prompt(f"Class to learn from ({', '.join(found.names)})")
    try:
        text = job_text(
            data, path=path, latency_ms=latency_ms or None, survey=found, task=task, normal=normal
        )
    except InputError as problem:
        raise _as_options(problem) from None
    write_text_atomic(job_file, text)
    load_job(job_file)
    typer.echo(f"wrote {job_file}; run it with: nas run {quoted(job_file)}")


def _place(job_file: Path, path: str) -> Path:
    """Return the folder that ``path`` means: from here, as on any command line, or from the job.

    Raises:
        InputError: there is none, or another one in each place.
    """
    here, beside = Path(path), job_file.parent / path
    if here.exists() and beside.exists() and not here.samefile(beside):
        raise InputError(
            f"--path: {here} is there, and {beside}, beside the job, too; give the whole path, "
            f"such as {here.resolve()}"
        )
    if not here.exists() and not beside.exists():
        either = "" if here == beside else f", neither here nor beside {job_file}"
        raise InputError(f"--path: {path} does not exist{either}")
    return here if here.exists() else beside


def _told_by(place: Path) -> str:
    from nas.job.first.layouts import guess_source, layout_hint
    from nas.job.first.starts import choices

    found = guess_source(place)
    if found is None:
        hint = layout_hint(place)
        raise InputError(
            f"--path: nothing in {place} tells what data it is; say it as --data "
            f"({', '.join(choices())})" + (f"\n{hint}" if hint else "")
        )
    typer.echo(f"{place} looks like {found} (--data says otherwise)")
    return found


def _looked_at(
    data: str, place: Path, task: str | None, options: Mapping[str, Any]
) -> Survey | None:
    """Return what is at ``place``, and None for a data set that is known without it."""
    from nas.job.first.layouts import guess_source
    from nas.job.first.starts import KNOWN, SURVEYED
    from nas.job.first.survey import survey
    from nas.job.registries import registry_for

    if data not in SURVEYED:
        return None
    if task is not None:
        registry_for("task").get(task)
    try:
        found = survey(data, place, task=task, options=options)
    except InputError as problem:
        if data in KNOWN and guess_source(place) is None:
            # The job can be written before the folder is filled.
            typer.echo(f"the job is for photographs of any size: {problem}", err=True)
            return None
        raise _as_options(problem) from None
    typer.echo(found.text)
    return found


def _asks_normal(task: str | None, found: Survey) -> bool:
    from nas.job.registries import registry_for
    from nas.tasks.anomaly import NORMAL

    return (
        task is not None
        and registry_for("task").get(task).from_normal
        and (NORMAL not in found.names)
    )


def _as_options(problem: InputError) -> InputError:
    """Return ``problem`` with how this command is told what a job is told by keys."""
    text = str(problem)
    if "data.options" in text:
        text += "\nWhat goes to data.options is given here as --option NAME=VALUE."
    if "as data.normal" in text:
        text += "\nThat is given here as --normal CLASS."
    return InputError(text)
