"""TLS and client certificates end to end: a real hub, real certificates, real sockets."""

import contextlib
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time

import pytest

from devices.device import BoardAddress, DeviceSpec
from devices.fleet.agent.agent import Agent
from devices.fleet.agent.config import AgentConfig
from devices.fleet.agent.workshop import Workshop
from devices.fleet.hub.server import Tls, tls_context
from devices.fleet.link import HubLink, HubUnreachable, TlsFiles
from devices.fleet.messages import Devices
from devices.fleet.remote import RemoteDevice
from devices.measuring.protocol import Protocol
from devices.testing import InstantSampler
from search_spaces.errors import InputError

pytest.importorskip("uvicorn")
if shutil.which("openssl") is None:
    pytest.skip("openssl makes the certificates", allow_module_level=True)

CODE = """
import sys
from pathlib import Path
from devices.fleet.hub.server import Tls, serve
data, token, certificate, key, *ca = map(Path, sys.argv[1:])
serve(host="0.0.0.0", port=0, data=data, token_file=token,
      tls=Tls(certificate, key, ca[0] if ca else None),
      on_ready=lambda url: print(url, flush=True))
"""
ADMIN = "the-admin-token-of-the-tests"


class Authority:
    """A certificate authority in a folder."""

    def __init__(self, folder, name):
        self.folder, self.name = folder, name
        folder.mkdir(exist_ok=True)
        self.pem = self._run(name, "CN=" + name, "basicConstraints=critical,CA:TRUE", [])[0]

    def issue(self, name, *names):
        """Return certificate and key of a holder, valid for ``names``."""
        signed = ["-CA", str(self.pem), "-CAkey", str(self.folder / f"{self.name}.key")]
        return self._run(name, "CN=" + name, "subjectAltName=" + ",".join(names), signed)

    def _run(self, name, subject, extension, signed):
        pem, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        command = ["openssl", "req", "-x509", *curve, "-days", "2", *signed]
        command += ["-subj", "/" + subject, "-addext", extension]
        command += ["-keyout", str(key), "-out", str(pem)]
        subprocess.run(command, check=True, capture_output=True)
        return pem, key


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """Ours, a stranger's, and what both issued."""
    folder = tmp_path_factory.mktemp("certificates")
    return Authority(folder / "ours", "ours"), Authority(folder / "strange", "strange")


@pytest.fixture
def serve(tmp_path, certificates):
    """Start a hub with TLS on every address; returns its URL on this machine."""
    ours, _ = certificates
    token = tmp_path / "admin.token"
    token.write_text(ADMIN + "\n")
    processes = []

    def start(*, names=("IP:127.0.0.1",), client_ca=None):
        certificate, key = ours.issue("hub", *names)
        files = [tmp_path / "hub", token, certificate, key, *([client_ca] if client_ca else [])]
        command = [sys.executable, "-c", CODE, *map(str, files)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        return process.stdout.readline().strip().replace("0.0.0.0", "127.0.0.1"), token

    yield start
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


def ask(url, token, **files):
    link = HubLink(url, token, tls=TlsFiles(**files))
    try:
        return link.ask("GET", "/api/devices", Devices).devices
    finally:
        link.close()


def test_a_measurement_goes_through_tls_with_certificates_on_both_sides(
    serve, certificates, tmp_path, make_model
):
    ours, _ = certificates
    url, token = serve(client_ca=ours.pem)
    certificate, key = ours.issue("board", "DNS:board")
    files = {"ca": ours.pem, "certificate": certificate, "key": key}
    config = AgentConfig(name="board", runtimes={"onnxruntime": {}})
    # The admin token speaks for any board.
    agent = Agent(
        HubLink(url, token, tls=TlsFiles(**files)),
        Workshop(config, sampler=InstantSampler(), lock=contextlib.nullcontext),
        tmp_path / "agent",
        wait_s=0.1,
    )
    stop = threading.Event()
    thread = threading.Thread(target=agent.run, args=(stop,))
    thread.start()
    try:
        while not ask(url, token, **files):
            time.sleep(0.05)
        address = BoardAddress(url, token, "board", ours.pem, certificate, key)
        device = RemoteDevice(DeviceSpec("board", address=address), wait_s=5.0)
        protocol = Protocol(processes=2, runs=5, pin=False)
        (measured,) = device.measure([make_model()], protocol=protocol)
    finally:
        stop.set()
        thread.join()
    assert measured.latency_ms == pytest.approx(1.0)
    (board,) = ask(url, token, **files)
    assert board.done == 1


def test_a_hub_that_another_authority_signed_is_not_talked_to(serve, certificates):
    ours, strange = certificates
    url, token = serve()
    assert ask(url, token, ca=ours.pem) == []
    for files in ({"ca": strange.pem}, {}):
        with pytest.raises(HubUnreachable, match="certificate"):
            ask(url, token, **files)


def test_a_certificate_for_another_name_is_not_accepted(serve, certificates):
    ours, _ = certificates
    url, token = serve(names=("DNS:other.example",))
    with pytest.raises(HubUnreachable, match="certificate"):
        ask(url, token, ca=ours.pem)


def test_clients_without_the_right_certificate_are_refused_and_others_served(serve, certificates):
    ours, strange = certificates
    url, token = serve(client_ca=ours.pem)
    with pytest.raises(HubUnreachable):
        ask(url, token, ca=ours.pem)
    foreign, foreign_key = strange.issue("board", "DNS:board")
    with pytest.raises(HubUnreachable):
        ask(url, token, ca=ours.pem, certificate=foreign, key=foreign_key)
    good, good_key = ours.issue("client", "DNS:client")
    assert ask(url, token, ca=ours.pem, certificate=good, key=good_key) == []


def test_plain_text_gets_no_answer_from_a_hub_with_tls(serve):
    url, token = serve()
    with pytest.raises(HubUnreachable):
        ask(url.replace("https", "http"), token)


def test_old_protocols_are_off(certificates, tmp_path):
    ours, _ = certificates
    certificate, key = ours.issue("hub", "IP:127.0.0.1")
    assert tls_context(Tls(certificate, key)).minimum_version == ssl.TLSVersion.TLSv1_2
    assert tls_context(Tls(certificate, key, ours.pem)).verify_mode == ssl.CERT_REQUIRED
    with pytest.raises(InputError, match=r"absent\.pem"):
        tls_context(Tls(tmp_path / "absent.pem", key))


def test_connections_without_a_handshake_are_let_go_and_keep_nobody_out(serve, certificates):
    ours, _ = certificates
    url, token = serve()
    host, port = url.removeprefix("https://").split(":")
    with contextlib.ExitStack() as stack:
        # More than handshakes that may be under way at a time.
        mute = [
            stack.enter_context(socket.create_connection((host, int(port)))) for _ in range(400)
        ]
        assert ask(url, token, ca=ours.pem) == []
        mute[0].settimeout(20)
        assert mute[0].recv(1) == b""  # the oldest was given up
        mute[-1].settimeout(30)
        with contextlib.suppress(ConnectionResetError):
            assert mute[-1].recv(1) == b""  # its time for a handshake is over
