"""The server on the loopback address: who is answered, and who is not."""

from __future__ import annotations

import socket

import httpx
import pytest

from nas.live.loopback import LoopbackServer
from search_spaces.errors import EnvironmentProblem


def application(environment, begin):
    begin("200 OK", [("Content-Type", "text/plain"), ("Cache-Control", "max-age=1")])
    return [environment["PATH_INFO"].encode()]


@pytest.fixture
def server():
    found = LoopbackServer(application).start()
    yield found
    found.close()


def get(server, *, host=None, method="GET", **headers):
    named = {} if host is None else {"Host": host}
    return httpx.request(method, f"{server.url}x", headers={**named, **headers})


def test_it_answers_on_the_loopback_address_alone(server):
    assert server.url == f"http://127.0.0.1:{server.port}/"
    answer = get(server)
    assert (answer.status_code, answer.text) == (200, "/x")
    assert answer.headers["cache-control"] == "max-age=1"  # the application's own
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert server._server.socket.getsockname()[0] == "127.0.0.1"


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "localhost:1", ""]
)
def test_another_name_for_this_address_is_refused(server, host):
    # What a page of the internet reaches by pointing a name of its own here.
    answer = get(server, host=host.format(port=server.port))
    assert answer.status_code in (400, 421) and answer.text != "/x"


def test_both_names_of_the_loopback_address_are_known(server):
    assert get(server, host=f"localhost:{server.port}").status_code == 200
    assert get(server, host=f"LOCALHOST:{server.port}").status_code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "HEAD"])
def test_nothing_can_be_changed(server, method):
    assert get(server, method=method).status_code == 405


def test_scripts_of_other_sites_get_no_answer_and_links_are_followed(server):
    site = {"Sec-Fetch-Site": "cross-site"}
    assert get(server, **site, **{"Sec-Fetch-Mode": "no-cors"}).status_code == 403
    framed = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}
    assert get(server, **site, **framed).status_code == 403
    followed = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert get(server, **site, **followed).status_code == 200
    assert get(server, **{"Sec-Fetch-Site": "same-origin"}).status_code == 200


def test_a_port_that_is_taken_is_told(server):
    with pytest.raises(EnvironmentProblem, match=rf"port {server.port} .* is taken"):
        LoopbackServer(application, server.port)


def test_connections_that_say_nothing_do_not_keep_others_out(server, monkeypatch):
    monkeypatch.setattr("nas.live.loopback._Handler.timeout", 0.2)
    silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(5)]
    assert get(server).status_code == 200
    for one in silent:
        one.settimeout(5)
        assert one.recv(1) == b""  # closed by the server
        one.close()
