"""``nas device calibrate``: whether a board is fit to measure on, and learning to predict it."""

from __future__ import annotations

import json as json_text
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas.cli.device_options import (
    Again,
    Authority,
    Board,
    Certificate,
    Hub,
    Json,
    Key,
    Options,
    RuntimeName,
    Threads,
    TokenFile,
    chosen_device,
    figures,
    key_values,
)
from search_spaces.errors import EnvironmentProblem

if TYPE_CHECKING:
    from devices.device import Device
    from devices.measuring.measurement import Measurement
    from nas.boards.calibration import Calibration, Step


def calibrate(
    runtime: RuntimeName = "onnxruntime",
    threads: Threads = 1,
    option: Options = None,
    model: Annotated[
        Path | None, typer.Option(metavar="MODEL", help="Instead of the shipped reference.")
    ] = None,
    runs: Annotated[int, typer.Option(min=3, help="Separate runs of the model.")] = 5,
    space: Annotated[
        str | None,
        typer.Option(help="Learn the latencies of this search space's architectures instead."),
    ] = None,
    preset: Annotated[str | None, typer.Option(help="Of the space.")] = None,
    known: Annotated[
        Path | None,
        typer.Option(metavar="TABLE", help="Known devices; by default the packaged ones."),
    ] = None,
    measurements: Annotated[int, typer.Option(min=2, help="Architectures to learn from.")] = 10,
    checks: Annotated[int, typer.Option(min=3, help="Architectures to foretell.")] = 20,
    integer: Annotated[bool, typer.Option("--int8", help="Measure quantised files.")] = False,
    seed: Annotated[int, typer.Option(help="Of the choice of architectures.")] = 0,
    minutes: Annotated[
        float, typer.Option(min=0.0, help="Begin no measurement that would end later.")
    ] = 10.0,
    protocol: Annotated[
        list[str] | None,
        typer.Option(
            "--protocol",
            metavar="KEY=VALUE",
            help="Of the protocol; repeatable. By default 3 processes, 30 runs, 1 retry.",
        ),
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(
            metavar="DB", help="Measurement store to look in and keep to; by default in the cache."
        ),
    ] = None,
    again: Again = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="TABLE", help="Write what was measured (CSV)."),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Draw predicted against measured: .svg, or .html with plotly.",
        ),
    ] = None,
    hub: Hub = None,
    token_file: TokenFile = None,
    device: Board = None,
    ca: Authority = None,
    cert: Certificate = None,
    key: Key = None,
    json: Json = False,
) -> None:
    """Look whether a board is fit to measure on; with --space, learn to predict it.

    Without --space a reference model is measured again and again: repeatability, drift,
    governor, load. Exit code 4 when the board is not fit.

    With --space the latency predictor chooses architectures, they are measured, and what it
    then foretells of others is held against their measurements. What was measured is kept, so
    the same command goes on where it was broken off. A measurement that stays rejected is used
    and marked INVALID.
    """
    target = chosen_device(
        runtime, threads, 1, key_values(option, "--option"), hub, token_file, device, ca, again,
        cert, key,
    )  # fmt: skip
    target.check()
    if space is None:
        _fitness(target, model, runs, json=json)
        return

    import tempfile

    from devices.measuring.protocol import Protocol
    from devices.measuring.store import MeasurementStore
    from devices.runtimes.conversion import cache_folder
    from nas.boards.calibration import QUICK
    from nas.boards.calibration import calibrate as calibrate_on
    from nas.boards.model_files import UntrainedFiles
    from nas.plots.board import check_plot_file, write_foretold
    from predictors.pool import default_pool
    from search_spaces.planned import require_kind_of_networks, require_networks
    from search_spaces.spaces.registry import SPACES, build_space
    from search_spaces.tables.table import read_table, write_table

    if plot is not None:
        check_plot_file(plot)
    given: dict[str, Any] = {} if preset is None else {"preset": preset}
    purpose = "nas device calibrate --space"
    if ":" not in space:
        require_kind_of_networks(space, SPACES.get(space), purpose)
    built = require_networks(build_space(space, **given), purpose)
    wanted = QUICK.to_json() | key_values(protocol, "--protocol")
    known_devices = default_pool(built) if known is None else read_table(known, built)
    store = store or cache_folder().parent / "calibration.db"
    kept = MeasurementStore(store)
    count = 0 if known_devices is None else len(known_devices.devices)
    if not json:
        typer.echo(
            f"{measurements} architectures to learn from and {checks} to check, in {minutes:g} "
            f"minutes at most; {count} known devices; measurements are kept in {store}",
            err=True,
        )

    def show(step: Step) -> None:
        if not json:
            left = f"{int(step.left_s) // 60}:{int(step.left_s) % 60:02}"
            head = f"[{left} left] {step.what} {step.index + 1}/{step.count}"
            typer.echo(f"{head}: {figures(step.measurement)}", err=True)

    try:
        with tempfile.TemporaryDirectory() as folder:
            found = calibrate_on(
                target,
                built,
                UntrainedFiles(built, Path(folder), integer=integer),
                known=known_devices,
                measurements=measurements,
                checks=checks,
                protocol=Protocol.from_json(wanted),
                store=kept,
                seed=seed,
                minutes=minutes,
                on_step=show,
            )
    except KeyboardInterrupt:
        typer.echo(
            f"interrupted; what was measured is in {store}: the same command goes on", err=True
        )
        raise SystemExit(130) from None
    if output is not None:
        write_table(found.table(built), output)
    if plot is not None:
        write_foretold(found, plot)
    if json:
        typer.echo(json_text.dumps(found.to_json(), indent=2))
        return
    for line in report(found):
        typer.echo(line)


def report(found: Calibration) -> list[str]:
    """Return what a calibration found, for people: a row an architecture, then the scores."""
    lines = []
    if found.foretold:
        lines.append(
            f"{'predicted ms':>12}  {'90 % interval':20}  {'measured ms':>11}  {'95 % interval':20}"
        )
    for one in found.foretold:
        foretold = f"{one.low_ms:.4g} to {one.high_ms:.4g}"
        measured = f"{one.measured_low_ms:.4g} to {one.measured_high_ms:.4g}"
        flag = ("" if one.inside else "  outside") + (
            "" if one.valid else f"  INVALID ({', '.join(one.reasons)})"
        )
        lines.append(
            f"{one.predicted_ms:12.4g}  {foretold:20}  {one.measured_ms:11.4g}  {measured:20}{flag}"
        )
    everything = f"{found.device}: {len(found.learned)} measured, {len(found.foretold)} foretold"
    lines.append(f"{everything} from {len(found.known)} known devices{_scored(found.scores())}")
    if found.invalid:
        reasons = Counter(r for one in (*found.learned, *found.foretold) for r in one.reasons)
        told = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
        lines.append(
            f"{found.invalid} measurements are INVALID and were used with what they say: {told}"
        )
        if any(not one.valid for one in found.foretold):
            valid = sum(one.valid for one in found.foretold)
            scores = found.scores(valid_only=True)
            lines.append(f"over the {valid} valid ones{_scored(scores)}")
    if found.skipped:
        lines.append(
            f"there was no time for {found.skipped} measurements: the same command with more "
            f"--minutes goes on"
        )
    return lines


def _scored(scores: dict[str, float | None] | None) -> str:
    if scores is None:
        return ": too few to score"
    spearman = scores["spearman"]
    ranked = "no rank correlation, all equally fast" if spearman is None else f"{spearman:.3f}"
    return (
        f": Spearman {ranked}, mean error {scores['mape']:.1%}, "
        f"{scores['coverage']:.0%} inside the interval"
    )


def _fitness(target: Device, model: Path | None, runs: int, *, json: bool) -> None:
    from dataclasses import asdict

    from devices.measuring.fitness import assess

    def show(index: int, measurement: Measurement) -> None:
        if not json:
            typer.echo(f"run {index + 1}: {figures(measurement)}")

    found = assess(target, model=model, runs=runs, on_run=show)
    if json:
        typer.echo(json_text.dumps({"fit": found.fit, **asdict(found)}, indent=2))
    else:
        for check in found.checks:
            mark = {True: "ok", False: "BAD", None: "-"}[check.ok]
            typer.echo(f"{mark:4} {check.name:14} {check.detail}")
    if not found.fit:
        bad = ", ".join(check.name for check in found.checks if check.ok is False)
        raise EnvironmentProblem(f"{target.spec.name} is not fit to measure on: {bad}")
    if not json:
        typer.echo(f"{target.spec.name} is fit to measure on")
