"""What is said of a run's results in one line a device."""

from __future__ import annotations

import pytest

from nas.fronts.metrics import Constraint, Metric, infeasible
from nas.record.run_folder import RunStore
from nas.report.results import doubts, load_results
from search_spaces.errors import InfeasibleError, InputError


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


def begun(folder, *events):
    store = RunStore.create(folder, {"name": "n"})
    for name, fields in events:
        store.event(name, **fields)
    return folder


def test_a_run_without_a_front_is_not_sent_to_end_alike(tmp_path):
    constraints = [
        Constraint(Metric("latency_ms", "cpu"), 2.0),
        Constraint(Metric("accuracy"), 0.9, upper=False),
    ]
    error = infeasible(constraints, [3.1415, 0.8514], "depth=1")
    ended = begun(tmp_path / "run", ("stage_begin", {"stage": "search"}),
                  ("infeasible", error.record()))  # fmt: skip
    with pytest.raises(InfeasibleError) as told:
        load_results(ended)
    text = str(told.value)
    assert "nas resume" not in text and "search.warm_start" in text
    # Bounds that the closest keeps, rounded so that it does.
    assert "latency_ms[cpu] max 3.15 instead of 2 and accuracy min 0.851 instead of 0.9" in text
    RunStore.open(ended).event("resumed")
    with pytest.raises(InputError, match="nas resume"):
        load_results(ended)


def test_a_run_at_work_is_not_sent_to_be_resumed(tmp_path):
    store = RunStore.open(begun(tmp_path / "run", ("stage_begin", {"stage": "search"})))
    with store.locked(), pytest.raises(InputError, match="at work; look at it with: nas watch"):
        load_results(store.folder)


def test_an_older_record_of_it_names_no_bounds(tmp_path):
    ended = begun(tmp_path / "run", ("infeasible", {"message": "too slow", "closest": None}))
    with pytest.raises(InfeasibleError, match=r"too slow\. Give a new job other bounds or another"):
        load_results(ended)
