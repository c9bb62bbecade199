import json

import pytest

from devices.simulators.hardware import VERSION, built_in_hardware, read_hardware
from search_spaces.errors import InputError


@pytest.mark.parametrize("name", built_in_hardware())
def test_the_packages_descriptions_are_valid_and_say_their_source(name):
    hardware = read_hardware(name)
    assert hardware.name == name
    assert len(hardware.description) > 40


def test_several_kinds_are_in_the_package():
    assert len({read_hardware(name).kind for name in built_in_hardware()}) >= 3


def write(tmp_path, **changes):
    value = read_hardware("systolic-16x16").model_dump() | changes
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(value))
    return path


def test_ones_own_description_by_path(tmp_path):
    assert read_hardware(write(tmp_path, rows=8)).rows == 8


def test_a_later_version_is_refused(tmp_path):
    with pytest.raises(InputError, match=f"version {VERSION + 1}"):
        read_hardware(write(tmp_path, version=VERSION + 1))


def test_every_mistake_is_named(tmp_path):
    with pytest.raises(InputError) as caught:
        read_hardware(write(tmp_path, rows=0, clock=3))
    assert "rows" in str(caught.value) and "clock" in str(caught.value)


def test_unknown_names_list_the_known():
    with pytest.raises(InputError, match="systolic-16x16"):
        read_hardware("systolic")
    with pytest.raises(InputError, match="cannot read"):
        read_hardware("absent.json")


def test_broken_json_names_line_and_column(tmp_path):
    path = tmp_path / "broken.json"
    path.write_text('{"version": 1,\n oops}')
    with pytest.raises(InputError, match=r"broken\.json:2:2"):
        read_hardware(path)
