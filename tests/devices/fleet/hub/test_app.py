"""The hub's interface: who may ask what, attacks on it, and what it answers."""

import base64
import hashlib
import json
import random
import stat
import string

import httpx
import pytest

from devices.fleet.hub.guard import REFUSAL_BYTES
from devices.fleet.hub.hub import HubLimits
from devices.fleet.messages import JobRequest
from devices.measuring.protocol import Protocol
from devices.measuring.store import fingerprint_id
from devices.testing import Faults

PROTOCOL = Protocol(processes=2, runs=3, retries=0).to_json()


@pytest.fixture
def ask(fleet):
    """Send a plain request to the hub; ``token`` is the text itself."""

    def send(method, path, *, token=fleet.admin_token, **options):
        headers = options.pop("headers", {})
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        client = httpx.Client(
            base_url="http://hub", transport=fleet.network.transport(options.pop("faults", None))
        )
        return client.request(method, path, headers=headers, **options)

    return send


def text_of(path):
    return path.read_text().strip()


def files(fleet):
    return {path.relative_to(fleet.folder) for path in fleet.folder.rglob("*") if path.is_file()}


def refused(response, status):
    assert response.status_code == status, response.text
    assert len(response.content) == REFUSAL_BYTES
    return response.json()["error"]


def test_a_board_is_shown_with_the_short_name_of_its_fingerprint(fleet, ask):
    fleet.agent().step()
    (shown,) = ask("GET", "/api/devices").json()["devices"]
    assert shown["fingerprint_id"] == fingerprint_id(shown["description"]["fingerprint"])
    assert len(shown["fingerprint_id"]) == 12


# ------------------------------------------------------------------------- tokens


def test_the_fleet_is_for_tokens_of_scope_submit_and_admin(fleet, ask):
    submit = text_of(fleet.token("me", "submit"))
    measure = text_of(fleet.token("board", "measure", "board"))
    assert ask("GET", "/api/devices").json() == {"devices": []}
    assert ask("GET", "/api/devices", token=submit).status_code == 200
    assert refused(ask("GET", "/api/devices", token=measure), 403) == "forbidden"
    for token in (None, "", "x", fleet.admin_token + "x", fleet.admin_token[:-1]):
        assert refused(ask("GET", "/api/devices", token=token), 401) == "unauthorised"
    for header in ("Basic " + fleet.admin_token, fleet.admin_token, "Bearer", b"Bearer \xff"):
        response = ask("GET", "/api/devices", token=None, headers={"authorization": header})
        assert refused(response, 401) == "unauthorised"


def test_expired_rotated_and_revoked_tokens_are_replayed_in_vain(fleet, ask):
    short = text_of(fleet.token("short", "submit", expires_days=1.0))
    old = text_of(fleet.token("rotated", "submit"))
    gone = text_of(fleet.token("revoked", "submit"))
    assert {ask("GET", "/api/devices", token=t).status_code for t in (short, old, gone)} == {200}
    fleet.time.advance(86400)
    new = ask("POST", "/api/tokens/rotated/rotate").json()["token"]
    assert ask("DELETE", "/api/tokens/revoked").status_code == 200
    answers = [ask("GET", "/api/devices", token=token) for token in (short, old, gone)]
    assert {refused(answer, 401) for answer in answers} == {"unauthorised"}
    assert len({answer.content for answer in answers}) == 1
    assert ask("GET", "/api/devices", token=new).status_code == 200
    fleet.network.restart()
    assert ask("GET", "/api/devices", token=new).status_code == 200
    assert refused(ask("GET", "/api/devices", token=old), 401)


def test_tokens_are_kept_as_hashes_only(fleet):
    token = text_of(fleet.token("me", "submit"))
    fleet.hub.ledger.call(lambda t: None)
    for path in (fleet.folder / "hub").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert token.encode() not in content and fleet.admin_token.encode() not in content
    ((kept,),) = fleet.rows("SELECT sha256 FROM tokens")
    assert kept == hashlib.sha256(token.encode()).hexdigest()


@pytest.mark.parametrize(
    "method, path",
    [
        ("GET", "/api/tokens"),
        ("POST", "/api/tokens"),
        ("POST", "/api/tokens/board/rotate"),
        ("DELETE", "/api/tokens/board"),
        ("POST", "/api/devices/board/release"),
    ],
)
def test_administration_is_for_administrators(fleet, ask, method, path):
    for scope, device in (("submit", None), ("measure", "board")):
        token = text_of(fleet.token(f"t-{scope}", scope, device))
        assert refused(ask(method, path, token=token, json={}), 403) == "forbidden"


@pytest.mark.parametrize("path", ["register", "lease", "heartbeat", "start", "result"])
def test_boards_speak_for_themselves_only(fleet, ask, path):
    board = text_of(fleet.token("board", "measure", "board"))
    submit = text_of(fleet.token("me", "submit"))
    assert refused(ask("POST", f"/api/agent/{path}", token=submit, json={}), 403)
    other = {"x-device": "another"}
    assert refused(ask("POST", f"/api/agent/{path}", token=board, json={}, headers=other), 403)
    # An administrator may stand in for a board, if he says for which.
    assert refused(ask("POST", f"/api/agent/{path}", json={}), 403)
    assert refused(ask("POST", f"/api/agent/{path}", json={}, headers={"x-device": "../b"}), 403)
    assert refused(ask("POST", f"/api/agent/{path}", json={}, headers={"x-device": "b"}), 422)


def test_a_board_reads_only_models_it_has_to_measure(fleet, ask):
    model = fleet.models(1)[0]
    fleet.agent().step()
    content = model.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    token = text_of(fleet.token_files["board"])
    assert ask("PUT", f"/api/blobs/{sha256}", content=content).status_code == 200
    assert refused(ask("GET", f"/api/blobs/{sha256}", token=token), 403)
    job = {"device": "board", "model": sha256, "runtime": "onnxruntime", "protocol": PROTOCOL}
    assert ask("POST", "/api/jobs", json={"jobs": [job]}).status_code == 200
    leased = ask("POST", "/api/agent/lease", token=token, json={"session": 1, "wait_s": 0})
    assert [item["model"] for item in leased.json()["jobs"]] == [sha256]
    assert ask("GET", f"/api/blobs/{sha256}", token=token).content == content


# ------------------------------------------------------------------------- models


def test_an_upload_is_kept_under_its_hash_and_only_then(fleet, ask):
    content = fleet.models(1)[0].read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    before = files(fleet)
    assert ask("HEAD", f"/api/blobs/{sha256}").status_code == 404
    answer = ask("PUT", f"/api/blobs/{'0' * 64}", content=content)
    assert refused(answer, 422) == "malformed" and "hash" in answer.json()["detail"]
    for cut in (0, 1, len(content) // 2, len(content) - 1):
        with pytest.raises(httpx.WriteError):
            ask("PUT", f"/api/blobs/{sha256}", content=content, faults=Faults(cut_body_at=cut))
    assert files(fleet) == before
    assert ask("PUT", f"/api/blobs/{sha256}", content=content).status_code == 200
    assert ask("HEAD", f"/api/blobs/{sha256}").status_code == 200
    assert {str(path) for path in files(fleet) - before} == {f"hub/models/{sha256}"}


def test_models_that_could_harm_are_refused(fleet, ask):
    before = files(fleet)
    for content in (b"", b"\x00" * 100, b"MZ" + b"\x90" * 1000, b"<html>", b"\x08" * 64):
        sha256 = hashlib.sha256(content).hexdigest()
        refused(ask("PUT", f"/api/blobs/{sha256}", content=content), 422)
    assert files(fleet) == before


def test_ten_announced_gigabytes_are_not_waited_for(fleet, ask):
    headers = {"content-length": str(10 << 30)}
    for path in (f"/api/blobs/{'0' * 64}", "/api/jobs", "/api/agent/result"):
        answer = ask("PUT" if "blobs" in path else "POST", path, content=b"x", headers=headers)
        assert refused(answer, 413) == "too-large"
        assert answer.headers["connection"] == "close"
    assert refused(ask("POST", "/api/jobs", content=b"x" * (2 << 20)), 413)


@pytest.mark.parametrize(
    "name",
    ["../hub.db", "..%2fhub.db", "%2e%2e%2fhub.db", "/etc/passwd", "A" * 64, "0" * 63, "0" * 65,
     "0" * 63 + "%00", "lock", "....//hub.db", "%c0%ae%c0%ae/hub.db"],
)  # fmt: skip
def test_names_lead_nowhere(fleet, ask, name):
    before = files(fleet)
    for method in ("GET", "HEAD", "PUT", "DELETE"):
        answer = ask(method, f"/api/blobs/{name}", content=b"x")
        assert answer.status_code in (403, 404, 405, 422)
        assert b"SQLite" not in answer.content and b"root:" not in answer.content
    assert files(fleet) == before


def test_a_full_disk_takes_no_model_and_says_so(fleet, ask):
    fleet.hub._free_bytes = lambda path: 1000
    content = fleet.models(1)[0].read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    assert refused(ask("PUT", f"/api/blobs/{sha256}", content=content), 507) == "storage"
    assert ask("HEAD", f"/api/blobs/{sha256}").status_code == 404


# -------------------------------------------------------------------------- noise


@pytest.mark.slow
def test_ten_thousand_malformed_messages_change_nothing(fleet, ask):
    fleet.agent().step()
    token = text_of(fleet.token_files["board"])
    submit = text_of(fleet.token("me", "submit"))
    before, rows = files(fleet), fleet.rows("SELECT count(*) FROM events")
    random_messages = messages(random.Random(0))
    paths = [
        ("/api/agent/register", token),
        ("/api/agent/lease", token),
        ("/api/agent/start", token),
        ("/api/agent/heartbeat", token),
        ("/api/agent/result", token),
        ("/api/jobs", submit),
        ("/api/jobs/await", submit),
        ("/api/tokens", fleet.admin_token),
    ]
    requests = []
    for index in range(10_000):
        path, holder = paths[index % len(paths)]
        headers = {"authorization": f"Bearer {holder}"}
        content = next(random_messages)
        requests.append(
            httpx.Request("POST", f"http://hub{path}", headers=headers, content=content)
        )
    answers = fleet.network.exchange_all(requests)
    seen = {answer.status_code for answer in answers}
    assert seen <= {404, 409, 422}
    assert {len(answer.content) for answer in answers} == {REFUSAL_BYTES}
    assert 422 in seen
    assert files(fleet) == before and fleet.rows("SELECT count(*) FROM events") == rows
    assert ask("GET", "/api/devices").json()["devices"][0]["state"] == "idle"


def messages(rng):
    """Yield bytes that are almost, or not at all, messages of the interface."""
    valid = [
        {"device": "board", "description": {"fingerprint": {}, "runtimes": []}, "holding": []},
        {"session": 1, "holding": [{"job": "0" * 32, "fence": 1}], "most": 8, "wait_s": 0},
        {"job": "0" * 32, "fence": 1, "failure": {"kind": "refused", "detail": "x"}},
        {"jobs": [{"device": "board", "model": "0" * 64, "runtime": "onnxruntime"}]},
        {"jobs": ["0" * 32], "wait_s": 0},
        {"name": "t", "scope": "measure", "device": "board"},
    ]

    def junk(depth=0):
        kind = rng.randrange(10 if depth < 4 else 7)
        if kind == 0:
            return rng.choice([None, True, False])
        if kind == 1:
            return rng.choice([0, -1, 2**31, 2**53, 2**64, -(2**63), 10**400, rng.random()])
        if kind == 2:
            return rng.choice([1e308, -1e308, float("nan"), float("inf"), 1e-320])
        if kind in (3, 4, 5, 6):
            alphabet = rng.choice([string.printable, "\x00\ud800\u202e\U0001f4a9", "../'\"; %"])
            return "".join(rng.choices(alphabet, k=rng.randrange(12)))
        if kind == 7:
            return [junk(depth + 1) for _ in range(rng.randrange(4))]
        return {str(junk(9)): junk(depth + 1) for _ in range(rng.randrange(4))}

    while True:
        shape = rng.randrange(6)
        message = json.loads(json.dumps(rng.choice(valid)))
        if shape == 0:
            yield rng.randbytes(rng.randrange(200))
        elif shape == 1:
            yield json.dumps(message).encode()[: rng.randrange(1, 40)]
        elif shape == 2:
            yield b"[" * rng.randrange(1, 5000)
        elif shape == 3:
            message[str(junk(9))] = junk()
            message[rng.choice(list(message))] = junk()
            message["extra"] = 1
            yield json.dumps(message).encode()
        elif shape == 4:
            content = bytearray(json.dumps(message).encode())
            content[rng.randrange(len(content))] ^= 0x80
            yield bytes(content)
        else:
            yield json.dumps(junk()).encode()


def test_deep_and_huge_values_are_refused(ask):
    for content in (
        b'{"jobs":' + b"[" * 100_000,
        b'{"jobs":[' + b'{"a":' * 50_000,
        b'{"wait_s":' + b"9" * 500_000 + b"}",
        b'{"jobs":["' + b"0" * 900_000 + b'"]}',
    ):
        refused(ask("POST", "/api/jobs/await", content=content), 422)


def test_refusals_say_little_and_escape_what_they_repeat(ask):
    answer = ask("POST", "/api/tokens", json={"<script>alert(1)</script>\u202e" * 50: 1})
    refused(answer, 422)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert refused(ask("GET", "/nowhere", token=None), 404) == "http"
    assert refused(ask("TRACE", "/api/devices"), 405) == "http"


# --------------------------------------------------------------------- jobs, page


def test_jobs_are_given_back_by_their_key(fleet, ask):
    agent = fleet.agent()
    agent.step()
    content = fleet.models(1)[0].read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    job = {"device": "board", "model": sha256, "runtime": "onnxruntime", "protocol": PROTOCOL}
    missing = ask("POST", "/api/jobs", json={"jobs": [job]})
    assert refused(missing, 409) == "model-missing"
    ask("PUT", f"/api/blobs/{sha256}", content=content)
    (first,) = ask("POST", "/api/jobs", json={"jobs": [job]}).json()["jobs"]
    (second,) = ask("POST", "/api/jobs", json={"jobs": [job]}).json()["jobs"]
    assert first["job"] == second["job"] and first["state"] == "queued"
    changed = {**job, "parameters": {"threads": 2}}
    (other,) = ask("POST", "/api/jobs", json={"jobs": [changed]}).json()["jobs"]
    assert other["job"] != first["job"]
    waiting = ask("POST", "/api/jobs/await", json={"jobs": [first["job"]], "wait_s": 0})
    assert waiting.json() == {"jobs": []}
    agent.step()
    done = ask("POST", "/api/jobs/await", json={"jobs": [first["job"]], "wait_s": 0})
    (view,) = done.json()["jobs"]
    assert view["state"] == "done" and len(view["measurement"]["samples_ms"]) == 2
    assert {v["state"] for v in ask("GET", "/api/jobs").json()["jobs"]} == {"done", "queued"}
    (again,) = ask("POST", "/api/jobs", json={"jobs": [job]}).json()["jobs"]
    assert again["job"] == first["job"] and again["state"] == "done"
    anew = {**job, "supersedes": first["job"]}
    (newer,) = ask("POST", "/api/jobs", json={"jobs": [anew]}).json()["jobs"]
    (newest,) = ask("POST", "/api/jobs", json={"jobs": [anew]}).json()["jobs"]
    assert newer["job"] == newest["job"] != first["job"]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"runtime": "abacus"}, "does not offer runtime abacus"),
        ({"protocol": {"runs": -1}}, "runs must be"),
        ({"protocol": {"walk": 1}}, "no key 'walk'"),
        ({"device": "nobody"}, "no device called nobody"),
    ],
)
def test_jobs_that_cannot_be_are_refused_with_the_reason(fleet, ask, change, message):
    fleet.agent().step()
    job = {"device": "board", "model": "0" * 64, "runtime": "onnxruntime", "protocol": PROTOCOL}
    answer = ask("POST", "/api/jobs", json={"jobs": [{**job, **change}]})
    refused(answer, 404 if "device" in change else 422)
    assert message in answer.json()["detail"]


def test_a_measurement_that_lacks_samples_is_not_kept(fleet, ask):
    fleet.agent().step()
    content = fleet.models(1)[0].read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    ask("PUT", f"/api/blobs/{sha256}", content=content)
    request = JobRequest(device="board", model=sha256, runtime="onnxruntime", protocol=PROTOCOL)
    fleet.hub.ledger.call(lambda t: fleet.hub.leases.submit(t, [request]))
    token = text_of(fleet.token_files["board"])
    leased = ask("POST", "/api/agent/lease", token=token, json={"session": 1, "wait_s": 0})
    (job,) = leased.json()["jobs"]
    whole = {
        "latency_ms": 1.0, "low_ms": 0.9, "high_ms": 1.1, "iqr_ms": 0.1, "p90_ms": 1.1,
        "p99_ms": 1.1, "mad_ms": 0.1, "samples_ms": [[1.0] * 3] * 2, "calls": [1, 1],
        "valid": True, "reasons": [], "attempts": 1, "rejected": [], "runtime": "onnxruntime",
        "runtime_version": "1", "parameters": {}, "protocol": PROTOCOL, "conditions": {},
        "pinned": False,
    }  # fmt: skip
    for change in (
        {"samples_ms": [[1.0] * 3]},
        {"samples_ms": [[1.0] * 3, [1.0] * 2]},
        {"samples_ms": []},
        {"calls": [1]},
        {"latency_ms": None},
        {"runtime": "another"},
        {"protocol": {**PROTOCOL, "runs": 2}},
        {"samples_ms": [["x"] * 3] * 2},
        {"rejected": [{}]},
    ):
        result = {"job": job["job"], "fence": job["fence"], "measurement": {**whole, **change}}
        refused(ask("POST", "/api/agent/result", token=token, json=result), 422)
    both = {"measurement": whole, "failure": {"kind": "refused", "detail": "x"}}
    for content in ({}, both):
        result = {"job": job["job"], "fence": job["fence"], **content}
        refused(ask("POST", "/api/agent/result", token=token, json=result), 422)
    assert fleet.rows("SELECT state, result FROM jobs") == [("leased", None)]
    good = {"job": job["job"], "fence": job["fence"], "measurement": whole}
    late = {**good, "fence": job["fence"] + 1}
    assert refused(ask("POST", "/api/agent/result", token=token, json=late), 409) == "late"
    assert ask("POST", "/api/agent/result", token=token, json=good).json() == {"counted": True}
    assert ask("POST", "/api/agent/result", token=token, json=good).json() == {"counted": False}
    other = {**good, "measurement": {**whole, "latency_ms": 1.05}}
    assert refused(ask("POST", "/api/agent/result", token=token, json=other), 409) == "late"
    assert fleet.rows("SELECT count(*) FROM events WHERE what = 'done'") == [(1,)]


def test_the_page_runs_only_its_own_script_and_needs_no_network(ask):
    answer = ask("GET", "/", token=None)
    page = answer.text
    assert answer.status_code == 200
    assert "http://" not in page and "https://" not in page and "src=" not in page
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    script = page.split("<script>")[1].split("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    # The token is typed in; it is in no address and in no storage.
    assert "Storage" not in script and "location" not in script and "cookie" not in script


def test_health_needs_no_token(ask):
    assert ask("GET", "/api/health", token=None).json() == {"status": "ok"}


# ------------------------------------------------------------------- hostile clients

BAD_NUMBERS = ["NaN", "Infinity", "-Infinity", "1e999"]


@pytest.mark.parametrize("number", BAD_NUMBERS)
@pytest.mark.parametrize("where", ["fingerprint", "hardware", "limits"])
def test_numbers_that_are_no_json_are_never_kept_of_a_board(fleet, ask, number, where):
    fleet.agent().step()
    token = text_of(fleet.token_files["board"])
    about = {"fingerprint": {}, "runtimes": [], "hardware": {}, "limits": {}}
    body = json.dumps({"device": "board", "description": {**about, where: {"a": [{"b": "X"}]}}})
    body = body.replace('"X"', number)
    assert refused(ask("POST", "/api/agent/register", token=token, content=body), 422)
    assert ask("GET", "/api/devices").status_code == 200


@pytest.mark.parametrize("number", BAD_NUMBERS)
@pytest.mark.parametrize("where", ["parameters", "protocol"])
def test_numbers_that_are_no_json_are_never_kept_of_a_job(fleet, ask, number, where):
    fleet.agent().step()
    job = {"device": "board", "model": "0" * 64, "runtime": "onnxruntime", where: {"a": "X"}}
    body = json.dumps({"jobs": [job]}).replace('"X"', number)
    assert refused(ask("POST", "/api/jobs", content=body), 422)


def test_what_an_earlier_version_kept_does_not_hide_the_fleet(fleet, ask):
    agent = fleet.agent()
    agent.step()
    fleet.hub.ledger.call(
        lambda t: t.db.execute(
            "UPDATE devices SET description = replace(description, '{', '{\"x\": NaN, ')"
        )
    )
    for _ in range(2):
        (view,) = ask("GET", "/api/devices").json()["devices"]
        assert view["name"] == "board"
        fleet.network.restart()
    fleet.agent().step()  # registers anew
    assert ask("GET", "/api/devices").json()["devices"][0]["description"]["runtimes"]


def test_a_damaged_entry_is_told_and_hides_no_other(fleet, ask):
    fleet.agent().step()
    fleet.hub.ledger.call(
        lambda t: t.db.execute(
            "INSERT INTO devices (name, session, description) VALUES ('a', 1, '{')"
        )
    )
    damaged, board = ask("GET", "/api/devices").json()["devices"]
    assert damaged["name"] == "a" and "damaged; restart its agent" in damaged["health"]
    assert board["health"] == "ok" and board["description"]["runtimes"]


def test_free_json_is_bounded_in_depth_and_number_of_values(fleet, ask):
    fleet.agent().step()
    token = text_of(fleet.token_files["board"])
    for nested in (
        "[" * 60 + "]" * 60,
        "[" + "[]," * 120_000 + "[]]",
        "[" + "1," * 1_100_000 + "1]",
    ):
        body = (
            '{"job": "' + "0" * 32 + '", "fence": 1, "measurement": {"latency_ms": 1, "extra": '
            + nested + "}}"
        )  # fmt: skip
        assert refused(ask("POST", "/api/agent/result", token=token, content=body), 422)


def test_a_client_cancels_its_own_jobs_and_an_administrator_all(fleet, ask):
    fleet.agent().step()
    one, two = (text_of(fleet.token(name, "submit")) for name in ("one", "two"))
    jobs = []
    for model in fleet.models(2):
        content = model.read_bytes()
        name = hashlib.sha256(content).hexdigest()
        ask("PUT", f"/api/blobs/{name}", token=one, content=content)
        asked = {"jobs": [{"device": "board", "model": name, "runtime": "onnxruntime"}]}
        jobs.append(ask("POST", "/api/jobs", token=one, json=asked).json()["jobs"][0]["job"])
    assert refused(ask("DELETE", f"/api/jobs/{jobs[0]}", token=two), 403) == "forbidden"
    assert ask("DELETE", f"/api/jobs/{jobs[0]}", token=one).json()["state"] == "cancelled"
    assert ask("DELETE", f"/api/jobs/{jobs[1]}").json()["state"] == "cancelled"


def test_uploads_are_counted_while_another_one_ends(fleet, tmp_path):
    fleet.agent().step()
    hub, path = fleet.hub, tmp_path / "model"
    path.write_bytes(b"x")
    for name in ("a", "b"):
        hub.uploaded("me", name, path)

    class Ending:
        """Another upload of the client ends whenever one is looked for."""

        def __contains__(self, name):
            hub.uploaded("me", f"{name} and more", path)
            return name != "a"

    kept, hub.blobs = hub.blobs, Ending()
    hub.require_quota("me", 1, set())
    hub.blobs = kept
    assert set(hub._uploads["me"]) == {"b", "a and more", "b and more"}


def test_a_client_cannot_fill_the_disk_with_models_that_no_job_uses(fleet, ask):
    fleet.hub_options["limits"] = HubLimits(unused_bytes=5000)
    fleet.network.restart()
    fleet.agent().step()
    token, other = (text_of(fleet.token(name, "submit")) for name in ("one", "two"))
    answers, names = [], []
    for model in fleet.models(12):
        content = model.read_bytes()
        names.append(hashlib.sha256(content).hexdigest())
        answers.append(ask("PUT", f"/api/blobs/{names[-1]}", token=token, content=content))
    kept = [answer.status_code for answer in answers]
    assert kept[0] == 200 and kept[-1] == 413 and sorted(kept) == kept
    assert refused(answers[-1], 413) == "quota"
    assert ask("PUT", f"/api/blobs/{names[-1]}", token=other, content=content).status_code == 200
    asked = [
        {"device": "board", "model": name, "runtime": "onnxruntime"}
        for name, status in zip(names, kept, strict=True)
        if status == 200
    ]
    ask("POST", "/api/jobs", token=token, json={"jobs": asked})
    model = fleet.models(13)[-1].read_bytes()
    name = hashlib.sha256(model).hexdigest()
    assert ask("PUT", f"/api/blobs/{name}", token=token, content=model).status_code == 200


@pytest.mark.parametrize("path", ["/", "/api/health", "/nothing"])
def test_without_a_token_no_body_is_taken(fleet, ask, path):
    answer = ask("POST", path, token=None, content=b"x" * 1000)
    assert refused(answer, 413) == "too-large"


def test_the_database_is_readable_by_its_owner_only(fleet):
    fleet.agent().step()
    found = list((fleet.folder / "hub").glob("hub.db*"))
    assert found
    for path in found:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    (fleet.folder / "hub" / "hub.db").chmod(0o644)  # as an earlier version left it
    fleet.network.restart()
    assert stat.S_IMODE((fleet.folder / "hub" / "hub.db").stat().st_mode) == 0o600
