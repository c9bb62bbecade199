"""What is said of a run's results in one line a device."""

from __future__ import annotations

from nas.report.results import doubts


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
