"""Records of a study survive crashes and are never mixed with those of another."""

from __future__ import annotations

import pytest

from nas.studies.records import StudyFolder
from search_spaces.errors import InputError


def test_records_are_read_back(tmp_path):
    StudyFolder(tmp_path, {"seed": 1}).add("a", {"accuracy": 0.5})
    again = StudyFolder(tmp_path, {"seed": 1})
    assert again.get("a") == {"accuracy": 0.5} and again.get("b") is None and len(again) == 1


def test_a_torn_line_costs_itself_alone(tmp_path):
    store = StudyFolder(tmp_path, {})
    store.add("a", {"accuracy": 0.5})
    with open(store.path, "a") as file:
        file.write('{"key": "b", "accu')
    store = StudyFolder(tmp_path, {})
    assert store.get("b") is None
    store.add("c", {"accuracy": 0.7})
    store = StudyFolder(tmp_path, {})
    assert store.get("a") and store.get("c") and len(store) == 2


def test_other_settings_are_refused_by_name(tmp_path):
    StudyFolder(tmp_path, {"steps": 10, "bits": (4, 4)})
    StudyFolder(tmp_path, {"steps": 10, "bits": (4, 4)})
    with pytest.raises(InputError, match=r"steps was 10 and is now 20.*--output"):
        StudyFolder(tmp_path, {"steps": 20, "bits": (4, 4)})
