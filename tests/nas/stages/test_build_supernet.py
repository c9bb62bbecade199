"""What trains the shared weights."""

from __future__ import annotations

import pytest

from nas.job.sections.supernet import SupernetConfig
from nas.stages.build_supernet import emulated_precision, optimizer_of, precision_of
from search_spaces import build_space
from supernet.network import Supernet


def test_the_optimiser_is_the_one_asked_for_or_follows_from_the_norms():
    made = {
        name: Supernet(build_space(name, preset="8x8", input_channels=1, outputs=2))
        for name in ("mobilenet", "vit")
    }
    null = SupernetConfig()
    assert optimizer_of(made["mobilenet"], null, trained=False) == "adamw"
    assert optimizer_of(made["vit"], null, trained=False) == "muon"
    # What a network that comes trained has learnt is not to be lost in the first steps.
    assert optimizer_of(made["vit"], null, trained=True) == "adamw"


@pytest.mark.parametrize("asked", ["adamw", "muon"])
def test_what_a_job_names_is_taken(asked):
    vit = Supernet(build_space("vit", preset="8x8", input_channels=1, outputs=2))
    config = SupernetConfig.model_validate({"optimizer": asked})
    assert {optimizer_of(vit, config, trained=t) for t in (False, True)} == {asked}


@pytest.mark.parametrize("there", [True, False])
def test_half_precision_is_for_processors_that_have_it(monkeypatch, there):
    monkeypatch.setattr("nas.stages.build_supernet.computes_bfloat16", lambda: there)
    found = {
        asked: precision_of(SupernetConfig(precision=asked), "cpu")
        for asked in ("float32", "bfloat16", "auto")
    }
    assert found == {
        "float32": "float32", "bfloat16": "bfloat16", "auto": "bfloat16" if there else "float32",
    }  # fmt: skip
    told = emulated_precision(SupernetConfig(precision="bfloat16"), "cpu")
    assert ["precision: auto" in line for line in told] == ([] if there else [True])
    assert emulated_precision(SupernetConfig(precision="auto"), "cpu") == []
