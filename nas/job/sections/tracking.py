"""Key ``tracking``: tools in which the run is shown while it works."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import StrictStr

from nas.job.findings import Finding, unknown_name
from nas.job.option_types import wrong_options
from nas.job.registries import registry_for
from nas.job.values import Section
from nas.record.database_url import password_of
from search_spaces.errors import EnvironmentProblem, InputError


class TrackerConfig(Section):
    """One tool in which the run is shown."""

    name: StrictStr
    """tensorboard, mlflow, wandb, or a tracker of a plug-in (entry-point group nas.trackers)."""
    options: dict[StrictStr, Any] = {}
    """Of the tracker: {folder} of tensorboard; {uri, experiment} of mlflow; {project, entity, mode,
    group, tags} of wandb, where mode is online or offline."""


def named(entries: Any) -> Any:
    """Return the entries of ``tracking`` as mappings; a bare word is a name."""
    if not isinstance(entries, list):
        return entries
    return [{"name": entry} if isinstance(entry, str) else entry for entry in entries]


def check_tracking(tracking: Sequence[TrackerConfig]) -> Iterator[Finding]:
    """Yield trackers that are unknown, given twice or not installed, and options they refuse."""
    for i, config in enumerate(tracking):
        at = ("tracking", i)
        unknown = list(unknown_name("tracking", (*at, "name"), config.name))
        yield from unknown
        if unknown:
            continue
        if config in tracking[:i]:
            yield at, f"tracking.{i}: {config.name!r} is there twice with the same options"
        kind = registry_for("tracking").get(config.name)
        what = f"tracker {config.name!r}"
        wrong = [*wrong_options((*at, "options"), config.options, kind, what, own=())]
        wrong += _lacking(config, kind, at)
        wrong += _passwords(config, at)
        yield from wrong
        try:
            kind.require()
            if not wrong:
                kind(**config.options)
        except (EnvironmentProblem, InputError) as error:
            yield at, f"tracking.{i}: {error}"


def _lacking(config: TrackerConfig, kind: Any, at: tuple[str | int, ...]) -> Iterator[Finding]:
    for key, parameter in inspect.signature(kind).parameters.items():
        named_only = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        if named_only and parameter.default is parameter.empty and key not in config.options:
            yield (
                at,
                f"tracking.{at[1]}: tracker {config.name!r} needs the option {key}; write "
                f"{{name: {config.name}, options: {{{key}: ...}}}}",
            )


def _passwords(config: TrackerConfig, at: tuple[str | int, ...]) -> Iterator[Finding]:
    for key, value in config.options.items():
        if isinstance(value, str) and "://" in value and password_of(value) is not None:
            yield (
                (*at, "options", key),
                f"tracking.{at[1]}.options.{key}: leave the password out of the address, which a "
                "run folder keeps; MLflow takes MLFLOW_TRACKING_USERNAME and "
                "MLFLOW_TRACKING_PASSWORD, databases their own password files",
            )
