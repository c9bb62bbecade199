import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from importlib import resources

import pytest

from nas.report import write_report
from nas.report.page import SCRIPTS, embed_json, model_link, page_script, render
from search_spaces.errors import InputError

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\u2028'\"&{{command}}"


class Page(HTMLParser):
    """Collects the elements, their attributes and the content of scripts."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.scripts, self.text, self._script = [], [], [], None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self._script = dict(attrs)
            self.scripts.append([self._script, ""])

    def handle_endtag(self, tag):
        if tag == "script":
            self._script = None

    def handle_data(self, data):
        if self._script is not None:
            self.scripts[-1][1] += data
        else:
            self.text.append(data)

    @property
    def data(self):
        return json.loads(next(body for attrs, body in self.scripts if attrs.get("id") == "data"))

    def device(self, model, name):
        """What the page knows of a model on a device."""
        record = self.data["models"][model]["devices"][name]
        return dict(zip(self.data["columns"][record["of"]["$"]], record["row"], strict=True))

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


def layers_of(page, model):
    """The drawing of a model's layers, or why there is none."""
    return dict((key[0], one) for key, one in page.data["panels"]["layers"]["drawings"])[model]


def test_the_page_names_what_was_found(results):
    page = Page(render(results))
    best = max(results["front"], key=lambda e: e["test_accuracy"])
    assert f"{len(results['front'])} verified models on the front" in page.words
    assert f"{100 * best['test_accuracy']:.2f} %" in page.words
    assert results["command"] in page.words
    for entry in results["front"]:
        assert ("a", {"href": f"./models/{entry['id']}.onnx", "download": None}) in page.elements
    budget = results["constraints"][0]
    assert f"latency_ms[cpu] ≤ {budget['bound']:g}" in page.words
    assert "Fastest on board" in page.words and "measured with onnxruntime" in page.words


def test_invalid_measurements_are_flagged_with_their_reason(results):
    results["front"][0]["devices"]["cpu"].update(valid=False, reasons=["throttling at 91 °C"])
    page = Page(render(results))
    assert "⚠ invalid: throttling at 91 °C" in page.words
    assert page.device(0, "cpu")["reasons"] == ["throttling at 91 °C"]
    # An invalid measurement is not called the fastest.
    cards = [a["data-model"] for t, a in page.elements if t == "a" and a.get("class") == "card"]
    fastest_on_cpu, fastest_on_board = cards[2:4]
    assert fastest_on_cpu == results["front"][1]["id"]
    assert fastest_on_board == results["front"][0]["id"]


def test_the_fastest_says_how_many_faster_ones_are_invalid(results):
    front = sorted(results["front"], key=lambda e: e["devices"]["cpu"]["latency_ms"])
    for entry in front:
        entry["devices"]["cpu"]["valid"] = entry not in front[:2]
    words = Page(render(results)).words
    assert "2 faster without a valid measurement" in words
    for entry in front:
        entry["devices"]["cpu"]["valid"] = True
    assert "faster without a valid measurement" not in Page(render(results)).words


def test_a_missed_budget_is_counted(results):
    bound = results["front"][0]["devices"]["cpu"]["latency_ms"]
    results["constraints"][0]["bound"] = bound
    page = Page(render(results))
    assert f"met by 1 of {len(results['front'])} models" in page.words


def test_the_script_is_its_parts_and_each_is_short():
    parts = list(resources.files("nas.report").joinpath("assets").iterdir())
    scripts = {p.name: p.read_text("utf-8") for p in parts if p.name.endswith(".js")}
    assert set(scripts) == {f"{name}.js" for name in SCRIPTS}
    for text in scripts.values():
        assert text in page_script() and len(text.splitlines()) < 300


def test_a_task_without_classes_has_no_part_by_class(results):
    assert "Accuracy by class" in render(results)
    results["task"] = {"has_classes": False}
    for entry in results["front"]:
        entry["per_class"] = None
    assert "by class" not in Page(render(results)).words


def test_provenance_names_devices_by_their_fields(results):
    words = Page(render(results)).words
    assert "runtime_version 1.23.2" in words and "DeviceRecord" not in words


def test_nothing_is_loaded_from_anywhere(results):
    text = render(results)
    page = Page(text)
    for tag, attributes in page.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base", "img")
        assert "src" not in attributes
        assert not any(name.startswith("on") for name in attributes)
        href = attributes.get("href") or "#"
        assert href.startswith(("#", "./models/"))
    addresses = set(re.findall(r"https?://[^\s\"'<>]+", text))
    assert addresses <= {"http://www.w3.org/2000/svg"}
    assert "url(" not in text and "@import" not in text and "fetch(" not in text
    assert "innerHTML" not in text and "document.write" not in text
    assert len(text.encode()) < 5_000_000


def test_the_policy_admits_the_one_script_of_the_page(results):
    page = Page(render(results))
    policy = next(a["content"] for t, a in page.elements if "http-equiv" in a)
    (code,) = (body for attributes, body in page.scripts if not attributes)
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    assert "default-src 'none'" in policy and f"script-src 'sha256-{digest}'" in policy


def test_text_of_a_run_is_never_markup(results):
    plain = Page(render(results))
    results["name"] = results["command"] = EVIL
    results["front"][0].update(id=EVIL, arch=EVIL, model=EVIL)
    results["front"][0]["plan"]["blocks"][0]["name"] = EVIL
    results["front"][0]["per_class"] = {EVIL: 0.5}
    results["front"][0]["devices"]["cpu"].update(valid=False, reasons=[EVIL])
    results["front"][1]["devices"][EVIL] = results["front"][1]["devices"]["cpu"]
    results["rejected"][0]["why"] = EVIL
    results["devices"][0]["runtime"] = EVIL
    results["constraints"].append({"metric": EVIL, "bound": 1.0})
    results["evaluations"][0]["choices"][EVIL] = EVIL
    results["timing"][0]["stage"] = EVIL
    results["provenance"][EVIL] = {EVIL: EVIL}
    page = Page(render(results))
    assert len(page.scripts) == len(plain.scripts) == 2
    assert {tag for tag, _ in page.elements} == {tag for tag, _ in plain.elements}
    assert not any(name.startswith("on") for _, a in page.elements for name in a)
    assert page.data["models"][0]["id"] == EVIL
    # Text that looks like a placeholder of the template is text.
    assert "{{command}}" in page.words


@pytest.mark.parametrize(
    "path, link",
    [
        ("models/a b.onnx", "./models/a%20b.onnx"),
        ("models/<x>.onnx", "./models/%3Cx%3E.onnx"),
        ("javascript:alert(1)", "./javascript%3Aalert%281%29"),
        ("/etc/passwd", None),
        ("models/../../x", None),
        ("a\\b", None),
        ("", None),
        (None, None),
        (7, None),
    ],
)
def test_links_stay_inside_the_run(path, link):
    assert model_link(path) == link


def test_embedded_json_reads_back_and_cannot_close_its_element():
    value = {"<!--": ["</script>", "&amp;", "\u2028\u2029", 1.5, None, True]}
    text = embed_json(value)
    assert json.loads(text) == value
    assert not set("<>&\u2028\u2029") & set(text)


def test_a_run_that_recorded_little_says_so(minimal):
    page = Page(render(minimal))
    assert "1 verified model on the front" in page.words
    assert page.words.count("not recorded") >= 8
    assert "No limit was set" in page.words


PARTS = [
    "hypervolume",
    "provenance",
    "space",
    "training",
    "timing",
    "evaluations",
    "latency_samples",
    "accuracy_predictor",
    "rejected",
    "constraints",
    "devices",
    "goals",
    "command",
]


@pytest.mark.parametrize("key", PARTS)
def test_every_part_may_be_missing_or_null(results, key):
    results["evaluations"] = results["evaluations"][:20]
    results[key] = None
    assert Page(render(results)).data["models"]
    del results[key]
    assert Page(render(results)).data["models"]


def test_parts_of_a_model_may_be_missing_or_null(results):
    for key in list(results["front"][0]):
        if key != "id":
            results["front"][0][key] = None
    for key in list(results["front"][1]["devices"]["cpu"]):
        results["front"][1]["devices"]["cpu"][key] = None
    page = Page(render(results))
    assert "were not recorded" in layers_of(page, page.data["models"][0]["id"])
    assert page.device(1, "cpu")["ms"] is None


def test_without_a_front_the_page_says_what_happened(results):
    count = len(results["rejected"])
    results["front"] = []
    words = Page(render(results)).words
    assert "No model on the front" in words and f"{count} candidates were measured" in words


def test_another_metric_where_less_is_better(results):
    results.update(metric="mean_absolute_error", higher_is_better=False)
    for entry in results["front"]:
        entry["test_accuracy"] = 3.25
    results["front"][2]["test_accuracy"] = 1.75
    page = Page(render(results))
    assert "the best reaches 1.75 test mean_absolute_error" in page.words
    assert page.data["metric"] == {
        "name": "mean_absolute_error",
        "percent": False,
        "unit": "",
    }


def test_write_report_leaves_page_and_table(results, tmp_path, save):
    run = save(tmp_path / "run", results)
    assert write_report(run) == run / "report.html"
    page = Page((run / "report.html").read_text(encoding="utf-8"))
    assert len(page.data["models"]) == len(results["front"]) + len(results["rejected"])
    assert (run / "front.csv").read_text().startswith("id,arch,accuracy,")


def test_a_run_without_results_is_told_how_to_go_on(tmp_path):
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(InputError, match="nas resume"):
        write_report(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["manifest.json"]


@pytest.mark.parametrize(
    "text, message",
    [("{", "no JSON"), ("[]", "object"), ('{"front": {}}', "'front' must be a list"),
     ('{"front": [{}]}', "no 'id'")],
)  # fmt: skip
def test_results_of_another_form_are_refused(tmp_path, text, message):
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(InputError, match=message):
        write_report(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]


@pytest.mark.slow
def test_a_huge_run_stays_small(results):
    row = results["evaluations"][0]
    results["evaluations"] = [{**row, "number": i, "id": f"{i:010x}"} for i in range(20_000)]
    results["rejected"] = [{**results["rejected"][0], "id": f"r{i}"} for i in range(2_000)]
    text = render(results)
    assert len(text.encode()) < 5_000_000
    data = Page(text).data
    (_, chart), *_ = data["panels"]["front"]["drawings"]
    assert "Showing 4000 of 20000 evaluations." in data["columns"][chart["notes"]["$"]]
    # Models whose layers did not fit say so; the front always has its own.
    assert "left out" in layers_of(Page(text), data["models"][-1]["id"])
    for model in data["models"]:
        if model["kind"] == "front":
            assert layers_of(Page(text), model["id"])["kind"] == "layers"


def test_budgets_are_listed_with_the_model_that_serves_each(results):
    """Also those that are kept: whoever asked for them wants to know by what."""
    best = results["front"][0]
    size = best["costs"]["weights_kib"]
    results["budgets"] = [
        {"metric": "weights_kib", "limit": 0.001, "model": None},
        {"metric": "weights_kib", "limit": size + 1, "model": best["id"]},
        {"metric": "latency_ms[cpu]", "limit": 50.0, "model": results["front"][-1]["id"]},
    ]
    words = Page(render(results)).words
    assert "weights_kib ≤ 0.001 nothing on the front keeps it; the closest, " in words
    assert f"weights_kib ≤ {size + 1:g} served by {best['id']}: test accuracy " in words
    assert f"weights_kib {size:.4g}" in words
    assert f"latency_ms[cpu] ≤ 50 served by {results['front'][-1]['id']}" in words
