"""A real server under slow clients: it lets go of them and goes on to serve."""

import contextlib
import os
import signal
import socket
import subprocess
import sys

import httpx
import pytest

pytest.importorskip("uvicorn")

CODE = """
import sys
from pathlib import Path
from devices.fleet.hub.connections import GuardedProtocol
from devices.fleet.hub.server import serve
GuardedProtocol.head_s, GuardedProtocol.max_headless = 1.0, 20
folder = Path(sys.argv[1])
serve(host="127.0.0.1", port=0, data=folder / "hub", token_file=folder / "token",
      on_ready=lambda url: print(url, flush=True))
"""
HEADERS = {"authorization": "Bearer the-admin-token"}


@pytest.fixture
def hub(tmp_path):
    (tmp_path / "token").write_text("the-admin-token\n")
    processes = []

    def start():
        process = subprocess.Popen(
            [sys.executable, "-c", CODE, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        processes.append(process)
        return process, process.stdout.readline().strip()

    yield start
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


def connect(url):
    host, port = url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)))
    connection.settimeout(20)
    return connection


def drain(connection):
    """Return all that comes until the other side closes; fails when it does not."""
    received = b""
    with connection, contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(4096):
            received += piece
    return received


def test_slow_heads_are_closed_and_others_are_served(hub):
    _, url = hub()
    slow = [connect(url) for _ in range(40)]
    for connection in slow:
        connection.sendall(b"GET /api/devices HTTP/1.1\r\nhost: x\r\nx-a")
    assert httpx.get(f"{url}/api/devices", headers=HEADERS).status_code == 200
    for connection in slow:
        assert drain(connection) == b""
    idle = connect(url)
    idle.sendall(b"GET /api/health HTTP/1.1\r\nhost: x\r\n\r\n")
    idle.sendall(b"GET /api/he")  # a second head, that never ends
    assert b'{"status":"ok"}' in drain(idle)
    assert httpx.get(f"{url}/api/devices", headers=HEADERS).status_code == 200


def test_a_killed_hub_comes_back_with_what_it_had(hub):
    process, url = hub()
    token = {"name": "board", "scope": "measure", "device": "board"}
    made = httpx.post(f"{url}/api/tokens", headers=HEADERS, json=token).json()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    _, url = hub()
    who = {"authorization": f"Bearer {made['token']}"}
    answer = httpx.get(f"{url}/api/agent/whoami", headers=who)
    assert answer.json() == {"scope": "measure", "device": "board"}


def test_many_silent_connections_keep_nobody_out_and_fill_no_log(hub, tmp_path):
    process, url = hub()
    silent = []
    with contextlib.ExitStack() as stack:
        for _ in range(300):
            connection = stack.enter_context(connect(url))
            silent.append(connection)
            if len(silent) % 100 == 0:
                assert httpx.get(f"{url}/api/devices", headers=HEADERS).status_code == 200
    assert process.poll() is None


def test_a_process_out_of_files_says_so_once_and_goes_on(tmp_path):
    """The limit of open files stands in for a thousand connections."""
    (tmp_path / "token").write_text("the-admin-token\n")
    code = CODE.replace(
        "folder = Path",
        "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\nfolder = Path",
    )
    errors = tmp_path / "errors"
    with open(errors, "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        url = process.stdout.readline().strip()
        connections = [connect(url) for _ in range(200)]
        for connection in connections:
            connection.close()
        for _ in range(50):
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{url}/api/devices", headers=HEADERS).status_code == 200:
                    break
        else:
            pytest.fail("the hub serves nobody any more")
        assert len(errors.read_bytes()) < 5000
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
