"""What faults cost, and which layers to protect."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from nas.cli.study import app
from nas.studies.protection import METHODS, protections
from search_spaces.errors import InputError
from tests.nas.studies.small_run import SPACE, run_of

LAYERS = st.lists(st.tuples(st.floats(-0.01, 1), st.integers(1, 1000)), min_size=1, max_size=8)


@given(LAYERS, st.floats(0, 1))
@settings(max_examples=30, deadline=None)
def test_the_programme_loses_least_within_the_budget(layers, share):
    losses = {f"layer{i}": loss for i, (loss, _) in enumerate(layers)}
    bits = {f"layer{i}": count for i, (_, count) in enumerate(layers)}
    budget = share * sum(bits.values())
    found = protections(losses, bits, share)
    assert set(found) == set(METHODS)

    def saved(names):
        return sum(max(0.0, losses[n]) for n in names)

    for names in found.values():
        assert sum(bits[n] for n in names) <= budget * (1 + 1e-9)
    best = max(
        saved(subset)
        for count in range(len(bits) + 1)
        for subset in itertools.combinations(bits, count)
        if sum(bits[n] for n in subset) <= budget
    )
    assert saved(found["integer programme"]) == pytest.approx(best, abs=1e-6)


def test_protection_without_sense_is_refused():
    with pytest.raises(InputError, match="give one from 0 to 1"):
        protections({"a": 1.0}, {"a": 1}, 1.5)
    with pytest.raises(InputError, match="a loss and a number of bits"):
        protections({"a": 1.0}, {"b": 1}, 0.5)


def test_the_command_tells_rates_layers_protection_and_training(tmp_path):
    folder = run_of(tmp_path / "run", SPACE)
    done = CliRunner().invoke(
        app,
        ["faults", str(folder), "--rates", "0,0.3", "--rate", "0.1", "--draws", "2",
         "--train-steps", "2", "--batch-size", "16", "--validation-images", "64"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    result = json.loads((folder / "studies" / "faults" / "faults.json").read_text())
    assert result["weights"] == "inherited from the supernet"
    for kind in ("flips", "stuck", "variation", "activations"):
        row = result["kinds"][kind]
        assert row["0"]["lowest"] == row["0"]["highest"] == result["clean"]
        assert row["0.3"]["lowest"] <= row["0.3"]["mean"] <= row["0.3"]["highest"]
    assert all(layer["bits"] > 0 for layer in result["layers"].values())
    shares = {method: row["share"] for method, row in result["protection"].items()}
    assert shares["nothing"] == 0 and max(shares.values()) <= 0.3
    assert set(result["training"]) >= {"with", "without", "recovered_share"}
    assert "integer programme" in done.output and "flips" in done.output


def test_training_with_faults_and_without_begin_with_the_same_weights(tmp_path, monkeypatch):
    begun = []

    def trained(evaluator, opened, arch, **settings):
        begun.append(evaluator.finetuned.get(arch))
        return evaluator.supernet

    monkeypatch.setattr("nas.studies.faults.trained_with_faults", trained)
    folder = run_of(tmp_path / "run", SPACE)
    done = CliRunner().invoke(
        app,
        ["faults", str(folder), "--rates", "0.1", "--rate", "0.1", "--draws", "1", "--train-steps",
         "2", "--validation-images", "64"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert begun == [None, None]


def test_rates_that_are_none_are_refused(tmp_path):
    folder = run_of(tmp_path / "run", SPACE)
    done = CliRunner().invoke(app, ["faults", str(folder), "--rates", "often"])
    assert done.exit_code and "--rates 'often' is no list" in str(done.exception)
