"""A board behind a hub, measured like this machine.

Models go to the hub once, named by their hash; each measurement is a job there with a key
made of everything that makes two measurements the same. So a client that was killed, or lost
its network, asks again with the same keys and finds its jobs where they are by now.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from devices.device import Device, DeviceSpec, Done, LocalDevice
from devices.fleet.link import HubLink, HubRefused, HubUnreachable, TlsFiles
from devices.fleet.messages import (
    Await,
    Description,
    Devices,
    DeviceView,
    JobRequest,
    Jobs,
    JobView,
    Submit,
)
from devices.measuring.measurement import Measurement, Reason
from devices.measuring.protocol import Protocol
from devices.measuring.store import Query
from search_spaces.errors import EnvironmentProblem, InputError

_LOG = logging.getLogger(__name__)
_BATCH = 500
_FIRST_PAUSE_S, _LAST_PAUSE_S = 0.5, 15.0

T = TypeVar("T")


class RemoteDevice(Device):
    """A board that an agent has registered with a hub.

    Args:
        spec: with the board's address.
        link: to the hub; by default made from the address.
        remeasure_invalid: measure again what store and hub have only as invalid.
        patience_s: how long the hub may be unreachable, or the board silent.
        wait_s: length of one long poll.
        sleep, clock: for pauses, monotonic seconds.

    Raises:
        InputError: the spec has no address, or a bad one.
    """

    concurrent = True

    def __init__(
        self,
        spec: DeviceSpec,
        *,
        link: HubLink | None = None,
        remeasure_invalid: bool = False,
        patience_s: float = 600.0,
        wait_s: float = 25.0,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(spec, remeasure_invalid=remeasure_invalid)
        if spec.address is None:
            raise InputError(f"device {spec.name} has no hub; it is this machine")
        address = spec.address
        self._board = address.board
        tls = TlsFiles(address.ca, address.certificate, address.key)
        self._link = link or HubLink(address.hub, address.token_file, tls=tls)
        self._patience_s, self._wait_s = patience_s, wait_s
        self._sleep, self._clock = sleep, clock
        self._description: Description | None = None

    def check(self) -> None:
        """See :meth:`Device.check`: asks the hub whether the board can be used."""
        view = self._look()
        self._require_usable(view)

    def fingerprint(self) -> dict[str, Any]:
        """See :meth:`Device.fingerprint`: as the board's agent told it."""
        return dict(self._described().fingerprint)

    def _identify(self) -> dict[str, Any]:
        description = self._described()
        versions = {offer.name: offer.version for offer in description.runtimes}
        if self.spec.runtime not in versions:
            raise InputError(
                f"board {self._board} does not offer runtime {self.spec.runtime!r} "
                f"(it has: {', '.join(sorted(versions)) or 'none'})"
            )
        return {
            "runtime": {
                "name": self.spec.runtime,
                "version": versions[self.spec.runtime],
                "parameters": self.spec.parameters,
            },
            "fingerprint": description.fingerprint,
        }

    def _measure(self, queries: Sequence[Query], protocol: Protocol, done: Done) -> None:
        asked: dict[str, Query] = {}
        again: set[str] = set()
        for query in queries:
            try:
                self._insist(partial(self._upload, query))
            except HubRefused as error:
                if error.status not in (413, 422):
                    raise
                done(query.key, self._refused(protocol, str(error)), keep=False)
            else:
                asked[query.model_sha256] = query
        waiting: dict[str, Query] = {}
        for start in range(0, len(asked), _BATCH):
            batch = list(asked.values())[start : start + _BATCH]
            views = self._submit([self._request(query, protocol) for query in batch], batch)
            waiting |= {view.job: query for view, query in zip(views, batch, strict=True)}
        silent_since: float | None = None
        while waiting:
            finished = self._await(list(waiting))
            if not finished:
                silent_since = self._watch(silent_since)
            for view in finished:
                silent_since = None
                query = waiting.pop(view.job)
                measurement = self._outcome(view, protocol)
                stale = view.measurement is not None and not measurement.valid
                if stale and self._remeasure_invalid and query.key not in again:
                    again.add(query.key)
                    request = self._request(query, protocol, supersedes=view.job)
                    (newer,) = self._submit([request], [query])
                    waiting[newer.job] = query
                else:
                    done(query.key, measurement, keep=view.measurement is not None)

    # ------------------------------------------------------------------- the hub

    def _upload(self, query: Query) -> None:
        if not self._link.has_model(query.model_sha256):
            self._link.upload(query.model_sha256, query.model)

    def _request(
        self, query: Query, protocol: Protocol, *, supersedes: str | None = None
    ) -> JobRequest:
        return JobRequest(
            device=self._board,
            model=query.model_sha256,
            runtime=self.spec.runtime,
            parameters=self.spec.parameters,
            protocol=protocol.to_json(),
            supersedes=supersedes,
        )

    def _submit(self, requests: Sequence[JobRequest], queries: Sequence[Query]) -> list[JobView]:
        def submit() -> list[JobView]:
            try:
                return self._link.ask("POST", "/api/jobs", Jobs, Submit(jobs=list(requests))).jobs
            except HubRefused as error:
                if error.code != "model-missing":
                    raise
                # Removed between upload and submission, to make room.
                for query in queries:
                    self._upload(query)
                raise HubUnreachable(str(error)) from error

        return self._insist(submit)

    def _await(self, jobs: list[str]) -> list[JobView]:
        message = Await(jobs=jobs[:_BATCH], wait_s=self._wait_s)
        return self._insist(
            lambda: (
                self._link.ask("POST", "/api/jobs/await", Jobs, message, wait_s=self._wait_s).jobs
            )
        )

    def _look(self) -> DeviceView:
        fleet = self._insist(lambda: self._link.ask("GET", "/api/devices", Devices)).devices
        for view in fleet:
            if view.name == self._board:
                self._description = view.description
                return view
        names = ", ".join(view.name for view in fleet) or "none"
        raise InputError(
            f"the hub at {self._link.url} knows no board {self._board!r} (it knows: {names})"
        )

    def _described(self) -> Description:
        if self._description is None:
            self._look()
        assert self._description is not None
        return self._description

    def _insist(self, do: Callable[[], T]) -> T:
        """Do something at the hub, again after pauses while it cannot be reached."""
        pause, end = _FIRST_PAUSE_S, self._clock() + self._patience_s
        while True:
            try:
                return do()
            except HubUnreachable as error:
                if self._clock() + pause > end:
                    raise
                _LOG.info("%s; trying again in %.0f s", error, pause)
                self._sleep(pause)
                pause = min(2 * pause, _LAST_PAUSE_S)

    # ----------------------------------------------------------------- the board

    def _watch(self, silent_since: float | None) -> float | None:
        """Look at the board while nothing comes; return since when it has been silent."""
        view = self._look()
        self._require_usable(view)
        if view.state != "offline":
            return None
        now = self._clock()
        if silent_since is None:
            _LOG.warning("board %s is offline; waiting for its agent", self._board)
            return now
        if now - silent_since > self._patience_s:
            raise EnvironmentProblem(
                f"board {self._board} has been offline for {now - silent_since:.0f} s; start its "
                f"agent and go on: what was measured is kept"
            )
        return silent_since

    def _require_usable(self, view: DeviceView) -> None:
        if view.state == "quarantined":
            raise EnvironmentProblem(
                f"board {self._board} is quarantined: {view.health}; repair it, then: "
                f"nas device release {self._board}"
            )
        self._identify()

    def _outcome(self, view: JobView, protocol: Protocol) -> Measurement:
        """Return a finished job's measurement, an invalid one if the model is refused.

        Raises:
            EnvironmentProblem: the board or its way to the hub failed.
        """
        if view.measurement is not None:
            return Measurement.from_json(view.measurement)
        what = view.failure.detail if view.failure else f"the job is {view.state}"
        if view.failure is not None and view.failure.kind == "refused":
            return self._refused(protocol, what)
        if view.state == "expired":
            what = f"its agent was lost {view.attempts} times while measuring {view.model[:12]}"
        raise EnvironmentProblem(f"board {self._board}: {what}; what was measured is kept")

    def _refused(self, protocol: Protocol, detail: str) -> Measurement:
        nothing: dict[str, Any] = dict.fromkeys(
            ("latency_ms", "low_ms", "high_ms", "iqr_ms", "p90_ms", "p99_ms", "mad_ms"), math.nan
        )
        return Measurement(
            **nothing,
            samples_ms=(),
            calls=(),
            valid=False,
            reasons=(Reason.FAILED.value,),
            attempts=0,
            rejected=(),
            runtime=self.spec.runtime,
            runtime_version="",
            parameters=self.spec.parameters,
            protocol=protocol.to_json(),
            conditions={},
            pinned=False,
            detail=detail,
        )


def make_device(spec: DeviceSpec, **options: Any) -> Device:
    """Return the device a spec describes: this machine, or a board behind a hub.

    Args:
        options: for the device's constructor.
    """
    return LocalDevice(spec, **options) if spec.address is None else RemoteDevice(spec, **options)
