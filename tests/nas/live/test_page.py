"""The page of a run: what it asks for, who gets it, and that a browser draws it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest

from nas.job.schema import Job
from nas.live.page import RunPage, page_server
from nas.record.live import LossLog, ProgressFile
from nas.record.run_folder import RunStore
from tests.nas.record.begun_run import JOB, evaluated

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
IMAGES = Path(__file__).parents[3] / "docs" / "images"
POINTS = [(0.5, 5.0), (0.7, 6.0), (0.4, 5.5), (0.82, 8.5), (0.75, 7.9), (0.9, 20.0), (0.61, 5.4)]


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> RunStore:
    """A run that no test changes: to record its evaluations takes a second and more."""
    folder = tmp_path_factory.mktemp("written") / "run"
    store = RunStore.create(folder, {"job": Job.model_validate(JOB).resolved()})
    with store.timed("supernet"), LossLog(store.folder) as log:
        for step in range(1, 200):
            log.write({"step": step, "loss": 2.3 / step**0.3, "subnet_loss": 2.4 / step**0.25})
    with store.timed("latency"):
        pass
    store.event("stage_begin", stage="search")
    evaluated(store, POINTS)
    return store


@pytest.fixture
def store(written, tmp_path) -> RunStore:
    return RunStore.open(shutil.copytree(written.folder, tmp_path / "run"))


@pytest.fixture
def served(store):
    server, address = page_server(store.folder)
    server.start()
    yield server, address
    server.close()


def test_the_page_itself_tells_nothing_of_the_run(served, store):
    server, _ = served
    answer = httpx.get(server.url)
    assert answer.status_code == 200 and "text/html" in answer.headers["content-type"]
    assert "tiny" not in answer.text and str(store.folder) not in answer.text
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy and "http" not in policy
    # Nothing of outside is named in it but the namespace of SVG.
    assert re.findall(r"https?://[^\s\"';]+", answer.text) == ["http://www.w3.org/2000/svg"]


def test_the_run_is_told_to_the_bearer_of_the_token_alone(served):
    server, address = served
    token = address.partition("#")[2]
    assert len(token) >= 32
    for shown in ({}, {"Authorization": "Bearer x"}, {"Authorization": f"Bearer {token[:-1]}"}):
        assert httpx.get(f"{server.url}api/run", headers=shown).status_code == 401
    bearer = {"Authorization": f"Bearer {token}"}
    seen = httpx.get(f"{server.url}api/run", headers=bearer).json()
    assert seen["name"] == "tiny" and seen["evaluated"] == len(POINTS)
    assert httpx.get(f"{server.url}api/other", headers=bearer).status_code == 404
    rebound = {**bearer, "Host": f"evil.example:{server.port}"}
    assert httpx.get(f"{server.url}api/run", headers=rebound).status_code == 421


def test_a_run_that_is_still_to_be_made_is_waited_for(tmp_path):
    page = RunPage(tmp_path / "later", "t")
    assert "no run folder" in json.loads(page.state())["problem"]


def test_however_many_look_the_run_is_read_every_two_seconds(store, monkeypatch):
    now = [0.0]
    page = RunPage(store.folder, "t", clock=lambda: now[0])
    looks = []
    monkeypatch.setattr(page, "_look", lambda: looks.append(1) or {"n": len(looks)})
    assert page.state() == page.state()
    now[0] = 2.5
    assert json.loads(page.state()) == {"n": 2}


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
@pytest.mark.parametrize("width", [420, 1200])
def test_a_browser_draws_it_without_a_word_in_the_console(served, store, tmp_path, width):
    told = ProgressFile(store.folder)
    told.message("warning: <b>few</b> images")
    with told.stage("search", 200, "subnets", 0) as update:
        update(3, "")
        told._written = float("-inf")
        update(7, "accuracy 0.61")
        document, console = browse(served[1], tmp_path, width=width)
    assert console == []
    assert 'data-ready="true"' in document
    assert len(re.findall(r'<circle class="member"', document)) == 5
    assert len(re.findall(r'<circle class="dot"', document)) == len(POINTS) - 5
    assert document.count('<path class="loss') == 2
    assert "search: 7 of 200 subnets" in document
    # Text of a run stays text.
    assert "&lt;b&gt;few&lt;/b&gt;" in document
    assert re.search(r'<li class="done">supernet', document)
    assert re.search(r'<li class="running">search', document)


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_without_the_token_a_browser_is_told_what_to_open(served, tmp_path):
    document, _ = browse(served[0].url, tmp_path)
    assert "lacks the run's token" in document and 'data-ready="true"' not in document


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_a_screenshot_of_the_documentation_shows_this_page(served, store, tmp_path):
    """EDGE_NAS_SCREENSHOTS=1 renews the one in docs/images."""
    told = ProgressFile(store.folder)
    with told.stage("search", 200, "subnets", 0) as update:
        update(3, "")
        told._written = float("-inf")
        update(7, "accuracy 0.61")
        taken = tmp_path / "watch.png"
        call(
            ["--hide-scrollbars", "--force-device-scale-factor=1", "--window-size=1100,900",
             f"--screenshot={taken}", "--virtual-time-budget=3000", served[1]],
            tmp_path,
        )  # fmt: skip
    if os.environ.get("EDGE_NAS_SCREENSHOTS"):
        shutil.copyfile(taken, IMAGES / taken.name)
    # A blank or broken page compresses to next to nothing.
    assert taken.stat().st_size > 0.6 * (IMAGES / taken.name).stat().st_size


def browse(address, tmp_path, *, width=1200):
    """Return the document after its script ran, and what the console said."""
    done = call(
        ["--dump-dom", "--enable-logging=stderr", "--virtual-time-budget=3000",
         f"--window-size={width},900", address],
        tmp_path,
    )  # fmt: skip
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return done.stdout, console


def call(options, tmp_path):
    """Run headless Chromium."""
    done = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}", *options,
        ],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done
