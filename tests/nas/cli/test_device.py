import dataclasses
import json
import re

import pytest
from typer.testing import CliRunner

from devices.measuring.measurement import Measurement
from devices.measuring.store import MeasurementStore, Query
from nas.cli import device as device_cli
from search_spaces.errors import EnvironmentProblem, InputError

URL = "http://127.0.0.1:1"


def run(*arguments):
    """Run ``nas device`` with arguments; raises what the command raises."""
    result = CliRunner().invoke(device_cli.app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def token(tmp_path):
    path = tmp_path / "token"
    path.write_text("a-token\n")
    return path


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub in this process that every command reaches; returns a maker of links to it."""
    pytest.importorskip("fastapi")
    from devices.fleet.hub.app import make_app
    from devices.fleet.hub.hub import Hub
    from devices.fleet.link import HubLink
    from devices.testing import HubNetwork

    admin = tmp_path / "admin.token"
    admin.write_text("the-admin-token\n")
    opened = Hub(tmp_path / "hub", "the-admin-token")
    network = HubNetwork(lambda: make_app(opened))

    def link():
        return HubLink(URL, admin, transport=network.transport(None))

    monkeypatch.setattr(device_cli, "_link", lambda *files: link())
    yield link
    network.close()
    opened.close()


def test_the_list_of_this_machine_names_runtimes_and_hardware():
    lines = run("list").output
    assert re.search(r"runtime +onnxruntime \d", lines) and "fingerprint" in lines
    about = json.loads(run("list", "--json").output)
    assert "onnxruntime" in {offer["name"] for offer in about["runtimes"]}


def test_the_list_of_a_hub_shows_state_heartbeat_queue_and_health(hub, tmp_path):
    from devices.fleet.agent.agent import Agent
    from devices.fleet.agent.config import AgentConfig
    from devices.fleet.agent.workshop import Workshop

    config = AgentConfig(name="kitchen", runtimes={"onnxruntime": {}})
    Agent(hub(), Workshop(config), tmp_path / "agent", wait_s=0.0).step()
    (line,) = [s for s in run("list", "--hub", URL).output.splitlines() if "kitchen" in s]
    pattern = r"kitchen: idle, heartbeat \d+ s ago, 0 queued, 0 running, 0 done; health: \S"
    assert re.match(pattern, line)
    devices = json.loads(run("list", "--hub", URL, "--json").output)["devices"]
    assert [device["name"] for device in devices] == ["kitchen"]


def test_tokens_are_made_listed_rotated_and_revoked(hub, tmp_path):
    where = ["--hub", URL, "--token-file", tmp_path / "unused"]
    output = tmp_path / "me.token"
    run(
        "token", "add", "me", "--scope", "submit", "--expires-days", "2", "--output", output, *where
    )
    assert output.stat().st_mode & 0o077 == 0
    first = output.read_text()
    assert "me: submit, expires" in run("token", "list", *where).output
    run("token", "rotate", "me", "--output", output, *where)
    assert output.read_text() != first
    assert "revoked" in run("token", "revoke", "me", *where).output
    with pytest.raises(InputError, match="scope"):
        run("token", "add", "x", "--scope", "everything", *where)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["measure", "absent.onnx"], "no model file"),
        (["measure", __file__, "--device", "b"], "give --hub and --token-file"),
        (["measure", __file__, "--hub", URL], "--hub needs --token-file and --device"),
        (["measure", __file__, "--option", "threads"], "KEY=VALUE"),
        (["measure", __file__, "--protocol", "rums=3"], "rums"),
        (["list", "--hub", URL], "--hub needs --token-file"),
        (["calibrate", "--space", "nowhere"], "nowhere"),
        # Rows of a table and cells without layers have no files that a board could run.
        (["calibrate", "--space", "nasbench201"], "no networks that could be built"),
        (["calibrate", "--space", "tokens"], "'tokens' has no networks"),
        (["export", "absent.db", "t.csv"], "no measurement store"),
        (["serve", "--data", "d", "--token-file", "t", "--tls-cert", "c"], "belong together"),
        (["serve", "--data", "d", "--token-file", "t", "--client-ca", "c"], "--tls-cert"),
    ],
)
def test_mistakes_are_told_before_any_work(arguments, why, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=re.escape(why)):
        run(*arguments)


def test_a_certificate_needs_its_key(token):
    with pytest.raises(InputError, match="--cert and --key belong together"):
        run("list", "--hub", URL, "--token-file", token, "--cert", token)


def test_a_hub_that_is_not_there(token):
    with pytest.raises(EnvironmentProblem, match="cannot be reached"):
        run("list", "--hub", URL, "--token-file", token)


def test_a_store_is_exported(tmp_path):
    model = tmp_path / "m.onnx"
    model.write_text("m")
    query = Query(
        model=model, device="board", runtime="r", spec_parameters={}, protocol={},
        identify=lambda: {"runtime": {}, "fingerprint": {}}, arch="a", space="s",
    )  # fmt: skip
    kept = Measurement(
        latency_ms=1.5, low_ms=1, high_ms=2, iqr_ms=0, p90_ms=2, p99_ms=2, mad_ms=0,
        samples_ms=((1.0, 2.0),), calls=(1,), valid=True, reasons=(), attempts=1, rejected=(),
        runtime="r", runtime_version="1", parameters={}, protocol={}, conditions={}, pinned=False,
    )  # fmt: skip
    MeasurementStore(tmp_path / "store.db").put(query, kept)
    table = tmp_path / "t.csv"
    assert "1 architectures" in run("export", tmp_path / "store.db", table).output
    assert table.read_text().splitlines()[-2:] == ["arch,board", "a,1.5"]
    pytest.importorskip("pyarrow")
    samples = tmp_path / "s.parquet"
    assert "1 measurements" in run("export", tmp_path / "store.db", samples, "--samples").output
    # What the protocol rejected has raw samples, too.
    other = tmp_path / "n.onnx"
    other.write_text("n")
    rejected = dataclasses.replace(kept, valid=False, reasons=("drift-between-halves",))
    query = Query(
        model=other, device="board", runtime="r", spec_parameters={}, protocol={},
        identify=lambda: {"runtime": {}, "fingerprint": {}}, arch="b", space="s",
    )  # fmt: skip
    MeasurementStore(tmp_path / "store.db").put(query, rejected)
    assert "2 measurements" in run("export", tmp_path / "store.db", samples, "--samples").output
    assert "1 architectures" in run("export", tmp_path / "store.db", table).output


def test_a_line_says_whether_the_machine_was_busy_and_why_it_is_invalid():
    from types import SimpleNamespace

    from nas.cli.device_options import figures

    sound = SimpleNamespace(
        latency_ms=1.0, low_ms=0.9, high_ms=1.1, runtime="r", runtime_version="1",
        valid=True, reasons=(), busy=False,
    )  # fmt: skip
    assert figures(sound) == "1 ms measured, 95 % interval 0.9 to 1.1 ms, r 1"
    sound.busy = True
    assert figures(sound).endswith("r 1; fastest samples of a busy machine")
    sound.valid, sound.reasons = False, ("interval-too-wide",)
    assert figures(sound).endswith("busy machine  INVALID (interval-too-wide)")
