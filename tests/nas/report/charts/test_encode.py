"""What the page reads is what was built, and what drawings share is written once."""

from __future__ import annotations

import json

from nas.report.charts.encode import Pool
from nas.report.charts.spec import XY, Axis, Block, Choice, Layer, Panel, Points


def decode(value, columns):
    """As ``decode`` in base.js."""
    if isinstance(value, list):
        return [decode(one, columns) for one in value]
    if not isinstance(value, dict):
        return value
    if "$" in value:
        return columns[value["$"]]
    if "rows" in value and "of" in value:
        names = decode(value["of"], columns)
        return [dict(zip(names, row, strict=True)) for row in value["rows"]]
    return {key: decode(one, columns) for key, one in value.items()}


def chart(x):
    points = Points("a", "front", x, (0.123456789, None), texts=("one", "two"), ids=("i", None))
    return XY("t", "d", Axis("cost", "ms"), Axis(), (points,))


def test_it_reads_back_with_six_digits():
    pool = Pool()
    found = decode(json.loads(json.dumps(pool.encode(chart((1.0, 2.0))))), pool.columns)
    assert found["kind"] == "xy" and found["x"]["title"] == "cost"
    (points,) = found["marks"]
    assert points["kind"] == "points" and points["x"] == [1.0, 2.0]
    assert points["y"] == [0.123457, None] and points["ids"] == ["i", None]
    assert points["doubted"] == [] and points["crowd"] is False


def test_a_column_is_written_once_but_true_is_not_one():
    pool = Pool()
    pool.encode(chart((1.0, 2.0)))
    before = len(pool.columns)
    pool.encode(chart((1.0, 3.0)))
    assert len(pool.columns) == before + 1
    assert pool.encode((True, False)) != pool.encode((1, 0))


def test_rows_of_one_kind_name_their_fields_once():
    pool = Pool()
    block = Block("b", "conv", False, (Layer(name="one", kernel=3), Layer(name="two")))
    found = decode(pool.encode(block), pool.columns)
    assert [layer["kernel"] for layer in found["layers"]] == [3, None]
    assert len(pool.columns) == 1


def test_drawings_of_a_panel_keep_their_keys():
    pool = Pool()
    panel = Panel((Choice("C", (("a", "A"), ("b", "B"))),), {("a",): "none", ("b",): chart((1, 2))})
    found = decode(pool.encode(panel), pool.columns)
    assert found["choices"] == [{"label": "C", "options": [["a", "A"], ["b", "B"]]}]
    assert [key for key, _ in found["drawings"]] == [["a"], ["b"]]
    assert found["drawings"][0][1] == "none" and found["drawings"][1][1]["kind"] == "xy"
