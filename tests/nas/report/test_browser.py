"""The report in a real browser: it draws, it reacts, and nothing lands in the console."""

import json
import os
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest

from nas.report import write_report
from nas.report.examples import _figure
from nas.report.page import render
from nas.report.results import load_results

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")

ROOT = Path(__file__).parents[3]
IMAGES = ROOT / "docs" / "images"
STORED = ROOT / "experiments" / "notebooks" / "stored" / "relaxed"
SCREENS = [("report-desktop", 1280, 1800), ("report-phone", 390, 1800)]

DRIVER = """
const out = {};
const say = (name, value) => { out[name] = value; };
const heading = () => document.getElementById("model-id").textContent;
const point = (id) => [...document.querySelectorAll("#front-chart .point")]
  .find((p) => p.dataset.row === id);
const key = (node, k) => node.dispatchEvent(new KeyboardEvent("keydown", {key: k, bubbles: true}));
say("start", heading());
const front = DATA.models.filter((m) => m.kind === "front");
point(front[0].id).dispatchEvent(new MouseEvent("click", {bubbles: true}));
say("clicked", heading());
say("hash", location.hash);
say("row", document.querySelector("tr.selected").dataset.row);
say("layers", document.querySelectorAll("#layers-chart .layer-outline").length);
say("arcs", document.querySelectorAll("#layers-chart .arc").length);
point(front[0].id).dispatchEvent(new MouseEvent("mouseenter"));
say("tip", document.getElementById("tip").textContent);
point(front[0].id).focus();
key(point(front[0].id), "End");
say("focused", document.activeElement.dataset.row);
key(document.activeElement, "Enter");
say("entered", heading());
say("pressed", [...document.querySelectorAll("#front-chart [aria-pressed=true]")]
  .map((p) => p.dataset.row));
say("stops", document.querySelectorAll("#front-chart [tabindex='0']").length);
const sort = document.querySelectorAll("#front-table th button")[1];
sort.click();
const column = () => [...document.querySelectorAll("#front-table tbody tr")]
  .map((r) => Number(r.cells[1].dataset.sort));
say("ascending", column());
sort.click();
say("descending", column());
say("sort", sort.parentElement.getAttribute("aria-sort"));
const cost = document.querySelector("#front-controls select");
cost.value = "weights_kib";
cost.dispatchEvent(new Event("change"));
say("axis", document.querySelector("#front-chart svg").getAttribute("aria-label"));
const samples = [...document.querySelectorAll("#latency-chart .point")];
samples[0].focus();
key(samples[0], "End");
const last = document.activeElement;
const across = (p) => p.querySelector(".mark").getBoundingClientRect().x;
say("sample", samples.every((p) => across(p) <= across(last)));
key(last, "Enter");
say("by_sample", DATA.models.some((m) => m.id === last.dataset.row)
  ? heading().startsWith(last.dataset.row) : true);
const line = document.querySelector("#front-chart .line.role-front").getAttribute("d")
  .match(/[\\d.]+ [\\d.]+/g).map((pair) => pair.split(" ").map(Number));
say("monotone", line.every((p, i) => !i || (p[0] >= line[i - 1][0] && p[1] <= line[i - 1][1])));
const toggle = document.querySelector("#front-controls input");
const dots = () => document.querySelectorAll("#front-chart .dot").length;
say("dots", dots());
toggle.click();
say("hidden", dots());
say("overflow", document.documentElement.scrollWidth - document.documentElement.clientWidth);
say("sections", ["front", "latency", "hypervolume", "predictor", "training", "importance",
  "parallel"].filter((n) => document.querySelector("#" + n + "-chart svg")));
const report = document.createElement("pre");
report.id = "outcome";
report.textContent = JSON.stringify(out);
document.body.appendChild(report);
"""


def browse(path, tmp_path, *, width=1280, fragment=""):
    """Return the document after its script ran, and what the console said."""
    done = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom",
            "--enable-logging=stderr", "--virtual-time-budget=2000",
            f"--window-size={width},1000", path.as_uri() + fragment,
        ],
        capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout, console


def test_it_draws_without_a_word_in_the_console(results, tmp_path, save):
    path = write_report(save(tmp_path / "run", results))
    chosen = results["front"][3]["id"]
    document, console = browse(path, tmp_path, fragment=f"#m={chosen}")
    assert console == []
    # The content security policy let the script run, and the address chose the model.
    assert 'data-ready="true"' in document
    assert re.search(rf'<span id="model-id">{chosen}</span>', document)


@pytest.mark.parametrize("width", [500, 1280])
def test_it_reacts_to_mouse_and_keyboard(results, tmp_path, width):
    page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", render(results))
    data = 'const DATA = JSON.parse(document.getElementById("data").textContent);'
    page = page.replace("</body>", f"<script>{data}{DRIVER}</script></body>")
    path = tmp_path / "driven.html"
    path.write_text(page, encoding="utf-8")
    document, console = browse(path, tmp_path, width=width)
    assert console == []
    found = re.search(r'<pre id="outcome">(.*?)</pre>', document, re.DOTALL)
    out = json.loads(unescape(found[1]))
    front = results["front"]
    knee = next(e for e in front if e["knee"])
    layers = [layer for block in front[0]["plan"]["blocks"] for layer in block["layers"]]
    assert out["start"] == knee["id"]
    assert out["clicked"] == front[0]["id"] and out["hash"] == f"#m={front[0]['id']}"
    assert out["row"] == front[0]["id"]
    assert out["layers"] == len(layers)
    assert out["arcs"] == sum(block["residual"] for block in front[0]["plan"]["blocks"])
    assert front[0]["id"] in out["tip"] and "measured" in out["tip"]
    verified = [*front, *results["rejected"]]
    slowest = max(verified, key=lambda e: e["devices"]["cpu"]["latency_ms"])
    assert out["focused"] == slowest["id"]
    assert out["entered"].startswith(slowest["id"])
    assert out["pressed"] == [slowest["id"]]
    assert out["stops"] == 1
    assert out["ascending"] == sorted(e["test_accuracy"] for e in front)
    assert out["descending"] == out["ascending"][::-1] and out["sort"] == "descending"
    assert "weights" in out["axis"]
    assert out["sample"] and out["by_sample"]
    assert out["monotone"]
    assert out["dots"] > 0.8 * len(results["evaluations"]) and out["hidden"] == 0
    assert out["overflow"] <= 0
    assert len(out["sections"]) == 7


@pytest.mark.parametrize(("name", "width", "height"), SCREENS)
def test_the_screenshots_of_the_documentation_show_this_report(name, width, height, tmp_path):
    """Taken of a stored run; EDGE_NAS_SCREENSHOTS=1 renews those in docs/images."""
    page = tmp_path / "report.html"
    page.write_text(render(load_results(STORED)), encoding="utf-8")
    document, console = browse(page, tmp_path, width=width)
    assert console == [] and 'data-ready="true"' in document
    taken = tmp_path / f"{name}.png"
    shoot(page, taken, tmp_path, width=width, height=height)
    if os.environ.get("EDGE_NAS_SCREENSHOTS"):
        shutil.copyfile(taken, IMAGES / taken.name)
    for path in (taken, IMAGES / taken.name):
        assert png_size(path) == (width, height)
    # A blank or broken page compresses to next to nothing.
    assert taken.stat().st_size > 0.6 * (IMAGES / taken.name).stat().st_size


def shoot(page, target, tmp_path, *, width, height):
    """Write a PNG of the top of a page."""
    subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            "--no-first-run", "--disable-background-networking", "--force-device-scale-factor=1",
            f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=2000",
            f"--window-size={width},{height}", f"--screenshot={target}", page.as_uri(),
        ],
        capture_output=True, timeout=500, check=True,
    )  # fmt: skip


def png_size(path):
    """Return width and height from the header of a PNG."""
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")


def test_it_draws_what_little_there_is(minimal, tmp_path, save):
    minimal["front"].append({"id": "</script>", "plan": {"blocks": [{"layers": [{}]}]}})
    path = write_report(save(tmp_path / "run", minimal))
    document, console = browse(path, tmp_path)
    assert console == [] and 'data-ready="true"' in document


def test_it_says_so_when_nothing_was_found(tmp_path, save):
    path = write_report(save(tmp_path / "run", {"name": "none", "front": []}))
    document, console = browse(path, tmp_path)
    assert console == [] and "No model was recorded" in document


NAMES = """
const names = [...document.querySelectorAll("figure text")].map((name) => [
  name.getBoundingClientRect().width < name.ownerSVGElement.getBoundingClientRect().width,
  getComputedStyle(name).fill]);
document.body.insertAdjacentHTML("beforeend", "<pre id='outcome'>" + JSON.stringify(names));
"""


def test_names_of_boxes_are_of_their_size_and_colour(results, tmp_path):
    page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", render(results))
    box = {"corners": [0.1, 0.2, 0.5, 0.6], "kind": 1, "label": "b 90 %"}
    figure = _figure({"picture": "", "boxes": [box]}, ["a", "b"])
    path = tmp_path / "page.html"
    path.write_text(page.replace("</body>", f"{figure}<script>{NAMES}</script></body>"), "utf-8")
    document, _ = browse(path, tmp_path)
    found = re.search(r'<pre id="outcome">(.*?)</pre>', document)
    assert json.loads(found[1]) == [[True, "rgb(60, 180, 75)"]]


ROLES = """
const ends = [...document.querySelectorAll("#layers-chart g")].map((row) =>
  [...row.querySelectorAll("text")].slice(2, 4).map((text) => text.getBoundingClientRect()));
document.body.insertAdjacentHTML("beforeend", "<pre id='outcome'>" +
  JSON.stringify(ends.map(([role, kind]) => role.right <= kind.left)));
"""


def test_long_names_of_layers_do_not_run_into_what_they_are(results, tmp_path):
    for block in results["front"][0]["plan"]["blocks"]:
        for layer in block["layers"]:
            layer["role"] = "coarse_depthwise"
    page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", render(results))
    path = tmp_path / "page.html"
    path.write_text(page.replace("</body>", f"<script>{ROLES}</script></body>"), "utf-8")
    document, _ = browse(path, tmp_path, fragment=f"#m={results['front'][0]['id']}")
    found = re.search(r'<pre id="outcome">(.*?)</pre>', document)
    assert set(json.loads(found[1])) == {True}


NARROW = """
const frame = document.createElement("iframe");
frame.style.width = "390px"; frame.style.height = "1200px"; frame.style.border = "0";
frame.onload = () => {
  const page = frame.contentDocument;
  const width = page.documentElement.clientWidth;
  const right = (node) => node.getBoundingClientRect().right;
  const heads = [...page.querySelectorAll("#front-table th")];
  const latency = heads.findIndex((h) => h.textContent.startsWith("Latency"));
  const cells = [...page.querySelectorAll("#front-table tbody tr")].map((r) => r.cells[latency]);
  const out = {
    width, overflow: page.documentElement.scrollWidth - width,
    links: [...page.querySelectorAll("nav a")].map(right),
    latency: [heads[latency], ...cells].map(right),
  };
  const report = document.createElement("pre");
  report.id = "outcome"; report.textContent = JSON.stringify(out);
  document.body.appendChild(report);
};
frame.srcdoc = PAGE;
document.body.appendChild(frame);
"""


def test_a_phone_shows_every_part_and_the_latency_without_scrolling_sideways(results, tmp_path):
    page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", render(results))
    # A window of a desktop's browser cannot be as narrow as a phone; a frame can.
    text = json.dumps(page).replace("</", "<\\/")
    path = tmp_path / "phone.html"
    path.write_text(
        f"<!DOCTYPE html><body><script>const PAGE = {text};{NARROW}</script></body>", "utf-8"
    )
    document, _ = browse(path, tmp_path)
    out = json.loads(unescape(re.search(r'<pre id="outcome">(.*?)</pre>', document, re.DOTALL)[1]))
    assert 370 <= out["width"] <= 390 and out["overflow"] <= 0  # less by a scrollbar
    assert len(out["links"]) == 7 and max(out["links"]) <= out["width"]
    assert len(out["latency"]) > 2 and max(out["latency"]) <= out["width"]
