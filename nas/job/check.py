"""Every mistake of a job file, found in one pass and told at its line and column.

The schema of :mod:`nas.job.schema` finds wrong keys and types. What is sound after that is
checked further, section by section, so one mistake never hides another elsewhere.
"""

from __future__ import annotations

import difflib
import inspect
import itertools
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from devices.fleet.address import check_address
from devices.measuring.protocol import Protocol
from devices.runtime import make_runtime
from nas.fronts.metrics import METRICS
from nas.job.schema import (
    UNKNOWN_KEYS,
    Bound,
    BudgetConfig,
    ConstraintsConfig,
    DataConfig,
    DeviceConfig,
    ExportConfig,
    FinetuneConfig,
    Job,
    LatencyConfig,
    SearchConfig,
    SpaceConfig,
    SupernetConfig,
    TeacherConfig,
    registry_for,
)
from nas.job.trust import (
    MODULE_SPACE,
    OTHERS_NETWORKS,
    require_trust,
    require_trust_of_space,
)
from nas.job.yaml_source import Diagnostic, DiagnosticsError, YamlSource
from nas.record.database_url import without_password
from search_spaces.errors import EnvironmentProblem, InputError
from search_spaces.planned import PlannedSpace
from search_spaces.spaces.registry import SPACES, build_space

Finding = tuple[tuple["str | int", ...], str]
"""A location in the job and what is wrong there."""


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
            (), f"a job is a mapping of keys to values, not {_kind(source.value)}; see nas schema"
        )
    raw = {**source.value, **changes}
    diagnostics: list[Diagnostic] = []
    broken: set[tuple[str | int, ...]] = set()
    try:
        job = Job.model_validate(raw)
    except ValidationError as error:
        job = None
        for details in error.errors(include_url=False):
            location = _location(details["loc"], raw)
            if details["type"] == UNKNOWN_KEYS:
                continue  # each is told at its place
            broken.add(location)
            diagnostics.append(_schema_diagnostic(source, location, details))
    for location in _unknown_constraints(raw):
        broken.add(location)
        diagnostics.append(source.diagnostic(location, _unknown_key(location), key=True))
    sections = _sound_sections(raw, broken)
    folder = Path(source.path).parent
    for location, message in _cross_findings(sections, folder):
        # A mistake inside a value, or of a key around it, has been told already.
        if not any(location[: len(b)] == b or b[: len(location)] == location for b in broken):
            key = message.startswith("unknown key")
            diagnostics.append(source.diagnostic(location, message, key=key))
    if diagnostics or job is None:
        raise DiagnosticsError(diagnostics)
    return _with_absolute_paths(job, folder)


# ------------------------------------------------------------------- the schema's findings


def _schema_diagnostic(
    source: YamlSource, location: tuple[str | int, ...], details: ErrorDetails
) -> Diagnostic:
    where = _dotted(location)
    value = details["input"]
    context = details.get("ctx", {})
    match details["type"]:
        case "missing":
            parent = _dotted(location[:-1])
            message = f"missing key {location[-1]!r}" + (f" in {parent}" if parent else "")
            return source.diagnostic(location[:-1], message, key=True)
        case "extra_forbidden":
            return source.diagnostic(location, _unknown_key(location), key=True)
        case "invalid_key":
            return source.diagnostic(location, f"key {location[-1]!r} must be a word", key=True)
        case "literal_error":
            allowed = _allowed_values(location)
            message = f"{where}: {_shown(value)} is not one of {', '.join(map(str, allowed))}"
            message += _nearest(value, allowed)
        case "int_type" | "int_from_float" | "int_parsing":
            message = f"{where}: {_shown(value)} is not a whole number"
            message += _without_unit(location, value)
        case "float_type" | "float_parsing":
            message = f"{where}: {_shown(value)} is not a number"
            message += _without_unit(location, value)
        case "finite_number":
            message = f"{where}: {_shown(value)} is not a finite number"
        case "bool_type":
            message = f"{where}: {_shown(value)} is not true or false"
        case "string_type":
            message = f"{where}: {_shown(value)} is not text; write it in quotes"
        case "list_type":
            message = f"{where}: {_shown(value)} is not a list"
            if isinstance(value, (str, int, float)):
                named = _named(location, value)
                message += f"; write [{value if named is None else named}]"
        case "dict_type" | "model_type" | "model_attributes_type":
            message = f"{where}: {_shown(value)} is not a mapping of keys to values"
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
            message = f"{where}: {_shown(value)} must be greater than {context['gt']}"
        case "greater_than_equal":
            message = f"{where}: {_shown(value)} must be at least {context['ge']}"
        case "less_than":
            message = f"{where}: {_shown(value)} must be less than {context['lt']}"
        case "less_than_equal":
            message = f"{where}: {_shown(value)} must be at most {context['le']}"
        case "too_short":
            message = f"{where}: the list is empty; give at least one entry"
        case "string_pattern_mismatch":
            message = (
                f"{where}: {_shown(value)} must begin with a letter or digit and hold only "
                "letters, digits, '.', '_' and '-'"
            )
        case "string_too_long":
            message = f"{where}: longer than {context['max_length']} characters"
        case "value_error":
            message = f"{where}: {_shown(value)} {context['error']}"
        case _:
            message = f"{where}: {_shown(value)}: {details['msg']}"
    return source.diagnostic(location, message)


def _without_unit(location: Sequence[str | int], value: Any) -> str:
    """Return how to write a number that was given with its unit, or nothing."""
    found = re.fullmatch(r"\s*([-+]?[0-9.]+)\s*([A-Za-zµμ%]+)\s*", value) if isinstance(
        value, str
    ) else None  # fmt: skip
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


def _as_mapping(location: Sequence[str | int], value: Any) -> str:
    """Return how to write the mapping for which a plain value was given, or nothing."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return ""
    named = _named(location, value)
    if named is not None:
        return f"; write {named}"
    if isinstance(value, str):
        return ""
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


def _unknown_key(location: tuple[str | int, ...], allowed: Sequence[str] | None = None) -> str:
    allowed = _allowed_keys(location[:-1]) if allowed is None else allowed
    parent = _dotted(location[:-1])
    where = f" in {parent}" if parent else ""
    return (
        f"unknown key {str(location[-1])!r}{where}{_nearest(location[-1], allowed)} "
        f"(allowed: {', '.join(allowed)})"
    )


def _location(loc: Sequence[str | int], raw: Any) -> tuple[str | int, ...]:
    # pydantic adds markers such as "[key]" behind the keys that exist in the file.
    return tuple(step for step in loc if step != "[key]")


def _allowed_keys(location: Sequence[str | int]) -> list[str]:
    annotation = _annotation(location)
    if annotation is ConstraintsConfig:
        return _metric_names()
    return list(annotation.model_fields) if annotation is not None else []


def _unknown_constraints(raw: Mapping[str, Any]) -> Iterator[tuple[str | int, ...]]:
    """Yield the places of constraints that are no metric, built in or registered."""
    search = raw.get("search")
    constraints = search.get("constraints") if isinstance(search, Mapping) else None
    if isinstance(constraints, Mapping):
        names = _metric_names()
        yield from (("search", "constraints", key) for key in constraints if key not in names)


def _metric_names() -> list[str]:
    """Return the names of metrics, the built-in ones in the order of the schema."""
    registry_for("task").names()  # knows the metrics of tasks once it is read
    return list(dict.fromkeys([*ConstraintsConfig.model_fields, *METRICS]))


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


# --------------------------------------------------------------- what is checked beyond it


def _sound_sections(
    raw: Mapping[str, Any], broken: Iterable[tuple[str | int, ...]]
) -> dict[str, Any]:
    """Return the top-level values that are valid once the broken keys are left out."""
    pruned = _without(raw, set(broken), ())
    sections: dict[str, Any] = {}
    for name, field in Job.model_fields.items():
        if name not in raw:
            if not field.is_required():
                sections[name] = field.get_default(call_default_factory=True)
        elif name in pruned:
            found = _salvaged(name, field.annotation, pruned)
            if found is not None:
                sections[name] = found
    return sections


def _salvaged(name: str, annotation: Any, pruned: Mapping[str, Any]) -> Any:
    """Return the section without its unsound parts, or None where nothing sound is left."""
    adapter = TypeAdapter(annotation)
    for _ in range(3):
        try:
            return adapter.validate_python(pruned[name])
        except ValidationError as error:
            # A list with an unsound entry is left out as a whole: its places must keep fitting.
            unsound = {
                tuple(
                    itertools.takewhile(lambda step: isinstance(step, str), (name, *e["loc"][:-1]))
                )
                for e in error.errors(include_url=False)
            }
            pruned = _without(pruned, unsound, ())
            if name not in pruned:
                return None
    return None


def _without(value: Any, broken: Set[tuple[str | int, ...]], here: tuple[str | int, ...]) -> Any:
    if isinstance(value, dict):
        return {
            key: _without(item, broken, (*here, key))
            for key, item in value.items()
            if (*here, key) not in broken
        }
    if isinstance(value, list):
        # Entries keep their places, so that locations still fit the file.
        return [_without(item, broken, (*here, i)) for i, item in enumerate(value)]
    return value


def _cross_findings(sections: Mapping[str, Any], folder: Path) -> Iterator[Finding]:
    metric = None
    if "task" in sections:
        unknown = list(_unknown_name("task", ("task",), sections["task"]))
        yield from unknown
        if not unknown:
            metric = registry_for("task").get(sections["task"])
    data = sections.get("data")
    if data is not None:
        yield from _check_data(data, folder)
    if sections.get("space") is not None:
        yield from _check_space(sections["space"], folder)
        if metric is not None:
            yield from _check_answers(sections["task"], metric, sections["space"])
    if sections.get("supernet") is not None:
        yield from _check_supernet(sections["supernet"], folder)
        if sections.get("space") is not None:
            yield from _check_epochs(sections["space"], sections["supernet"])
    if sections.get("budget") is not None:
        yield from _check_budget(
            sections["budget"], sections.get("supernet"), sections.get("finetune")
        )
    if sections.get("finetune") is not None:
        yield from _check_reconstruction(sections["finetune"])
    if sections.get("space") is not None:
        yield from _check_one_bit(sections["space"], sections.get("supernet"))
    devices = sections.get("devices")
    if devices is not None:
        yield from _check_devices(devices, folder)
    if sections.get("latency") is not None:
        yield from _check_latency(sections["latency"], folder)
    if sections.get("protocol") is not None:
        yield from _check_protocol(sections["protocol"])
    if sections.get("search") is not None:
        yield from _check_search(sections["search"], devices, metric)
        yield from _check_strategy_options(sections["search"])
        yield from _check_warm_start(sections["search"], folder)
    if sections.get("study") is not None:
        yield from _check_study(sections["study"])
    if "export" in sections:
        yield from _check_export(sections["export"])
    if "executor" in sections:
        yield from _unknown_name("executor", ("executor",), sections["executor"])
        yield from _check_executor(sections)


def _check_data(data: DataConfig, folder: Path) -> Iterator[Finding]:
    unknown = list(_unknown_name("data.name", ("data", "name"), data.name))
    yield from unknown
    if data.options and not unknown:
        source = registry_for("data.name").get(data.name)
        what = f"data source {data.name!r}"
        yield from _unknown_options(
            ("data", "options"), data.options, source, what, own=("config", "kind")
        )
    if data.path is not None and not data.download and not (folder / data.path).is_dir():
        what = "is not a folder" if (folder / data.path).exists() else "does not exist"
        yield ("data", "path"), f"data.path: {folder / data.path} {what}"
    if data.path is None and data.download:
        yield ("data", "download"), "data.path: say in which folder the download is to be kept"
    elif data.path is None and data.name in ("cifar10", "cifar100", "image_folder"):
        yield ("data", "name"), f"data.path: {data.name} needs the folder that holds it"


def _check_space(space: SpaceConfig, folder: Path) -> Iterator[Finding]:
    # A function of the user's own, "module:function", is not registered.
    own = ":" in space.name
    found = [] if own else list(_unknown_name("space.name", ("space", "name"), space.name))
    yield from found
    if found:
        return
    if not own and not issubclass(SPACES.get(space.name), PlannedSpace):
        yield (
            ("space", "name"),
            f"space.name: the space {space.name!r} has no networks to train; it is one of latency "
            "tables (see nas latency)",
        )
        return
    config = dict(space.overrides)
    taken = [key for key in ("input_channels", "outputs") if key in config]
    if taken:
        yield ("space", taken[0]), f"space.{taken[0]}: follows from the data; leave it out"
        return
    base = {} if space.preset is None else {"preset": space.preset}
    if own:
        if space.name == MODULE_SPACE:
            config |= network_files(config, folder)
        message = _space_problem(space.name, {**base, **config})
        if message is not None:
            yield ("space", "name"), f"space: {message}"
        return
    # Each parameter alone first, so that every wrong one is told; then all of them together.
    trials = [base, *({**base, key: config[key]} for key in config)]
    for trial, key in zip(trials, ["preset", *config], strict=True):
        message = _space_problem(space.name, trial)
        if message is not None:
            yield ("space", key) if key != "preset" or base else ("space",), f"space: {message}"
            if key == "preset":
                return
            found.append((("space", key), message))
    if not found:
        message = _space_problem(space.name, {**base, **config})
        if message is not None:
            yield ("space",), f"space: {message}"


def _check_answers(name: str, task: Any, space: SpaceConfig) -> Iterator[Finding]:
    """Tell a space whose networks answer for something else than the task asks."""
    if ":" in space.name or space.name == MODULE_SPACE or space.name not in SPACES:
        return  # a module's outputs are known once it is made
    found: Any = SPACES.get(space.name)
    if not issubclass(found, PlannedSpace) or task.answers == found.ANSWERS:
        return
    fitting = [n for n in SPACES if getattr(SPACES.get(n), "ANSWERS", None) == task.answers]
    words = {"one": "once for a whole example", "cells": "for the cells of an image",
             "grid": "for every place of an image"}  # fmt: skip
    yield (
        ("space", "name"),
        f"space.name: networks of {space.name!r} answer {words.get(found.ANSWERS, found.ANSWERS)}, "
        f"and the task {name} needs answers {words.get(task.answers, task.answers)}; use "
        f"{', '.join(fitting) or 'a space of your own'}",
    )


def _check_one_bit(space: SpaceConfig, supernet: SupernetConfig | None) -> Iterator[Finding]:
    """Weights of 1 bit have a quantiser of their own, which the default is not."""
    bits = space.overrides.get("weight_bits")
    quantizers = None if supernet is None else supernet.quantizers
    default = quantizers is None or "weights" not in quantizers.model_fields_set
    if isinstance(bits, (list, tuple)) and 1 in bits and default:
        yield (
            ("space", "weight_bits"),
            "space.weight_bits: weights of 1 bit need a quantiser that serves them; add "
            "supernet.quantizers.weights: {default: lsq, 1: binary}",
        )


def _space_problem(name: str, config: Mapping[str, Any]) -> str | None:
    try:
        if ":" in name:
            require_trust_of_space(name, config)
        build_space(name, **config)
    except InputError as error:
        return str(error)
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        # A value of a shape the space never expected, such as a word for a list.
        return f"the parameters do not fit the space {name!r}: {error}"
    return None


def _check_supernet(supernet: SupernetConfig, folder: Path) -> Iterator[Finding]:
    if supernet.epochs is not None and supernet.minutes is not None:
        yield ("supernet", "minutes"), "supernet.minutes: give either epochs or minutes, not both"
    if supernet.init_from is not None:
        path = folder / supernet.init_from
        at = ("supernet", "init_from")
        if not path.is_file():
            yield at, f"supernet.init_from: {path} does not exist"
        elif path.suffix != ".safetensors":
            yield at, f"supernet.init_from: {path} is not a .safetensors file"
    if supernet.focus is not None:
        path = folder / supernet.focus.run
        if not (path / "manifest.json").is_file():
            yield (
                ("supernet", "focus", "run"),
                f"supernet.focus.run: {path} is no run folder: it has no manifest.json",
            )
    if supernet.teacher is not None:
        yield from _check_teacher(supernet.teacher, folder)
    yield from _unknown_name("supernet.schedule", ("supernet", "schedule"), supernet.schedule)
    if supernet.quantizers.model_fields_set:
        # Imports torch, so only where the defaults, which are known, are replaced.
        from nas.stages.build_supernet import quantizer_scheme

        try:
            quantizer_scheme(supernet)
        except InputError as error:
            yield ("supernet", "quantizers"), f"supernet.quantizers: {error}"
    stages = supernet.bits_schedule or []
    for i in range(1, len(stages)):
        if stages[i].start <= stages[i - 1].start:
            yield (
                ("supernet", "bits_schedule", i, "start"),
                f"supernet.bits_schedule.{i}.start: {stages[i].start:g} must be greater than the "
                f"stage before it ({stages[i - 1].start:g})",
            )
    if stages and stages[0].start != 0:
        yield (
            ("supernet", "bits_schedule", 0, "start"),
            "supernet.bits_schedule.0.start: the first stage must start at 0",
        )


def _check_reconstruction(finetune: FinetuneConfig) -> Iterator[Finding]:
    if finetune.reconstruct and finetune.epochs is None:
        yield (
            ("finetune", "reconstruct"),
            "finetune.reconstruct: say finetune.epochs too (0 trains nothing after it)",
        )


def _check_teacher(teacher: TeacherConfig, folder: Path) -> Iterator[Finding]:
    files = network_files(vars(teacher), folder)
    model, weights = str(files.get("model", teacher.model)), files.get("weights")
    place = model if model.endswith(".onnx") else model.rpartition(":")[0]
    if place.endswith((".onnx", ".py")) and not Path(place).is_file():
        yield ("supernet", "teacher", "model"), f"supernet.teacher.model: {place} is no file"
    if weights is not None and not Path(weights).is_file():
        yield ("supernet", "teacher", "weights"), f"supernet.teacher.weights: {weights} is no file"
    if ":" in model and not model.startswith(OTHERS_NETWORKS):
        try:
            require_trust(model)
        except InputError as error:
            yield ("supernet", "teacher", "model"), f"supernet.teacher.model: {error}"


def _check_epochs(space: SpaceConfig, supernet: SupernetConfig) -> Iterator[Finding]:
    """No training at all leaves random weights, unless they come from elsewhere."""
    if supernet.epochs == 0 and supernet.init_from is None and ":" not in space.name:
        yield (
            ("supernet", "epochs"),
            f"supernet.epochs: 0 leaves the random weights of {space.name}; give epochs, "
            "supernet.init_from, or a network that comes trained (space.name: module)",
        )


def _check_budget(
    budget: BudgetConfig, supernet: SupernetConfig | None, finetune: FinetuneConfig | None
) -> Iterator[Finding]:
    if (budget.minutes is None) == (budget.cpu_minutes is None):
        both = budget.minutes is not None
        yield (
            ("budget", "cpu_minutes") if both else ("budget",),
            "budget: give minutes of the wall clock or cpu_minutes of processors"
            + (", not both" if both else ""),
        )
    # What divides the time a second time.
    for section, config, keys in (
        ("supernet", supernet, ("epochs", "minutes", "warmup_epochs")),
        ("finetune", finetune, ("epochs",)),
    ):
        given = set() if config is None else config.model_fields_set
        for key in keys:
            if key in given and getattr(config, key) is not None:
                yield (
                    (section, key),
                    f"{section}.{key}: the budget divides the time; leave {key} out, or leave "
                    "out budget",
                )


def _check_devices(devices: Sequence[DeviceConfig], folder: Path) -> Iterator[Finding]:
    first: dict[str, int] = {}
    for i, device in enumerate(devices):
        if device.name in first:
            yield (
                ("devices", i, "name"),
                f"devices.{i}.name: {device.name!r} is the name of device {first[device.name]} "
                "too; names must differ",
            )
        first.setdefault(device.name, i)
        yield from _check_hub(device, i, folder)
        yield from _check_simulator(device, i, folder)
        if device.simulator is not None:
            continue
        if device.hub is not None:
            continue  # which runtimes and parameters a board has, its agent knows
        unknown = list(_unknown_name("devices.runtime", ("devices", i, "runtime"), device.runtime))
        yield from unknown
        if not unknown:
            yield from _check_runtime(device, i)


def _check_hub(device: DeviceConfig, i: int, folder: Path) -> Iterator[Finding]:
    where = f"devices.{i}"
    if device.hub is None:
        for key in ("token_file", "device", "ca", "cert", "key"):
            if getattr(device, key) is not None:
                yield (
                    ("devices", i, key),
                    f"{where}.{key}: belongs to a board behind a hub; name the hub too",
                )
        return
    try:
        check_address(device.hub)
    except InputError as error:
        yield ("devices", i, "hub"), f"{where}.hub: {error}"
    if device.token_file is None:
        yield ("devices", i, "hub"), f"{where}: a hub needs token_file, the file with a token"
    for key in ("token_file", "ca", "cert", "key"):
        value = getattr(device, key)
        if value is not None and not (folder / value).is_file():
            yield ("devices", i, key), f"{where}.{key}: {folder / value} is no file"


def _check_simulator(device: DeviceConfig, i: int, folder: Path) -> Iterator[Finding]:
    where = f"devices.{i}"
    if device.simulator is None:
        if device.hardware is not None:
            yield (
                ("devices", i, "hardware"),
                f"{where}.hardware: belongs to a simulator; name the simulator too",
            )
        return
    if device.hub is not None:
        yield ("devices", i, "simulator"), f"{where}: give either a hub or a simulator, not both"
    if device.hardware is None:
        yield (
            ("devices", i, "simulator"),
            f"{where}.hardware: say what {device.simulator} simulates",
        )
    elif device.simulator == "roofline":
        from devices.simulators.hardware import read_hardware

        try:
            read_hardware(hardware_of(device, folder))
        except InputError as error:
            yield ("devices", i, "hardware"), f"{where}.hardware: {error}"
    else:
        from devices.simulators.vela import accelerators

        if device.hardware not in accelerators():
            yield (
                ("devices", i, "hardware"),
                f"{where}.hardware: unknown accelerator {device.hardware!r} (available: "
                f"{', '.join(accelerators())})",
            )


def hardware_of(device: DeviceConfig, folder: Path) -> str:
    """Return a simulator's hardware: a name as it is, a path absolute."""
    named = str(device.hardware)
    return str((folder / named).resolve()) if named.endswith(".json") else named


def _check_latency(latency: LatencyConfig, folder: Path) -> Iterator[Finding]:
    yield from _unknown_name("latency.predictor", ("latency", "predictor"), latency.predictor)
    known = latency.known_devices
    if known not in (None, "packaged") and not (folder / known).is_file():
        problem = "is not a file" if (folder / known).exists() else "does not exist"
        yield (
            ("latency", "known_devices"),
            f"latency.known_devices: {folder / known} {problem}; give a table's path, "
            "packaged, or null",
        )


def _check_runtime(device: DeviceConfig, i: int) -> Iterator[Finding]:
    base = {"threads": device.threads, "batch": device.batch}
    found = False
    for key, value in device.options.items():
        message = _runtime_problem(device.runtime, {**base, key: value})
        if message is not None:
            found = True
            yield ("devices", i, "options", key), f"devices.{i}: {message}"
    if not found:
        message = _runtime_problem(device.runtime, {**base, **device.options})
        if message is not None:
            yield ("devices", i), f"devices.{i}: {message}"


def _runtime_problem(name: str, parameters: Mapping[str, Any]) -> str | None:
    try:
        make_runtime(name, parameters)
    except InputError as error:
        return str(error)
    except EnvironmentProblem:
        # Not a mistake in the file: the run says what this machine lacks, if it measures here.
        return None
    return None


def _check_protocol(protocol: BaseModel) -> Iterator[Finding]:
    for key in sorted(protocol.model_fields_set):
        try:
            Protocol.from_json({key: getattr(protocol, key)})
        except InputError as error:
            yield ("protocol", key), str(error)


def _check_search(
    search: SearchConfig, devices: Sequence[DeviceConfig] | None, task: Any
) -> Iterator[Finding]:
    yield from _unknown_name("search.strategy", ("search", "strategy"), search.strategy)
    names = None if devices is None else [device.name for device in devices]
    known = _quantities(task)
    if "objectives" in search.model_fields_set:
        yield from _check_objectives(search.objectives, names, known, task)
    yield from _check_constraints(search.constraints, names, known, task)
    metric = None if task is None else task.metric_name
    if search.early_stopping is not None and task is not None and not task.can_stop_early():
        yield (
            ("search", "early_stopping"),
            f"search.early_stopping: a part of the images says nothing certain of {metric}; "
            "leave early_stopping out",
        )
    if search.evaluations < search.initial:
        yield (
            ("search", "evaluations"),
            f"search.evaluations: {search.evaluations} must be at least search.initial "
            f"({search.initial})",
        )
    if search.front_size > search.evaluations:
        yield (
            ("search", "front_size"),
            f"search.front_size: {search.front_size} must be at most search.evaluations "
            f"({search.evaluations})",
        )


def _check_study(study: str) -> Iterator[Finding]:
    scheme, mark, rest = study.partition("://")
    if not mark or not scheme:
        yield (
            ("study",),
            f"study: {without_password(study)!r} is no database URL; write sqlite:///{study} for "
            "a file, or postgresql+psycopg2://user@host/name",
        )
    elif scheme.split("+")[0] == "sqlite" and len(rest) < 2:
        yield ("study",), f"study: {study!r} names no file; write sqlite:///shared.db"


def _check_warm_start(search: SearchConfig, folder: Path) -> Iterator[Finding]:
    if search.warm_start is None:
        return
    path = folder / search.warm_start
    if not (path / "manifest.json").is_file():
        yield (
            ("search", "warm_start"),
            f"search.warm_start: {path} is no run folder: it has no manifest.json",
        )


def _check_export(export: ExportConfig) -> Iterator[Finding]:
    for i, name in enumerate(export.formats):
        at = ("export", "formats", i)
        unknown = list(_unknown_name("export.formats", at, name))
        yield from unknown
        if name in export.formats[:i]:
            yield at, f"export.formats: {name!r} is there twice"
        elif not unknown and name != "onnx":  # which the run writes in any case
            try:
                registry_for("export.formats").get(name).require()
            except EnvironmentProblem as error:
                yield at, f"export.formats: {error}"


def _check_executor(sections: Mapping[str, Any]) -> Iterator[Finding]:
    name, workers = sections["executor"], sections.get("workers")
    registry = registry_for("executor")
    if name not in registry:
        return
    if name == "local" and workers not in (None, 1):
        yield (
            ("workers",),
            f"workers: executor 'local' has one worker, not {workers}; use executor: processes",
        )
    yield from _unknown_options(
        ("executor_options",),
        sections.get("executor_options") or {},
        registry.get(name),
        f"executor {name!r}",
        own=("workers",),
    )


def _check_strategy_options(search: SearchConfig) -> Iterator[Finding]:
    registry = registry_for("search.strategy")
    if search.strategy not in registry:
        return
    make = registry.get(search.strategy)
    at, what = ("search", "options"), f"strategy {search.strategy!r}"
    # The first batch has a key of its own, which holds for every strategy.
    own = ("problem", "seed", "initial")
    wrong = list(_unknown_options(at, search.options, make, what, own=own))
    yield from wrong
    if wrong:
        return
    for key, value in search.options.items():
        message = _strategy_problem(make, {key: value})
        if message is not None:
            yield (*at, key), f"search.options.{key}: {message}"
            return
    message = _strategy_problem(make, search.options)
    if message is not None:
        yield at, f"search.options: {message}"
        return
    if "initial" in inspect.signature(make).parameters:
        message = _strategy_problem(make, {**search.options, "initial": search.initial})
        if message is not None:
            yield ("search", "initial"), f"search.initial: {message}"


def _strategy_problem(make: Any, options: Mapping[str, Any]) -> str | None:
    """Return what a strategy says against options, asked about the smallest problem there is."""
    from nas.fronts.metrics import Goal, Metric
    from nas.strategies import Exact, Problem
    from search_spaces.space import Choice, SearchSpace

    space = SearchSpace("check", [Choice("a", (0, 1))])
    surrogates = {"macs": Exact(lambda genes: genes[:, 0].astype(float))}
    try:
        make(Problem(space, [Goal(Metric("macs"))], surrogates=surrogates), seed=0, **options)
    except (InputError, TypeError, ValueError) as error:
        return str(error)
    return None


def _unknown_options(
    at: tuple[str, ...],
    options: Mapping[str, Any],
    make: Any,
    what: str,
    *,
    own: Sequence[str],
) -> Iterator[Finding]:
    """Yield the options that a factory does not take; ``own`` are set by the framework."""
    accepted = inspect.signature(make).parameters
    if any(p.kind is p.VAR_KEYWORD for p in accepted.values()):
        return
    known = [key for key in accepted if key not in ("self", *own)]
    for key in options:
        if key not in known:
            told = f"options: {', '.join(known)}" if known else "it has none"
            yield (
                (*at, key),
                f"{_dotted(at)}: unknown option {key!r} of {what}{_nearest(key, known)} ({told})",
            )


def _quantities(task: Any) -> list[str]:
    """Return what a job may bound and trade off; ``task`` is its class, None for an unknown one.

    Metrics of other tasks are left out. Those that nothing gives are there, to be told as such.
    """
    names = _metric_names()
    if task is None:
        return names
    tasks = registry_for("task")
    others = {tasks.get(name).metric_name for name in tasks} - {task.metric_name}
    if not task.compares_classes():
        others.add("worst_class_accuracy")
    return [name for name in names if name not in others]


def _gives_value(name: str, task: Any) -> bool:
    """Whether a run of ``task`` has a value of the metric ``name``."""
    known = name in ConstraintsConfig.model_fields or METRICS.get(name).cost is not None
    return known or task is None or name == task.metric_name


def _check_objectives(
    objectives: Sequence[str],
    devices: Sequence[str] | None,
    allowed: Sequence[str],
    task: Any,
) -> Iterator[Finding]:
    for i, text in enumerate(objectives):
        at = ("search", "objectives", i)
        where = f"search.objectives.{i}"
        name, bracket, rest = text.partition("[")
        device = rest.removesuffix("]")
        if name not in allowed:
            yield (
                at,
                f"{where}: unknown objective {name!r}{_nearest(name, allowed)} "
                f"(allowed: {', '.join(allowed)})",
            )
        elif not _gives_value(name, task):
            yield at, f"{where}: {_without_value(name)}"
        elif bracket and not METRICS.get(name).per_device:
            yield at, f"{where}: {name} does not depend on a device; write {name}"
        elif bracket and (not rest.endswith("]") or not device):
            yield at, f"{where}: {text!r} is not of the form {name}[DEVICE]"
        elif bracket and devices is not None and device not in devices:
            yield at, f"{where}: {_no_device(device, devices)}"
        if text in objectives[:i]:
            yield at, f"{where}: {text!r} is given twice"


def _check_constraints(
    constraints: ConstraintsConfig,
    devices: Sequence[str] | None,
    allowed: Sequence[str],
    task: Any,
) -> Iterator[Finding]:
    for name in (*ConstraintsConfig.model_fields, *(constraints.model_extra or {})):
        limit = getattr(constraints, name)
        at = ("search", "constraints", name)
        if limit is not None and limit != {} and name not in allowed:
            yield at, _unknown_key(at, allowed)
        elif not _gives_value(name, task):
            yield at, f"{_dotted(at)}: {_without_value(name)}"
        elif isinstance(limit, Bound):
            yield from _check_bound(limit, at)
        elif limit is not None:
            for device, bound in limit.items():
                if devices is not None and device not in devices and device not in ("min", "max"):
                    yield (*at, device), f"{_dotted((*at, device))}: {_no_device(device, devices)}"
                yield from _check_bound(bound, (*at, device))


def _check_bound(bound: Bound, at: tuple[str | int, ...]) -> Iterator[Finding]:
    where = _dotted(at)
    if bound.min is None and bound.max is None:
        yield at, f"{where}: give min, max or both"
    elif bound.min is not None and bound.max is not None and bound.min > bound.max:
        yield (*at, "min"), f"{where}: min {bound.min:g} is greater than max {bound.max:g}"
    share = at[-1] in METRICS and METRICS.get(str(at[-1])).share
    for side, value in (("min", bound.min), ("max", bound.max)):
        if value is None:
            continue
        # Every metric is a share, a count, a size or a time; a task's own may be anything.
        own = at[-1] not in ConstraintsConfig.model_fields and len(at) == 3 and not share
        if own:
            continue
        if value < 0:
            yield (*at, side), f"{where}.{side}: {value:g} must not be negative"
        elif value == 0 and side == "max":
            yield (*at, side), f"{where}.max: 0 must be greater than 0"
        elif share and value > 1:
            words = "accuracies" if "accuracy" in str(at[-1]) else "shares"
            percent = f"; for {value:g} % write {value / 100:g}" if value <= 100 else ""
            yield (*at, side), f"{where}.{side}: {words} are 0 to 1{percent}"


def _unknown_name(key: str, at: tuple[str | int, ...], name: str) -> Iterator[Finding]:
    registry = registry_for(key)
    if name not in registry:
        known = registry.names()
        yield (
            at,
            f"{_dotted(at)}: unknown {registry.kind} {name!r}{_nearest(name, known)} "
            f"(available: {', '.join(known)})",
        )


def _without_value(name: str) -> str:
    return f"the metric {name!r} is registered without a cost, so nothing gives its value"


def _no_device(name: str, devices: Sequence[str]) -> str:
    return f"there is no device {name!r}{_nearest(name, devices)} (devices: {', '.join(devices)})"


# ------------------------------------------------------------------------------- wording


def _nearest(word: Any, known: Iterable[Any]) -> str:
    near = difflib.get_close_matches(str(word), [str(k) for k in known], n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _dotted(location: Iterable[str | int]) -> str:
    return ".".join(map(str, location))


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (dict, list)):
        return _kind(value)
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _kind(value: Any) -> str:
    names = {dict: "a mapping", list: "a list", str: "text", bool: "true or false"}
    return names.get(type(value), "a number" if isinstance(value, (int, float)) else "nothing")


def _with_absolute_network(space: SpaceConfig, folder: Path) -> SpaceConfig:
    """Return the section with the files of a network of the user's own made absolute."""
    if space.name != MODULE_SPACE:
        return space
    return space.model_copy(update=network_files(space.overrides, folder))


def _absolute_teacher(teacher: TeacherConfig | None, folder: Path) -> TeacherConfig | None:
    if teacher is None:
        return None
    return teacher.model_copy(update=network_files(vars(teacher), folder))


def network_files(parameters: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return ``model`` and ``weights`` of a space, files among them relative to ``folder``."""
    found: dict[str, Any] = {}
    model, weights = parameters.get("model"), parameters.get("weights")
    if isinstance(model, str):
        place, mark, function = model.rpartition(":")
        if model.endswith(".onnx"):
            found["model"] = str((folder / Path(model).expanduser()).resolve())
        elif place.endswith(".py"):
            path = str((folder / Path(place).expanduser()).resolve())
            found["model"] = f"{path}{mark}{function}"
    if isinstance(weights, str):
        found["weights"] = str((folder / Path(weights).expanduser()).resolve())
    return found


def _with_absolute_paths(job: Job, folder: Path) -> Job:
    def absolute(path: str | None) -> str | None:
        return None if path is None else str((folder / Path(path).expanduser()).resolve())

    def database(url: str | None) -> str | None:
        # A relative file would be another one for a run that is resumed from elsewhere.
        scheme, mark, path = (url or "").partition(":///")
        return f"{scheme}{mark}{absolute(path)}" if scheme.startswith("sqlite") and path else url

    return job.model_copy(
        update={
            "study": database(job.study),
            "space": _with_absolute_network(job.space, folder),
            "data": job.data.model_copy(update={"path": absolute(job.data.path)}),
            "devices": [
                device.model_copy(
                    update={
                        "token_file": absolute(device.token_file),
                        "ca": absolute(device.ca),
                        "cert": absolute(device.cert),
                        "key": absolute(device.key),
                        "hardware": None
                        if device.hardware is None
                        else hardware_of(device, folder),
                    }
                )
                for device in job.devices
            ],
            "latency": job.latency.model_copy(
                update={
                    "known_devices": job.latency.known_devices
                    if job.latency.known_devices == "packaged"
                    else absolute(job.latency.known_devices)
                }
            ),
            "search": job.search.model_copy(update={"warm_start": absolute(job.search.warm_start)}),
            "supernet": job.supernet.model_copy(
                update={
                    "init_from": absolute(job.supernet.init_from),
                    "teacher": _absolute_teacher(job.supernet.teacher, folder),
                    "focus": None
                    if job.supernet.focus is None
                    else job.supernet.focus.model_copy(
                        update={"run": absolute(job.supernet.focus.run)}
                    ),
                }
            ),
        }
    )
