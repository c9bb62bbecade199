"""What may be built, within bounds."""

from __future__ import annotations

import json

import pytest

from devices.simulators.design import Design, _short, all_designs, area_mm2, read_design
from devices.simulators.hardware import LONGEST_NAME, read_hardware
from search_spaces.errors import InputError


def design(**changes) -> Design:
    return Design.model_validate({"version": 1, "bases": ["systolic-16x16"], **changes})


def test_every_combination_is_there_once():
    found = list(all_designs(design(rows=[8, 16], columns=[8, 16, 32], formats=[[], ["fp8_e4m3"]])))
    assert len(found) == len({h.name for h in found}) == 12
    assert {(h.rows, h.columns) for h in found} == {(r, c) for r in (8, 16) for c in (8, 16, 32)}
    assert [list(h.formats) for h in found[:2]] == [[], ["fp8_e4m3"]]
    whole = list(all_designs(design()))
    assert whole == [read_hardware("systolic-16x16")]


def test_long_names_of_different_designs_differ():
    many = {
        "rows": [1024, 2048], "columns": [1024, 2048], "native_bits": [8, 16],
        "formats": [[], ["fp8_e4m3"]],
    }  # fmt: skip
    found = list(all_designs(design(**many)))
    names = {_short("-".join([h.name, "x" * 80])) for h in found}
    assert len(names) == len(found) == 16
    assert all(len(name) == LONGEST_NAME for name in names)


def test_area_grows_with_units_buffers_bits_and_formats():
    base = read_hardware("systolic-16x16").model_copy(update={"formats": {}})
    units = 256 * base.area.unit_um2 * 1e-6
    memory = base.memory.activation_buffer_kib + base.memory.weight_buffer_kib
    assert area_mm2(base) == pytest.approx(units + memory * base.area.buffer_um2_per_kib * 1e-6)
    wide = base.model_copy(update={"native_bits": 16})
    assert area_mm2(wide) - area_mm2(base) == pytest.approx(3 * units)
    floats = read_hardware("systolic-16x16")
    assert area_mm2(floats) - area_mm2(base) == pytest.approx(1.15 * units)


def test_limits_are_kept():
    found = list(
        all_designs(
            design(rows=[8, 16, 256], bandwidth_gb_s=[1, 4],
                   limits={"area_mm2": 2.0, "bandwidth_gb_s": 2.0})
        )
    )  # fmt: skip
    assert found and all(area_mm2(h) <= 2 and h.memory.bandwidth_gb_s <= 2 for h in found)
    assert {h.rows for h in found} == {8, 16}


def test_mistakes_are_named(tmp_path):
    path = tmp_path / "design.json"
    path.write_text(json.dumps({"version": 2, "bases": [], "row": [1]}))
    with pytest.raises(InputError) as told:
        read_design(path)
    assert {line.split(": ")[1] for line in str(told.value).splitlines()} == {
        "version", "bases", "row",
    }  # fmt: skip
    path.write_text("{")
    with pytest.raises(InputError, match=r"design.json:1:2"):
        read_design(path)
    with pytest.raises(InputError, match="cannot read the design"):
        read_design(tmp_path / "none.json")
    with pytest.raises(InputError, match="describes no units for nf4"):
        list(all_designs(design(formats=[["nf4"]])))
    with pytest.raises(InputError, match="is none"):
        list(all_designs(design(rows=[0])))
