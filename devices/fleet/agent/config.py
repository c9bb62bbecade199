"""What a board's owner lets the agent do: a YAML file on the board, out of any client's reach."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from devices.fleet.messages import Name
from devices.measuring.protocol import Protocol
from devices.runtimes.command import CommandConfig, read_command_configs
from devices.untrusted.model_check import ModelLimits
from search_spaces.errors import InputError

OPT_IN = frozenset({"command", "executorch", "inductor"})
"""Runtimes offered only when the configuration names them: ``command`` runs what the board's
owner lists in ``commands``, the others load torch, which takes a board much memory and time."""

_SAFE_TEXT = re.compile(r"[\w.+-]{0,64}", flags=re.ASCII)
# Parameters that could make a runtime read, write or load something.
_RISKY = frozenset(
    {"path", "paths", "dir", "directory", "file", "files", "lib", "library", "command", "python"}
    | {"arguments", "env", "environment", "plugin", "plugins", "options"}
)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class AgentLimits(_Section):
    """The largest job the agent takes; a larger one is refused, never trimmed."""

    model_mib: Annotated[int, Field(ge=1)] = 256
    elements: Annotated[int, Field(ge=1)] = 1 << 27
    memory_mib: Annotated[int, Field(ge=64)] = 4096
    deadline_s: Annotated[float, Field(gt=0)] = 600.0
    processes: Annotated[int, Field(ge=2)] = 50
    runs: Annotated[int, Field(ge=2)] = 10_000
    models: Annotated[int, Field(ge=1, le=64)] = 8
    """Models measured together, interleaved."""
    cache_mib: Annotated[int, Field(ge=0)] = 512
    """Model files kept for the next measurement."""


class AgentConfig(_Section):
    """An agent's settings.

    Attributes:
        name: of the board; by default the one its token is bound to.
        runtimes: name -> parameters that are fixed on this board and that no job can set;
            without the key every installed runtime is offered but those of
            :data:`OPT_IN`.
        commands: programs of this board that time a model themselves; jobs name one by
            ``runtime: command`` and the option ``tool``. Listing any offers the runtime.
        accelerator: when the board's measurements do not disturb those of another agent on
            it, a name for what this one measures on; agents with the same name take turns.
        limits: see :class:`AgentLimits`.
    """

    name: Name | None = None
    runtimes: dict[Name, dict[str, Any]] | None = None
    commands: list[CommandConfig] = []
    accelerator: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{0,32}$")] = ""
    limits: AgentLimits = AgentLimits()

    @classmethod
    def load(cls, path: Path | None) -> AgentConfig:
        """Read a file; the defaults without one.

        Raises:
            InputError: it cannot be read, or a key is unknown or out of range.
        """
        if path is None:
            return cls()
        try:
            value = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise InputError(f"{path} is no YAML: {error}") from None
        if value is None:
            return cls()
        if not isinstance(value, dict):
            raise InputError(f"{path} must hold a mapping, such as: name: my-board")
        if isinstance(value.get("runtimes"), dict):  # "onnxruntime:" alone fixes nothing
            value["runtimes"] = {name: fixed or {} for name, fixed in value["runtimes"].items()}
        if "commands" in value:
            tools = read_command_configs(value["commands"], source=str(path))
            value["commands"] = list(tools.values())
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            lines = [
                f"{path}: {'.'.join(map(str, item['loc']))}: {item['msg']}"
                for item in error.errors(include_url=False)
            ]
            raise InputError("\n".join(lines)) from None

    @property
    def model_limits(self) -> ModelLimits:
        """What a model file may ask for here."""
        return ModelLimits(bytes=self.limits.model_mib << 20, elements=self.limits.elements)

    def offers(self, runtime: str) -> bool:
        """Whether jobs may use a runtime here."""
        if runtime == "command":
            return bool(self.commands)
        if self.runtimes is not None:
            return runtime in self.runtimes
        return runtime not in OPT_IN

    def parameters(self, runtime: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Return a runtime's parameters: the job's, and those fixed here.

        Raises:
            InputError: the job sets one that is fixed here, or that could make a runtime
                read, write or load something.
        """
        fixed = (self.runtimes or {}).get(runtime, {})
        for name, value in asked.items():
            if name in fixed:
                raise InputError(f"parameter {name!r} of {runtime} is fixed on this board")
            _require_harmless(name, value)
        return {**asked, **fixed}

    def protocol(self, asked: Mapping[str, Any]) -> Protocol:
        """Return a job's protocol.

        Raises:
            InputError: it asks for more than the limits, which would have to be trimmed and
                so be another measurement.
        """
        protocol = Protocol.from_json(asked)
        for name, value, most in (
            ("processes", protocol.processes, self.limits.processes),
            ("runs", protocol.runs, self.limits.runs),
            ("deadline_s", protocol.deadline_s, self.limits.deadline_s),
            ("memory_limit_mib", protocol.memory_limit_mib, self.limits.memory_mib),
            ("warmup_max_s", protocol.warmup_max_s, self.limits.deadline_s),
            ("retries", protocol.retries, 20),
        ):
            if value is None or value > most:
                raise InputError(f"protocol {name} is {value}, this board allows {most:g} at most")
        return protocol


def host_name() -> str:
    """Return this machine's name in the form a device's has."""
    name = re.sub(r"[^A-Za-z0-9_.+-]", "-", platform.node()).lstrip("_.+-")
    return name[:64] or "board"


def _require_harmless(name: str, value: Any) -> None:
    if _RISKY.intersection(re.split(r"[^a-z]+", name.lower())):
        raise InputError(
            f"parameter {name!r} can be set on the board only, in its agent's configuration"
        )
    if isinstance(value, Mapping):
        for key, item in value.items():
            _require_harmless(str(key), item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _require_harmless(name, item)
    elif isinstance(value, str) and not _SAFE_TEXT.fullmatch(value):
        raise InputError(f"parameter {name!r} may hold only letters, digits and . _ + -")
