"""A drawing holds together: equal lengths, known roles, ranges that hold what is drawn."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from nas.report.charts.palette import BITS, ROLES, SERIES, SHAPES, series, style_sheet
from nas.report.charts.panels import page_panels
from nas.report.charts.spec import (
    XY,
    Axis,
    Bars,
    BarSeries,
    Interval,
    Line,
    Parallel,
    Points,
    Rule,
    along,
    logarithmic,
)
from nas.report.rows import Rows


def test_a_drawing_is_frozen_and_its_columns_are_equally_long():
    points = Points("a", "front", (1.0, 2.0), (3.0, 4.0))
    with pytest.raises(FrozenInstanceError):
        points.name = "b"
    for wrong in (
        {"y": (1.0,)},
        {"texts": ("one",)},
        {"across": Interval((0.0,), (1.0,))},
    ):
        with pytest.raises(ValueError, match="2 values"):
            Points("a", "front", **{"x": (1.0, 2.0), "y": (3.0, 4.0)} | wrong)
    with pytest.raises(ValueError):
        Bars("t", "d", "c", ("one", "two"), Axis(), (BarSeries("s", "front", (1.0,)),))


def test_an_axis_holds_values_intervals_and_rules():
    chart = XY(
        "t", "d", Axis(), Axis(shows=(1.0,)),
        (
            Points("a", "front", (2.0,), (0.5,), Interval((1.5,), (None,))),
            Points("far", "other", (3.0, 4.0), (-90.0, 0.4), reach=(0.4, 0.4)),
            Line("b", "front", (2.5,), (0.7,)),
            Rule("budget", "budget", "x", 9.0),
            Rule("no", "budget", "y", 99.0, reached=False),
        ),
    )  # fmt: skip
    assert sorted(along(chart, "x")) == [1.5, 2.0, 2.5, 3.0, 4.0, 9.0]
    assert sorted(along(chart, "y")) == [0.4, 0.4, 0.5, 0.7, 1.0]


def test_a_scale_follows_the_values_only_where_it_may():
    assert logarithmic("auto", [1.0, 7.0]) and not logarithmic("auto", [1.0, 5.0])
    assert logarithmic("log", [1.0, 1.1]) and not logarithmic("log", [0.0, 9.0])
    assert not logarithmic("linear", [1.0, 1e9]) and not logarithmic("log", [])


def test_no_two_roles_that_stand_together_look_alike():
    looks = [(role.light, role.symbol, role.hollow) for role in SERIES]
    assert len(set(looks)) == len(looks) == len({role.symbol for role in SERIES})
    together = ("front", "beaten", "knee", "rejected", "family", "invalid")
    shapes = [(ROLES[name].symbol, ROLES[name].hollow, ROLES[name].dashed) for name in together]
    assert len(set(shapes)) == len(shapes)
    assert {role.symbol for role in ROLES.values()} <= set(SHAPES)
    assert series(0) == series(len(SERIES)) == "series-1" and len(set(BITS.values())) == len(BITS)
    for name in ROLES:
        assert f".role-{name} {{ --ink: var(--role-{name}); }}" in style_sheet()


def test_every_chart_of_the_page_names_roles_that_exist(results):
    for panel in page_panels(Rows.of(results)).values():
        for drawing in panel.drawings.values():
            if isinstance(drawing, XY):
                roles = {mark.role for mark in drawing.marks}
            elif isinstance(drawing, Bars):
                roles = {s.role for s in drawing.series} | {
                    s.line_role for s in drawing.series if s.lines
                }
            elif isinstance(drawing, Parallel):
                roles = {drawing.role, drawing.marked_role}
            else:
                continue
            assert roles <= set(ROLES)
            assert drawing.title and drawing.description
