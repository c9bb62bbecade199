"""Latency alone, on a table of the user's own."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from nas.cli.main import app
from nas.job.yaml_source import DiagnosticsError
from nas.studies.latency import load_study, run_study
from search_spaces.tables.synthetic import synthetic_table
from search_spaces.tables.table import LatencyTable, write_table

EXAMPLE = Path(__file__).parents[3] / "experiments" / "latency_study" / "study.yaml"
STUDY = """\
table: table.csv
known: [device0, device1]
device: device2
measurements: 6
method: ridge
budget_ms: 5
"""


@pytest.fixture
def study(tmp_path):
    def write(text=STUDY, *, filled=None):
        table = synthetic_table(architectures=40, devices=3, positions=3)
        values = table.values.copy()
        if filled is not None:
            values[filled:, 2] = np.nan
        made = LatencyTable(table.space, table.genes, table.devices, values, table.metrics)
        write_table(made, tmp_path / "table.csv")
        (tmp_path / "study.yaml").write_text(text)
        return tmp_path / "study.yaml"

    return write


def rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_filled_table_is_predicted_and_scored(study, tmp_path):
    found = run_study(study(), tmp_path / "out")
    assert found.wanted == () and found.scores["architectures"] == 30
    predicted = rows(tmp_path / "out" / "predictions.csv")
    assert len(predicted) == 40
    assert sum(row["adapted_with"] == "true" for row in predicted) == 6
    for row in predicted:
        assert float(row["low_ms"]) <= float(row["predicted_ms"]) <= float(row["high_ms"])
        assert 0 <= float(row["probability_within"]) <= 1
    written = json.loads((tmp_path / "out" / "study.json").read_text())
    assert written["source"] == "predicted" and len(written["measured_with"]) == 6


def test_an_empty_column_asks_for_measurements_then_goes_on(study, tmp_path):
    found = run_study(study(filled=2), tmp_path / "out")
    assert len(found.wanted) == 4 and found.scores is None
    assert [row["arch"] for row in rows(found.files[0])] == list(found.wanted)
    filled = {str(a) for a in load_study(tmp_path / "study.yaml")[1].archs[:2]}
    assert not filled & set(found.wanted)
    done = run_study(study(filled=6), tmp_path / "out")
    assert done.wanted == () and done.scores is None


def test_the_example_is_valid_and_the_command_runs_one(study, tmp_path, monkeypatch):
    assert load_study(EXAMPLE)[0].device == "board"
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["study", "latency", str(study()), "--output", "out"])
    assert done.exit_code == 0, done.output
    assert "spearman" in done.output and "predictions.csv" in done.output


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("measurements", "measurments", "study.yaml:4:1: measurments: unknown key; did you mean"),
        ("device2", "device9", "study.yaml:3:9: device: the table has no column 'device9'"),
        ("device1]", "device2]", "study.yaml:2:18: known: 'device2' is the new device itself"),
        ("table.csv", "none.csv", "study.yaml:1:8: table: there is no file"),
        ("ridge", "rigde", "study.yaml:5:9: method: no predictor 'rigde'"),
        ("budget_ms: 5", "budget_ms: soon", "study.yaml:6:12: budget_ms: "),
        ("measurements: 6", "measurements: 99", "study.yaml:4:15: measurements: 99 of 40"),
        ("device: device2\n", "", "device: is missing"),
    ],
)
def test_mistakes_are_told_with_their_place(study, old, new, told):
    with pytest.raises(DiagnosticsError) as error:
        load_study(study(STUDY.replace(old, new)))
    assert told in str(error.value)
