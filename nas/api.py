"""What the commands do, as functions with the same results: ``nas.run`` and its companions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search_spaces.errors import InputError

if TYPE_CHECKING:
    from devices.measuring.measurement import Measurement
    from nas.fronts.compare import RunsComparison
    from nas.job.schema import Job
    from nas.models.formats.base import Written
    from nas.stages.progress import Progress


def run(
    job: Job | str | Path,
    output: str | Path | None = None,
    *,
    seed: int | None = None,
    measurements: str | Path | None = None,
    progress: Progress | None = None,
) -> Path:
    """Run a whole job, as ``nas run``; returns the run folder.

    Args:
        job: a job file, or a job that was loaded.
        output: run folder, which must be new; by default the job's own.
        seed: overrides that of a job file.
        measurements: store or earlier run whose latencies are replayed instead of measured.
        progress: where to tell about progress; by default standard error.

    Raises:
        InputError: the job is wrong, or the folder is taken.
        InfeasibleError: no architecture satisfies the constraints.
        EnvironmentProblem: data, runtime, GPU or disk space is missing.
    """
    from nas.job.check import load_job
    from nas.stages import pipeline

    if isinstance(job, (str, Path)):
        job = load_job(Path(job), changes={} if seed is None else {"seed": seed})
    elif seed is not None:
        raise InputError("seed overrides that of a job file; set it in the job that was loaded")
    folder = job.run_folder() if output is None else Path(output)
    replayed = None if measurements is None else Path(measurements)
    if replayed is not None and not replayed.exists():
        raise InputError(f"measurements: {replayed} does not exist")
    pipeline.run(job, folder, measurements=replayed, progress=progress)
    return folder


def resume(run: str | Path, *, progress: Progress | None = None) -> Path:
    """Go on with a run that was interrupted, as ``nas resume``; returns its folder.

    Raises:
        InputError: the folder holds no run.
        InfeasibleError, EnvironmentProblem: as :func:`run`.
    """
    from nas.stages import pipeline

    folder = Path(run)
    if not folder.is_dir():
        raise InputError(f"{folder} is no run folder: it does not exist")
    pipeline.resume(folder, progress=progress)
    return folder


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
        Path(run),
        pick,
        None if output is None else Path(output),
        formats=formats,
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

    folders = [Path(run) for run in runs]
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
) -> list[Measurement]:
    """Measure model files on this machine, as ``nas device measure``.

    Args:
        models: the files, measured together.
        runtime: registered name.
        threads: of one inference.
        batch: images of one inference.
        options: further parameters of the runtime.
        protocol: settings such as ``processes`` and ``runs``.
        store: database to look in and keep to.

    Returns:
        One measurement a model, in order; one that could not be measured is invalid and says why.

    Raises:
        InputError: a file is missing, or a setting is wrong.
        EnvironmentProblem: measuring is impossible here.
    """
    from devices.device import DeviceSpec
    from devices.fleet.remote import make_device
    from devices.measuring.protocol import Protocol
    from devices.measuring.store import MeasurementStore

    paths = [Path(model) for model in models]
    for path in paths:
        if not path.is_file():
            raise InputError(f"no model file at {path}")
    device = make_device(DeviceSpec("here", runtime, threads, batch, dict(options or {}), None))
    device.check()
    return device.measure(
        paths,
        protocol=Protocol.from_json(dict(protocol or {})),
        store=None if store is None else MeasurementStore(Path(store)),
    )
