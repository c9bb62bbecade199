"""Files of SVG hold every point inside their page, whatever the names are."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest

from nas.plots.svg import xy_svg
from nas.report.charts.bits import budget_curve
from nas.report.charts.latency import device_map, foretold, prediction

SVG = "{http://www.w3.org/2000/svg}"


def marks(root):
    """Where the marks of a file are, those of its legend left out."""
    for mark in root.findall(f"{SVG}path[@class='mark']"):
        yield [float(v) for v in mark.get("transform")[len("translate(") : -1].split()]


def test_devices_that_rank_alike_are_close_and_their_names_do_not_overlap():
    names = ["a<b", "twin", "far"]
    places = np.array([[0.0, 0.0], [0.01, 0.0], [5.0, 5.0]])
    root = ElementTree.fromstring(xy_svg(device_map(names, places, highlighted=["far"])))
    one, two, far = marks(root)
    assert abs(one[0] - two[0]) < 10 < far[0] - one[0] and far[1] < one[1]
    texts = {t.text: float(t.get("y")) for t in root.findall(f"{SVG}text") if t.text in names}
    assert set(texts) == set(names) and abs(texts["a<b"] - texts["twin"]) >= 13


def test_both_axes_of_predictions_have_one_range():
    chart = prediction([1.0, 100.0], [2.0, 50.0], low_ms=[1.0, 40.0], high_ms=[3.0, 60.0])
    root = ElementTree.fromstring(xy_svg(chart))
    (a, b), width = marks(root), float(root.get("viewBox").split()[2])
    assert all(0 < value < width for point in (a, b) for value in point)
    # y = x is the diagonal: a prediction above the truth lies above it.
    assert a[0] - 60 < width - 50 - a[1] and b[0] - 60 > width - 50 - b[1]


@pytest.mark.parametrize("text", ["</svg><script>", "a & b"])
def test_names_are_text(text):
    ElementTree.fromstring(xy_svg(prediction([1.0], [1.0], names=[text], title=text)))


def test_a_chart_without_points_is_still_one():
    root = ElementTree.fromstring(xy_svg(foretold((), "Nothing was checked")))
    assert list(marks(root)) == []


def test_lines_are_drawn_too():
    from nas.bits.allocation import Bits, BitTable

    options = [Bits(w, 8) for w in (2, 4, 8)]
    table = BitTable.of(["one"], [options], [[4.0, 1.0, 0.1]], {"weights_kib": [[2, 4, 8]]})
    root = ElementTree.fromstring(xy_svg(budget_curve(table, "weights_kib", points=4)))
    (line,) = [p for p in root.findall(f"{SVG}path") if p.get("fill") == "none"]
    assert line.get("d").count("L") >= 2
