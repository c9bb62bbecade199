"""The device that an entry of a job's ``devices`` stands for."""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path

from devices.device import BoardAddress, Device, DeviceSpec
from devices.fleet.remote import make_device as device_of
from nas.fronts.metrics import Metric
from nas.job.schema import Job
from nas.job.sections.devices import DeviceConfig
from search_spaces.errors import EnvironmentProblem
from search_spaces.planned import PlannedSpace


def make_device(config: DeviceConfig, space: PlannedSpace, *, check: bool = True) -> Device:
    """Return the device of a job's entry: this machine, a board behind a hub, or a simulator.

    Args:
        config: the entry.
        space: of the job; a simulator estimates its architectures.
        check: whether to make sure that it can measure.

    Raises:
        InputError: the hub does not know the board, or the board not the runtime.
        EnvironmentProblem: this machine lacks what the device needs, or the hub cannot be
            reached.
    """
    if config.simulator is not None:
        from devices.simulators.device import make_simulated_device

        simulated = make_simulated_device(
            config.name,
            simulator=config.simulator,
            hardware=config.hardware or "",
            space=space,
            batch=config.batch,
            options=config.options,
        )
        if check:
            simulated.check()
        return simulated
    address = None
    if config.hub is not None:
        address = BoardAddress(
            config.hub,
            Path(config.token_file or ""),
            config.device or config.name,
            *(
                None if file is None else Path(file)
                for file in (config.ca, config.cert, config.key)
            ),
        )
    device = device_of(
        DeviceSpec(
            config.name,
            config.runtime,
            config.threads,
            config.batch,
            dict(config.options),
            address,
            config.measures or "",
        )
    )
    if check:
        device.check()
    return device


def require_energy_meter(job: Job, wanted: Set[Metric]) -> None:
    """Refuse energy of this machine where nothing can measure it, before any training.

    Args:
        job: a checked job.
        wanted: its objectives and what it bounds.

    Raises:
        EnvironmentProblem: the machine exposes no counter.
    """
    from devices.measuring.energy import NoMeter, make_meter

    here = [
        device.name
        for device in job.devices
        if device.hub is None
        and device.simulator is None
        and Metric("energy_mj", device.name) in wanted
    ]
    if here and isinstance(make_meter(job.measurement_protocol().energy_source), NoMeter):
        raise EnvironmentProblem(
            f"energy_mj[{here[0]}]: this machine exposes no energy counter; leave energy_mj "
            "out, name a sensor as protocol.energy_source, or measure on another device"
        )
