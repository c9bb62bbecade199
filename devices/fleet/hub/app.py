"""The hub's HTTP interface: who may ask what, and which change it makes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any, TypeVar

from fastapi import Depends, FastAPI, Request, Response
from fastapi import Path as PathParameter
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import FileResponse

from devices.fleet.hub import refusals
from devices.fleet.hub.guard import Guard, refusal_body
from devices.fleet.hub.hub import Hub
from devices.fleet.hub.page import add_page
from devices.fleet.hub.tokens import Identity
from devices.fleet.messages import (
    DEVICE_HEADER,
    Await,
    Beat,
    BeatReply,
    Devices,
    IssuedToken,
    Jobs,
    JobView,
    LeaseReply,
    LeaseRequest,
    Register,
    Registered,
    Result,
    Submit,
    TokenRequest,
)
from devices.fleet.messages import Tokens as TokenList
from search_spaces.errors import EnvironmentProblem, InputError

M = TypeVar("M", bound=BaseModel)

_LOG = logging.getLogger(__name__)

MAX_CONTAINERS = 100_000
"""Lists and objects in one message: a few bytes of text are a few hundred in memory."""
MAX_VALUES = 1_000_000
"""Values in one message."""
_RESULTS_AT_ONCE = 2
_LARGE = 1 << 16


def make_app(hub: Hub) -> Guard:
    """Return the ASGI application of a hub, its guard before it."""
    return Guard(_application(hub), verify=hub.tokens.verify, limits=hub.limits.guard)


def _application(hub: Hub) -> FastAPI:
    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        sweeper = asyncio.create_task(_sweep(hub))
        yield
        sweeper.cancel()
        hub.bells.close()

    app = FastAPI(
        title="hub",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
    )
    _add_refusals(app)
    add_page(app)
    _add_client_routes(app, hub)
    _add_blob_routes(app, hub)
    _add_agent_routes(app, hub)
    _add_admin_routes(app, hub)
    return app


async def _sweep(hub: Hub) -> None:
    while True:
        await asyncio.sleep(1.0)
        try:
            await hub.expire()
        except EnvironmentProblem as error:
            _LOG.warning("leases could not be swept: %s", error)


# ------------------------------------------------------------------------ refusals


def _add_refusals(app: FastAPI) -> None:
    def answer(status: int, code: str, detail: str) -> Response:
        return Response(refusal_body(code, detail), status, media_type="application/json")

    @app.exception_handler(refusals.Refusal)
    async def refused(_: Request, error: refusals.Refusal) -> Response:
        return answer(error.status, error.code, error.detail)

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> Response:
        return answer(error.status_code, "http", "no such resource or method")

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        return answer(422, "malformed", "the request is malformed")

    @app.exception_handler(InputError)
    async def bad(_: Request, error: InputError) -> Response:
        return answer(422, "malformed", str(error))

    @app.exception_handler(EnvironmentProblem)
    async def lacking(_: Request, error: EnvironmentProblem) -> Response:
        _LOG.error("%s", error)
        return answer(507, "storage", "the hub cannot write to its disk")

    @app.exception_handler(Exception)
    async def fault(_: Request, error: Exception) -> Response:
        return answer(500, "fault", "the hub failed on this request")


async def _message(request: Request, model: type[M]) -> M:
    body = await request.body()
    if body.count(b"[") + body.count(b"{") > MAX_CONTAINERS or body.count(b",") > MAX_VALUES:
        raise refusals.malformed("the message has more values than allowed")
    try:
        if len(body) > _LARGE:
            # Seconds for the largest, in which the loop must go on to answer others.
            return await run_in_threadpool(model.model_validate_json, body)
        return model.model_validate_json(body)
    except (ValidationError, ValueError) as error:
        raise refusals.malformed(_first(error)) from None


def _first(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return "the message is malformed"
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where[:100]}: {first['msg'][:200]}" if where else first["msg"][:200]


# ----------------------------------------------------------------------- identity


def _scoped(*scopes: str) -> Callable[[Request], Awaitable[Identity]]:
    """Return a dependency that gives the caller, whom the guard has identified."""

    async def identify(request: Request) -> Identity:
        identity: Identity = request.scope["identity"]
        if identity.scope not in scopes:
            raise refusals.forbidden()
        return identity

    return identify


async def _board(request: Request) -> str:
    """Return the board a request speaks for: the token's, or any for an administrator."""
    identity: Identity = request.scope["identity"]
    named = request.headers.get(DEVICE_HEADER)
    if identity.scope == "measure" and named in (None, identity.device):
        assert identity.device is not None
        return identity.device
    if identity.scope == "admin" and named is not None and re.fullmatch(_NAME, named):
        return named
    raise refusals.forbidden()


_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}$"

# The argument's metadata, so that a route reads: device: Board.
Client = Annotated[Identity, Depends(_scoped("submit", "admin"))]
Board = Annotated[str, Depends(_board)]
Admin = Annotated[Identity, Depends(_scoped("admin"))]
Sha256 = Annotated[str, PathParameter(pattern=r"^[0-9a-f]{64}$")]
JobNumber = Annotated[str, PathParameter(pattern=r"^[0-9a-f]{32}$")]
PathName = Annotated[str, PathParameter(pattern=_NAME)]


# ------------------------------------------------------------------------- routes


def _add_client_routes(app: FastAPI, hub: Hub) -> None:
    @app.get("/api/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/api/devices")
    async def devices(_: Client) -> Devices:
        await hub.expire()
        return Devices(devices=await hub.ledger.run(hub.fleet.view))

    @app.get("/api/jobs")
    async def recent(_: Client) -> Jobs:
        return Jobs(jobs=await hub.ledger.run(hub.leases.recent))

    @app.post("/api/jobs")
    async def submit(request: Request, client: Client) -> Jobs:
        message = await _message(request, Submit)
        jobs = await hub.ledger.run(lambda t: hub.leases.submit(t, message.jobs, owner=client.name))
        for device in {job.device for job in message.jobs}:
            hub.bells.ring(f"device:{device}")
        return Jobs(jobs=jobs)

    @app.post("/api/jobs/await")
    async def wait(request: Request, _: Client) -> Jobs:
        message = await _message(request, Await)

        async def look() -> list[JobView]:
            return await hub.ledger.run(lambda t: hub.leases.finished(t, message.jobs))

        keys = [f"job:{job}" for job in message.jobs]
        return Jobs(jobs=await hub.bells.until(look, keys, message.wait_s))

    @app.delete("/api/jobs/{job}")
    async def cancel(job: JobNumber, client: Client) -> JobView:
        owner = None if client.scope == "admin" else client.name
        view = await hub.ledger.run(lambda t: hub.leases.cancel(t, job, owner=owner))
        hub.bells.ring(f"job:{job}")
        return view


def _add_blob_routes(app: FastAPI, hub: Hub) -> None:
    @app.head("/api/blobs/{sha256}")
    async def present(sha256: Sha256, _: Client) -> Response:
        found = await run_in_threadpool(hub.blobs.__contains__, sha256)
        if found:
            await run_in_threadpool(hub.blobs.touch, sha256)
        return Response(status_code=200 if found else 404)

    @app.put("/api/blobs/{sha256}")
    async def upload(sha256: Sha256, request: Request, client: Client) -> dict[str, str]:
        declared = int(request.headers.get("content-length", 0))
        await run_in_threadpool(hub.require_space, declared)
        used = await hub.ledger.run(hub.leases.models_in_use)
        await run_in_threadpool(hub.require_quota, client.name, declared, used)
        incoming = hub.blobs.receive(sha256)
        await run_in_threadpool(incoming.__enter__)
        try:
            async for piece in request.stream():
                await run_in_threadpool(incoming.write, piece)
            path = await run_in_threadpool(incoming.finish)
            hub.uploaded(client.name, sha256, path)
        except ClientDisconnect:
            raise refusals.Refusal(400, "disconnected", "the upload was cut off") from None
        finally:
            await run_in_threadpool(incoming.__exit__)
        used = await hub.ledger.run(hub.leases.models_in_use)
        await run_in_threadpool(hub.prune, used)
        return {"sha256": sha256}

    @app.get("/api/blobs/{sha256}")
    async def download(sha256: Sha256, device: Board) -> Response:
        if not await hub.ledger.run(lambda t: hub.leases.may_read(t, device, sha256)):
            raise refusals.forbidden()
        path = hub.blobs.path(sha256)
        if not path.is_file():
            raise refusals.unknown("the model is no longer here")
        return FileResponse(path, media_type="application/octet-stream")


def _add_agent_routes(app: FastAPI, hub: Hub) -> None:
    reading = asyncio.Semaphore(_RESULTS_AT_ONCE)

    @app.get("/api/agent/whoami")
    async def whoami(request: Request) -> dict[str, str | None]:
        identity: Identity = request.scope["identity"]
        return {"scope": identity.scope, "device": identity.device}

    @app.post("/api/agent/register")
    async def register(request: Request, device: Board) -> Registered:
        message = await _message(request, Register)
        if message.device != device:
            raise refusals.forbidden()

        def change(transaction: Any) -> int:
            session = hub.fleet.register(transaction, message.device, message.description)
            hub.leases.register(transaction, message.device, message.holding)
            return session

        session = await hub.ledger.run(change)
        hub.bells.ring(f"device:{message.device}")
        return Registered(
            session=session, heartbeat_s=hub.limits.heartbeat_s, expiry_s=hub.limits.expiry_s
        )

    @app.post("/api/agent/lease")
    async def lease(request: Request, device: Board) -> LeaseReply:
        message = await _message(request, LeaseRequest)
        await hub.expire()

        async def look() -> list[Any]:
            if await request.is_disconnected():
                return []
            return await hub.ledger.run(
                lambda t: hub.leases.lease(
                    t, device, message.session, most=message.most, holding=message.holding
                )
            )

        return LeaseReply(jobs=await hub.bells.until(look, [f"device:{device}"], message.wait_s))

    @app.post("/api/agent/start")
    async def start(request: Request, device: Board) -> BeatReply:
        return await beat(request, device, starting=True)

    @app.post("/api/agent/heartbeat")
    async def heartbeat(request: Request, device: Board) -> BeatReply:
        return await beat(request, device, starting=False)

    async def beat(request: Request, device: str, *, starting: bool) -> BeatReply:
        message = await _message(request, Beat)
        stop = await hub.ledger.run(
            lambda t: hub.leases.beat(
                t, device, message.session, message.holding, starting=starting
            )
        )
        return BeatReply(stop=stop)

    @app.post("/api/agent/result")
    async def result(request: Request, device: Board) -> dict[str, bool]:
        # Values in memory take many times the room of their text, so a few at a time.
        async with reading:
            message = await _message(request, Result)
            counted = await hub.ledger.run(lambda t: hub.leases.finish(t, device, message))
        hub.bells.ring(f"job:{message.job}")
        return {"counted": counted}


def _add_admin_routes(app: FastAPI, hub: Hub) -> None:
    @app.get("/api/tokens")
    async def tokens(_: Admin) -> TokenList:
        return TokenList(tokens=await hub.ledger.run(hub.tokens.list))

    @app.post("/api/tokens")
    async def add(request: Request, _: Admin) -> IssuedToken:
        message = await _message(request, TokenRequest)
        return await hub.ledger.run(lambda t: hub.tokens.add(t, message))

    @app.post("/api/tokens/{token}/rotate")
    async def rotate(token: PathName, _: Admin) -> IssuedToken:
        return await hub.ledger.run(lambda t: hub.tokens.rotate(t, token))

    @app.delete("/api/tokens/{token}")
    async def revoke(token: PathName, _: Admin) -> dict[str, str]:
        await hub.ledger.run(lambda t: hub.tokens.revoke(t, token))
        return {"name": token}

    @app.post("/api/devices/{device}/release")
    async def release(device: PathName, _: Admin) -> dict[str, str]:
        await hub.ledger.run(lambda t: hub.fleet.release(t, device))
        hub.bells.ring(f"device:{device}")
        return {"device": device}
