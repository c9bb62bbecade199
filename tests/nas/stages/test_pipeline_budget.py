"""A whole job with a budget: kept to, its winners trained, and resumable."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nas.job.check import load_job
from nas.job.schema import job_space
from nas.record.run_folder import RunStore
from nas.stages import pipeline
from nas.stages.winners.stage import Winners

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

JOB = """
name: tiny
seed: 3
threads: 1
budget: {cpu_minutes: 0.9, supernet: 0.2}
data: {name: digits, validation: 0.2, calibration: 128, augment: {crop_padding: 0}}
space:
  name: mobilenet
  preset: 8x8
  stages: [{channels: 8, stride: 1, depths: [1, 2]}, {channels: 12, stride: 2, depths: [1, 2]}]
  stem_channels: 8
  head_channels: 16
  kernels: [3]
  expands: [2, 3]
  weight_bits: [2, 8]
  activation_bits: [8]
# Nothing is rejected, however busy the machine: what was is measured again, so a replay differs.
protocol:
  {processes: 2, runs: 5, retries: 0, warmup_tolerance: 10, max_interval: null, max_spread: null,
   max_drift: null, max_starvation: null, max_slowdown: null, max_outlier_share: null,
   max_iqr: null}
search: {evaluations: 14, initial: 8, batch: 3, latency_samples: 4, front_size: 3}
finetune: {candidates: 1.5}
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A finished run, cut off once in the middle of the training of its winners."""
    folder = tmp_path_factory.mktemp("budget")
    (folder / "job.yaml").write_text(JOB)
    job = load_job(folder / "job.yaml")
    whole = Winners._train

    def cut_off(self, items):
        for line in whole(self, items):
            yield line
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Winners, "_train", cut_off)
        with pytest.raises(KeyboardInterrupt):
            pipeline.run(job, folder / "run")
    pipeline.resume(folder / "run")
    return folder / "run"


def test_the_budget_is_kept_across_the_cut(finished):
    spent = json.loads((finished / "budget.json").read_text())
    assert spent["limit_s"] == 54.0
    # Of a job this short, starting processes is a good part, and other load makes it longer.
    assert 0.5 * 54.0 < spent["spent_s"] < 1.5 * 54.0


def test_each_training_was_done_once(finished):
    lines = _lines(finished)
    begun = RunStore.open(finished).manifest()["winners_share"]["begun"]
    # Up to half as many again as there are places, fewer where each gets few steps.
    assert 3 <= begun <= 5
    assert sorted(line["rung"] for line in lines) == [0] * begun + [1] * 3
    assert len({(line["arch"], line["rung"]) for line in lines}) == begun + 3
    for line in lines:
        assert line["steps"] > 0 and line["seconds"] > 0


def test_the_front_holds_trained_winners_with_the_accuracy_of_their_training(finished):
    lines = _lines(finished)
    trained = {line["arch"]: line["accuracy"] for line in lines if line["rung"] == 1}
    results = json.loads((finished / "results.json").read_text())
    assert results["front"]
    for entry in results["front"]:
        # The file computes in integers what was trained with their simulation; where sums could
        # saturate, with weights of 7 bits.
        assert entry["validation_accuracy"] == pytest.approx(trained[entry["arch"]], abs=0.05)


def test_a_winner_is_better_than_what_it_inherited(finished):
    store = RunStore.open(finished)
    space = job_space(store.job(), input_channels=1, outputs=10)
    evaluations = json.loads(store.results.read_text())["evaluations"]
    inherited = {e["id"]: e["metrics"]["accuracy"] for e in evaluations}
    gains = [
        line["accuracy"] - inherited[space.parse(line["arch"]).id]
        for line in _lines(finished)
        if line["rung"] == 1
    ]
    assert sum(gains) > 0


def _lines(run: Path) -> list[dict]:
    text = (run / "winners" / "rungs.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]
