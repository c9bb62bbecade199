import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest

from nas.report import write_report
from nas.report.page import embed_json, model_link, render
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

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


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
    assert page.data["models"][0]["devices"]["cpu"]["reasons"] == ["throttling at 91 °C"]
    # An invalid measurement is not called the fastest.
    cards = [a["data-model"] for t, a in page.elements if t == "a" and a.get("class") == "card"]
    fastest_on_cpu, fastest_on_board = cards[2:4]
    assert fastest_on_cpu == results["front"][1]["id"]
    assert fastest_on_board == results["front"][0]["id"]


def test_a_missed_budget_is_counted(results):
    bound = results["front"][0]["devices"]["cpu"]["latency_ms"]
    results["constraints"][0]["bound"] = bound
    page = Page(render(results))
    assert f"met by 1 of {len(results['front'])} models" in page.words


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
    assert "No budget was set" in page.words


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
    assert page.data["models"][0]["plan"] is None
    assert page.data["models"][1]["devices"]["cpu"]["ms"] is None


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
        "higher": False,
        "percent": False,
        "unit": "",
        "each": "class",
        "classes": False,
    }


def test_write_report_leaves_page_and_table(results, tmp_path, save):
    run = save(tmp_path / "run", results)
    assert write_report(run) == run / "report.html"
    page = Page((run / "report.html").read_text(encoding="utf-8"))
    assert len(page.data["models"]) == len(results["front"]) + len(results["rejected"])
    assert (run / "front.csv").read_text().startswith("id,arch,accuracy,")


def test_a_run_without_results_is_told_how_to_go_on(tmp_path):
    with pytest.raises(InputError, match="nas resume"):
        write_report(tmp_path)
    assert not list(tmp_path.iterdir())


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


def test_a_huge_run_stays_small(results):
    row = results["evaluations"][0]
    results["evaluations"] = [{**row, "number": i, "id": f"{i:010x}"} for i in range(20_000)]
    results["rejected"] = [{**results["rejected"][0], "id": f"r{i}"} for i in range(2_000)]
    text = render(results)
    assert len(text.encode()) < 5_000_000
    data = Page(text).data
    assert data["evaluations"]["total"] == 20_000 > len(data["evaluations"]["id"])
    # Models whose layers did not fit say so; the front always has its own.
    assert data["models"][-1]["plan_left_out"] and data["models"][-1]["plan"] is None
    assert all(m["plan"] for m in data["models"] if m["kind"] == "front")


def test_predictions_are_judged_on_models_the_predictor_had_not_seen(results):
    verified = {e["id"] for e in [*results["front"], *results["rejected"]]}
    for sample in results["latency_samples"]:
        factor = 1.2 if sample["id"] in verified else 1.0
        sample.update(valid=True, predicted_ms=sample["latency_ms"] * factor)
        sample.update(predicted_low_ms=sample["latency_ms"] * 0.9)
        sample.update(predicted_high_ms=sample["latency_ms"] * (2 - factor))
    sample = next(s for s in results["latency_samples"] if s["id"] not in verified)
    sample.update(valid=False, predicted_ms=sample["latency_ms"] * 9)
    fit = Page(render(results)).data["latency_fit"]["cpu"]
    held_out, others = fit["held_out"], fit["others"]
    assert held_out["mape"] == pytest.approx(0.2) and held_out["inside"] == 0.0
    assert held_out["spearman"] == pytest.approx(1.0)
    assert others["mape"] == pytest.approx(0.0) and others["inside"] == 1.0
    on_cpu = [s for s in results["latency_samples"] if s["device"] == "cpu"]
    assert held_out["n"] + others["n"] == len(on_cpu) - 1


def test_latencies_of_evaluations_say_where_they_come_from(results):
    a, b, c, *_ = results["evaluations"]
    for row in results["evaluations"]:
        row.pop("predicted")
    a["latency_source"] = "predicted"
    b["metrics"]["latency_ms[cpu]"] = 0.5
    results["latency_samples"].append({"device": "cpu", "id": b["id"], "latency_ms": 0.5})
    sources = Page(render(results)).data["evaluations"]["sources"]["latency_ms[cpu]"]
    assert sources[:3] == ["predicted", "measured", "source not recorded"]
    c["latency_source"] = {"cpu": "measured", "board": "predicted"}
    sources = Page(render(results)).data["evaluations"]["sources"]
    assert sources["latency_ms[cpu]"][2] == "measured"
    assert sources["latency_ms[board]"][2] == "predicted"
