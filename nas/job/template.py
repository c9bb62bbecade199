"""The commented job that ``nas init`` writes."""

from __future__ import annotations

import json
from dataclasses import dataclass

from search_spaces.errors import InputError


@dataclass(frozen=True)
class _Start:
    """Values that suit one data set: a preset of the space, minutes, validation images."""

    preset: str
    minutes: int
    validation: str
    needs_path: bool = False
    little: bool = False
    """Measure less than by default: training takes no longer than measuring would."""


_STARTS = {
    "digits": _Start("8x8-lean", 3, "0.2", little=True),
    "fashion_mnist": _Start("28x28-lean", 25, "5000"),
    "cifar10": _Start("32x32", 120, "5000", needs_path=True),
    "cifar100": _Start("32x32", 120, "5000", needs_path=True),
    "image_folder": _Start("224x224-ofa", 240, "0.1", needs_path=True),
}
DATA_CHOICES = tuple(_STARTS)


def job_text(data: str, *, path: str | None = None, latency_ms: float | None = None) -> str:
    """Return a short job for a data set, with comments.

    Raises:
        InputError: the data set has no template, or needs a path and has none.
    """
    if data not in _STARTS:
        raise InputError(f"no template for {data!r} (there is one for: {', '.join(DATA_CHOICES)})")
    start = _STARTS[data]
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
        f"  validation: {start.validation}  # training images set apart to guide the search",
        "",
        "budget:",
        f"  minutes: {start.minutes}  # of the whole run; `nas run --dry-run` says how it is used",
        "",
        "space:",
        "  name: mobilenet",
        f"  preset: {start.preset}",
        "  weight_bits: [2, 3, 4, 8]  # 32 would be float",
        "  activation_bits: [8]  # fewer where the runtime gains by them",
        "",
        "devices:",
        "  - name: cpu",
        "    runtime: onnxruntime",
        "    threads: 1",
        "",
    ]
    if start.little:
        lines += ["protocol:", "  processes: 2  # for a short run; 5 by default", "  runs: 50", ""]
    lines += [
        "search:",
        "  objectives: [accuracy, latency_ms]",
        f"  evaluations: {48 if start.little else 80}",
        *(["  latency_samples: 6"] if start.little else []),
        f"  front_size: {6 if start.little else 8}  # models trained to the end and exported",
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
