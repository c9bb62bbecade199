"""Reading ``results.json``: the one file the report, ``front.csv`` and the comparison come from."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from nas.record.result_types import Results, number
from nas.record.run_folder import RunStore
from search_spaces.errors import InfeasibleError, InputError
from search_spaces.terminal import quoted

__all__ = [
    "complete",
    "device_names",
    "doubts",
    "is_accuracy",
    "is_file_name",
    "is_share",
    "load_results",
    "metric_of",
    "metric_text",
    "metric_unit",
    "number",
]


def load_results(run: Path) -> Results:
    """Return the results of a run.

    Raises:
        InputError: no results yet, no JSON, or a key that holds something else than it should.
        InfeasibleError: the run ended, and nothing that it found keeps its bounds.
    """
    path = Path(run) / "results.json"
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        if not (Path(run) / "manifest.json").is_file():
            raise InputError(
                f"{run} is no run folder: it holds neither results.json nor manifest.json"
            ) from None
        _refuse_infeasible(Path(run))
        if RunStore.open(run).is_held():
            raise InputError(
                f"{run} has no results.json, for the run is at work; look at it with: nas watch "
                f"{quoted(run)}"
            ) from None
        raise InputError(
            f"{run} has no results.json, so the run has not ended; go on with: nas resume "
            f"{quoted(run)}"
        ) from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text: {error}") from error
    try:
        results = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}:{error.colno}: no JSON: {error.msg}") from error
    return complete(results, source=str(path))


def _refuse_infeasible(run: Path) -> None:
    """Refuse a run that ended without a front, in words of what would give one."""
    ended = RunStore.open(run).infeasible()
    if ended is None:
        return
    bounds = [
        f"{name} {_outwards(value, up=name.endswith(' max')):g} instead of {bound:g}"
        for name, (value, bound) in (ended.get("violations") or {}).items()
    ]
    others = f" (such as {' and '.join(bounds)})" if bounds else ""
    raise InfeasibleError(
        f"{run} ended without a front, and would again: {ended['message']}. Give a new job other "
        f"bounds{others} or another space, and "
        f"search.warm_start: {run}, which takes over what was trained and evaluated",
        closest=ended.get("closest"),
    )


def _outwards(value: float, *, up: bool) -> float:
    """Return a bound of three digits that ``value`` keeps."""
    if not value:
        return value
    step = 10.0 ** (math.floor(math.log10(abs(value))) - 2)
    return (math.ceil if up else math.floor)(value / step) * step


def doubts(results: Results) -> list[str]:
    """Return a line for each device whose latencies on the front need a word.

    They did not pass the protocol, or were taken on a busy machine.
    """
    results = Results.from_json(results)
    lines = []
    for device in dict.fromkeys(name for model in results.front for name in model.devices):
        found = [model.devices[device] for model in results.front if device in model.devices]
        bad = [one for one in found if one.valid is False]
        reasons = ", ".join(dict.fromkeys(reason for one in bad for reason in one.reasons))
        if bad:
            lines.append(
                f"{len(bad)} of the front's {len(found)} latencies on {device} are marked invalid"
                f"{f' ({reasons})' if reasons else ''}; see the report"
            )
        busy = sum(bool(one.busy) and one.valid is not False for one in found)
        if busy:
            lines.append(
                f"the machine was busy while {busy} of the front's {len(found)} latencies on "
                f"{device} were measured: their fastest samples stand for them"
            )
    return lines


def complete(results: Any, *, source: str = "results") -> Results:
    """Return results as the type they have, from what a file of any version holds.

    Raises:
        InputError: a part is of another type, or a model has no id.
    """
    found = Results.from_json(results, source)
    for key, models in (("front", found.front), ("rejected", found.rejected)):
        for i, model in enumerate(models):
            if not model.id:
                raise InputError(f"{source}: {key}[{i}] has no 'id'")
    return found


def is_file_name(text: str) -> bool:
    """Whether ``text`` may name a file of a run: nothing that leads out of its folder."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}", text) is not None


def device_names(results: Results) -> list[str]:
    """Return every device of the job, then those that only appear in measurements."""
    results = Results.from_json(results)
    names = [device.name for device in results.devices if device.name]
    for model in (*results.front, *results.rejected):
        names += list(model.devices)
    names += [sample.device for sample in results.latency_samples if sample.device]
    return list(dict.fromkeys(names))


def metric_text(value: Any, results: Results) -> str | None:
    """Return a value of the task's metric as people read it; None for one that is no number."""
    value = number(value)
    if value is None:
        return None
    if is_share(results):
        return f"{100 * value:.2f} %"
    unit = metric_unit(results)
    return f"{value:.4g} {unit}".rstrip()


def is_share(results: Results) -> bool:
    """Return whether the task's metric is a share of 0 to 1."""
    metric = (results.get("task") or {}).get("metric") or {}
    return bool(metric.get("share", "accuracy" in metric_of(results)[0]))


def is_accuracy(results: Results) -> bool:
    """Return whether the metric counts right answers, so that a share of images has an interval."""
    return bool((results.get("task") or {}).get("has_classes", is_share(results)))


def metric_unit(results: Results) -> str:
    """Return the unit of the task's metric, empty for none."""
    return str(((results.get("task") or {}).get("metric") or {}).get("unit") or "")


def metric_of(results: Results) -> tuple[str, bool]:
    """Return the name of the task's metric and whether more of it is better."""
    results = Results.from_json(results)
    return results.metric, results.higher_is_better
