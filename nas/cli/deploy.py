"""``nas deploy``: is a model right and fast on a device?"""

from __future__ import annotations

import json as json_text
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nas.cli.device_options import (
    Authority,
    Batch,
    BoardRuntime,
    Certificate,
    Hub,
    Json,
    Key,
    Options,
    Processes,
    ProtocolOptions,
    Runs,
    Store,
    Threads,
    TokenFile,
    chosen_device,
    chosen_protocol,
    key_values,
)
from nas.report.charts.text import plural
from search_spaces.errors import InputError

if TYPE_CHECKING:
    from devices.device import Device
    from nas.boards.comparison import Comparison
    from nas.boards.deployment import DeployReport

app = typer.Typer(
    name="deploy",
    help="Check models on the devices they are for.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback()
def _group() -> None:
    """Check models on the devices they are for."""


@app.command()
def check(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="An ONNX file.")],
    device: Annotated[
        str,
        typer.Option(
            metavar="D",
            help="A runtime of this machine (onnxruntime, lowbit, ...); with --job, or a run or "
            "job as --data, a device of it; with --hub, a board.",
        ),
    ] = "onnxruntime",
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="A run, a job (its search-validation images) or an .npz with labels and images: "
            "uint8 pixels, or inputs of the model.",
        ),
    ] = None,
    images: Annotated[int | None, typer.Option(min=1, help="Use at most so many images.")] = None,
    float_model: Annotated[
        Path | None,
        typer.Option("--float", metavar="FILE", help="The float twin; by default derived."),
    ] = None,
    job: Annotated[
        Path | None, typer.Option(metavar="JOB", help="Job file whose device D is.")
    ] = None,
    runtime: BoardRuntime = "onnxruntime",
    threads: Threads = 1,
    batch: Batch = 1,
    option: Options = None,
    hub: Hub = None,
    token_file: TokenFile = None,
    ca: Authority = None,
    cert: Certificate = None,
    key: Key = None,
    processes: Processes = None,
    runs: Runs = None,
    protocol: ProtocolOptions = None,
    store: Store = None,
    card: Annotated[
        bool, typer.Option("--card", help="Add the latency to the model card beside MODEL.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the report there, as JSON.")
    ] = None,
    json: Json = False,
) -> None:
    """Measure a model and its float twin on a device, and compare their outputs.

    Ends with 4 when the model must not be used there; warnings end with 0.
    """
    from devices.measuring.store import MeasurementStore
    from devices.runtime import existing_file
    from nas.boards.deployment import (
        check_deployment,
        input_shape,
        read_images,
        unusable,
        update_card,
    )
    from search_spaces.atomic import write_json_atomic

    existing_file(model)
    chosen = chosen_protocol(protocol, processes, runs)
    target: Device
    given = job or (_naming(data, device) if hub is None else None)
    if given is not None:
        target = _of_job(given, device)
    elif hub is not None:
        pairs = key_values(option, "--option")
        target = chosen_device(
            runtime, threads, batch, pairs, hub, token_file, device, ca, False, cert, key
        )
    else:
        pairs = key_values(option, "--option")
        target = chosen_device(
            device, threads, batch, pairs, None, None, None, None, False, None, None
        )
    report = check_deployment(
        model,
        target,
        images=None
        if data is None
        else read_images(data, input_shape(model), limit=images, model=model),
        float_model=float_model,
        protocol=chosen,
        store=None if store is None else MeasurementStore(store),
    )
    if output is not None:
        write_json_atomic(output, report.to_json())
    if json:
        typer.echo(json_text.dumps(report.to_json(), indent=2))
    else:
        for line in lines(report):
            typer.echo(line)
    if card and update_card(model, report) is None:
        raise InputError(f"--card: there is no model card beside {model}")
    if not report.passed:
        raise unusable(report)


def lines(report: DeployReport) -> list[str]:
    """Return the report as lines of text."""
    out = [f"{report.model} on {report.device} ({report.runtime})"]
    out.append(f"  latency       {_latency(report.latency)}")
    if report.float_latency is not None:
        ratio = "" if report.speedup is None else f", {report.speedup:.2f} times the model's"
        out.append(
            f"  float twin    {_latency(report.float_latency)} in {report.float_runtime}{ratio}"
        )
    size = f"{report.size_kib:.1f} KiB"
    if report.float_size_kib is not None:
        size += f" (float twin {report.float_size_kib:.1f} KiB)"
    if report.weights_kib is not None:
        size += f", packed weights {report.weights_kib:.1f} KiB"
    out.append(f"  file          {size}")
    if report.arithmetic:
        kinds = ", ".join(f"{count} {kind}" for kind, count in report.arithmetic.items())
        out.append(f"  products      {kinds}")
    out.append(f"  images        {report.images}, {report.images_source}")
    for name, found in (("execution", report.execution), ("against float", report.against_float)):
        if found is None:
            continue
        text = (
            f"{_agreed(found)}relative error {found.relative_error:.3g}, "
            f"largest {found.max_logit_error:.3g}"
        )
        if found.value is not None and found.reference_value is not None:
            one, other = (_valued(found.metric, v) for v in (found.value, found.reference_value))
            text += f", {found.metric} {one} (reference {other})"
        out.append(f"  {name:<13} {text}")
        if found.largest_loss is not None:
            worst, loss = found.largest_loss
            figures = found.by_class[worst]
            one, other = (_valued(found.metric, v) for v in (figures.value, figures.reference))
            told = f"{worst} loses most: {one} (reference {other})" if loss > 0 else "none loses"
            out.append(
                f"  {'by ' + found.each:<13} {told}, of "
                f"{plural(len(found.by_class), found.each)}; the report has each"
            )
    out += [f"  problem: {text}" for text in report.problems]
    out += [f"  warning: {text}" for text in report.warnings]
    return out


def _agreed(found: Comparison) -> str:
    """Say what share of what is decided alike, where anything is decided."""
    if found.agreement is None:
        return ""
    what = "" if found.agreement_of == "predictions" else f" of {found.agreement_of}"
    return f"agreement{what} {100 * found.agreement:.1f} %, "


def _valued(metric: str, value: float) -> str:
    from nas.fronts.metrics import METRICS

    return f"{100 * value:.2f} %" if METRICS.get(metric).share else f"{value:.4g}"


def _latency(figures: object) -> str:
    assert isinstance(figures, dict)
    if figures["latency_ms"] is None:
        return "not measured"
    low, high = figures["low_ms"], figures["high_ms"]
    valid = "" if figures["valid"] else ", not valid"
    return f"{figures['latency_ms']:.4g} ms ({low:.4g} to {high:.4g}{valid})"


def _naming(data: Path | None, device: str) -> Path | None:
    """Return the job of ``--data``, a run or a job, where ``device`` is a device of it.

    A runtime of that name is meant rather.
    """
    from devices.runtime import RUNTIMES
    from nas.job.check import load_job
    from nas.record.run_folder import JOB_FILE

    if data is None or data.suffix == ".npz" or device in RUNTIMES:
        return None
    path = data / JOB_FILE if data.is_dir() else data
    named = path.is_file() and device in {entry.name for entry in load_job(path).devices}
    return path if named else None


def _of_job(path: Path, name: str) -> Device:
    from nas.job.check import load_job
    from nas.job.devices import make_device
    from nas.job.schema import job_space
    from search_spaces.planned import require_networks

    job = load_job(path)
    entries = {entry.name: entry for entry in job.devices}
    if name not in entries:
        raise InputError(f"{path} has no device {name!r}, only {', '.join(entries)}")
    if entries[name].simulator is not None:
        raise InputError(f"the device {name!r} is a simulator; a deployment is measured")
    space = job_space(job)
    return make_device(entries[name], require_networks(space, "a deployment"))
