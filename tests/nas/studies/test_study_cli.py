"""``nas study`` on a tiny run of digits: records, resumption, refusals, results."""

from __future__ import annotations

import json

import pytest
import torch
from typer.testing import CliRunner

from nas.cli.study import app
from nas.job.schema import Job
from nas.record.run_folder import RunStore
from nas.studies.source import find_source, open_source
from search_spaces.errors import InputError

JOB = {
    "name": "tiny",
    "data": {"name": "digits", "calibration": 64},
    "space": {
        "name": "mobilenet",
        "preset": "8x8",
        "stages": [{"channels": 8, "stride": 1, "depths": [1, 2]}],
        "stem_channels": 4,
        "head_channels": 8,
    },
}
RANKING = ["--subnets", "4", "--seeds", "2", "--steps", "2", "--batch-size", "16"]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A run whose supernet was trained for three steps."""
    from supernet.network import Supernet
    from supernet.training.schedules import SCHEDULES
    from supernet.training.subnets import BitsStage
    from supernet.training.train import Recipe, Trainer

    folder = tmp_path_factory.mktemp("run") / "run"
    job = Job.model_validate(JOB)
    store = RunStore.create(folder, {"job": job.resolved()})
    store.checkpoint.parent.mkdir()
    store.checkpoint.touch()
    opened = open_source(find_source(folder))
    store.checkpoint.unlink()
    torch.manual_seed(0)
    supernet = Supernet(opened.space)
    Trainer(
        supernet,
        sampler=SCHEDULES.get("sandwich")(
            opened.space, supernet.ranges, stages=[BitsStage(0, (8, 4, 3, 2))]
        ),
        batches=opened.splits.training_batches(16, seed=0),
        loss=opened.task.loss,
        distillation_loss=opened.task.distillation_loss,
        recipe=Recipe(steps=3),
        checkpoint=store.checkpoint,
    ).run()
    return folder


def study(*arguments):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception is not None:
        raise result.exception
    return result.output


def test_ranking_compares_and_does_nothing_twice(run_folder, tmp_path):
    text = study("ranking", run_folder, "--output", tmp_path, *RANKING)
    result = json.loads((tmp_path / "ranking.json").read_text())
    assert result["subnets_compared"] == 4 and result["trainings"] == [8, 8]
    assert {"inherited", "macs", "parameters", "bops", "proxy.synflow"} <= set(result["tau"])
    assert "inherited" in text and "seed to seed" in text
    for subnet in result["subnets"]:
        assert 0 <= subnet["inherited"] <= 1 and len(subnet["alone"]) == 2
    lines = (tmp_path / "records.jsonl").read_text().splitlines()
    assert len(lines) == 4 * (1 + 1 + 2)
    # Cut off after five records, it computes the others again and comes to the same result.
    (tmp_path / "records.jsonl").write_text("\n".join(lines[:5]) + "\n")
    study("ranking", run_folder, "--output", tmp_path, *RANKING)
    again = json.loads((tmp_path / "ranking.json").read_text())
    assert again == result
    with pytest.raises(InputError, match=r"steps': 2.*steps': 3"):
        study("ranking", run_folder, "--output", tmp_path, *RANKING, "--steps", "3")


def test_bits_holds_shared_weights_against_dedicated_ones(run_folder, tmp_path):
    arguments = ["--subnets", "1", "--bits", "8,2", "--steps", "2", "--batch-size", "16"]
    study("bits", run_folder, "--output", tmp_path, *arguments)
    result = json.loads((tmp_path / "bits.json").read_text())
    assert set(result["differences"]) == {"8", "2"}
    entry = result["subnets"][0]["bits"]["8"]
    difference = 100 * (entry["dedicated"][0] - entry["shared"][0])
    assert result["differences"]["8"]["dedicated_minus_shared"] == pytest.approx(
        difference, abs=1e-3
    )


def test_bits_are_those_of_the_space(run_folder, tmp_path):
    arguments = ["--subnets", "1", "--steps", "1", "--batch-size", "8", "--validation-images", "8"]
    study("bits", run_folder, "--output", tmp_path, *arguments)
    result = json.loads((tmp_path / "bits.json").read_text())
    assert list(result["differences"]) == ["8", "4", "3", "2"]


def test_bits_that_make_no_sense_are_refused(run_folder):
    with pytest.raises(InputError, match="'many' is neither 'mixed'"):
        study("ranking", run_folder, "--bits", "many")
    with pytest.raises(InputError, match="no list of bit-widths"):
        study("bits", run_folder, "--bits", "8;4")


def test_a_run_without_a_supernet_says_what_to_do(tmp_path):
    RunStore.create(tmp_path / "run", {"job": Job.model_validate(JOB).resolved()})
    with pytest.raises(InputError, match=r"no trained supernet yet.*nas resume"):
        study("ranking", tmp_path / "run")
