"""Requests that are too slow or too large, and clients that do not take their answer."""

import asyncio

import pytest

pytest.importorskip("fastapi")

from devices.fleet.hub.guard import Guard, GuardLimits, refusal_body
from devices.fleet.hub.tokens import Identity

LIMITS = GuardLimits(
    message_bytes=100, blob_bytes=1000, silence_s=0.05, grace_s=10.0, bytes_per_s=10.0, uploads=1
)


async def echo(scope, receive, send):
    size, more = 0, True
    while more:
        event = await receive()
        if event["type"] == "http.disconnect":
            break
        size += len(event["body"])
        more = event["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(size).encode()})


def ask(pieces, *, path="/api/jobs", method="POST", headers=(), stall=False, clock=None, app=echo):
    """Send the pieces of a body and return status, headers and body."""
    sent = {}
    times = iter(clock or ())
    options = {"clock": lambda: next(times, 100.0)} if clock else {}
    guard = Guard(app, verify=lambda token: Identity("t", "admin"), limits=LIMITS, **options)
    waiting = list(pieces)
    headers = [(b"authorization", b"Bearer t"), (b"transfer-encoding", b"chunked"), *headers]

    async def receive():
        if waiting:
            piece = waiting.pop(0)
            return {
                "type": "http.request", "body": piece, "more_body": bool(waiting) or stall
            }  # fmt: skip
        await asyncio.sleep(30)
        raise AssertionError("nobody waits so long")

    async def send(event):
        if event["type"] == "http.response.start":
            sent["status"], sent["headers"] = event["status"], dict(event["headers"])
        else:
            sent["body"] = event["body"]

    scope = {"type": "http", "method": method, "path": path, "headers": headers}
    asyncio.run(guard(scope, receive, send))
    return sent


def test_a_body_arrives_whole():
    assert ask([b"a" * 30, b"b" * 30])["body"] == b"60"


@pytest.mark.parametrize("path, method", [("/api/jobs", "POST"), ("/api/blobs/x", "PUT")])
def test_a_body_that_stalls_is_refused_and_the_connection_closed(path, method):
    sent = ask([b"a"], stall=True, path=path, method=method)
    assert sent["status"] == 408 and sent["headers"][b"connection"] == b"close"
    assert sent["body"] == refusal_body("too-slow", "the request stalled")


def test_a_body_that_trickles_is_refused():
    clock = [0.0, 5.0, 9.0, 11.0, 12.0]
    sent = ask([b"a"] * 10, clock=clock)
    assert sent["status"] == 408 and b"too slowly" in sent["body"]


@pytest.mark.parametrize(
    "path, method, size", [("/api/jobs", "POST", 101), ("/api/blobs/x", "PUT", 1001)]
)
def test_a_body_that_grows_beyond_the_limit_is_refused(path, method, size):
    assert ask([b"a" * 50] * (size // 50) + [b"a"], path=path, method=method)["status"] == 413


@pytest.mark.parametrize("value", [b"-1", b"1e9", b"0x10", b"", b"9" * 30, b"1, 2"])
def test_odd_lengths_are_refused(value):
    assert ask([b"a"], headers=[(b"content-length", value)])["status"] == 400


def test_a_client_that_does_not_take_its_answer_is_let_go():
    async def run():
        async def send(event):
            await asyncio.sleep(30)

        async def receive():
            return {"type": "http.request", "body": b"", "more_body": False}

        guard = Guard(echo, verify=lambda token: Identity("t", "admin"), limits=LIMITS)
        scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
        with pytest.raises(asyncio.TimeoutError):
            await guard(scope, receive, send)

    asyncio.run(run())


def test_refusals_have_one_length():
    for detail in ("", "x" * 10_000, '"' * 5000, "é\u202e\x00" * 300):
        assert len(refusal_body("code", detail)) == len(refusal_body("", "short"))
