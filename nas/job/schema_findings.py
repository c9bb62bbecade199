"""What the schema finds wrong, told in the words of a job file."""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Sequence
from typing import Any

from pydantic import (
    BaseModel,
)

from nas.fronts.metrics import METRICS
from nas.job import kinds
from nas.job.findings import dotted, nearest, shown, unknown_key
from nas.job.kinds import Wrong
from nas.job.schema import Job
from nas.job.sections.budget import BudgetConfig
from nas.job.sections.constraints import Bound, ConstraintsConfig, metric_names
from nas.job.yaml_source import Diagnostic, YamlSource


def schema_diagnostic(source: YamlSource, wrong: Wrong) -> Diagnostic:
    """Return one finding of the schema in the words of a job file, at its place."""
    location, value, context = wrong.place, wrong.value, wrong.context
    where = dotted(location)
    match wrong.kind:
        case "missing":
            parent = dotted(location[:-1])
            message = f"missing key {location[-1]!r}" + (f" in {parent}" if parent else "")
            return source.diagnostic(location[:-1], message, key=True)
        case "extra_forbidden":
            return source.diagnostic(
                location, unknown_key(location, allowed_keys(location[:-1])), key=True
            )
        case "invalid_key":
            return source.diagnostic(location, f"key {location[-1]!r} must be a word", key=True)
        case "literal_error":
            allowed = _allowed_values(location)
            message = f"{where}: {shown(value)} is not one of {', '.join(map(str, allowed))}"
            message += nearest(value, allowed)
        case kinds.NONE_OF_KINDS:
            allowed = kinds.words(context["kinds"])
            message = f"{where}: {shown(value)} is not {_either(allowed)}"
            message += _as_bool(value, "true" in allowed) or nearest(value, allowed)
            message += _quoted(value) if "text" in allowed else ""
        case "int_type" | "int_from_float" | "int_parsing":
            message = f"{where}: {shown(value)} is not a whole number"
            message += _without_unit(location, value)
        case "float_type" | "float_parsing":
            message = f"{where}: {shown(value)} is not a number"
            message += _without_unit(location, value)
        case "finite_number":
            message = f"{where}: {shown(value)} is not a finite number"
        case "bool_type":
            message = f"{where}: {shown(value)} is not true or false"
            message += _as_bool(value)
        case "string_type":
            message = f"{where}: {shown(value)} is not text{_quoted(value)}"
        case "list_type":
            message = f"{where}: {shown(value)} is not a list"
            if isinstance(value, (str, int, float)):
                named = _named(location, value)
                message += f"; write [{value if named is None else named}]"
        case "dict_type" | "model_type" | "model_attributes_type":
            message = f"{where}: {shown(value)} is not a mapping of keys to values"
            message += _as_mapping(location, value)
            if (
                len(location) > 1
                and location[-2] == "latency_ms"
                and location[-1] in ("min", "max")
            ):
                message = (
                    f"{where}: a latency belongs to a device; "
                    f"write latency_ms: {{DEVICE: {{{location[-1]}: {value}}}}}"
                )
        case "greater_than":
            message = f"{where}: {shown(value)} must be greater than {context['gt']}"
        case "greater_than_equal":
            message = f"{where}: {shown(value)} must be at least {context['ge']}"
        case "less_than":
            message = f"{where}: {shown(value)} must be less than {context['lt']}"
        case "less_than_equal":
            message = f"{where}: {shown(value)} must be at most {context['le']}"
        case "too_short":
            message = f"{where}: the list is empty; give at least one entry"
        case "string_pattern_mismatch":
            message = (
                f"{where}: {shown(value)} must begin with a letter or digit and hold only "
                "letters, digits, '.', '_' and '-'"
            )
        case "string_too_long":
            message = f"{where}: longer than {context['max_length']} characters"
        case "value_error":
            message = f"{where}: {shown(value)} {context['error']}"
        case _:
            message = f"{where}: {shown(value)}: {wrong.text}"
    if value is None and _has_default(location):
        message += f"; leave {location[-1]} out for its default"
    return source.diagnostic(location, message)


def _without_unit(location: Sequence[str | int], value: Any) -> str:
    """Return how to write a number that was given with its unit, or nothing."""
    if not isinstance(value, str):
        return ""
    if re.fullmatch(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*", value):
        return "; write it without quotes"
    found = re.fullmatch(r"\s*([-+]?[0-9.]+)\s*([A-Za-zµμ%]+)\s*", value)
    if found is None:
        return ""
    number, unit = found.groups()
    if unit == "%":
        try:
            return f"; write {float(number) / 100:g}"
        except ValueError:
            return ""
    units = {"ms": "milliseconds", "kib": "KiB", "mj": "millijoules", "mib": "MiB", "s": "seconds"}
    # The nearest key whose name ends in a unit says which one is meant.
    ends = [str(step).rpartition("_")[2] for step in reversed(location)]
    own = next((units[end] for end in ends if end in units), None)
    return f"; write the number alone{'' if own is None else f', in {own}'}"


def _as_bool(value: Any, asked: bool = True) -> str:
    """Return how to write a word that means true or false elsewhere, or nothing."""
    word = str(value).lower() if asked and isinstance(value, str) else ""
    meant = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
    return f"; write {str(meant[word]).lower()} without quotes" if word in meant else ""


def _quoted(value: Any) -> str:
    """Return how to write a plain value as text, or nothing."""
    return "; write it in quotes" if isinstance(value, (int, float)) else ""


def _either(said: Sequence[str]) -> str:
    return said[0] if len(said) == 1 else f"{', '.join(said[:-1])} or {said[-1]}"


def _has_default(location: tuple[str | int, ...]) -> bool:
    """Whether the key at ``location`` is one of a section and may be left out."""
    model = _annotation(location[:-1])
    field = None if model is None else model.model_fields.get(str(location[-1]))
    return field is not None and not field.is_required()


def _as_mapping(location: Sequence[str | int], value: Any) -> str:
    """Return how to write the mapping for which a plain value was given, or nothing."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return ""
    named = _named(location, value)
    if named is not None:
        return f"; write {named}"
    if isinstance(value, str):
        return ""
    if _annotation(location) is BudgetConfig:
        return f"; write {{minutes: {value}}} or {{cpu_minutes: {value}}}"
    if _annotation(location) is Bound:
        return f"; write {{max: {value}}} or {{min: {value}}}"
    if tuple(location[:2]) == ("search", "constraints") and len(location) == 3:
        per_device = METRICS.get(str(location[2])).per_device
        return (
            f"; write {{DEVICE: {{max: {value}}}}}" if per_device else f"; write {{max: {value}}}"
        )
    return ""


def _named(location: Sequence[str | int], value: Any) -> str | None:
    """Return ``value`` as a mapping with a name, where such mappings belong."""
    model = _annotation(location) or _annotation((*location, 0))
    if not isinstance(value, str) or model is None or "name" not in model.model_fields:
        return None
    return f"{{name: {value}}}"


def allowed_keys(location: Sequence[str | int]) -> list[str]:
    """Return the keys that the mapping at ``location`` may have."""
    annotation = _annotation(location)
    if annotation is ConstraintsConfig:
        return metric_names()
    return list(annotation.model_fields) if annotation is not None else []


def _allowed_values(location: Sequence[str | int]) -> list[Any]:
    inside = isinstance(location[-1], int)  # an entry of a list of words
    *parent, key = location[:-1] if inside else location
    model = _annotation(parent)
    if model is None:
        return []
    parts = _parts(model.model_fields[str(key)].annotation)
    if inside:
        parts = [inner for part in parts for inner in typing.get_args(part)]
    return [v for part in parts if typing.get_origin(part) is typing.Literal
            for v in typing.get_args(part)]  # fmt: skip


def _annotation(location: Sequence[str | int]) -> type[BaseModel] | None:
    """Return the model that describes the mapping at ``location``."""
    hint: Any = Job
    for step in location:
        model = _model(hint)
        if model is not None:
            if step not in model.model_fields:
                return None
            hint = model.model_fields[str(step)].annotation
        else:
            # A list's entry or a mapping's value: the last type argument describes it.
            inner = [typing.get_args(part)[-1] for part in _parts(hint) if typing.get_args(part)]
            if not inner:
                return None
            hint = inner[0]
    return _model(hint)


def _parts(hint: Any) -> list[Any]:
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return list(typing.get_args(hint)) if union else [hint]


def _model(hint: Any) -> type[BaseModel] | None:
    for part in _parts(hint):
        if inspect.isclass(part) and issubclass(part, BaseModel):
            return part
    return None
