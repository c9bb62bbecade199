"""The search stage: bounds reach every strategy, and what is infeasible ends or leaves."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from nas.data.batches import Subset
from nas.data.images import MemoryImages
from nas.executors.local import LocalExecutor
from nas.fronts.metrics import Constraint, Goal, Metric
from nas.fronts.spec import FrontSpec
from nas.job.schema import Job
from nas.job.sections.search import TrainingConfig
from nas.stages.budget import SearchTime
from nas.stages.pipeline import Pipeline
from nas.stages.progress import Progress
from nas.stages.search_stage import Search, costs, feasible_pool
from nas.tasks import TASKS
from search_spaces.atomic import write_json_atomic
from search_spaces.errors import InfeasibleError, InputError
from search_spaces.spaces.mobilenet import MobileNetSpace

SPACE = MobileNetSpace.from_config(
    preset="8x8",
    stages=[{"channels": 8, "stride": 1, "depths": [1, 2]}] * 2,
    stem_channels=4,
    head_channels=8,
    input_channels=1,
    outputs=3,
)
ACCURACY, WEIGHTS = Metric("accuracy"), Metric("weights_kib")
GOALS = (Goal(ACCURACY), Goal(WEIGHTS))


def sampled(metric: str) -> np.ndarray:
    return SPACE.costs(SPACE.sample_genes(np.random.default_rng(0), 500))[metric]


def quality(arch) -> float:
    """More parameters are better: what a bound on weights has to be kept against."""
    return float(1 - np.exp(-costs(SPACE, arch, [])["parameters"] / 3000))


class Evaluated:
    """Evaluates without a network."""

    supernet = SimpleNamespace(space=SPACE)
    faults = None
    class_loss = False

    def network(self, arch):
        return arch

    def quality(self, network, **options):
        accuracy = quality(network)
        return SimpleNamespace(
            accuracy=accuracy,
            images=10,
            stopped=False,
            upper=accuracy,
            worst_class_accuracy=accuracy / 2,
        )


def job(strategy: str, evaluations: int = 30, **options) -> SimpleNamespace:
    search = SimpleNamespace(
        training=TrainingConfig(),
        strategy=strategy,
        options=options,
        evaluations=evaluations,
        first=10,
        batch=10,
        places=10,
        early_stopping=None,
        validation_images=None,
    )
    return SimpleNamespace(seed=0, search=search, metric="accuracy")


class Record(list):
    """The record of evaluations, in memory."""

    shared = False

    def lookup(self, arch, stage):
        return next((e.metrics for e in self if e.arch == arch), None)

    def claim(self, arch, stage):
        return True

    def evaluations(self, stage):
        return list(self)

    def record(self, arch, metrics, *, stage, attributes):
        self.append(SimpleNamespace(arch=arch, metrics=metrics, attributes=dict(attributes)))
        return metrics


def evaluations(
    folder: Path,
    asked: SimpleNamespace,
    fronts: list[FrontSpec],
    *,
    record: Record | None = None,
    evaluator: Evaluated | None = None,
    over=lambda done: False,
) -> Record:
    record = Record() if record is None else record
    search = Search(
        asked,
        SPACE,
        fronts,
        latencies=SimpleNamespace(predicted=lambda archs: [{} for _ in archs]),
        sizes=SimpleNamespace(predict=lambda g: (np.zeros(len(g)), np.zeros(len(g)))),
        study=record,
        executor=LocalExecutor(),
        evaluator=evaluator or Evaluated(),
        folder=folder,
        progress=Progress(),
    )
    search.run(over=over)
    record.quality = search.quality
    return record


class Clock:
    """A budget of 160 seconds, of which the search may take 8."""

    limit_s = 160.0

    def __init__(self, spent=0.0):
        self.now = spent

    def spent(self):
        return self.now


def test_a_search_that_its_time_ended_ends_there_when_the_run_is_resumed(tmp_path):
    told = []
    front, asked = FrontSpec("all", GOALS, ()), job("random", 50)

    def search(clock, record, each_s):
        time = SearchTime(clock, tmp_path / "search_time.json", tell=told.append)

        class Slow(Evaluated):
            def quality(self, network, **options):
                clock.now += each_s
                return super().quality(network, **options)

        return evaluations(
            tmp_path, asked, [front], record=record, evaluator=Slow(), over=time.over
        )

    record = search(Clock(), None, 0.7)
    assert len(record) == 20  # the second round of ten ends after 14 seconds
    assert told == ["the search ends after 20 evaluations: its share of the budget (5%) is used up"]
    # Cut off in a later stage and resumed, with a clock that gives it another share.
    again = search(Clock(60.0), Record(record), 0.7)
    assert [e.arch for e in again] == [e.arch for e in record]
    # Without that record it would go on, so the record is what ends it.
    (tmp_path / "search_time.json").unlink()
    assert len(search(Clock(60.0), Record(record), 0.7)) > 20


def test_the_first_round_ends_with_its_time_once_a_front_has_places(tmp_path):
    front, asked = FrontSpec("all", GOALS, ()), job("random", 50)
    whole = evaluations(tmp_path, asked, [front])
    asked.search.first, asked.search.places = 40, 15
    found = evaluations(tmp_path, asked, [front], over=lambda done: True)
    assert len(found) == 15 and found.quality == []
    # In parts it is the same round, of the same architectures.
    again = evaluations(tmp_path, asked, [front])
    assert [e.arch for e in again][:15] == [e.arch for e in found]
    rounds = [e.attributes["round"] for e in again]
    assert len(again) == len(whole) == 50 and rounds == [0] * 40 + [1] * 10


def test_rounds_on_record_are_told_to_the_strategy_whatever_the_time(tmp_path):
    front, asked = FrontSpec("all", GOALS, ()), job("random", 50)
    whole = evaluations(tmp_path, asked, [front])
    # Killed in the fourth round: what is on record, and the rest of its round, is not asked about.
    asked_at = []
    evaluations(
        tmp_path, asked, [front], record=Record(whole[:35]),
        over=lambda done: asked_at.append(done) or True,
    )  # fmt: skip
    assert asked_at == [40]


def test_the_pipeline_tells_of_it_and_keeps_it_in_the_run_folder(tmp_path, caplog, capsys):
    clock = Clock()
    found = [SimpleNamespace(metrics={"accuracy": 0.9})]
    here = SimpleNamespace(
        budget=clock, store=SimpleNamespace(folder=tmp_path), progress=Progress(),
        job=Job.model_validate({"name": "a", "data": {"name": "digits"}, "search": {"initial": 8}}),
        study=SimpleNamespace(evaluations=lambda kind: found),
    )  # fmt: skip
    classes = Subset(
        MemoryImages(torch.zeros(100, 1, 1, 1)), torch.arange(100) % 10, torch.arange(100)
    )
    evaluator = SimpleNamespace(
        splits=SimpleNamespace(targets="classes", validation=classes),
        task=TASKS.get("image_classification")(),
    )
    over = Pipeline._search_over(here, evaluator)
    assert not over(10)
    # Among networks that know nothing it is in vain, but for its first batch.
    found[:] = [SimpleNamespace(metrics={"accuracy": 0.12})]
    assert not over(7) and over(8)
    found[:] = [SimpleNamespace(metrics={"accuracy": 0.9})]
    clock.now = 13.0
    assert over(20) and (tmp_path / "search_time.json").is_file()
    assert "ends after 20 evaluations" in "".join(capsys.readouterr()) + caplog.text
    here.budget = None
    assert not Pipeline._search_over(here, evaluator)(20)


def test_a_search_that_was_cut_off_goes_on_with_what_is_left_of_its_share(tmp_path):
    path, told = tmp_path / "search_time.json", []
    assert not SearchTime(Clock(10.0), path, tell=told.append).over(10)
    clock = Clock(17.0)
    again = SearchTime(clock, path, tell=told.append)
    assert not again.over(20)
    clock.now = 18.5
    assert again.over(30) and len(told) == 1
    # A run of an earlier version, which recorded the end alone.
    path.write_text('{"evaluations": 30}')
    assert SearchTime(Clock(0.0), path, tell=told.append).over(30)


def test_a_damaged_record_of_the_time_of_a_search_is_told(tmp_path):
    (tmp_path / "search_time.json").write_text("{}")
    with pytest.raises(InputError, match="delete it, and the search may go on"):
        SearchTime(Clock(), tmp_path / "search_time.json", tell=print)


@pytest.mark.parametrize(
    ("strategy", "options"),
    [
        ("predictor", {"population": 20, "generations": 3}),
        ("evolution", {"population": 10}),
        ("regularised_evolution", {"population": 10, "sample": 4}),
        ("random", {}),
    ],
)
def test_a_bound_on_an_exact_cost_holds_for_every_evaluation(tmp_path, strategy, options):
    bound = Constraint(WEIGHTS, float(np.quantile(sampled("weights_kib"), 0.05)))
    found = evaluations(tmp_path, job(strategy, **options), [FrontSpec("all", GOALS, (bound,))])
    assert len(found) == 30
    assert all(bound.violation(e.metrics["weights_kib"]) <= 0 for e in found)


def test_a_bound_known_only_from_evaluations_is_told_to_the_strategy(tmp_path):
    """Small is better here, so only the violations that are told keep the accuracy up."""
    level = 1 - np.exp(-np.quantile(sampled("parameters"), 0.9) / 3000)
    bound = Constraint(ACCURACY, float(level), upper=False)
    front = FrontSpec("all", (Goal(WEIGHTS),), (bound,))
    found = evaluations(tmp_path, job("evolution", 90, population=10), [front])
    met = [e.metrics["accuracy"] >= level for e in found]
    assert np.mean(met[-30:]) > 0.4 > 0.2 > np.mean(met[:10])


def test_a_front_that_cannot_be_met_leaves_the_search_to_the_others(tmp_path):
    never = FrontSpec("never", GOALS, (Constraint(WEIGHTS, 1e-6),))
    wide = FrontSpec("wide", GOALS, (Constraint(WEIGHTS, 1e6),))
    asked = job("evolution", 30, population=10)
    assert len(evaluations(tmp_path, asked, [never, wide])) == 30
    with pytest.raises(InfeasibleError, match="closest"):
        evaluations(tmp_path, asked, [never])


def test_architectures_for_the_first_measurements_keep_the_exact_bounds():
    bound = Constraint(WEIGHTS, float(np.quantile(sampled("weights_kib"), 0.05)))
    pool = feasible_pool(job("evolution"), SPACE, [FrontSpec("all", GOALS, (bound,))])
    assert len(pool) > 50
    assert all(costs(SPACE, arch, [])["weights_kib"] <= bound.bound for arch in pool)


class AllEqual(Evaluated):
    """A network that never learned anything: every architecture is right equally often."""

    def quality(self, network, **options):
        return SimpleNamespace(
            accuracy=0.1, images=10, stopped=False, upper=0.1, worst_class_accuracy=0.0
        )


def test_equal_accuracies_have_no_rank_correlation_and_are_written(tmp_path):
    front = FrontSpec("all", GOALS, ())
    asked = job("predictor", population=20, generations=3)
    found = evaluations(tmp_path, asked, [front], evaluator=AllEqual())
    assert len(found) == 30 and found.quality
    assert all(entry["kendall_tau"] is None for entry in found.quality)
    write_json_atomic(tmp_path / "results.json", {"accuracy_predictor": found.quality})


@pytest.mark.parametrize("known", [7, 30])
def test_a_resumed_search_that_chooses_otherwise_keeps_to_the_number_of_evaluations(
    tmp_path, known
):
    """As after an upgrade, or on another number of threads: other candidates are asked for."""
    front = FrontSpec("all", GOALS, ())
    first = evaluations(tmp_path, job("random"), [front])
    other = job("random")
    other.seed = 1
    resumed = evaluations(tmp_path, other, [front], record=Record(first[:known]))
    assert len(resumed) == 30
    assert len({e.arch for e in resumed}) == 30


def test_evaluations_of_other_runs_in_a_shared_study_and_of_older_runs_cost_nothing(tmp_path):
    front = FrontSpec("all", GOALS, ())
    others = evaluations(tmp_path / "other", job("random"), [front])
    others.shared = True
    mine = job("random")
    mine.seed = 1
    assert len(evaluations(tmp_path / "mine", mine, [front], record=others)) == 60
    taken_over = evaluations(tmp_path, job("random"), [front])
    for evaluation in taken_over:
        evaluation.attributes["round"] = -1
    assert len(evaluations(tmp_path, mine, [front], record=taken_over)) == 60
