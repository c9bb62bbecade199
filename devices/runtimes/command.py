"""Boards and vendor tools without Python bindings: a program that times the model itself.

The program is configured on the machine that measures, and nowhere else: a job can name a
configured tool, never an argument of it. No shell is involved.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from devices.measuring.child import Sampler, await_exit, kill_group, with_reference
from devices.measuring.conditions import Reader, read_conditions, read_system_file
from devices.measuring.protocol import Protocol
from devices.measuring.sampling import REFERENCE, Block, Failure
from devices.runtime import RUNTIMES, Runtime, Session, one_line
from search_spaces.errors import EnvironmentProblem, InputError

_PLACEHOLDERS = ("model", "runs", "threads", "batch")
_NANOSECONDS = {"ns": 1.0, "us": 1e3, "ms": 1e6, "s": 1e9}
_OUTPUT_LIMIT = 16 * 2**20


class CommandConfig(BaseModel):
    """A tool of this machine, as the agent's configuration writes it.

    Attributes:
        name: what jobs call it.
        arguments: the program and its arguments, passed as they are. ``{model}`` stands for
            the path of the model file, ``{runs}`` for the number of timed inferences,
            ``{threads}`` and ``{batch}`` for the job's.
        version: what the tool calls its version; part of the key of a measurement.
        formats: suffixes of the files it takes.
        output: ``json-lines``: each line of standard output is a JSON object whose
            ``latency_ms`` is a number or a list of them (other lines are ignored).
            ``regex``: every match of ``pattern`` is one latency.
        pattern: regular expression with one group, the number.
        unit: of the number, for ``regex``.
        deadline_s: the program is killed after this long.
        runs_on_cpu: the inference runs on this machine's processor from beginning to end.
        environment: variables added for the program.
    """

    model_config = ConfigDict(extra="forbid")
    name: Annotated[str, Field(pattern=r"^[\w.+-]{1,64}$")]
    arguments: Annotated[list[str], Field(min_length=1)]
    version: str = "unknown"
    formats: list[Annotated[str, Field(pattern=r"^\.\w+$")]] = [".onnx"]
    output: Literal["json-lines", "regex"] = "json-lines"
    pattern: str | None = None
    unit: Literal["ns", "us", "ms", "s"] = "ms"
    deadline_s: Annotated[float, Field(gt=0)] = 300.0
    runs_on_cpu: bool = False
    environment: dict[str, str] = {}

    @field_validator("arguments")
    @classmethod
    def _known_placeholders(cls, arguments: list[str]) -> list[str]:
        for argument in arguments:
            for name in re.findall(r"\{(\w*)\}", argument):
                if name not in _PLACEHOLDERS:
                    known = ", ".join("{" + p + "}" for p in _PLACEHOLDERS)
                    raise ValueError(f"unknown placeholder {{{name}}} (there are {known})")
        if not any("{model}" in argument for argument in arguments):
            raise ValueError("no argument holds {model}, so the tool would not see the model")
        return arguments

    @model_validator(mode="after")
    def _pattern_fits_output(self) -> CommandConfig:
        if (self.output == "regex") != (self.pattern is not None):
            raise ValueError("a pattern goes with output: regex, and only with it")
        if self.pattern is not None:
            try:
                groups = re.compile(self.pattern).groups
            except re.error as error:
                raise ValueError(f"pattern is no regular expression: {error}") from error
            if groups != 1:
                raise ValueError(f"pattern has {groups} groups; the number must be the only one")
        return self


def read_command_configs(value: Any, *, source: str) -> dict[str, CommandConfig]:
    """Return the tools of a configuration: a list of mappings, as YAML reads it.

    Args:
        source: the file's name, for messages.

    Raises:
        InputError: every mistake, with where it is; a name twice.
    """
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise InputError(f"{source}: commands must be a list")
    configs: dict[str, CommandConfig] = {}
    problems = []
    for index, item in enumerate(value):
        try:
            config = CommandConfig.model_validate(item)
        except ValidationError as error:
            for entry in error.errors():
                where = ".".join(map(str, ("commands", index, *entry["loc"])))
                problems.append(f"{source}: {where}: {entry['msg']}")
            continue
        if config.name in configs:
            problems.append(f"{source}: commands.{index}: the name {config.name!r} occurs twice")
        configs[config.name] = config
    if problems:
        raise InputError("\n".join(problems))
    return configs


class ConfiguredCommands:
    """The tools of this process; filled by the agent from its configuration."""

    def __init__(self) -> None:
        self._configs: dict[str, CommandConfig] = {}

    def configure(self, configs: Mapping[str, CommandConfig]) -> None:
        """Replace the tools."""
        self._configs = dict(configs)

    def names(self) -> list[str]:
        """Return the tools' names."""
        return sorted(self._configs)

    def get(self, name: str) -> CommandConfig:
        """Return a tool.

        Raises:
            EnvironmentProblem: this machine has none of that name.
        """
        if name not in self._configs:
            known = ", ".join(self.names()) or "none"
            raise EnvironmentProblem(
                f"no command {name!r} is configured on this machine (configured: {known}); "
                f"commands are set in the configuration of the machine that measures"
            )
        return self._configs[name]


COMMANDS = ConfiguredCommands()


@RUNTIMES.register("command")
class CommandRuntime(Runtime):
    """A configured program that runs and times a model file.

    Args:
        tool: name of the program in this machine's configuration.

    Raises:
        EnvironmentProblem: there is none of that name here.
    """

    name: ClassVar[str] = "command"

    def __init__(self, *, tool: str = "", **common: Any) -> None:
        super().__init__(**common)
        self.config = COMMANDS.get(tool)

    @property
    def version(self) -> str:
        """See :meth:`Runtime.version`: as configured."""
        return self.config.version

    @property
    def runs_on_cpu(self) -> bool:
        """See :meth:`Runtime.runs_on_cpu`: as configured."""
        return self.config.runs_on_cpu

    def parameters(self) -> dict[str, Any]:
        """See :meth:`Runtime.parameters`: with the name of the tool."""
        return super().parameters() | {"tool": self.config.name}

    def load(self, path: Path) -> Session:
        """Raise InputError: the program runs models in processes of its own."""
        raise InputError(
            f"the command {self.config.name!r} times models itself and gives no outputs to check"
        )

    def sampler(self) -> Sampler:
        """See :meth:`Runtime.sampler`: one that starts the program."""
        return CommandSampler()


class CommandSampler(Sampler):
    """Runs the program once for each model of a sequence; it does the timing."""

    probes: ClassVar[bool] = False

    def __init__(self, *, reader: Reader = read_system_file) -> None:
        self._reader = reader

    def sample(
        self,
        runtime: Runtime,
        models: Sequence[Path],
        sequence: Sequence[int],
        protocol: Protocol,
        *,
        reference: Path | None,
        cores: Sequence[int],
    ) -> dict[int, Block | Failure]:
        """See :meth:`Sampler.sample`: a process a model, each watched for a deadline."""
        assert isinstance(runtime, CommandRuntime)
        done: list[tuple[int, Block | Failure]] = []
        for index in sequence:
            path = reference if index == REFERENCE else models[index]
            assert path is not None
            done.append((index, self._run(runtime, path, protocol, cores)))
        return with_reference(done)

    def _run(
        self, runtime: CommandRuntime, model: Path, protocol: Protocol, cores: Sequence[int]
    ) -> Block | Failure:
        config = runtime.config
        if model.suffix.lower() not in config.formats:
            return Failure(
                "model-failed", f"{config.name} takes {', '.join(config.formats)}, not {model.name}"
            )
        before = read_conditions(cores, reader=self._reader)
        outcome = run_command(config, arguments_for(config, runtime, model, protocol.runs))
        if isinstance(outcome, Failure):
            return outcome
        try:
            samples = parse_latencies(config, outcome)
        except InputError as error:
            return Failure("model-failed", str(error))
        return Block(
            calls=1,
            samples_ns=tuple(samples),
            settled=True,
            finite=True,
            processor_share=1.0,
            before=before,
            after=read_conditions(cores, reader=self._reader),
        )


def arguments_for(config: CommandConfig, runtime: Runtime, model: Path, runs: int) -> list[str]:
    """Return the argument list; each placeholder is replaced once, inside its own argument."""
    values = {
        "model": str(Path(model).absolute()),
        "runs": str(runs),
        "threads": str(runtime.threads),
        "batch": str(runtime.batch),
    }
    return [
        re.sub(r"\{(\w+)\}", lambda match: values[match[1]], argument)
        for argument in config.arguments
    ]


def run_command(config: CommandConfig, arguments: Sequence[str]) -> str | Failure:
    """Run a program in an empty folder and return its standard output.

    Raises:
        EnvironmentProblem: the program is not there or may not be started.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        tempfile.TemporaryFile() as output,
        tempfile.TemporaryFile() as errors,
    ):
        try:
            child = subprocess.Popen(
                list(arguments),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                cwd=folder,
                env=os.environ | config.environment,
                start_new_session=True,
            )
        except OSError as error:
            raise EnvironmentProblem(
                f"cannot start the command {config.name!r} ({arguments[0]}): {error.strerror}"
            ) from error
        try:
            finished = await_exit(child, config.deadline_s)
        finally:
            # The whole group: what the program started must not disturb the next measurement.
            kill_group(child)
        if not finished:
            return Failure("deadline-passed", f"not done within {config.deadline_s:g} s")
        code = child.returncode
        if code:
            errors.seek(0)
            text = errors.read(_OUTPUT_LIMIT).decode("utf-8", errors="replace")[-500:].strip()
            kind = "process-crashed" if code < 0 else "model-failed"
            return Failure(kind, f"exit code {code}: {one_line(ValueError(text))}")
        output.seek(0)
        return output.read(_OUTPUT_LIMIT).decode("utf-8", errors="replace")


def parse_latencies(config: CommandConfig, text: str) -> list[int]:
    """Return the latencies in ns that a program printed.

    Raises:
        InputError: it printed none, or one that is no positive time.
    """
    if config.output == "regex":
        assert config.pattern is not None
        numbers = [(match, config.unit) for match in re.findall(config.pattern, text)]
    else:
        numbers = [(value, "ms") for value in _json_latencies(text)]
    if not numbers:
        wanted = config.pattern if config.output == "regex" else '{"latency_ms": ...}'
        raise InputError(f"{config.name} printed no latency ({wanted})")
    samples = []
    for value, unit in numbers:
        try:
            duration = float(value) * _NANOSECONDS[unit]
        except (TypeError, ValueError) as error:
            raise InputError(f"{config.name} printed {value!r} for a latency") from error
        if not 0 < duration < 1e15:
            raise InputError(f"{config.name} printed {value!r} {unit}, which is no latency")
        samples.append(round(duration))
    return samples


def _json_latencies(text: str) -> list[Any]:
    values: list[Any] = []
    for line in text.splitlines():
        if not line.lstrip().startswith("{"):
            continue
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        found = entry.get("latency_ms", [])
        values += found if isinstance(found, list) else [found]
    return values
