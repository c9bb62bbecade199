"""What the commands do, as functions with the same results: ``nas.run`` and its companions."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search_spaces.errors import InputError

if TYPE_CHECKING:
    from torch import nn

    from devices.measuring.measurement import Measurement
    from nas.fronts.compare import RunsComparison
    from nas.job.schema import Job
    from nas.models.formats.base import Written
    from nas.models.inspection import Inspection
    from nas.record.result_types import Results
    from nas.stages.dry_run import Estimate
    from nas.stages.progress import Progress


def make_job(values: Mapping[str, Any], *, folder: str | Path = ".") -> Job:
    """Return the job that a mapping holds, checked as ``nas validate`` checks a file.

    Args:
        values: what the YAML file would hold.
        folder: that paths inside it are relative to.

    Raises:
        DiagnosticsError: everything that is wrong; lines are those of the mapping as JSON.
    """
    from nas.job.check import check_job
    from nas.job.yaml_source import YamlSource

    try:
        text = json.dumps(values, indent=1, default=_path_text)
    except TypeError as error:
        raise InputError(f"a job holds what YAML can hold: {error}") from None
    return check_job(YamlSource(str(Path(folder) / "job"), text), changes={})


def _path(name: str, value: Any) -> Path:
    """Return an argument as a path.

    Raises:
        InputError: it is none.
    """
    if isinstance(value, (str, os.PathLike)):
        return Path(value)
    raise InputError(f"{name}: {value!r} is no path; give text or a pathlib.Path")


def _path_text(value: Any) -> str:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{value!r} is neither text, number, list nor mapping")


def estimate(job: Job | str | Path | Mapping[str, Any]) -> Estimate:
    """Return what a run of a job would do and about how long, as ``nas run --dry-run``.

    ``lines()`` of the result is the text that the command prints.

    Raises:
        InputError, EnvironmentProblem: the job is wrong, or its data cannot be read.
    """
    from nas.stages import dry_run

    job = _job(job)
    return dry_run.estimate(job, job.run_folder())


def run(
    job: Job | str | Path | Mapping[str, Any],
    output: str | Path | None = None,
    *,
    seed: int | None = None,
    measurements: str | Path | None = None,
    progress: Progress | None = None,
) -> Path:
    """Run a whole job, as ``nas run``; returns the run folder.

    Args:
        job: a job file, a job that was loaded, or what a job file would hold.
        output: run folder, which must be new; by default the job's own.
        seed: overrides that of a job file.
        measurements: store or earlier run whose latencies are replayed instead of measured.
        progress: where to tell about progress; by default standard error.

    Raises:
        InputError: the job is wrong, or the folder is taken.
        InfeasibleError: no architecture satisfies the constraints.
        EnvironmentProblem: data, runtime, GPU or disk space is missing.
    """
    from nas.stages import pipeline

    job = _job(job, seed)
    folder = job.run_folder() if output is None else _path("output", output)
    replayed = None if measurements is None else _path("measurements", measurements)
    if replayed is not None and not replayed.exists():
        raise InputError(f"measurements: {replayed} does not exist")
    pipeline.run(job, folder, measurements=replayed, progress=progress)
    return folder


def _job(job: Job | str | Path | Mapping[str, Any], seed: int | None = None) -> Job:
    from nas.job.check import load_job
    from nas.job.schema import Job

    changes = {} if seed is None else {"seed": seed}
    if isinstance(job, (str, os.PathLike)):
        return load_job(Path(job), changes=changes)
    if isinstance(job, Mapping):
        return make_job({**job, **changes})
    if not isinstance(job, Job):
        raise InputError(
            f"job: {job!r} is no job; give its file, a mapping of its keys, or what load_job gave"
        )
    if seed is not None:
        raise InputError("seed overrides that of a job file; set it in the job that was loaded")
    return job


def resume(run: str | Path, *, progress: Progress | None = None) -> Path:
    """Go on with a run that was interrupted, as ``nas resume``; returns its folder.

    Raises:
        InputError: the folder holds no run.
        InfeasibleError, EnvironmentProblem: as :func:`run`.
    """
    from nas.stages import pipeline

    folder = _path("run", run)
    if not folder.is_dir():
        raise InputError(f"{folder} is no run folder: it does not exist")
    pipeline.resume(folder, progress=progress)
    return folder


def load_results(run: str | Path) -> Results:
    """Return what a run found: its front with every figure, evaluations, measurements.

    Raises:
        InputError: the run has not ended, or its ``results.json`` is damaged.
    """
    from nas.report.results import load_results

    return load_results(_path("run", run))


def write_report(run: str | Path) -> Path:
    """Write ``RUN/report.html`` and ``RUN/front.csv``, as ``nas report``; returns the page.

    Raises:
        InputError: the run has not ended.
    """
    from nas import report

    return report.write_report(_path("run", run))


def track(run: str | Path, tracker: str, **options: Any) -> str:
    """Log a run that has ended to a tool, as ``nas report --track``.

    Args:
        run: its folder.
        tracker: ``mlflow``, ``tensorboard``, ``wandb``, or a plug-in's.
        options: of the tracker, as in a job's ``tracking``.

    Returns:
        Where it is to be seen. The same results are not logged twice.

    Raises:
        InputError: the run has not ended, or an option is wrong.
        EnvironmentProblem: the tool is not installed, or cannot be reached.
    """
    from nas.trackers.told import log_run

    return log_run(_path("run", run), tracker, options)


def _several(name: str, values: Sequence[Any]) -> list[Any]:
    """Return the entries of an argument; a single text or path is no list of them."""
    if isinstance(values, (str, os.PathLike)):
        one = str(values)
        raise InputError(f"{name}: {one!r} is not a list; give [{one!r}]")
    if not isinstance(values, Iterable):
        raise InputError(f"{name}: {values!r} is not a list")
    return list(values)


def inspect(
    model: str | Path | nn.Module,
    input_shape: Sequence[int] | None = None,
    *,
    weights: str | Path | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> Inspection:
    """Return a network's layers and what may vary in them, as ``nas inspect``.

    Args:
        model: a network, or what names one: ``module:callable``, ``file.py:callable``,
            ``timm:NAME``, an ONNX file.
        input_shape: of one input, (channels, height, width), (channels, length) or (features,); by
            default that of the ONNX file, of timm's network or of one of vectors, or
            (3, 224, 224).
        weights: state of a named network, ``.safetensors``.
        arguments: for what makes a named network.

    Raises:
        InputError: the network cannot be found or read.
    """
    from nas.bits.named_network import load_source
    from nas.models.inspection import inspect_network

    if isinstance(input_shape, str):
        raise InputError(f"input_shape: {input_shape!r} is text; give numbers, such as (3, 64, 64)")
    if isinstance(input_shape, int):
        raise InputError(
            f"input_shape: {input_shape} is a number; give (channels, height, width), (channels, "
            f"length) or ({input_shape},) for so many features"
        )
    if isinstance(model, (str, Path)):
        path = None if weights is None else Path(weights)
        network = load_source(str(model), path, arguments=arguments)
    elif weights is not None or arguments:
        raise InputError("weights and arguments are of a named network; load them into the module")
    elif not hasattr(model, "forward") or isinstance(model, type):
        what = f"the class {model.__name__}" if isinstance(model, type) else repr(model)[:80]
        raise InputError(f"{what} is no network; give a torch.nn.Module that is made, or its name")
    else:
        network = model
    return inspect_network(network, input_shape)


def export(
    run: str | Path,
    pick: str = "knee",
    output: str | Path | None = None,
    *,
    formats: Sequence[str] = ("onnx",),
    embed_preprocessing: bool = False,
) -> list[Written]:
    """Write one model of a front in several formats, as ``nas export --format``.

    See :func:`nas.models.export_formats.export_formats`.
    """
    from nas.models.export_formats import export_formats

    return export_formats(
        _path("run", run),
        str(pick),
        None if output is None else _path("output", output),
        formats=_several("formats", formats),
        embed_preprocessing=embed_preprocessing,
    )


def compare(
    runs: Sequence[str | Path],
    *,
    objectives: Sequence[str] | None = None,
    device: str | None = None,
    reference: Sequence[float] | None = None,
) -> RunsComparison:
    """Compare the fronts of two or more runs, as ``nas compare``.

    See :func:`nas.fronts.compare.compare_runs`.
    """
    from nas.fronts.compare import compare_runs

    folders = [_path("runs", run) for run in _several("runs", runs)]
    if objectives is not None:
        objectives = _several("objectives", objectives)
    return compare_runs(folders, objectives=objectives, device=device, reference=reference)


def measure(
    models: Sequence[str | Path],
    *,
    runtime: str = "onnxruntime",
    threads: int = 1,
    batch: int = 1,
    options: Mapping[str, Any] | None = None,
    protocol: Mapping[str, Any] | None = None,
    store: str | Path | None = None,
    hub: str | None = None,
    board: str | None = None,
    token_file: str | Path | None = None,
    ca: str | Path | None = None,
    cert: str | Path | None = None,
    key: str | Path | None = None,
    again: bool = False,
) -> list[Measurement]:
    """Measure model files here or on a board, as ``nas device measure``.

    Args:
        models: the files, measured together.
        runtime: registered name.
        threads: of one inference.
        batch: images of one inference.
        options: further parameters of the runtime.
        protocol: settings such as ``processes`` and ``runs``.
        store: database to look in and keep to.
        hub, board, token_file: address of a hub, the board's name there and a file with a token;
            without them it is this machine.
        ca, cert, key: certificates for the hub, where it needs them.
        again: measure anew what is known only as invalid.

    Returns:
        One measurement a model, in order; one that could not be measured is invalid and says why.

    Raises:
        InputError: a file is missing, or a setting is wrong.
        EnvironmentProblem: measuring is impossible here, or the hub cannot be reached.
    """
    from devices.device import BoardAddress, DeviceSpec
    from devices.fleet.remote import make_device
    from devices.measuring.protocol import Protocol
    from devices.measuring.store import MeasurementStore
    from devices.runtime import existing_file

    paths = [_path("models", model) for model in _several("models", models)]
    for path in paths:
        existing_file(path)
    address = None
    if hub is not None:
        if board is None or token_file is None:
            raise InputError("hub needs board and token_file")
        if (cert is None) != (key is None):
            raise InputError("cert and key belong together")
        files = [None if path is None else Path(path) for path in (ca, cert, key)]
        address = BoardAddress(hub, Path(token_file), board, *files)
    elif board is not None:
        raise InputError("board names a board at a hub; give hub and token_file too")
    spec = DeviceSpec(board or "here", runtime, threads, batch, dict(options or {}), address)
    device = make_device(spec, remeasure_invalid=again)
    device.check()
    return device.measure(
        paths,
        protocol=Protocol.from_json(dict(protocol or {})),
        store=None if store is None else MeasurementStore(Path(store)),
    )
