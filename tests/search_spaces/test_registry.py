"""Names of parts, from here and from other packages."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from nas.job import findings
from search_spaces import registry as module
from search_spaces.errors import EnvironmentProblem, InputError
from search_spaces.registry import Registry


def test_a_part_is_found_by_its_name():
    parts: Registry[type] = Registry("part", group="nas.nothing")

    @parts.register("zebra")
    class Zebra:
        pass

    parts.register("ant")(int)
    assert parts.get("zebra") is Zebra
    assert parts.names() == list(parts) == ["ant", "zebra"]
    assert "ant" in parts and "bee" not in parts


def test_a_name_twice_is_refused_and_the_first_stays():
    parts: Registry[int] = Registry("part", group="nas.nothing")
    parts.register("a")(1)
    with pytest.raises(ValueError, match="part 'a' is registered already"):
        parts.register("a")(2)
    assert parts.get("a") == 1


def test_an_unknown_name_lists_the_known_ones_and_the_nearest():
    parts: Registry[int] = Registry("runtime", group="nas.nothing")
    parts.register("onnxruntime")(1)
    parts.register("qemu")(2)
    with pytest.raises(InputError) as error:
        parts.get("onnxruntim")
    assert str(error.value) == (
        "unknown runtime 'onnxruntim'; did you mean 'onnxruntime'? (available: onnxruntime, qemu)"
    )
    with pytest.raises(InputError, match=r"unknown runtime 'xyz' \(available"):
        parts.get("xyz")


@pytest.fixture
def other_packages(monkeypatch):
    asked = []

    def entry_points(*, group):
        asked.append(group)
        return [EntryPoint("sum", "math:fsum", group)]

    monkeypatch.setattr(module, "entry_points", entry_points)
    return asked


def test_entry_points_are_read_once_and_not_before_they_are_needed(other_packages):
    import math

    parts: Registry[object] = Registry("part", group="nas.parts")
    parts.register("own")(1)
    assert other_packages == []
    assert parts.get("sum") is math.fsum
    assert parts.names() == ["own", "sum"]
    assert other_packages == ["nas.parts"]


def test_an_entry_point_cannot_replace_a_part(other_packages):
    parts: Registry[object] = Registry("part", group="nas.parts")
    parts.register("sum")(1)
    with pytest.raises(ValueError, match="registered already"):
        parts.get("sum")


def test_a_package_that_cannot_be_imported_is_told_and_hides_no_other(monkeypatch):
    points = [EntryPoint("sum", "math:fsum", "nas.parts"), EntryPoint("bad", "no_such:x", "g")]
    monkeypatch.setattr(module, "entry_points", lambda *, group: points[::-1])
    parts: Registry[object] = Registry("part", group="nas.parts")
    assert parts.names() == ["sum"] and list(parts.broken) == ["bad"]
    with pytest.raises(EnvironmentProblem, match=r"part 'bad' cannot be loaded from no_such:x \("):
        parts.get("bad")
    monkeypatch.setattr(findings, "registry_for", lambda key: parts)
    ((_, told),) = findings.unknown_name("parts", ("parts", 0), "bad")
    assert "parts.0: part 'bad' cannot be loaded" in told


def test_modules_that_register_parts_are_imported_at_the_first_look_up(monkeypatch, tmp_path):
    (tmp_path / "late_parts_example.py").write_text("from holder_example import PARTS\n"
                                                    "PARTS.register('late')(1)\n")  # fmt: skip
    (tmp_path / "holder_example.py").write_text(
        "from search_spaces.registry import Registry\n"
        "PARTS = Registry('part', group='nas.nothing', modules=('late_parts_example',))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import sys

    from holder_example import PARTS

    assert "late_parts_example" not in sys.modules
    assert PARTS.names() == ["late"]
    for name in ("late_parts_example", "holder_example"):
        monkeypatch.delitem(sys.modules, name)
