"""The pruned largest network, by pattern and beside the front."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from nas.cli.study import app
from nas.report.pruned import load_pruned, pruned_section
from nas.studies.sparsity import share_for
from search_spaces import build_space
from search_spaces.errors import InputError
from search_spaces.sparsity import Sparsity, layer_sparsity, sparse_kib
from tests.nas.studies.small_run import SPACE, run_of


def test_the_share_is_the_least_that_is_small_enough():
    space = build_space("mobilenet", preset="8x8", input_channels=1)
    plan = space.plan(space.largest())
    layers = list(plan.layers())
    wanted = 0.6 * plan.weights_kib
    share = share_for(plan, wanted)

    def size(value):
        return sparse_kib(layers, layer_sparsity(layers, Sparsity(value)))

    assert size(share) <= wanted < size(share - 0.001)
    assert share_for(plan, plan.weights_kib) == 0.0
    assert share_for(plan, 0.01) is None


def test_the_command_prunes_trains_and_goes_on(tmp_path):
    folder = run_of(tmp_path / "run", SPACE)
    call = ["sparsity", str(folder), "--patterns", "50%,2:4", "--train-steps", "2", "--batch-size",
            "16", "--validation-images", "64"]  # fmt: skip
    done = CliRunner().invoke(app, call)
    assert done.exit_code == 0, done.output
    path = folder / "studies" / "sparsity" / "sparsity.json"
    result = json.loads(path.read_text())
    rows = {row["pattern"]: row for row in result["rows"]}
    assert list(rows) == ["dense", "50%", "2:4"]
    assert rows["dense"]["sparse_kib"] == pytest.approx(result["dense_kib"])
    for text in ("50%", "2:4"):
        assert rows[text]["sparse_kib"] < result["dense_kib"] == rows[text]["weights_kib"]
        assert 0 <= rows[text]["trained"] <= 1
    # Depthwise layers have no 2:4.
    assert len(rows["2:4"]["dense_layers"]) > len(rows["50%"]["dense_layers"]) == 2
    records = (folder / "studies" / "sparsity" / "records.jsonl").read_text()
    assert CliRunner().invoke(app, call).exit_code == 0
    assert (folder / "studies" / "sparsity" / "records.jsonl").read_text() == records
    done = CliRunner().invoke(app, [*call[:2], "--patterns", "3:2"])
    assert done.exit_code and "keeps no part" in str(done.exception)


def test_the_report_tells_the_front_beside_it(tmp_path):
    assert pruned_section(None) == "" and load_pruned(tmp_path) is None
    study = {
        "metric": "accuracy<b>", "steps": 5, "rows": [],
        "front": [
            {"model": {"id": "<i>m", "weights_kib": 10.0, "validation": 0.9}, "pattern": "50%",
             "sparse_kib": 9.8, "one_shot": 0.5, "trained": 0.85},
            {"model": {"id": "n", "weights_kib": 1.0, "validation": 0.7}, "error": "too small"},
        ],
    }  # fmt: skip
    text = pruned_section(study)
    assert "<td>0.85</td>" in text and "too small" in text and "estimate" in text
    assert "<i>" not in text and "<b>" not in text
    place = tmp_path / "studies" / "sparsity" / "sparsity.json"
    place.parent.mkdir(parents=True)
    place.write_text(json.dumps(study))
    assert load_pruned(tmp_path) == study
    place.write_text("[]")
    with pytest.raises(InputError, match="no result of nas study sparsity"):
        load_pruned(tmp_path)
