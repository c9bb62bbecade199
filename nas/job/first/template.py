"""The commented job that ``nas init`` writes."""

from __future__ import annotations

import json
import re
import unicodedata
from pathlib import PurePath

from nas.job.first.starts import Start, known_start, surveyed_start
from nas.job.first.survey import Survey
from nas.job.registries import registry_for
from search_spaces.errors import InputError


def job_text(
    data: str,
    *,
    path: str | None = None,
    latency_ms: float | None = None,
    survey: Survey | None = None,
    task: str | None = None,
    normal: str | None = None,
) -> str:
    """Return a short job for a data set, with comments.

    Args:
        data: a data source.
        path: of the data, relative to the job file.
        latency_ms: largest latency.
        survey: what was seen of the data.
        task: where the data suits several.
        normal: class that ``anomaly_detection`` learns from; by default the one of that name.

    Raises:
        InputError: the data set has no template, or needs a path and has none; the task is
            unknown, or does not suit what was seen.
    """
    start = (
        known_start(data, task=task)
        if survey is None
        else surveyed_start(data, survey, task=task, normal=normal)
    )
    if start.needs_path and path is None:
        raise InputError(f"{data} needs the folder that holds it; give --path")
    metric = registry_for("task").get(start.task).metric_name
    lines = [
        "# A job for Edge NAS. Check it with `nas validate`, run it with `nas run`.",
        "# Keys that are left out have defaults; `nas schema` lists them all.",
        f"name: {_name(data, path)}",
        "seed: 0",
        *([f"task: {start.task}"] if start.task != "image_classification" else []),
        "",
        "data:",
        f"  name: {data}",
    ]
    if path is not None:
        # JSON strings are YAML strings too, whatever characters the path holds.
        written = json.dumps(path, ensure_ascii=not path.isprintable())
        lines.append(f"  path: {written}  # relative to this file")
    if survey is not None and survey.options:
        lines.append(f"  options: {json.dumps(dict(survey.options), ensure_ascii=False)}")
    lines += [
        *start.of_data,
        *(
            ["  # balance: 0.5  # show rare classes more often in training than they are"]
            if survey is not None and survey.uneven
            else []
        ),
        f"  validation: {start.validation}  # training examples set apart to guide the search",
        "",
        "budget:",
        f"  minutes: {start.minutes:g}  # of the whole run; `nas run --dry-run` divides it",
        "executor: processes  # networks of the front train at once, one on each core",
        "",
        "space:",
        f"  name: {start.space}",
        f"  preset: {json.dumps(start.preset) if start.preset.isdigit() else start.preset}",
        *start.of_space,
        "  weight_bits: [4, 8]  # 2 and 3 for the lowbit runtime, or hours of training",
        "  activation_bits: [8]  # fewer where the runtime gains by them",
        "",
        *start.of_training,
        *([""] if start.of_training else []),
        "devices:",
        *start.devices,
        "",
    ]
    if start.measured is not None:
        processes, runs, _ = start.measured
        lines += ["protocol:", f"  processes: {processes}  # for a short run; 5 by default"]
        lines += [f"  runs: {runs}", ""]
    lines += [
        "search:",
        # A short measurement hardly tells networks of few KiB apart by their latencies; by sizes,
        # which are exact, the front spans the space all the same.
        f"  objectives: [{metric}, {start.latency}, weights_kib]",
        f"  evaluations: {start.evaluations}",
        *([f"  latency_samples: {start.measured[2]}"] if start.measured else []),
        "  # front_size: 8  # models exported; without it as many as the time trains well",
        "  # budgets: {weights_kib: [8, 32]}  # of several products; each gets its best network",
    ]
    return "\n".join([*lines, *_constraints(start, latency_ms)]) + "\n"


def _name(data: str, path: str | None) -> str:
    """Name a job after its folder, so that jobs of two folders have a run folder each."""
    folder = "" if path is None else PurePath(path).name
    plain = unicodedata.normalize("NFKD", folder).encode("ascii", "ignore").decode()
    words = re.sub(r"[^A-Za-z0-9.]+", "-", plain).strip("-.")[:64].rstrip("-.")
    return words or data.replace("_", "-")


def _constraints(start: Start, latency_ms: float | None) -> list[str]:
    device = "token" if "token" in start.latency else "cpu"
    if latency_ms is None:
        bound = f"latency_ms: {{{device}: {{max: 2.0}}}}"
        return [f"  # constraints: {{{bound}, weights_kib: {{max: 100}}}}"]
    return [
        "  constraints:",
        "    latency_ms:",
        f"      {device}: {{max: {latency_ms:g}}}  # median, in milliseconds",
    ]
