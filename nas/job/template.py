"""The commented job that ``nas init`` writes."""

from __future__ import annotations

import json
from dataclasses import dataclass

from nas.job.default_time import default_minutes
from nas.job.survey import Survey
from search_spaces.errors import InputError


@dataclass(frozen=True)
class _Start:
    """Values that suit one data set: a preset of the space, minutes, validation images."""

    preset: str
    minutes: float
    validation: str
    needs_path: bool = False
    measured: tuple[int, int, int] | None = None
    """Processes, runs and models of the measurements before the search, where the default would
    take as long as training."""
    evaluations: int = 80
    data: tuple[str, ...] = ()
    """More lines of the data section."""
    space: tuple[str, ...] = ()
    """More lines of the space section."""
    training: tuple[str, ...] = ()
    """Lines of the supernet and finetune sections."""


_LESS = (3, 100, 10)

_STARTS = {
    "digits": _Start("8x8-lean", 3, "0.2", measured=(2, 50, 6), evaluations=48),
    "fashion_mnist": _Start("28x28-lean", 25, "5000"),
    "cifar10": _Start("32x32-lean", 60, "5000", needs_path=True),
    "cifar100": _Start("32x32-lean", 60, "5000", needs_path=True),
    # For a folder that nobody could look at; :func:`_of_pictures` is for the others.
    "image_folder": _Start("128x128-lean", 60, "0.1", needs_path=True, measured=_LESS),
}
DATA_CHOICES = tuple(_STARTS)

_PRESETS = ((12, "8x8-lean"), (44, "32x32-lean"), (80, "64x64-lean"))
"""Largest side in pixels -> preset; beyond the last it is ``128x128-lean``."""
_LARGEST_SIDE = 128
"""Side that larger pictures are resized to: what a laptop trains in half an hour."""
_FEW = 4000
"""Training pictures below which batches are smaller, so that an epoch still has some steps."""


def _of_pictures(survey: Survey) -> _Start:
    """Return what suits the pictures that were looked at, on the processor of a laptop."""
    side = min(survey.side, _LARGEST_SIDE)
    preset = next((name for most, name in _PRESETS if side <= most), "128x128-lean")
    # The largest resolution is that of the data: a smaller picture has nothing to show there.
    shares = (0.75, 1.0) if side > _PRESETS[1][0] else (1.0,)
    channels = 1 if survey.grey else 3
    minutes = default_minutes(survey.pictures * channels * side * side)
    data = [
        f"  image_size: {side}  # the pictures' own are about {survey.side} pixels",
        f"  channels: {channels}",
        "  # augment: {flip: false}  # where a mirrored picture is another class, as with letters",
    ]
    training = []
    if survey.pictures < _FEW:
        batch = 32 if survey.pictures < _FEW // 4 else 64
        training = [
            f"supernet: {{batch_size: {batch}}}  # {survey.pictures} pictures are few",
            f"finetune: {{batch_size: {batch}}}",
            "",
        ]
    return _Start(
        preset,
        minutes,
        "0.2" if survey.pictures < _FEW else "0.1",
        needs_path=True,
        measured=_LESS,
        data=tuple(data),
        space=(f"  resolutions: {[round(side * share) for share in shares]}",),
        training=tuple(training),
    )


def job_text(
    data: str,
    *,
    path: str | None = None,
    latency_ms: float | None = None,
    survey: Survey | None = None,
) -> str:
    """Return a short job for a data set, with comments.

    Args:
        data: one of :data:`DATA_CHOICES`.
        path: of the data, relative to the job file.
        latency_ms: largest latency.
        survey: what was seen of the pictures of ``image_folder``.

    Raises:
        InputError: the data set has no template, or needs a path and has none.
    """
    if data not in _STARTS:
        raise InputError(f"no template for {data!r} (there is one for: {', '.join(DATA_CHOICES)})")
    start = _STARTS[data] if survey is None else _of_pictures(survey)
    if start.needs_path and path is None:
        raise InputError(f"{data} needs the folder that holds it; give --path")
    lines = [
        "# A job for Edge NAS. Check it with `nas validate`, run it with `nas run`.",
        "# Keys that are left out have defaults; `nas schema` lists them all.",
        f"name: {data.replace('_', '-')}",
        "seed: 0",
        "",
        "data:",
        f"  name: {data}",
    ]
    if path is not None:
        # JSON strings are YAML strings too, whatever characters the path holds.
        lines.append(f"  path: {json.dumps(path)}  # relative to this file")
    lines += [
        *start.data,
        f"  validation: {start.validation}  # training images set apart to guide the search",
        "",
        "budget:",
        f"  minutes: {start.minutes:g}  # of the whole run; `nas run --dry-run` divides it",
        "executor: processes  # networks of the front train at once, one on each core",
        "",
        "space:",
        "  name: mobilenet",
        f"  preset: {start.preset}",
        *start.space,
        "  weight_bits: [4, 8]  # 2 and 3 for the lowbit runtime, or hours of training",
        "  activation_bits: [8]  # fewer where the runtime gains by them",
        "",
        *start.training,
        "devices:",
        "  - name: cpu",
        "    runtime: onnxruntime",
        "    threads: 1",
        "",
    ]
    if start.measured is not None:
        processes, runs, _ = start.measured
        lines += ["protocol:", f"  processes: {processes}  # for a short run; 5 by default"]
        lines += [f"  runs: {runs}", ""]
    lines += [
        "search:",
        "  objectives: [accuracy, latency_ms]",
        f"  evaluations: {start.evaluations}",
        *([f"  latency_samples: {start.measured[2]}"] if start.measured else []),
        "  # front_size: 8  # models exported; without it as many as the time trains well",
        "  # budgets: {weights_kib: [8, 32]}  # of several products; each gets its best network",
    ]
    if latency_ms is not None:
        lines += [
            "  constraints:",
            "    latency_ms:",
            f"      cpu: {{max: {latency_ms:g}}}  # median, in milliseconds",
        ]
    else:
        lines += ["  # constraints: {latency_ms: {cpu: {max: 2.0}}, weights_kib: {max: 100}}"]
    return "\n".join(lines) + "\n"
