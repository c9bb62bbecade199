"""``nas compress``: from a trained network to a verified front within budgets."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from nas.cli.device_options import (
    Arguments,
    Authority,
    Certificate,
    Hub,
    Key,
    NormalisationOption,
    TokenFile,
)
from search_spaces.errors import InputError
from search_spaces.terminal import quoted

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def compress(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="module:callable or file.py:callable that returns a torch network, "
            "torchvision.models:NAME, or timm:NAME.",
        ),
    ],
    budget: Annotated[
        list[str],
        typer.Option(
            "--budget",
            metavar="QUANTITY=MAX",
            help="latency_ms=3@board, size_kib=500, macs=50% (of the network's own), ...; "
            "several with commas, or repeated.",
        ),
    ],
    data: Annotated[
        str, typer.Option(metavar="DIR|NAME", help="Folder of pictures by class, or a data set.")
    ],
    data_path: Annotated[Path | None, typer.Option(help="Folder of the data set.")] = None,
    image_size: Annotated[int | None, typer.Option(min=1, help="Side of the images.")] = None,
    weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="State of the network, .safetensors.")
    ] = None,
    argument: Arguments = None,
    normalisation: NormalisationOption = None,
    minutes: Annotated[
        float | None, typer.Option(min=0.1, help="Of the whole run; by default by the data.")
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Another network to learn from; an ONNX file too."),
    ] = None,
    labels: Annotated[
        bool, typer.Option(help="Learn from labels too, or from the teacher alone.")
    ] = True,
    weight_bits: Annotated[str, typer.Option(help="Allowed, with commas.")] = "4,8",
    runtime: Annotated[
        str | None, typer.Option(help="That executes the models; onnxruntime by default.")
    ] = None,
    simulator: Annotated[
        str | None, typer.Option(help="roofline or vela, instead of a device that measures.")
    ] = None,
    hardware: Annotated[
        str | None, typer.Option(help="What the simulator simulates: a name or a description.")
    ] = None,
    hub: Hub = None,
    token_file: TokenFile = None,
    ca: Authority = None,
    cert: Certificate = None,
    key: Key = None,
    evaluations: Annotated[int, typer.Option(min=4, help="Of accuracy, in the search.")] = 60,
    front: Annotated[int, typer.Option(min=1, help="Models that are verified and exported.")] = 6,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    output: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Run folder; by default runs/NAME.")
    ] = None,
    job_file: Annotated[
        Path | None,
        typer.Option("--job", metavar="FILE", help="Where the job is written; RUN.yaml by default"),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write the job and say how long it would take.")
    ] = False,
) -> None:
    """Shrink a trained network to budgets: widths, depths and bits, searched and verified.

    Writes the job that it runs: go on with nas resume RUN after an interruption, and read
    RUN/report.html as of any other run. The network teaches its smaller versions, and nothing
    that is trained ends below where it began.

    \b
    nas compress my.py:make --weights net.safetensors --data photos --budget size_kib=500
    nas compress timm:resnet18 --argument pretrained=true --data photos --budget macs=50%
    nas compress my.py:make --weights net.safetensors --data photos \\
        --budget latency_ms=3@board,size_kib=500 --hub https://hub --token-file token
    """
    from nas.cli.device_options import both_or_neither, key_values, whole_numbers
    from nas.job import compress as jobs
    from nas.job.check import load_job
    from nas.job.paths import network_file
    from nas.job.trust import OTHERS_NETWORKS, require_trust
    from search_spaces.atomic import write_text_atomic

    limits = jobs.read_limits(budget)
    arguments = key_values(argument, "--argument")
    read = jobs.read_data(data, data_path, image_size)
    if normalisation is not None:
        read["normalisation"] = jobs.read_normalisation(normalisation)
    both_or_neither(cert, key)
    if hub is not None and token_file is None:
        raise InputError("--hub needs --token-file")
    if (simulator is None) != (hardware is None):
        raise InputError("--simulator and --hardware belong together")
    devices = {"hub": hub, "token_file": _whole(token_file), "ca": _whole(ca),
               "cert": _whole(cert), "key": _whole(key), "runtime": runtime,
               "simulator": simulator, "hardware": hardware}  # fmt: skip
    if not model.startswith(OTHERS_NETWORKS):
        require_trust(model)
    trained = jobs.describe_network(model, weights, arguments, data=read, seed=seed)
    jobs.rigid_limits(trained, limits)
    name = _name(model)
    folder = output or Path("runs") / name
    path = job_file or folder.with_name(f"{folder.name}.yaml")
    if (folder / "manifest.json").exists():
        raise InputError(
            f"{folder} holds a run already; go on with it: nas resume {quoted(folder)}"
        )
    job = jobs.compress_job(
        trained,
        limits,
        read,
        name=name,
        devices={k: v for k, v in devices.items() if v is not None},
        minutes=minutes,
        weight_bits=whole_numbers(weight_bits, "--weight-bits"),
        teacher=None if teacher is None else {"model": network_file(teacher, Path.cwd())},
        labels=labels,
        evaluations=evaluations,
        front=front,
        seed=seed,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomic(path, jobs.job_yaml(job, shlex.join(["nas", *sys.argv[1:]])))
    typer.echo(f"job:    {path}")
    if "normalisation" not in read and trained.normalisation is None:
        typer.echo(jobs.INPUTS_OF_DATA)
    if trained.grey:
        typer.echo(jobs.GREY)
    size = jobs.told_size(trained.side, trained.sized)
    if size is not None:
        typer.echo(size)
    loaded = load_job(path)
    if dry_run:
        from nas.stages.dry_run import estimate
        from nas.stages.progress import Progress

        for line in estimate(loaded, folder, told=Progress().log).lines():
            typer.echo(line)
        return
    from nas.cli.main import resumable
    from nas.stages import pipeline
    from nas.stages.progress import Progress

    with resumable(folder):
        pipeline.run(loaded, folder, progress=Progress(), whole_process=True)
    for line in told(folder):
        typer.echo(line)
    typer.echo(f"front:  {folder / 'front.csv'}")
    typer.echo(f"report: {folder / 'report.html'}")


def told(folder: Path) -> list[str]:
    """Return the front of a run in lines, under what the network itself reaches."""
    import csv

    from nas.record.run_folder import RunStore

    manifest = RunStore.open(folder).manifest()
    before = (manifest.get("pretrained") or {}).get("before")
    lines = [] if not before else [f"the network as it came, in float: {abs(before[0]):.4f} on "
                                   "validation images"]  # fmt: skip
    with open(folder / "front.csv", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            shown = [f"{k} {float(row[k]):.4g}" for k in ("validation_accuracy", "latency_ms",
                     "size_kib", "macs") if row.get(k)]  # fmt: skip
            where = f" on {row['device']}" if row.get("device") else ""
            lines.append(f"{row['id']}: {', '.join(shown)}{where}")
    return lines


def _whole(path: Path | None) -> str | None:
    return None if path is None else str(path.resolve())


def _name(model: str) -> str:
    place, _, function = model.rpartition(":")
    stem = Path(place).stem if place.endswith(".py") else place.rpartition(".")[2]
    words = [stem, function] if place.endswith(".py") else [function]
    found = "".join(c if c.isalnum() or c in "._-" else "-" for c in "-".join(words))
    return found.strip("._-")[:56] or "network"
