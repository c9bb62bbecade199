"""The agent's life: register, ask for work, fetch, measure, deliver; and a pulse beside it.

Everything it must not lose is on disk before the hub is told, and everything it says names
the lease it speaks for. So it may be killed anywhere: what it held is either delivered
later, or given out again by the hub, and never both.
"""

from __future__ import annotations

import contextlib
import logging
import random
import threading
from collections.abc import Callable
from pathlib import Path

from devices.fleet.agent.config import host_name
from devices.fleet.agent.outbox import Outbox
from devices.fleet.agent.workshop import Stopped, Workshop
from devices.fleet.link import HubLink, HubRefused, HubUnreachable
from devices.fleet.messages import (
    HEARTBEAT_S,
    MAX_JOBS,
    Beat,
    BeatReply,
    Failed,
    Held,
    LeasedJob,
    LeaseReply,
    LeaseRequest,
    Register,
    Registered,
    Result,
)
from devices.untrusted.blobs import BlobStore
from devices.untrusted.model_check import SUFFIXES, check_model
from search_spaces.errors import EnvironmentProblem, InputError

_LOG = logging.getLogger(__name__)
_FIRST_PAUSE_S, _LAST_PAUSE_S = 1.0, 30.0


class Superseded(EnvironmentProblem):
    """Another agent has registered as this board since; this one must not go on."""


class Agent:
    """Serves one hub.

    Args:
        link: to the hub.
        workshop: measures.
        data: the agent's folder: models and results that wait.
        wait_s: how long one request for work may wait at the hub.
        blobs, outbox: where models and results lie; made in ``data``.
    """

    def __init__(
        self,
        link: HubLink,
        workshop: Workshop,
        data: Path,
        *,
        wait_s: float = 25.0,
        blobs: BlobStore | None = None,
        outbox: Outbox | None = None,
    ) -> None:
        self._link, self._workshop, self._wait_s = link, workshop, wait_s
        self.config = workshop.config
        self._blobs = blobs or BlobStore(
            Path(data) / "models",
            max_bytes=self.config.model_limits.bytes,
            max_total_bytes=self.config.limits.cache_mib << 20,
            check=lambda path: check_model(path, self.config.model_limits),
            suffixes=SUFFIXES,
        )
        self._outbox = outbox or Outbox(Path(data) / "outbox")
        self._lock = threading.Lock()
        self._device: str | None = None
        self._session: int | None = None
        self._held: dict[str, Held] = {}
        self._unwanted: set[str] = set()
        self._superseded = False
        self.heartbeat_s = HEARTBEAT_S
        self._was_accepted = False

    # --------------------------------------------------------------------- life

    def run(self, stop: threading.Event) -> None:
        """Serve until ``stop`` is set, through lost networks and restarts of the hub.

        Raises:
            Superseded: another agent took this board's place.
            InputError: the hub does not accept this agent's token or name.
        """
        heart = threading.Thread(target=self._pulse, args=(stop,), name="heart", daemon=True)
        heart.start()
        pause = _FIRST_PAUSE_S
        while not stop.is_set():
            try:
                self.step(stopped=stop.is_set)
                pause = _FIRST_PAUSE_S
            except HubUnreachable as error:
                _LOG.warning("%s; trying again in %.0f s", error, pause)
                stop.wait(pause * random.uniform(0.5, 1.0))
                pause = min(2 * pause, _LAST_PAUSE_S)
        with contextlib.suppress(HubUnreachable, HubRefused):
            self._deliver()

    def step(self, *, stopped: Callable[[], bool] = lambda: False) -> bool:
        """Do one round: register if need be, deliver, ask for work, do it.

        Returns:
            Whether there was work.

        Raises:
            HubUnreachable: ask again later.
            Superseded, InputError: see :meth:`run`.
        """
        if self._superseded:
            raise Superseded(
                f"another agent has registered as {self._device}; "
                "stop it, or give this board a token and a name of its own"
            )
        try:
            if self._workshop.changed():
                self._session = None  # nothing is held now, so nothing is lost
            if self._session is None:
                self._register()
            self._deliver()
            jobs = self._lease()
            if jobs:
                self._work(jobs, stopped)
                self._deliver()
            return bool(jobs)
        except HubRefused as error:
            if error.code == "superseded":
                self._superseded = True
                return self.step()
            if error.code == "not-registered":
                self._session = None
                return False
            if error.status == 401 and self._was_accepted:
                # Rotated or expired under way: its owner will put the new one in the file.
                raise HubUnreachable(str(error)) from error
            raise

    def beat(self) -> None:
        """Send one heartbeat with all that is held.

        Raises:
            HubUnreachable: no answer; the next one will do.
        """
        session, holding = self._session, self._holding()
        if session is None:
            return
        try:
            self._tell_held("heartbeat", session, holding)
        except HubRefused as error:
            # A registration under way makes this session an old one: no reason to stop.
            if error.code == "superseded" and session == self._session:
                self._superseded = True
            _LOG.warning("heartbeat: %s", error)

    def _pulse(self, stop: threading.Event) -> None:
        while not stop.wait(self.heartbeat_s):
            try:
                self.beat()
            except HubUnreachable as error:
                _LOG.info("heartbeat: %s", error)

    # -------------------------------------------------------------------- steps

    def _register(self) -> None:
        if self._device is None:
            who = self._link.tell("GET", "/api/agent/whoami")
            self._device = self.config.name or who.get("device") or host_name()
            if who.get("scope") == "admin":
                _LOG.warning("this token may do everything at the hub; make one of scope measure")
            self._link.speak_for(self._device)
        answer = self._link.ask(
            "POST",
            "/api/agent/register",
            Registered,
            Register(
                device=self._device,
                description=self._workshop.describe(prepare=True),
                holding=self._outbox.holding(),
            ),
        )
        self.heartbeat_s = answer.heartbeat_s
        self._session = answer.session
        self._was_accepted = True
        _LOG.info("registered as %s, session %d", self._device, answer.session)

    def _deliver(self) -> None:
        for result in self._outbox.waiting():
            try:
                self._link.tell("POST", "/api/agent/result", result)
            except HubRefused as error:
                if error.status in (413, 422) and result.measurement is not None:
                    detail = f"the hub does not take the measurement: {error}"
                    failed = Failed(kind="infrastructure", detail=detail[:2000])
                    self._outbox.put(
                        result.model_copy(update={"measurement": None, "failure": failed})
                    )
                    continue
                if error.status == 401:
                    raise
                _LOG.warning("result of job %s is not counted: %s", result.job, error)
            self._outbox.remove(result)

    def _lease(self) -> list[LeasedJob]:
        assert self._session is not None
        request = LeaseRequest(
            session=self._session,
            most=self.config.limits.models,
            wait_s=self._wait_s,
            holding=self._outbox.holding(),
        )
        answer = self._link.ask(
            "POST", "/api/agent/lease", LeaseReply, request, wait_s=self._wait_s
        )
        with self._lock:
            self._held = {job.job: Held(job=job.job, fence=job.fence) for job in answer.jobs}
            self._unwanted = set()
        return answer.jobs

    def _work(self, jobs: list[LeasedJob], stopped: Callable[[], bool]) -> None:
        try:
            ready = []
            for job in jobs:
                model = self._fetch(job)
                if model is not None:
                    ready.append((job, model))
            self._tell_held("start", self._session, self._holding())
            ready = [(job, model) for job, model in ready if job.job not in self._unwanted]
            if not ready:
                return
            self._workshop.measure(
                [job for job, _ in ready],
                [model for _, model in ready],
                self._finish,
                lambda: not stopped() and self._any_wanted(),
            )
        except Stopped:
            _LOG.info("the measurement was broken off: nobody wants it any more")
        finally:
            with self._lock:
                self._held = {}
            self._blobs.prune(lambda sha256: False)

    def _fetch(self, job: LeasedJob) -> Path | None:
        """Return a job's checked model, or answer the job with a failure."""
        try:
            if job.model in self._blobs:
                self._blobs.touch(job.model)
                return self._blobs.path(job.model)
            with (
                self._link.download(job.model) as pieces,
                self._blobs.receive(job.model) as incoming,
            ):
                for piece in pieces:
                    incoming.write(piece)
                return incoming.finish()
        except HubUnreachable:
            raise
        except HubRefused as error:
            if error.code in ("superseded", "not-registered") or error.status == 401:
                raise
            failure = Failed(kind="infrastructure", detail=f"the model cannot be fetched: {error}")
        except InputError as error:
            failure = Failed(kind="refused", detail=f"the model is refused: {error}"[:2000])
        except EnvironmentProblem as error:
            failure = Failed(kind="infrastructure", detail=str(error)[:2000])
        self._finish(Result(job=job.job, fence=job.fence, failure=failure))
        return None

    # --------------------------------------------------------------------- held

    def _finish(self, result: Result) -> None:
        self._outbox.put(result)
        with self._lock:
            self._held.pop(result.job, None)

    def _holding(self) -> list[Held]:
        with self._lock:
            held = dict(self._held)
        held.update({item.job: item for item in self._outbox.holding()})
        return list(held.values())[:MAX_JOBS]

    def _any_wanted(self) -> bool:
        with self._lock:
            return not self._superseded and bool(set(self._held) - self._unwanted)

    def _tell_held(self, what: str, session: int | None, holding: list[Held]) -> None:
        assert session is not None
        message = Beat(session=session, holding=holding)
        answer = self._link.ask("POST", f"/api/agent/{what}", BeatReply, message)
        with self._lock:
            self._unwanted |= set(answer.stop)
