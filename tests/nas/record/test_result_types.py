"""Results keep their type on the way to a file and back, whatever version wrote it."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest

from nas.record.result_types import SCHEMA, Evaluated, Latency, Model, Record, Results
from nas.report.results import complete, load_results
from search_spaces.errors import InputError

STORED = Path(__file__).parents[3] / "experiments/notebooks/stored"
KINDS = [kind for kind in Record.__subclasses__()]


@pytest.mark.parametrize("run", ["relaxed", "tight"])
def test_a_run_folder_of_an_older_version_is_read_and_loses_nothing(run):
    found = load_results(STORED / run)
    assert found.schema == 0 < SCHEMA
    before = json.loads((STORED / run / "results.json").read_text("utf-8"))
    after = json.loads(json.dumps(found.to_json()))
    assert found.front and all(isinstance(model, Model) for model in found.front)
    assert all(isinstance(x, Latency) for model in found.front for x in model.devices.values())

    def held(old, new, place=""):
        if isinstance(old, dict):
            for key, value in old.items():
                assert key in new, f"{place}.{key}"
                held(value, new[key], f"{place}.{key}")
        elif isinstance(old, list):
            assert len(old) == len(new), place
            for i, (one, other) in enumerate(zip(old, new, strict=True)):
                held(one, other, f"{place}[{i}]")
        else:
            assert old == new, place

    held(before, after)


@pytest.mark.parametrize("kind", KINDS, ids=[kind.__name__ for kind in KINDS])
def test_nothing_at_all_is_a_record_of_defaults_and_comes_back(kind):
    empty = kind.from_json({})
    assert empty == kind() == kind.from_json(empty.to_json())
    assert set(empty) == set(empty.to_json())
    with pytest.raises(dataclasses.FrozenInstanceError):
        empty.extra = {}


def test_what_another_version_wrote_beside_is_kept():
    text = {"id": "a1", "invented_later": [1, {"x": 2}], "devices": {"cpu": {"watts": 3.0}}}
    model = Model.from_json(text)
    assert model.devices["cpu"].extra == {"watts": 3.0}
    again = model.to_json()
    assert again["invented_later"] == [1, {"x": 2}] and again["devices"]["cpu"]["watts"] == 3.0
    assert Model.from_json(again) == model


def test_a_record_is_read_by_key_as_its_file_is():
    model = Model(id="a1", devices={"cpu": Latency(latency_ms=2.0, extra={"watts": 3})})
    assert model["id"] == model.get("id") == "a1" and model.get("absent") is None
    assert {**model["devices"]["cpu"]}["watts"] == 3
    with pytest.raises(KeyError):
        model["absent"]


def test_an_undefined_figure_is_null():
    found = Results(front=(Model(id="a", metrics={"x": math.nan}, size_kib=math.inf),)).to_json()
    assert found["front"][0]["metrics"] == {"x": None} and found["front"][0]["size_kib"] is None
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ([], "results must hold an object, not list"),
        ({"front": {}}, "results: 'front' must be a list, not dict"),
        ({"front": [{"id": "a"}, 3]}, r"results: 'front'\[1\] must hold an object, not int"),
        ({"front": [{"id": "a", "devices": {"cpu": 3}}]}, r"devices\.cpu must hold an object"),
        ({"evaluations": [{"metrics": []}]}, r"'evaluations'\[0\]\.metrics must hold an object"),
        ({"front": [{"arch": "x"}]}, r"front\[0\] has no 'id'"),
    ],
)
def test_a_part_of_another_type_is_named_with_its_place(results, message):
    with pytest.raises(InputError, match=message):
        complete(results)


def test_numbers_that_are_none_are_not_recorded():
    assert Latency.from_json({"latency_ms": "2", "low_ms": True}).latency_ms is None
    assert Evaluated.from_json({"feasible": "yes"}).feasible is None
