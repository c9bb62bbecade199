"""New connections are taken at a rate; established ones never wait for them."""

import asyncio
import contextlib
import socket

import pytest

from devices.fleet.hub.accept import Acceptor


class Counting(asyncio.Protocol):
    made = 0

    def connection_made(self, transport):
        type(self).made += 1
        transport.write(b"hello")


async def taken(connections: int, *, seconds: float = 5.0, until: int, **limits) -> int:
    """Open ``connections`` and return how many were taken when ``until`` were, or time is up."""

    class Here(Counting):
        made = 0

    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=128))
        for _ in range(connections):
            stack.enter_context(socket.create_connection(listener.getsockname()))
        acceptor = Acceptor(listener, Here, None, **limits)
        end = asyncio.get_running_loop().time() + seconds
        while Here.made < until and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.01)
        # What is above the rate would be taken at once now, were there none.
        for _ in range(5):
            await asyncio.sleep(0.01)
        acceptor.close()
        await acceptor.wait_closed()
        return Here.made


@pytest.mark.parametrize("at_once", [1, 5, 40])
def test_a_flood_waits_in_the_queue(at_once):
    found = asyncio.run(taken(60, until=at_once, new_per_s=1e-3, new_at_once=at_once))
    assert found == at_once


def test_the_queue_is_taken_as_time_goes_by():
    assert asyncio.run(taken(60, until=60, new_per_s=500.0, new_at_once=5)) == 60
