"""The report page: one HTML file with its style, script and data inside.

Numbers are worked out here and embedded as JSON; the script beside this module only
draws. Headline, table and provenance are plain HTML, readable without the script. All
text of a run (names, architectures, reasons) is untrusted: it is escaped here, and the
script sets it as text only. A content security policy forbids every load and every
script but the one whose hash it names.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from html import escape
from importlib.resources import files
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from nas.record.result_types import Model, Results
from nas.report.beside import scroll_table
from nas.report.charts import model as model_charts
from nas.report.charts import search as search_charts
from nas.report.charts.palette import style_sheet
from nas.report.charts.spec import Bars, NothingRecorded
from nas.report.charts.text import MISSING, duration
from nas.report.examples import examples_section
from nas.report.family import family_section
from nas.report.front import dominator
from nas.report.payload import build_payload
from nas.report.pruned import pruned_section
from nas.report.results import device_names, metric_of, metric_text, number
from nas.report.rows import Rows, each_word

SCRIPTS = ("base", "marks", "xy", "bars", "layers", "panels", "model", "tables", "start")
"""Parts of the page's script, in order; one function holds them all."""


def render(
    results: Results,
    study: Mapping[str, Any] | None = None,
    examples: Mapping[str, Any] | None = None,
    pruned: Mapping[str, Any] | None = None,
) -> str:
    """Return the page for the content of ``results.json``; missing parts say "not recorded".

    Args:
        results: of the run.
        study: the content of ``studies/value.json``, drawn beside the front.
        examples: the content of ``examples.json``.
        pruned: the content of ``studies/sparsity/sparsity.json``.

    Raises:
        InputError: a part of the results is of the wrong type.
    """
    rows = Rows.of(results, study)
    results = rows.results
    script = page_script()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    parts = {
        "script_hash": f"sha256-{digest}",
        "style": f"{_asset('report.css')}\n{style_sheet()}",
        "script": script,
        "data": embed_json(build_payload(rows)),
        "title": escape(str(results.get("name") or "run")),
        "summary": _summary(results),
        "cards": _cards(results),
        "budgets": _budgets(rows),
        "classes": _classes(rows),
        "table": _table(results),
        "value": family_section(study) + pruned_section(pruned),
        "examples": examples_section(examples),
        "timing": _timing(rows),
        "command": escape(str(results.get("command") or MISSING)),
        "provenance": _provenance(results),
    }
    # One pass, so that text of a run that looks like a placeholder stays what it is.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _asset("template.html"))


def embed_json(value: Any) -> str:
    """Return JSON that can stand inside a ``script`` element whatever texts it holds.

    Raises:
        ValueError: a number that is not finite.
    """
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def model_link(path: Any) -> str | None:
    """Return the path of a model file as a relative URL; ``None`` unless it is inside the run."""
    if not isinstance(path, str) or not path or "\\" in path:
        return None
    parts = PurePosixPath(path).parts
    if PurePosixPath(path).is_absolute() or ".." in parts:
        return None
    # The quoted "./" prefix keeps a name such as "javascript:..." a file name.
    return "./" + quote(str(PurePosixPath(path)))


def page_script() -> str:
    """Return the script of the page: its parts, in a function of their own."""
    parts = "\n".join(_asset(f"{name}.js") for name in SCRIPTS)
    return f'"use strict";\n(function () {{\n{parts}}})();\n'


def _asset(name: str) -> str:
    return files("nas.report").joinpath("assets", name).read_text(encoding="utf-8")


# ------------------------------------------------------------------------ figures


def _accuracy(value: Any, results: Results) -> str:
    return metric_text(value, results) or MISSING


def _ms(value: Any) -> str:
    value = number(value)
    return MISSING if value is None else f"{value:.4g} ms"


def _kib(value: Any) -> str:
    value = number(value)
    return MISSING if value is None else f"{value:.1f} KiB"


def _interval(low: Any, high: Any) -> str:
    low, high = number(low), number(high)
    return "interval not recorded" if low is None or high is None else f"{low:.4g}–{high:.4g}"


def _best(entries: list[dict[str, Any]], value: Any, *, most: bool = False) -> Any:
    """The entry whose ``value(entry)`` is least (or most), or None where none has one."""
    with_value = [e for e in entries if number(value(e)) is not None]
    if not with_value:
        return None
    return max(with_value, key=value) if most else min(with_value, key=value)


def _device(entry: Model, name: str) -> dict[str, Any]:
    return (entry.get("devices") or {}).get(name) or {}


# --------------------------------------------------------------------------- parts


def _summary(results: Results) -> str:
    front = results["front"]
    if not front:
        rejected = len(results["rejected"])
        return (
            "<p class='lead'>No model on the front: none of the verified candidates is within "
            f"every budget. {rejected} candidate{'s were' if rejected != 1 else ' was'} "
            "measured and rejected; the reasons are below.</p>"
        )
    metric, higher = metric_of(results)
    count = len(front)
    within = sum(entry.get("feasible") is True for entry in front)
    sentence = f"{count} verified model{'s' if count != 1 else ''} on the front"
    if results["constraints"]:
        sentence += f", {within} of them within every budget"
    beaten = sum(entry.get("pareto") is False for entry in front)
    if beaten:
        sentence += f", {beaten} of them beaten by the final figures of others"
    best = _best(front, lambda e: e.get("test_accuracy"), most=higher)
    if best is not None:
        sentence += f"; the best reaches {_accuracy(best['test_accuracy'], results)} test {metric}"
    space = results.get("space") or {}
    origin = ""
    if space.get("cardinality"):
        size = str(space["cardinality"])
        about = f"about 10^{len(size) - 1}" if len(size) > 9 else size
        origin = (
            f" Chosen from {about} architectures of the space "
            f"{space.get('name', '')} ({space.get('preset', MISSING)}) "
            f"after {len(results['evaluations'])} evaluations."
        )
    return f"<p class='lead'>{escape(sentence)}.{escape(origin)}</p>"


def _cards(results: Results) -> str:
    front = results["front"]
    metric, higher = metric_of(results)
    runtimes = {d.get("name"): d.get("runtime") for d in results["devices"]}
    cards = []

    def add(title: str, entry: Any, figure: str, detail: str) -> None:
        if entry is not None:
            name = escape(str(entry["id"]))
            cards.append(
                f"<a class='card' href='#m={escape(quote(str(entry['id'])))}' "
                f"data-model='{name}'><span class='card-title'>{escape(title)}</span>"
                f"<span class='card-figure'>{escape(figure)}</span>"
                f"<span class='card-detail'>{escape(detail)}</span>"
                f"<span class='card-id'>{name}</span></a>"
            )

    def accuracy(entry: Model) -> str:
        return f"{_accuracy(entry.get('test_accuracy'), results)} test {metric}"

    best = _best(front, lambda e: e.get("test_accuracy"), most=higher)
    if best is not None:
        size = _kib((best.get("costs") or {}).get("weights_kib"))
        add(
            f"Best {metric}",
            best,
            _accuracy(best["test_accuracy"], results),
            f"on the test split; {size} of weights",
        )
    small = _best(front, lambda e: (e.get("costs") or {}).get("weights_kib"))
    if small is not None:
        size = _kib(small["costs"]["weights_kib"])
        add("Smallest", small, size, f"of weights; {accuracy(small)}")
    for name in device_names(results):
        valid = [e for e in front if _device(e, name).get("valid") is not False]
        fast = _best(valid, lambda e, name=name: _device(e, name).get("latency_ms"))
        if fast is not None:
            found = _device(fast, name)
            latency = float(found["latency_ms"])
            faster = [
                e for e in front
                if _device(e, name).get("valid") is False
                and float(_device(e, name).get("latency_ms") or latency) < latency
            ]  # fmt: skip
            more = f"; {len(faster)} faster without a valid measurement" if faster else ""
            add(
                f"Fastest on {name}",
                fast,
                _ms(found.get("latency_ms")),
                f"{_source(found)} with {runtimes.get(name) or 'a runtime not recorded'}, "
                f"95 % interval {_interval(found.get('low_ms'), found.get('high_ms'))}; "
                f"{accuracy(fast)}{more}",
            )
    knee = next((entry for entry in front if entry.get("knee")), None)
    if knee is not None:
        sizes = [_kib((knee.get("costs") or {}).get("weights_kib"))]
        sizes += [
            f"{_ms(_device(knee, n).get('latency_ms'))} {_source(_device(knee, n))} on {n}"
            for n in device_names(results)
            if _device(knee, n)
        ]
        add("Knee of the front", knee, _accuracy(knee.get("test_accuracy"), results),
            "; ".join(sizes))  # fmt: skip
    return f"<div class='cards'>{''.join(cards)}</div>" if cards else ""


def _source(found: dict[str, Any]) -> str:
    """Say where a latency comes from: measured on a device, or estimated by a simulator."""
    return str(found.get("source") or "measured")


def _budgets(rows: Rows) -> str:
    if not rows.budgets:
        return "<p class='budgets'>No limit was set (search.constraints, search.budgets).</p>"
    items = "".join(
        f"<li><strong>{escape(b['text'])}</strong> "
        f"<span class='muted'>{escape(b['status'])}</span></li>"
        for b in rows.budgets
    )
    return f"<h3>Budgets</h3><ul class='budgets'>{items}</ul>"


def _table(results: Results) -> str:
    metric, _ = metric_of(results)
    names = device_names(results)
    runtimes = {d.get("name"): d.get("runtime") for d in results["devices"]}
    further = list((results.get("task") or {}).get("further_metrics") or {})
    # What a narrow screen shows without scrolling comes first.
    heads = ["Model", f"Test {metric}"]
    for name in names:
        source = _source(next((d for e in results["front"] if (d := _device(e, name))), {}))
        heads.append(f"Latency on {name}, ms, {source} ({runtimes.get(name) or MISSING})")
    heads += [f"Test {name}" for name in further] + [f"Validation {metric}"]
    heads += ["Weights, KiB", "File, KiB", "Weight bits", "Activation bits", "MACs"]
    heads += ["Agreement", "Within budgets", "File"]
    body = []
    for entry in results["front"]:
        costs = entry.get("costs") or {}
        name = escape(str(entry["id"]))
        knee = " <span class='tag'>knee</span>" if entry.get("knee") else ""
        if entry.get("pareto") is False:
            by = escape(str(dominator(entry)))
            knee += f" <span class='muted'>beaten by {by} by the final figures</span>"
        cells = [
            f"<td data-sort='{name}'><a href='#m={escape(quote(str(entry['id'])))}' "
            f"data-model='{name}'>{name}</a>{knee}</td>",
            _cell(entry.get("test_accuracy"), _accuracy(entry.get("test_accuracy"), results)),
        ]
        for device in names:
            found = _device(entry, device)
            value = number(found.get("latency_ms"))
            if value is None:
                cells.append(_cell(None, MISSING))
                continue
            text = f"{value:.4g}"
            bounds = _interval(found.get("low_ms"), found.get("high_ms"))
            extra = f" <span class='muted'>{escape(bounds)}</span>"
            if found.get("valid") is False:
                why = "; ".join(map(str, found.get("reasons") or [])) or "reason not recorded"
                extra += (
                    f"<details class='bad'><summary>⚠ invalid:</summary> {escape(why)}</details>"
                )
            elif found.get("busy"):
                extra += "<br><span class='muted'>busy machine: fastest samples</span>"
            elif found.get("valid") is None:
                extra += "<br><span class='muted'>validity not recorded</span>"
            cells.append(_cell(value, text, extra))
        for key in further:
            value = number((entry.get("test") or {}).get(key))
            cells.append(_cell(value, MISSING if value is None else f"{value:.4g}"))
        checked = entry.get("validation_accuracy")
        cells.append(_cell(checked, _accuracy(checked, results)))
        for value, text in (
            (costs.get("weights_kib"), "{:.1f}"),
            (entry.get("size_kib"), "{:.1f}"),
            (costs.get("weight_bits_mean"), "{:.2f}"),
            (costs.get("activation_bits_mean"), "{:.2f}"),
            (costs.get("macs"), "{:,.0f}"),
        ):
            value = number(value)
            cells.append(_cell(value, MISSING if value is None else text.format(value)))
        agreement = number((entry.get("parity") or {}).get("agreement"))
        text = MISSING if agreement is None else f"{100 * agreement:.2f} %"
        cells.append(_cell(agreement, text))
        feasible = entry.get("feasible")
        word = {True: "yes", False: "✗ no"}.get(feasible, MISSING)
        cells.append(f"<td data-sort='{word}'>{word}</td>")
        link = model_link(entry.get("model"))
        cells.append(
            "<td>" + (f"<a href='{escape(link)}' download>ONNX</a>" if link else MISSING) + "</td>"
        )
        body.append(f"<tr data-row='{name}'>{''.join(cells)}</tr>")
    if not body:
        return "<p class='muted'>The front is empty.</p>"
    return scroll_table("Table of the front", heads, body, "front-table")


def _cell(value: Any, text: str, extra: str = "") -> str:
    value = number(value)
    sort = "" if value is None else repr(value)
    return f"<td class='num' data-sort='{sort}'>{escape(text)}{extra}</td>"


def _classes(rows: Rows) -> str:
    """Return the place of the metric by class, where the task has classes, labels or outputs."""
    if not model_charts.tells_classes(rows):
        return ""
    title = f"{rows.metric[:1].upper()}{rows.metric[1:]} by {each_word(rows.results)}"
    return (
        f"<div id='classes-part' hidden><h3>{escape(title)}</h3>"
        "<div class='chart' id='classes-chart'></div><p class='note' id='classes-note'></p></div>"
    )


def _timing(rows: Rows) -> str:
    try:
        chart = search_charts.timing(rows)
    except NothingRecorded:
        return f"<p class='muted'>{MISSING.capitalize()}.</p>"
    return _bars_table(chart, duration(sum(value or 0.0 for value in chart.series[0].values)))


def _bars_table(chart: Bars, total: str) -> str:
    """Return bars of one series as a table, which needs no script."""
    (series,), whole = chart.series, chart.whole or 1.0
    role = f"role-{escape(series.role)}"
    body = "".join(
        f"<tr><th scope='row'>{escape(name)}</th>"
        f"<td class='num'>{MISSING if value is None else escape(text)}</td>"
        f"<td class='num'>{'' if value is None or not chart.whole else f'{value / whole:.0%}'}</td>"
        f"<td class='bar-cell'><svg height='10' viewBox='0 0 100 10' preserveAspectRatio='none' "
        f"aria-hidden='true' class='{role}'><rect width='{100 * (value or 0.0) / whole:.2f}' "
        "height='10' class='bar'/></svg></td></tr>"
        for name, value, text in zip(chart.categories, series.values, series.labels, strict=True)
    )
    return (
        f"<table class='timing'><thead><tr><th scope='col'>{escape(chart.category)}</th>"
        f"<th scope='col'>{escape(chart.value.title.capitalize())}</th>"
        f"<th scope='col'>Share</th><th scope='col'></th></tr></thead><tbody>{body}"
        f"<tr><th scope='row'>together</th><td class='num'>{total}</td>"
        "<td></td><td></td></tr></tbody></table>"
    )


def _provenance(results: Results) -> str:
    whole = {
        "seed": results.get("seed"),
        "search space": results.get("space"),
        "devices": [device.to_json() for device in results.devices] or None,
        "objectives": results["goals"] or None,
    }
    recorded = results.get("provenance")
    whole.update(recorded if isinstance(recorded, Mapping) else {"versions, hardware, data": None})
    return _tree(whole)


def _tree(value: Any, depth: int = 0) -> str:
    if value is None or value in ({}, [], ()):
        return f"<span class='muted'>{MISSING}</span>"
    if isinstance(value, Mapping) and depth and len(value) <= 2 and _scalars(value.values()):
        return escape(", ".join(f"{k} {v}" for k, v in value.items()))
    if isinstance(value, Mapping) and depth < 6:
        rows = "".join(
            f"<div><dt>{escape(str(k))}</dt><dd>{_tree(v, depth + 1)}</dd></div>"
            for k, v in value.items()
        )
        return f"<dl>{rows}</dl>"
    if isinstance(value, (list, tuple)) and depth < 6:
        if _scalars(value):
            return escape(", ".join(map(str, value)))
        return "".join(_tree(item, depth + 1) for item in value)
    return escape(str(value))


def _scalars(values: Iterable[Any]) -> bool:
    return not any(value is None or isinstance(value, (Mapping, list, tuple)) for value in values)
