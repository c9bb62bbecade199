import gzip

import httpx
import pytest

from devices.fleet.link import HubLink, HubRefused, HubUnreachable, TlsFiles
from devices.fleet.messages import Devices, LeaseReply
from search_spaces.errors import InputError

URL = "http://127.0.0.1:1"


@pytest.fixture
def token(tmp_path):
    path = tmp_path / "token"
    path.write_text("first\n")
    return path


@pytest.fixture
def link(token):
    """A link whose answers are a function of the request."""
    made = []

    def make(answer):
        made.append(HubLink(URL, token, transport=httpx.MockTransport(answer)))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_the_token_goes_with_each_request_and_is_read_again_when_refused(link, token):
    seen = []

    def answer(request):
        seen.append(request.headers["authorization"])
        if seen[-1] == "Bearer second":
            return httpx.Response(200, json={"devices": []})
        token.write_text("second\n")
        return httpx.Response(401, json={"error": "token", "detail": "no"})

    assert link(answer).ask("GET", "/api/devices", Devices).devices == []
    assert seen == ["Bearer first", "Bearer second"]


def test_an_unchanged_token_is_not_tried_twice_and_not_shown(link, token):
    seen = []

    def answer(request):
        seen.append(request)
        return httpx.Response(401, json={})

    with pytest.raises(HubRefused, match="does not accept the token of") as caught:
        link(answer).tell("GET", "/x")
    assert len(seen) == 1 and caught.value.status == 401 and "first" not in str(caught.value)


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_answers_after_which_asking_again_may_help(link, status):
    with pytest.raises(HubUnreachable, match="cannot serve: busy"):
        link(lambda r: httpx.Response(status, json={"detail": "busy"})).tell("GET", "/x")


@pytest.mark.parametrize("status", [400, 403, 404, 409, 413, 422])
def test_answers_after_which_it_does_not(link, status):
    body = {"error": "late", "detail": "the lease is over"}
    with pytest.raises(HubRefused, match="the lease is over") as caught:
        link(lambda r: httpx.Response(status, json=body)).tell("GET", "/x")
    assert (caught.value.status, caught.value.code) == (status, "late")


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"devices": 3}', b"\xff"])
def test_something_else_that_answers_is_no_hub(link, body):
    with pytest.raises(HubUnreachable, match="does not answer as a hub"):
        link(lambda r: httpx.Response(200, content=body)).ask("GET", "/api/devices", Devices)


def test_a_broken_connection_is_unreachable(link):
    def broken(request):
        raise httpx.ConnectError("refused")

    with pytest.raises(HubUnreachable, match=r"127\.0\.0\.1:1 cannot be reached: refused"):
        link(broken).tell("GET", "/x")


def test_models_are_asked_for_sent_and_fetched(link, tmp_path):
    kept = {}

    def hub(request):
        name = request.url.path.rsplit("/", 1)[1]
        if request.method == "PUT":
            kept[name] = request.read()
            assert request.headers["content-length"] == str(len(kept[name]))
            return httpx.Response(201, json={})
        if name not in kept:
            return httpx.Response(404, json={"detail": "no such model"})
        return httpx.Response(200, content=kept[name])

    made = link(hub)
    path = tmp_path / "model"
    path.write_bytes(bytes(range(256)) * 1000)
    assert not made.has_model("a" * 64)
    made.upload("a" * 64, path)
    assert made.has_model("a" * 64)
    with made.download("a" * 64) as pieces:
        assert b"".join(pieces) == path.read_bytes()
    with pytest.raises(HubRefused, match="no such model"), made.download("b" * 64):
        raise AssertionError


def test_the_board_is_named(link):
    seen = []

    def answer(request):
        seen.append(request.headers.get("x-device"))
        return httpx.Response(200, json={})

    made = link(answer)
    made.tell("GET", "/x")
    made.speak_for("kitchen")
    made.tell("GET", "/x")
    assert seen == [None, "kitchen"]


def test_bad_certificates_are_named_before_anything_is_sent(token, tmp_path):
    with pytest.raises(InputError, match=r"cannot use the TLS files .*absent\.pem"):
        HubLink("https://hub.example", token, tls=TlsFiles(ca=tmp_path / "absent.pem"))


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_no_hub_and_is_not_followed(link, status):
    seen = []

    def answer(request):
        seen.append(request)
        return httpx.Response(status, headers={"location": "http://elsewhere/"}, json={})

    with pytest.raises(HubUnreachable, match="redirect"):
        link(answer).tell("GET", "/x")
    with pytest.raises(HubUnreachable, match="redirect"), link(answer).download("0" * 64):
        pass
    assert len(seen) == 2


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_packed_answer_is_not_unpacked(link, encoding):
    """A few kilobytes may be gigabytes."""
    asked = []

    def answer(request):
        asked.append(request.headers["accept-encoding"])
        body = gzip.compress(b" " * 1000)
        return httpx.Response(
            200, headers={"content-encoding": encoding}, stream=httpx.ByteStream(body)
        )

    with pytest.raises(HubUnreachable, match="packed"):
        link(answer).ask("GET", "/api/devices", Devices)
    with pytest.raises(HubUnreachable, match="packed"), link(answer).download("0" * 64) as pieces:
        list(pieces)
    assert set(asked) == {"identity"}


def test_an_answer_larger_than_a_hub_gives_is_not_read_to_its_end(link, monkeypatch):
    monkeypatch.setattr("devices.fleet.link.MAX_ANSWER_BYTES", 100_000)
    read = []

    class Endless(httpx.SyncByteStream):
        def __iter__(self):
            while True:
                read.append(1)
                yield b" " * 60_000

    with pytest.raises(HubUnreachable, match="more than"):
        link(lambda r: httpx.Response(200, stream=Endless())).tell("GET", "/x")
    assert len(read) <= 4


def test_more_leases_than_can_be_asked_for_are_no_answer_of_a_hub(link):
    job = {
        "job": "0" * 32, "fence": 1, "model": "0" * 64, "runtime": "r", "parameters": {},
        "protocol": {},
    }  # fmt: skip
    with pytest.raises(HubUnreachable, match="does not answer as a hub"):
        link(lambda r: httpx.Response(200, json={"jobs": [job] * 1001})).ask(
            "POST", "/x", LeaseReply
        )


def test_what_a_hub_says_cannot_move_the_cursor(link):
    body = {"error": "late", "detail": "\x1b]0;owned\x07\x1b[2J over"}
    with pytest.raises(HubRefused) as caught:
        link(lambda r: httpx.Response(409, json=body)).tell("GET", "/x")
    assert "\x1b" not in str(caught.value) and "owned" in str(caught.value)
