"""What is said of a run's results in one line a device."""

from __future__ import annotations

import pytest

from nas.report.results import doubts, load_results
from search_spaces.errors import InputError


def entry(**valid) -> dict:
    return {
        "devices": {
            name: {"valid": not reasons, "reasons": reasons} for name, reasons in valid.items()
        }
    }


def test_invalid_latencies_are_counted_by_device():
    front = [entry(cpu=["drift"], board=[]), entry(cpu=["drift", "load"], board=[]), entry(cpu=[])]
    assert doubts({"front": front}) == [
        "2 of the front's 3 latencies on cpu are marked invalid (drift, load); see the report"
    ]


def test_nothing_is_said_of_sound_ones():
    assert doubts({"front": [entry(cpu=[]), {"id": "of an older file"}]}) == []


def test_latencies_of_a_busy_machine_are_said_to_be():
    front = [entry(cpu=[]), entry(cpu=[]), entry(cpu=["drift"])]
    for one in front[1:]:
        one["devices"]["cpu"]["busy"] = True
    assert doubts({"front": front}) == [
        "1 of the front's 3 latencies on cpu are marked invalid (drift); see the report",
        "the machine was busy while 1 of the front's 3 latencies on cpu were measured: their "
        "fastest samples stand for them",
    ]


def test_a_folder_that_is_no_run_is_not_taken_for_one_under_way(tmp_path):
    with pytest.raises(InputError, match="is no run folder"):
        load_results(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(InputError, match="go on with: nas resume"):
        load_results(tmp_path)
