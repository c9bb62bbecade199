"""Where an agent measures: what it offers, and how a leased group becomes results."""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
from pydantic import JsonValue

from devices.device import DeviceSpec, LocalDevice, device_fingerprint
from devices.fleet.agent.config import AgentConfig
from devices.fleet.agent.preparation import Preparing
from devices.fleet.messages import Description, Failed, FailureKind, LeasedJob, Result, RuntimeOffer
from devices.locks import machine_lock
from devices.measuring.child import ChildSampler, Sampler
from devices.measuring.conditions import allowed_cores, read_conditions
from devices.measuring.measurement import Measurement
from devices.measuring.protocol import Protocol
from devices.runtime import RUNTIMES, Runtime
from search_spaces.errors import EnvironmentProblem, InputError, MissingExtraError, NasError

_LOG = logging.getLogger(__name__)

Deliver = Callable[[Result], None]


class Stopped(Exception):
    """Nobody wants the group that is being measured any more."""


class Workshop:
    """Measures groups of jobs on this machine, within its owner's limits.

    Args:
        config: the owner's.
        sampler: how one process is run; by default as the runtime asks, or as a child with
            limits.
        lock: held while measuring; by default this machine's, or its accelerator's.

    Attributes:
        broken: runtimes that are installed and do not work, and why, since :meth:`describe`.
    """

    def __init__(
        self,
        config: AgentConfig,
        *,
        sampler: Sampler | None = None,
        lock: Callable[[], AbstractContextManager[None]] | None = None,
    ) -> None:
        self.config = config
        self._sampler = sampler
        self._lock = lock or (lambda: machine_lock(accelerator=config.accelerator))
        self._preparing: dict[str, Preparing] = {}
        self._failures: dict[str, str] = {}
        self.broken: dict[str, str] = {}

    def describe(self, *, opt_in: bool = False, prepare: bool = False) -> Description:
        """Return what this board is and offers.

        Args:
            opt_in: also look for runtimes that are offered only when they are named.
            prepare: leave out a runtime that must first be prepared for long, and start
                with that; see :meth:`changed`. Otherwise it is prepared here and now.

        Raises:
            NasError: a runtime that the configuration names does not work here.
        """
        offers = []
        names = RUNTIMES.names()
        self.broken = dict(RUNTIMES.broken)
        for name in names:
            if not (opt_in or self.config.offers(name)):
                continue
            if name == "command":
                offers += _tools(self.config)
                continue
            try:
                if prepare and self._must_wait(name):
                    continue
                runtime = _runtime(name, self.config.parameters(name, {}))
            except NasError as error:
                if self.config.runtimes is not None:
                    raise
                _LOG.info("runtime %s is not offered: %s", name, error)
                if not isinstance(error, MissingExtraError) or error.broken:
                    self.broken[name] = str(error)
                continue
            offers.append(
                RuntimeOffer(name=name, version=runtime.version, parameters=runtime.parameters())
            )
        return Description(
            fingerprint=device_fingerprint(),
            hardware=hardware(),
            runtimes=offers,
            agent_version=_own_version(),
            limits=self.config.limits.model_dump(mode="json"),
        )

    def changed(self) -> bool:
        """Whether a preparation has ended since :meth:`describe`, which then says more."""
        return any(preparing.ended for preparing in self._preparing.values())

    def close(self) -> None:
        """Break off what is being prepared."""
        for preparing in self._preparing.values():
            preparing.stop()

    def _must_wait(self, name: str) -> bool:
        """Whether a runtime is being prepared; starts with it if need be.

        Raises:
            EnvironmentProblem: it failed; it is not tried again until the agent is restarted.
        """
        if name in self._preparing:
            if not self._preparing[name].ended:
                return True
            failure = self._preparing.pop(name).failure
            if failure is not None:
                self._failures[name] = failure
        if name in self._failures:
            raise EnvironmentProblem(self._failures[name])
        needed = RUNTIMES.get(name).preparation()
        if needed is None:
            return False
        self._preparing[name] = Preparing(needed.what, needed.command, self._lock)
        return True

    def measure(
        self,
        jobs: Sequence[LeasedJob],
        models: Sequence[Path],
        deliver: Deliver,
        wanted: Callable[[], bool] = lambda: True,
    ) -> None:
        """Measure jobs of one runtime, parameters and protocol together.

        Args:
            models: a checked file for each job.
            deliver: takes each result; every job gets exactly one.
            wanted: asked before each process; when it says no, nothing is delivered.

        Raises:
            Stopped: nobody wanted the results any more.
        """
        waiting = {job.job: job for job in jobs}

        def done(index: int, measurement: Measurement) -> None:
            job = waiting.pop(jobs[index].job)
            value = measurement.to_json()
            deliver(
                Result.model_validate(
                    {"job": job.job, "fence": job.fence, "measurement": value}, strict=False
                )
            )

        failure = self._measure(jobs[0], models, done, wanted)
        for job in waiting.values():
            deliver(Result(job=job.job, fence=job.fence, failure=failure))

    def _measure(
        self,
        first: LeasedJob,
        models: Sequence[Path],
        done: Callable[[int, Measurement], None],
        wanted: Callable[[], bool],
    ) -> Failed | None:
        try:
            if not self.config.offers(first.runtime):
                raise InputError(f"runtime {first.runtime} is not offered by this board")
            parameters = self.config.parameters(first.runtime, first.parameters)
            protocol = self.config.protocol(first.protocol)
            spec = _spec(first.runtime, parameters)
            runtime = spec.make_runtime()
        except EnvironmentProblem as error:
            return _failed("unsupported", error)
        except Exception as error:
            # Words of the job that no check foresaw: its fault, not the board's, whatever it is.
            return _failed("refused", error)
        device = LocalDevice(
            spec,
            sampler=_Interruptible(self._sampler or runtime.sampler() or ChildSampler(), wanted),
            group=len(models),
            lock=self._lock,
        )
        try:
            device.measure(models, protocol=protocol, on_result=done)
        except Stopped:
            raise
        except (ValueError, TypeError, LookupError, ArithmeticError) as error:
            # Raised here, not in the process that measures: by a value that the job holds.
            return _failed("refused", error)
        except (EnvironmentProblem, OSError, MemoryError) as error:
            return _failed("infrastructure", error)
        except Exception as error:  # whatever a runtime does, the agent must go on
            _LOG.exception("measuring failed")
            return _failed("infrastructure", error)
        return None


class _Interruptible(Sampler):
    """Asks before each process whether the results are still wanted."""

    def __init__(self, sampler: Sampler, wanted: Callable[[], bool]) -> None:
        self._sampler, self._wanted = sampler, wanted

    def sample(
        self,
        runtime: Runtime,
        models: Sequence[Path],
        sequence: Sequence[int],
        protocol: Protocol,
        *,
        reference: Path | None,
        cores: Sequence[int],
    ) -> dict[int, Any]:
        """See :meth:`Sampler.sample`: raises where the results are wanted no more."""
        if not self._wanted():
            raise Stopped
        return self._sampler.sample(
            runtime, models, sequence, protocol, reference=reference, cores=cores
        )


def hardware() -> dict[str, Any]:
    """Return facts about this machine for people: memory, kernel, frequencies, governor."""
    conditions = read_conditions(allowed_cores()[:1])
    limits = conditions.get("frequency_limits_mhz")
    facts = {
        "memory_mib": psutil.virtual_memory().total >> 20,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "governor": conditions.get("governor"),
        "max_mhz": None if not limits else round(limits[1]),
    }
    return {name: value for name, value in facts.items() if value is not None}


def _spec(runtime: str, parameters: Mapping[str, Any]) -> DeviceSpec:
    options = dict(parameters)
    named = {key: options.pop(key) for key in ("threads", "batch") if key in options}
    return DeviceSpec("board", runtime, options=options, **named)


def _runtime(name: str, parameters: Mapping[str, Any]) -> Runtime:
    return _spec(name, parameters).make_runtime()


def _tools(config: AgentConfig) -> list[RuntimeOffer]:
    """Return the offer of the owner's programs; one, for a board offers a runtime once.

    Its version names every tool with its own, so a new version of any makes new measurements.
    """
    if not config.commands:
        return []
    versions = sorted(f"{tool.name} {tool.version}" for tool in config.commands)
    tools: list[JsonValue] = [*sorted(tool.name for tool in config.commands)]
    return [RuntimeOffer(name="command", version=", ".join(versions), parameters={"tools": tools})]


def _failed(kind: FailureKind, error: BaseException) -> Failed:
    text = str(error) if isinstance(error, NasError) else f"{type(error).__name__}: {error}"
    return Failed(kind=kind, detail=text[:2000])


def _own_version() -> str:
    try:
        return version("edge-nas")
    except PackageNotFoundError:
        return ""
