"""``nas report``, ``nas watch`` and ``nas dashboard``: looking at a run, ended or under way."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from search_spaces.errors import InputError

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")]


def report(
    run_folder: RunFolder,
    compare: Annotated[
        Path | None,
        typer.Option(metavar="RUN2", help="Say how far the fronts of two runs agree."),
    ] = None,
    track: Annotated[
        list[str] | None,
        typer.Option(
            "--track",
            metavar="NAME",
            help="Log the run to mlflow, tensorboard, wandb or a plug-in's tracker; repeatable.",
        ),
    ] = None,
    track_option: Annotated[
        list[str] | None,
        typer.Option(
            "--track-option",
            metavar="NAME.KEY=VALUE",
            help="Of a tracker, as in a job, such as wandb.mode=offline; repeatable.",
        ),
    ] = None,
    mlflow: Annotated[
        str | None,
        typer.Option(metavar="URI", help="Log the run to this MLflow server or database too."),
    ] = None,
) -> None:
    """Write RUN/report.html (one file, no network) and RUN/front.csv.

    A run writes both when it ends; call this for a run of an older version. With --compare,
    prints which models both fronts hold, how much of the other's front each covers, and where
    figures of the same model differ by more than their intervals.

    \b
    nas report runs/digits --track wandb --track-option wandb.mode=offline
    nas report runs/digits --mlflow sqlite:///mlflow.db
    """
    existing_run(run_folder)
    from nas import report as reports
    from nas.trackers.told import log_run, make_tracker

    trackers = _trackers(track or [], track_option or [], mlflow)
    if compare is not None:
        if trackers:
            raise InputError("--compare goes without --track and --mlflow; call nas report twice")
        existing_run(compare)
        typer.echo(str(reports.compare(run_folder, compare)))
        return
    for name, options in trackers:
        make_tracker(name, options)  # a wrong name or a missing package is told first
    typer.echo(str(reports.write_report(run_folder)))
    for name, options in trackers:
        typer.echo(f"{name}: {log_run(run_folder, name, options)}")


def watch(
    run_folder: RunFolder,
    port: Port = 0,
) -> None:
    """Serve a page that shows a run at work: stages, loss, the front so far. Ctrl-C ends it.

    It reads the run folder only, so it may be begun and ended at any time, also of a run that has
    ended. The address, with its token, is for a browser on this machine; from elsewhere reach it
    through ssh -L.

    \b
    nas watch runs/digits
    ssh -L 8800:127.0.0.1:8800 HOST nas watch RUN --port 8800
    """
    existing_run(run_folder)
    from nas.live.page import page_server
    from nas.record.run_folder import RunStore

    RunStore.open(run_folder)
    server, address = page_server(run_folder, port)
    typer.echo(f"{address}  (Ctrl-C ends it)")
    _until_interrupted(server)


def dashboard(
    run_folder: RunFolder,
    port: Port = 0,
) -> None:
    """Open optuna-dashboard on the study of a run, under way or ended. Ctrl-C ends it.

    It listens on this machine's loopback address only, and can change nothing of the run. Needs
    the extra dashboard. In Optuna's list, nas/search is the search and nas/verify the verified
    models.
    """
    existing_run(run_folder)
    from nas.live.dashboard import dashboard_server

    server = dashboard_server(run_folder, port)
    typer.echo(f"{server.url}dashboard/  (Ctrl-C ends it)")
    _until_interrupted(server)


@contextlib.contextmanager
def page_of(folder: Path, asked: bool, port: int | None) -> Iterator[None]:
    """Serve the page of a run while the block runs, where it is asked for; tells its address.

    Args:
        folder: of the run, which the block may still have to make.
        asked: whether there is to be a page.
        port: None or 0 for a free one.

    Raises:
        EnvironmentProblem: the port is taken.
    """
    if not asked and port is None:
        yield
        return
    from nas.live.page import page_server

    server, address = page_server(folder, port or 0)
    server.start()
    typer.echo(f"page: {address}", err=True)
    try:
        yield
    finally:
        server.close()


def existing_run(folder: Path) -> None:
    """Refuse a folder that is not there.

    Raises:
        InputError: it is not.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no run folder: it does not exist")


def _trackers(
    names: list[str], options: list[str], mlflow: str | None
) -> list[tuple[str, dict[str, Any]]]:
    """Return each tracker with its options, from what the command line says."""
    from nas.cli.device_options import key_values

    of: dict[str, dict[str, Any]] = {name: {} for name in names}
    for key, value in key_values(options, "--track-option").items():
        name, dot, option = key.partition(".")
        if not dot or not option:
            raise InputError(f"--track-option {key}=...: name the tracker, as in wandb.{key}=...")
        if name not in of:
            raise InputError(f"--track-option {key}=...: there is no --track {name}")
        of[name][option] = value
    found = list(of.items())
    if mlflow is not None:
        found.append(("mlflow", {"uri": mlflow}))
    return found


def _until_interrupted(server: Any) -> None:
    with contextlib.suppress(KeyboardInterrupt):
        server.serve()
