"""Section ``devices``: where models are measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    StrictStr,
)

from devices.fleet.address import check_address
from devices.runtime import make_runtime
from nas.job.findings import Finding, unknown_name
from nas.job.paths import JobPath, RelativePath, absolute
from nas.job.values import Name, Positive, Section
from search_spaces.errors import EnvironmentProblem, InputError


def _hardware(named: str, folder: Path) -> str:
    """Return what a simulator simulates: a name as it is, a description's path absolute."""
    return absolute(named, folder) if named.endswith(".json") else named


class DeviceConfig(Section):
    """One place where models are measured."""

    name: Name
    """Short name, used in constraints, in front.csv and in the report."""
    runtime: StrictStr = "onnxruntime"
    """Registered name of the runtime that executes the models."""
    threads: Positive = 1
    batch: Positive = 1
    """Images in one inference; latencies are for the whole batch."""
    measures: Literal["decode", "encode"] | None = None
    """What of a model of texts is measured: null runs a whole window at once (the prefill; of an
    encoder-decoder source and target), decode gives one more token, from the keys and values that
    are kept of a full window, and encode reads the source of an encoder-decoder."""
    options: dict[str, Any] = {}
    """Settings of the runtime itself."""
    hub: StrictStr | None = None
    """Address of the hub that a board dials into; null measures on this machine."""
    token_file: RelativePath | None = None
    """File with a token for the hub, relative to the job file."""
    device: Name | None = None
    """Name of the board at the hub; null takes the entry's name."""
    ca: RelativePath | None = None
    """Certificate (PEM) of the authority that signed the hub's, relative to the job file; null
    trusts the system's authorities."""
    cert: RelativePath | None = None
    """Certificate (PEM) to show to a hub that asks for one, relative to the job file."""
    key: RelativePath | None = None
    """Its key (PEM), relative to the job file."""
    simulator: Literal["roofline", "vela"] | None = None
    """A model of hardware that estimates instead of a device that measures; its latencies are
    labelled as estimates."""
    hardware: Annotated[StrictStr, JobPath(_hardware)] | None = None
    """What the simulator simulates: a name it knows, or a description's path relative to the job
    file."""

    @property
    def parameters(self) -> dict[str, Any]:
        """The runtime's parameters."""
        return {"threads": self.threads, "batch": self.batch, **self.options}


def check_devices(devices: Sequence[DeviceConfig], folder: Path) -> Iterator[Finding]:
    """Yield names given twice, and what is wrong with hubs, simulators and runtimes."""
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
        unknown = list(unknown_name("devices.runtime", ("devices", i, "runtime"), device.runtime))
        yield from unknown
        if not unknown:
            yield from _check_runtime(device, i)


_MEASURED = {"tokens": ("decode",), "sequences": ("decode", "encode")}
"""What of a model can be measured apart, by what it answers for."""


def check_measures(devices: Sequence[DeviceConfig], task: Any, name: str) -> Iterator[Finding]:
    """Yield devices that are to decode where nothing does, or that cannot."""
    for i, device in enumerate(devices):
        if device.measures is None:
            continue
        at, where = ("devices", i, "measures"), f"devices.{i}.measures"
        if task.answers not in _MEASURED:
            yield (
                at,
                f"{where}: {device.measures} is for language models and encoder-decoders, and the "
                f"task is {name}; leave it out",
            )
        elif device.measures not in _MEASURED[task.answers]:
            yield at, f"{where}: a language model has no encoder; say decode, or leave it out"
        elif task.answers == "sequences" and device.runtime == "lowbit":
            yield at, f"{where}: lowbit does not run the parts of encoder-decoders; use onnxruntime"
        elif device.simulator is not None:
            yield at, f"{where}: {device.simulator} estimates whole networks; leave it out"
        elif device.batch != 1:
            yield at, f"{where}: a step of decoding is measured by itself; set batch: 1"


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
            read_hardware(_hardware(device.hardware, folder))
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


def _check_runtime(device: DeviceConfig, i: int) -> Iterator[Finding]:
    base = {"threads": device.threads, "batch": device.batch}
    found = False
    for key, value in device.options.items():
        message = _runtime_problem(device.runtime, {**base, key: value})
        if message is not None:
            found = True
            yield ("devices", i, "options", key), f"devices.{i}: {message}"
    if not found:
        message = _runtime_problem(device.runtime, device.parameters)
        if message is not None:
            yield ("devices", i), f"devices.{i}: {message}"


def lacking_here(device: DeviceConfig) -> str | None:
    """Return why a device cannot be measured on this machine; None where it can, or need not."""
    if device.hub is not None or device.simulator is not None:
        return None
    try:
        make_runtime(device.runtime, device.parameters)
    except EnvironmentProblem as error:
        return str(error)
    return None


def _runtime_problem(name: str, parameters: Mapping[str, Any]) -> str | None:
    try:
        make_runtime(name, parameters)
    except InputError as error:
        return str(error)
    except EnvironmentProblem:
        # Not a mistake in the file: the run says what this machine lacks, if it measures here.
        return None
    return None
