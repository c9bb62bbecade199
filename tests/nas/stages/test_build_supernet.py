"""What trains the shared weights."""

from __future__ import annotations

import pytest

from nas.job.sections.supernet import SupernetConfig
from nas.stages.build_supernet import optimizer_of
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
