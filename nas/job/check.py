"""Every mistake of a job file, found in one pass and told at its line and column.

The schema of :mod:`nas.job.schema` finds wrong keys and types. What is sound after that is
checked further, section by section, so one mistake never hides another elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import (
    ValidationError,
)

from nas.job.findings import Finding, kind_of, unknown_key, unknown_name
from nas.job.kinds import wrong_values
from nas.job.paths import with_absolute_paths
from nas.job.registries import registry_for
from nas.job.schema import Job
from nas.job.schema_findings import allowed_keys, schema_diagnostic
from nas.job.sections.budget import check_budget
from nas.job.sections.constraints import UNKNOWN_KEYS, unknown_constraints
from nas.job.sections.data import check_balance, check_data, check_normal
from nas.job.sections.devices import check_devices, check_measures
from nas.job.sections.execution import check_executor, check_study
from nas.job.sections.export import check_export
from nas.job.sections.finetune import check_reconstruction, check_refit, check_sparsity
from nas.job.sections.latency import check_latency
from nas.job.sections.protocol import check_protocol
from nas.job.sections.search import check_search, check_strategy_options, check_warm_start
from nas.job.sections.space import check_answers, check_signals, check_space
from nas.job.sections.supernet import check_epochs, check_one_bit, check_supernet
from nas.job.sections.tracking import check_tracking
from nas.job.sound import sound_sections
from nas.job.yaml_source import Diagnostic, DiagnosticsError, YamlSource
from search_spaces.errors import InputError


def load_job(path: str | Path, *, changes: Mapping[str, Any] | None = None) -> Job:
    """Read, check and return the job at ``path``.

    Args:
        path: a YAML file. Paths of data, weights and tokens inside it are relative to its
            folder and come back absolute.
        changes: top-level keys that override the file (``{"seed": 3}``).

    Raises:
        DiagnosticsError: anything is wrong; all mistakes of the file at once.
    """
    if not isinstance(path, (str, os.PathLike)):
        # A number would be read as the open file that has it.
        raise InputError(f"job: {path!r} is no path; give text or a pathlib.Path")
    return check_job(YamlSource.read(path), changes=changes or {})


def check_job(source: YamlSource, *, changes: Mapping[str, Any]) -> Job:
    """Return the job that ``source`` holds, its paths made absolute.

    Args:
        source: the parsed file.
        changes: top-level keys that override the file's.

    Raises:
        DiagnosticsError: every mistake that was found.
    """
    if not isinstance(source.value, dict):
        raise source.error(
            (), f"a job is a mapping of keys to values, not {kind_of(source.value)}; see nas schema"
        )
    raw = {**source.value, **changes}
    diagnostics: list[Diagnostic] = []
    broken: set[tuple[str | int, ...]] = set()
    try:
        job = Job.model_validate(raw)
    except ValidationError as error:
        job = None
        for wrong in wrong_values(error.errors(include_url=False), Job):
            if wrong.kind == UNKNOWN_KEYS:
                continue  # each is told at its place
            broken.add(wrong.place)
            diagnostics.append(schema_diagnostic(source, wrong))
    for location in unknown_constraints(raw):
        broken.add(location)
        diagnostics.append(
            source.diagnostic(
                location, unknown_key(location, allowed_keys(location[:-1])), key=True
            )
        )
    sections = sound_sections(raw, broken)
    folder = Path(source.path).parent
    for location, message in cross_findings(sections, folder):
        # A mistake inside a value, or of a key around it, has been told already.
        if not any(location[: len(b)] == b or b[: len(location)] == location for b in broken):
            key = message.startswith("unknown key")
            diagnostics.append(source.diagnostic(location, message, key=key))
    if diagnostics or job is None:
        raise DiagnosticsError(diagnostics)
    return with_absolute_paths(job, folder)


def cross_findings(sections: Mapping[str, Any], folder: Path) -> Iterator[Finding]:
    """Yield what is wrong in and between sections that are sound by the schema."""
    metric = None
    if "task" in sections:
        unknown = list(unknown_name("task", ("task",), sections["task"]))
        yield from unknown
        if not unknown:
            metric = registry_for("task").get(sections["task"])
    data = sections.get("data")
    if data is not None:
        yield from check_data(data, folder)
        if metric is not None:
            yield from check_normal(sections["task"], metric, data)
            yield from check_balance(sections["task"], metric, data)
    if sections.get("space") is not None:
        yield from check_space(sections["space"], folder)
        if data is not None:
            yield from check_signals(sections["space"], data, folder)
        if metric is not None:
            yield from check_answers(sections["task"], metric, sections["space"])
    if sections.get("supernet") is not None:
        yield from check_supernet(sections["supernet"], folder)
        if sections.get("space") is not None:
            yield from check_epochs(sections["space"], sections["supernet"])
    if sections.get("budget") is not None:
        yield from check_budget(
            sections["budget"], sections.get("supernet"), sections.get("finetune")
        )
    if sections.get("finetune") is not None:
        yield from check_reconstruction(sections["finetune"])
        yield from check_refit(
            sections["finetune"], sections.get("supernet"), sections.get("budget")
        )
        yield from check_sparsity(sections["finetune"])
    if sections.get("space") is not None:
        yield from check_one_bit(sections["space"], sections.get("supernet"))
    devices = sections.get("devices")
    if devices is not None:
        yield from check_devices(devices, folder)
        if metric is not None:
            yield from check_measures(devices, metric, sections["task"])
    if sections.get("latency") is not None:
        yield from check_latency(sections["latency"], folder)
    if sections.get("protocol") is not None:
        yield from check_protocol(sections["protocol"])
    if sections.get("search") is not None:
        yield from check_search(sections["search"], devices, metric)
        yield from check_strategy_options(sections["search"])
        yield from check_warm_start(sections["search"], folder)
    if sections.get("study") is not None:
        yield from check_study(sections["study"])
    if "export" in sections:
        yield from check_export(sections["export"])
    if sections.get("tracking") is not None:
        yield from check_tracking(sections["tracking"])
    if "executor" in sections:
        yield from unknown_name("executor", ("executor",), sections["executor"])
        yield from check_executor(sections)
