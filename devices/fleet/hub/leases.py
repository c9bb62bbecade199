"""The queue of measurements and who holds which: leases with fencing tokens.

::

    queued -> leased -> running -> done | failed
       ^_________|_________|       expired (three leases lost), cancelled

Every lease of a job has a number of its own, the fence, which rises whenever a lease is
given or taken back; a result counts only under the current fence. So whatever an agent
that was thought dead sends later changes nothing. Deadlines are kept in monotonic time
and only in memory: after a restart of the hub every lease gets its full time once more.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from devices.fleet.hub import refusals
from devices.fleet.hub.clock import Clock
from devices.fleet.hub.fleet import Fleet
from devices.fleet.hub.ledger import Ledger, Transaction
from devices.fleet.hub.outcomes import digest, job_key, whole_measurement
from devices.fleet.messages import (
    EXPIRY_S,
    OPEN_STATES,
    Description,
    Failed,
    Held,
    JobRequest,
    JobView,
    LeasedJob,
    Result,
    stored_json,
)
from devices.measuring.protocol import Protocol
from devices.measuring.store import canonical_json
from search_spaces.errors import InputError

MAX_ATTEMPTS = 3
"""Leases after which a job that is never delivered is given up."""
ANSWERED = 32
"""Finished jobs in one answer, whose samples are its bulk."""

_ANEW = ("expired", "cancelled")


class Leases:
    """Takes jobs from clients and gives them to boards.

    Args:
        ledger: where everything is kept.
        fleet: the boards.
        clock: monotonic time for deadlines.
        has_model: whether a model file is there.
        expiry_s: silence after which a lease is over.
        max_attempts: leases of one job.
    """

    def __init__(
        self,
        ledger: Ledger,
        fleet: Fleet,
        *,
        clock: Clock,
        has_model: Callable[[str], bool],
        expiry_s: float = EXPIRY_S,
        max_attempts: int = MAX_ATTEMPTS,
    ) -> None:
        self._fleet, self._clock, self._has_model = fleet, clock, has_model
        self._expiry_s, self._max_attempts = expiry_s, max_attempts
        self._deadlines: dict[str, float] = {}
        ledger.call(self._restart)

    # ------------------------------------------------------------------ clients

    def submit(
        self, transaction: Transaction, requests: Sequence[JobRequest], *, owner: str = ""
    ) -> list[JobView]:
        """Queue measurements, or give back the jobs that have the same key.

        A job is queued again only when it never had its chance: its leases were lost, it was
        cancelled, or the board's infrastructure failed.

        Args:
            owner: name of the token that asks; it may cancel what it queued.

        Raises:
            Refusal: an unknown device, a runtime it does not offer, a bad protocol, or a
                model file that must be uploaded first (409, ``model-missing``).
        """
        described: dict[str, Description] = {}
        return [self._submit(transaction, request, described, owner) for request in requests]

    def _submit(
        self,
        transaction: Transaction,
        request: JobRequest,
        described: dict[str, Description],
        owner: str,
    ) -> JobView:
        if request.device not in described:
            described[request.device] = self._fleet.describe(transaction, request.device)
        try:
            protocol = Protocol.from_json(request.protocol).to_json()
        except (InputError, TypeError) as error:
            raise refusals.malformed(str(error)[:300]) from None
        key = job_key(request, protocol, described[request.device])
        row = transaction.db.execute(
            "SELECT job, state, failure FROM jobs WHERE key = ? ORDER BY number DESC LIMIT 1",
            (key,),
        ).fetchone()
        now = self._clock.wall()
        if row is None or (row[0] == request.supersedes and row[1] not in OPEN_STATES):
            self._require_model(request.model)
            job = uuid.uuid4().hex
            transaction.db.execute(
                "INSERT INTO jobs (job, key, device, model, runtime, parameters, protocol, state, "
                "created, changed, owner) VALUES (?, ?, ?, ?, ?, ?, ?, 'queued', ?, ?, ?)",
                (
                    job,
                    key,
                    request.device,
                    request.model,
                    request.runtime,
                    canonical_json(request.parameters),
                    canonical_json(protocol),
                    now,
                    now,
                    owner,
                ),
            )
            transaction.event(now, "queued", job=job, device=request.device)
        else:
            job, state, failure = row
            again = failure and json.loads(failure)["kind"] == "infrastructure"
            if state in _ANEW or (state == "failed" and again):
                self._require_model(request.model)
                transaction.db.execute(
                    "UPDATE jobs SET state = 'queued', attempts = 0, failure = NULL, "
                    "fence = fence + 1, changed = ?, owner = ? WHERE job = ?",
                    (now, owner, job),
                )
                transaction.event(now, "queued-again", job=job, device=request.device)
        return self._view(transaction, job)

    def _require_model(self, model: str) -> None:
        if not self._has_model(model):
            raise refusals.Refusal(409, "model-missing", f"upload the model first: {model}")

    def view(self, transaction: Transaction, jobs: Iterable[str]) -> list[JobView]:
        """Return jobs without their measurements; unknown ones are left out."""
        found = [self._view(transaction, job, missing_ok=True) for job in jobs]
        return [view for view in found if view is not None]

    def finished(self, transaction: Transaction, jobs: Sequence[str]) -> list[JobView]:
        """Return those of ``jobs`` that are finished, with measurements, at most ``ANSWERED``.

        Raises:
            Refusal: 404, one of them does not exist.
        """
        views = []
        for job in jobs:
            view = self._view(transaction, job, with_result=True)
            if view.state not in OPEN_STATES:
                views.append(view)
                if len(views) == ANSWERED:
                    break
        return views

    def recent(self, transaction: Transaction, *, most: int = 100) -> list[JobView]:
        """Return open jobs and then the last finished ones, without measurements."""
        rows = transaction.db.execute(
            "SELECT job FROM jobs ORDER BY state NOT IN ('running', 'leased'), state != 'queued', "
            "number DESC LIMIT ?",
            (most,),
        ).fetchall()
        return self.view(transaction, [row[0] for row in rows])

    def cancel(self, transaction: Transaction, job: str, *, owner: str | None = None) -> JobView:
        """End an open job; its board is told with the next heartbeat.

        Args:
            owner: name of the token that asks, which must have queued it; None for an
                administrator.

        Raises:
            Refusal: 403, somebody else queued it.
        """
        view = self._view(transaction, job)
        (queued_by,) = transaction.db.execute(
            "SELECT owner FROM jobs WHERE job = ?", (job,)
        ).fetchone()
        if owner is not None and queued_by != owner:
            raise refusals.forbidden()
        if view.state in OPEN_STATES:
            self._take_back(transaction, job, "cancelled", "cancelled")
        return self._view(transaction, job)

    # ------------------------------------------------------------------- boards

    def lease(
        self,
        transaction: Transaction,
        device: str,
        session: int,
        *,
        most: int,
        holding: Sequence[Held],
    ) -> list[LeasedJob]:
        """Give a board its next measurements: jobs of one kind, to be interleaved.

        Whatever it holds by our books and not by its own was lost on the way and goes back
        to the queue. A job that was lost before goes alone, so that it can take no others
        with it.
        """
        self._fleet.require_session(transaction, device, session)
        self._take_back_unheld(transaction, device, holding, counted=False)
        if self._fleet.quarantine(transaction, device) is not None:
            return []
        first = transaction.db.execute(
            "SELECT runtime, parameters, protocol, attempts FROM jobs "
            "WHERE device = ? AND state = 'queued' ORDER BY number LIMIT 1",
            (device,),
        ).fetchone()
        if first is None:
            return []
        lost_before = first[3] > 0
        rows = transaction.db.execute(
            "SELECT job, model FROM jobs WHERE device = ? AND state = 'queued' AND runtime = ? "
            "AND parameters = ? AND protocol = ? AND (attempts > 0) = ? ORDER BY number LIMIT ?",
            (device, *first[:3], lost_before, 1 if lost_before else most),
        ).fetchall()
        leased = []
        for job, model in rows:
            (fence,) = self._set(
                transaction, job, "state = 'leased', fence = fence + 1, attempts = attempts + 1"
            )
            transaction.event(self._clock.wall(), "leased", job=job, device=device, fence=fence)
            leased.append(
                LeasedJob(
                    job=job,
                    fence=fence,
                    model=model,
                    runtime=first[0],
                    parameters=stored_json(first[1]),
                    protocol=stored_json(first[2]),
                )
            )
        self._renew(transaction, [job for job, _ in rows])
        return leased

    def beat(
        self,
        transaction: Transaction,
        device: str,
        session: int,
        holding: Sequence[Held],
        *,
        starting: bool = False,
    ) -> list[str]:
        """Renew a board's leases and return the jobs it no longer holds.

        Args:
            starting: work on them begins.
        """
        self._fleet.require_session(transaction, device, session)
        return self.keep(transaction, device, holding, starting=starting)

    def keep(
        self,
        transaction: Transaction,
        device: str,
        holding: Sequence[Held],
        *,
        starting: bool = False,
    ) -> list[str]:
        """Renew those of ``holding`` that a board does hold, and return the others."""
        stop, kept = [], []
        for held in holding:
            row = transaction.db.execute(
                "SELECT device, state, fence FROM jobs WHERE job = ?", (held.job,)
            ).fetchone()
            if row is None or row[0] != device or row[2] != held.fence or row[1] not in OPEN_STATES:
                stop.append(held.job)
                continue
            kept.append(held.job)
            if starting and row[1] == "leased":
                self._set(transaction, held.job, "state = 'running'")
                transaction.event(self._clock.wall(), "running", job=held.job, device=device)
        self._renew(transaction, kept)
        return stop

    def register(self, transaction: Transaction, device: str, holding: Sequence[Held]) -> None:
        """Take back what a board that dials in anew no longer holds: its agent had died."""
        if self._take_back_unheld(transaction, device, holding, counted=True):
            self._fleet.failed(transaction, device, "the agent restarted during a measurement")
        self.keep(transaction, device, holding)

    def finish(self, transaction: Transaction, device: str, result: Result) -> bool:
        """Take the outcome of a lease; True when it counted now, False when it had before.

        Raises:
            Refusal: 409, the lease is over (``late``); 403, another board's job; 422, the
                measurement is not whole.
        """
        row = transaction.db.execute(
            "SELECT device, state, fence, runtime, protocol, attempts, result_sha256 "
            "FROM jobs WHERE job = ?",
            (result.job,),
        ).fetchone()
        if row is None:
            raise refusals.late()
        owner, state, fence, runtime, protocol, attempts, known = row
        if owner != device:
            raise refusals.forbidden()
        if (result.measurement is None) == (result.failure is None):
            raise refusals.malformed("a result is either a measurement or a failure")
        content = digest(result)
        if state not in OPEN_STATES and fence == result.fence and known == content:
            return False
        if state not in ("leased", "running") or fence != result.fence:
            raise refusals.late()
        if result.measurement is not None:
            whole = whole_measurement(result.measurement, runtime, stored_json(protocol))
            self._close(transaction, result.job, "done", content, result=json.dumps(whole))
            self._fleet.succeeded(transaction, device)
            return True
        assert result.failure is not None
        failure = result.failure.model_dump_json()
        if result.failure.kind != "infrastructure":
            self._close(transaction, result.job, "failed", content, failure=failure)
            return True
        self._fleet.failed(transaction, device, result.failure.detail)
        if attempts >= self._max_attempts:
            self._close(transaction, result.job, "failed", content, failure=failure)
        else:
            self._take_back(transaction, result.job, "queued", "infrastructure-failure")
        return True

    def expire(self, transaction: Transaction) -> list[str]:
        """Take back every lease whose time is over and return the jobs given up for good."""
        now = self._clock.monotonic()
        rows = transaction.db.execute(
            "SELECT job, device FROM jobs WHERE state IN ('leased', 'running')"
        ).fetchall()
        lost: dict[str, list[str]] = {}
        for job, device in rows:
            # A lease given in this very flush has no deadline yet.
            if self._deadlines.get(job, math.inf) <= now:
                lost.setdefault(device, []).append(job)
        given_up = []
        for device, jobs in lost.items():
            given_up += [job for job in jobs if self._lose(transaction, job)]
            self._fleet.failed(transaction, device, f"silent for {self._expiry_s:g} s")
        return given_up

    @property
    def due(self) -> bool:
        """Whether :meth:`expire` may have something to do."""
        return min(self._deadlines.values(), default=math.inf) <= self._clock.monotonic()

    def models_in_use(self, transaction: Transaction) -> set[str]:
        """Return the models of all open jobs."""
        rows = transaction.db.execute(
            "SELECT DISTINCT model FROM jobs WHERE state IN ('queued', 'leased', 'running')"
        )
        return {row[0] for row in rows}

    def may_read(self, transaction: Transaction, device: str, model: str) -> bool:
        """Whether a board holds a lease on a job with this model."""
        return (
            transaction.db.execute(
                "SELECT 1 FROM jobs WHERE device = ? AND model = ? "
                "AND state IN ('leased', 'running') LIMIT 1",
                (device, model),
            ).fetchone()
            is not None
        )

    # ------------------------------------------------------------------ changes

    def _take_back_unheld(
        self, transaction: Transaction, device: str, holding: Sequence[Held], *, counted: bool
    ) -> bool:
        held = {(item.job, item.fence) for item in holding}
        rows = transaction.db.execute(
            "SELECT job, fence, state FROM jobs WHERE device = ? "
            "AND state IN ('leased', 'running')",
            (device,),
        ).fetchall()
        lost = [(job, state) for job, fence, state in rows if (job, fence) not in held]
        for job, state in lost:
            if state == "leased" and not counted:
                # The agent never saw it: the answer to its request was lost.
                self._take_back(transaction, job, "queued", "never-arrived", attempts=-1)
            else:
                self._lose(transaction, job)
        return bool(lost)

    def _lose(self, transaction: Transaction, job: str) -> bool:
        """A lease was lost: queue the job again, or give it up (True)."""
        (attempts,) = transaction.db.execute(
            "SELECT attempts FROM jobs WHERE job = ?", (job,)
        ).fetchone()
        give_up = attempts >= self._max_attempts
        self._take_back(transaction, job, "expired" if give_up else "queued", "lease-lost")
        return give_up

    def _take_back(
        self, transaction: Transaction, job: str, state: str, what: str, *, attempts: int = 0
    ) -> None:
        self._set(
            transaction,
            job,
            f"state = '{state}', fence = fence + 1, attempts = max(0, attempts + {attempts})",
        )
        transaction.event(self._clock.wall(), what, job=job)
        transaction.after(lambda: self._forget(job))

    def _close(
        self,
        transaction: Transaction,
        job: str,
        state: str,
        digest: str,
        *,
        result: str | None = None,
        failure: str | None = None,
    ) -> None:
        transaction.db.execute(
            "UPDATE jobs SET state = ?, result = ?, failure = ?, result_sha256 = ?, changed = ? "
            "WHERE job = ?",
            (state, result, failure, digest, self._clock.wall(), job),
        )
        transaction.event(self._clock.wall(), state, job=job)
        transaction.after(lambda: self._forget(job))

    def _set(self, transaction: Transaction, job: str, changes: str) -> tuple[int]:
        transaction.db.execute(
            f"UPDATE jobs SET {changes}, changed = ? WHERE job = ?", (self._clock.wall(), job)
        )
        return transaction.db.execute("SELECT fence FROM jobs WHERE job = ?", (job,)).fetchone()

    def _renew(self, transaction: Transaction, jobs: Sequence[str]) -> None:
        def renew() -> None:
            deadline = self._clock.monotonic() + self._expiry_s
            self._deadlines.update(dict.fromkeys(jobs, deadline))

        transaction.after(renew)

    def _forget(self, job: str) -> None:
        self._deadlines.pop(job, None)

    def _restart(self, transaction: Transaction) -> None:
        rows = transaction.db.execute(
            "SELECT job FROM jobs WHERE state IN ('leased', 'running')"
        ).fetchall()
        self._renew(transaction, [row[0] for row in rows])

    def _view(
        self,
        transaction: Transaction,
        job: str,
        *,
        with_result: bool = False,
        missing_ok: bool = False,
    ) -> Any:
        row = transaction.db.execute(
            "SELECT job, device, model, runtime, state, attempts, created, changed, failure, "
            f"{'result' if with_result else 'NULL'} FROM jobs WHERE job = ?",
            (job,),
        ).fetchone()
        if row is None:
            if missing_ok:
                return None
            raise refusals.unknown("no job of that number")
        names = ("job", "device", "model", "runtime", "state", "attempts", "created", "changed")
        return JobView(
            **dict(zip(names, row, strict=False)),
            failure=None if row[8] is None else Failed.model_validate_json(row[8]),
            measurement=None if row[9] is None else stored_json(row[9]),
        )
