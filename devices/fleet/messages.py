"""What hub, agents and clients say to each other: JSON, data only, every field bounded.

The models are shared by the three sides, so they cannot part. Unknown fields are refused.
"""

from __future__ import annotations

import json
import math
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    model_validator,
)

HEARTBEAT_S = 5.0
"""How often an agent reports."""
EXPIRY_S = 30.0
"""After how long a silence a lease is over."""
DEVICE_HEADER = "x-device"
"""Names the board that a request speaks for; a token of scope ``measure`` implies it."""
MAX_JOBS = 1000
"""Jobs in one message."""
MAX_WAIT_S = 30.0
"""Longest long poll."""

MAX_JSON_DEPTH = 32


def finite_json(value: Any) -> Any:
    """Return ``value``; free JSON is bounded in depth, and its numbers are numbers.

    ``NaN`` and ``1e999`` are no JSON, though Python reads them: kept once, they would break
    whoever reads them.

    Raises:
        ValueError: they are not, or it is nested too deeply.
    """
    stack = [(value, 0)]
    while stack:
        item, depth = stack.pop()
        if depth > MAX_JSON_DEPTH:
            raise ValueError("nested too deeply")
        if isinstance(item, float) and not math.isfinite(item):
            raise ValueError("numbers must be finite")
        if isinstance(item, dict):
            stack.extend((child, depth + 1) for child in item.values())
        elif isinstance(item, (list, tuple)):
            stack.extend((child, depth + 1) for child in item)
    return value


def stored_json(text: str) -> Any:
    """Return what is kept as JSON; what an earlier version kept as NaN or 1e999 is null."""

    def number(digits: str) -> float | None:
        value = float(digits)
        return value if math.isfinite(value) else None

    return json.loads(text, parse_float=number, parse_constant=lambda name: None)


Sha256 = Annotated[str, StringConstraints(strict=True, pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, StringConstraints(strict=True, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}$")]
JobId = Annotated[str, StringConstraints(strict=True, pattern=r"^[0-9a-f]{32}$")]
Text = Annotated[str, StringConstraints(strict=True, max_length=2000)]
Count = Annotated[int, Field(strict=True, ge=0, lt=2**53)]
Wait = Annotated[float, Field(ge=0, le=MAX_WAIT_S)]
Json = Annotated[dict[str, JsonValue], AfterValidator(finite_json)]

State = Literal["queued", "leased", "running", "done", "failed", "expired", "cancelled"]
OPEN_STATES = ("queued", "leased", "running")
Scope = Literal["submit", "measure", "admin"]
FailureKind = Literal["infrastructure", "refused", "unsupported"]


class Message(BaseModel):
    """Base of every message."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Held(Message):
    """A lease an agent believes it holds."""

    job: JobId
    fence: Count


class RuntimeOffer(Message):
    """A runtime an agent can measure with."""

    name: Name
    version: Text
    parameters: Json = {}


class Description(Message):
    """What a board is: shown in lists, and what a measurement's key is made of.

    Attributes:
        fingerprint: what decides latencies and stays the same over a reboot.
        hardware: further facts for people (memory, kernel, ...).
        limits: the largest model and longest measurement the agent takes.
    """

    fingerprint: Json
    hardware: Json = {}
    runtimes: Annotated[list[RuntimeOffer], Field(max_length=64)]
    agent_version: Text = ""
    limits: Json = {}


class Register(Message):
    """An agent dials in; what it does not hold of its old leases is taken back."""

    device: Name
    description: Description
    holding: Annotated[list[Held], Field(max_length=MAX_JOBS)] = []


class Registered(Message):
    """What a hub tells an agent that has dialled in: its session, and its duties, in s."""

    session: Count
    heartbeat_s: float
    expiry_s: float


class LeaseRequest(Message):
    """An agent asks for work; ``holding`` is what it still has to deliver."""

    session: Count
    most: Annotated[int, Field(strict=True, ge=1, le=64)] = 8
    wait_s: Wait = 25.0
    holding: Annotated[list[Held], Field(max_length=MAX_JOBS)] = []


class LeasedJob(Message):
    """One measurement to make: a model file by its hash, and how."""

    job: JobId
    fence: Count
    model: Sha256
    runtime: Name
    parameters: Json
    protocol: Json


class LeaseReply(Message):
    """The jobs an agent may work on now."""

    jobs: Annotated[list[LeasedJob], Field(max_length=64)]


class Beat(Message):
    """A heartbeat, or (to ``start``) the leases on which work begins."""

    session: Count
    holding: Annotated[list[Held], Field(max_length=MAX_JOBS)] = []


class BeatReply(Message):
    """Jobs the agent no longer holds: their results would be refused."""

    stop: list[JobId]


class Failed(Message):
    """Why there is no measurement. Only ``infrastructure`` is tried again.

    ``refused``: the model or the job is not acceptable; ``unsupported``: the board lacks
    what the job asks for.
    """

    kind: FailureKind
    detail: Text


class Samples(BaseModel):
    """The parts of a measurement the hub checks before it keeps it; others pass through."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)

    latency_ms: float | None
    low_ms: float | None
    high_ms: float | None
    valid: Annotated[bool, Field(strict=True)]
    reasons: Annotated[list[Text], Field(max_length=64)]
    samples_ms: Annotated[
        list[Annotated[list[float], Field(max_length=100_000)]], Field(max_length=1000)
    ]
    calls: Annotated[list[Count], Field(max_length=1000)]
    rejected: Annotated[list[Json], Field(max_length=64)]
    runtime: Name
    runtime_version: Text
    protocol: Json

    @model_validator(mode="after")
    def _finite(self) -> Samples:
        finite_json(self.__pydantic_extra__ or {})
        return self


class Result(Message):
    """The outcome of one lease: a whole measurement or a failure."""

    job: JobId
    fence: Count
    measurement: Samples | None = None
    failure: Failed | None = None


class JobRequest(Message):
    """One measurement wanted by a client.

    Attributes:
        supersedes: a finished job of the same key, to measure anew; without it the job of
            that key is given back, whatever its state.
    """

    device: Name
    model: Sha256
    runtime: Name
    parameters: Json = {}
    protocol: Json = {}
    supersedes: JobId | None = None


class Submit(Message):
    """Asks a hub to measure models."""

    jobs: Annotated[list[JobRequest], Field(min_length=1, max_length=MAX_JOBS)]


class JobView(Message):
    """A job as clients see it; ``measurement`` only when it was asked for and is done."""

    job: JobId
    device: Name
    model: Sha256
    runtime: Name
    state: State
    attempts: Count
    created: float
    changed: float
    failure: Failed | None = None
    measurement: Json | None = None


class Jobs(Message):
    """Jobs as they stand."""

    jobs: list[JobView]


class Await(Message):
    """Asks for jobs; answers at once when one of them is finished, else after ``wait_s``."""

    jobs: Annotated[list[JobId], Field(min_length=1, max_length=MAX_JOBS)]
    wait_s: Wait = 25.0


DeviceState = Literal["idle", "busy", "offline", "quarantined"]


class DeviceView(Message):
    """A board as clients see it.

    Attributes:
        state: ``idle``, ``busy``, ``offline`` or ``quarantined``.
        last_heartbeat: Unix time; null when there was none since the hub knows it.
        heartbeat_age_s: by the hub's monotonic clock; null when it was silent since the
            hub's start.
        failures: infrastructure failures since the last success.
        health: "ok" or what is wrong.
        fingerprint_id: short name of the description's fingerprint; empty from a hub that
            does not send it.
    """

    name: Name
    state: DeviceState
    last_heartbeat: float | None
    heartbeat_age_s: float | None
    queued: Count
    running: Count
    done: Count
    failures: Count
    health: Text
    description: Description
    fingerprint_id: Text = ""


class Devices(Message):
    """The boards a hub knows."""

    devices: list[DeviceView]


class TokenRequest(Message):
    """A token to be made; one that measures is bound to its device."""

    name: Name
    scope: Scope
    device: Name | None = None
    expires_days: Annotated[float, Field(gt=0, le=36500)] | None = None


class TokenView(Message):
    """A token without its text; times are seconds since 1970, ``expires`` None for never."""

    name: Name
    scope: Scope
    device: Name | None
    created: float
    expires: float | None
    revoked: bool


class Tokens(Message):
    """The tokens a hub knows."""

    tokens: list[TokenView]


class IssuedToken(Message):
    """A new token: the only time its text is seen."""

    name: Name
    token: Text


def to_json(message: BaseModel) -> dict[str, Any]:
    """Return a message as a JSON-able dictionary."""
    return message.model_dump(mode="json")
