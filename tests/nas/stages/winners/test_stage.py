"""Winners begin many, go on few, share the time equally, and are the same after a cut."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nas.executors import Executor
from nas.fronts.metrics import METRICS, Goal, Metric
from nas.fronts.spec import FrontSpec
from nas.job.schema import Job
from nas.record.run_folder import RunStore
from nas.stages.budget import Budget
from nas.stages.progress import Progress
from nas.stages.winners.share import (
    FEWEST_PLACES,
    FIRST_RUNG,
    MORE_PLACES,
    TEACHER_AHEAD,
    TRAINED_SOMEWHAT_STEPS,
    WELL_TRAINED_STEPS,
)
from nas.stages.winners.stage import Winners
from search_spaces import build_space

SPACE = build_space("mobilenet", preset="8x8", input_channels=1, outputs=10)
GOALS = [Goal(Metric("accuracy")), Goal(Metric("weights_kib"))]
ARCHS = sorted(
    {SPACE.decode(row[None])[0] for row in SPACE.sample_genes(np.random.default_rng(0), 12)},
    key=lambda arch: SPACE.costs(SPACE.genes([arch]))["weights_kib"][0],
)


class Clock:
    time = 0.0

    def __call__(self):
        return self.time


class Trained(Executor):
    """Trains in no time at all, by a clock that it moves; ``accuracy`` says what comes of it."""

    def __init__(self, clock, accuracy, *, pace=1.0, fails_after=10**6):
        self.clock, self.accuracy, self.pace, self.left = clock, accuracy, pace, fails_after
        self.spent: dict[str, float] = {}
        self.items: list[dict[str, Any]] = []

    def run(self, work, items):
        for index, item in enumerate(items):
            if self.left == 0:
                raise KeyboardInterrupt
            self.left -= 1
            took = max(0.0, item["until"] - self.spent.get(item["arch"], 0.0)) * self.pace
            self.clock.time += took
            self.spent[item["arch"]] = self.spent.get(item["arch"], 0.0) + took
            self.items.append(dict(item))
            value = self.accuracy(item["arch"], item["rung"])
            yield index, {
                **item, "accuracy": value, "worst_class_accuracy": value, "steps": 1,
                "seconds": self.spent[item["arch"]],
            }  # fmt: skip


STEP_S, QUESTION_S = 0.01, 0.25

TEACHER = 0.79


class Untrained:
    """Stands for the trainer of this process, which the executor here never asks."""

    teaching = "those behind it"

    def teacher_quality(self):
        return TEACHER

    def train(self, item):
        raise AssertionError(item)

    def trained(self, arch):
        return f"weights of {arch}"

    def step_seconds(self, arch, *, cpu):
        return STEP_S, QUESTION_S


def kib(arch):
    return float(SPACE.costs(SPACE.genes([arch]))["weights_kib"][0])


@pytest.fixture
def stage(tmp_path):
    def make(
        executor, clock, *, limit=1000.0, folder=tmp_path / "run", metric="accuracy", places=4,
        epoch=(), **finetune,
    ):  # fmt: skip
        job = Job.model_validate(
            {
                "name": "a",
                "data": {"name": "digits"},
                "budget": {"minutes": 1},
                "search": {"front_size": places},
                "finetune": {"candidates": 2.0, **finetune},
            }
        )
        store = (
            RunStore.open(folder)
            if (folder / "manifest.json").exists()
            else RunStore.create(folder, {"job": job.resolved()})
        )
        evaluator = SimpleNamespace(
            supernet=SimpleNamespace(space=SPACE, plan=SPACE.plan),
            finetuned={},
            task=SimpleNamespace(
                metric_name=metric,
                higher_is_better=metric != "rmse",
                metric_kind=lambda: METRICS.get(metric),
                constant=lambda splits: None,
            ),
            # So many images that chance puts nothing behind.
            splits=SimpleNamespace(
                training_batches=lambda size, seed: epoch,
                train=range(10**4),
                validation=range(10**9),
                targets="values",
            ),
        )
        winners = Winners(
            job,
            store,
            [FrontSpec("joint", (Goal(Metric(metric)), *GOALS[1:]), ())],
            budget=Budget(limit, path=store.budget, now=clock),
            evaluator=evaluator,
            executor=executor,
            predict=lambda archs: [{"weights_kib": kib(arch)} for arch in archs],
            progress=Progress(),
            trainer=Untrained(),
        )
        return winners, evaluator

    return make


def evaluated(accuracy):
    return [
        SimpleNamespace(arch=arch, metrics={"accuracy": accuracy(arch), "weights_kib": kib(arch)})
        for arch in ARCHS
    ]


def by_size(arch, rung=0):
    return 0.5 + 0.02 * [str(a) for a in ARCHS].index(str(arch))


def test_seconds_are_shared_equally_and_the_budget_is_kept(stage):
    clock = Clock()
    executor = Trained(clock, by_size)
    winners, evaluator = stage(executor, clock)
    found = winners.run(evaluated(by_size), keep=lambda places: 100.0)
    first = [item for item in executor.items if item["rung"] == 0]
    last = [item for item in executor.items if item["rung"] == 1]
    assert (len(first), len(last)) == (8, 4)
    each = 900.0 / (FIRST_RUNG * 8 + (1 - FIRST_RUNG) * 4)
    assert [item["until"] for item in first] == pytest.approx([FIRST_RUNG * each] * 8)
    assert [item["until"] for item in last] == pytest.approx([each] * 4)
    assert all(item["until"] == item["total"] for item in last)
    assert clock.time == pytest.approx(900.0)
    assert set(found) == set(evaluator.finetuned)
    assert len(found) == 4


def test_networks_that_keep_what_they_inherit_are_told_and_have_no_weights_of_their_own(
    stage, monkeypatch
):
    class Worse(Trained):
        def run(self, work, items):
            for index, line in super().run(work, items):
                small = line["rung"] == 1 and line["arch"] == str(ARCHS[-1])
                yield index, {**line, **({"inherited": True} if small else {})}

    clock, lines = Clock(), []
    winners, evaluator = stage(Worse(clock, by_size), clock)
    monkeypatch.setattr(winners.progress, "log", lines.append)
    found = winners.run(evaluated(by_size), keep=lambda places: 100.0)
    assert set(found) - set(evaluator.finetuned) == {ARCHS[-1]}
    assert any(line.startswith("1 of 4 networks of the front keep") for line in lines)


@pytest.mark.parametrize(("epoch", "told"), [(1, False), (2, True)])
def test_networks_that_hardly_trained_are_told(stage, monkeypatch, epoch, told):
    clock = Clock()
    # What trains here says that it took one step.
    winners, _ = stage(Trained(clock, by_size), clock, epoch=range(epoch))
    lines = []
    monkeypatch.setattr(winners.progress, "log", lines.append)
    winners.run(evaluated(by_size), keep=lambda places: 100.0)
    assert any("4 of 4 networks of the front had less" in line for line in lines) is told


@pytest.mark.parametrize(
    ("seconds", "places"),
    [
        (1.25 * 8 * WELL_TRAINED_STEPS * STEP_S + 1.0, 8),
        (10.0, FEWEST_PLACES),
        (6.5 * TRAINED_SOMEWHAT_STEPS * STEP_S * 1.25, 6),
        (20 * TRAINED_SOMEWHAT_STEPS * STEP_S * 1.25, MORE_PLACES),
        (1e6, len(ARCHS)),
    ],
)
def test_a_front_left_open_has_as_many_places_as_are_trained_well(stage, seconds, places):
    clock = Clock()
    executor = Trained(clock, by_size)
    winners, _ = stage(executor, clock, limit=seconds, places=None)
    assert len(winners.run(evaluated(by_size), keep=lambda places: 0.0)) == places


class Workers(Trained):
    """Several workers: what one call is given runs at once, and the slowest is waited for."""

    def __init__(self, clock, accuracy, workers):
        super().__init__(clock, accuracy)
        self.workers = workers

    def run(self, work, items):
        begun = self.clock.time
        lanes = [begun] * self.workers
        for number, item in enumerate(items):
            lane = number % self.workers
            self.clock.time = lanes[lane]
            yield number, next(super().run(work, [item]))[1]
            lanes[lane] = self.clock.time
        self.clock.time = max(lanes)


@pytest.mark.parametrize("workers", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("places", [3, 5, 7])
def test_no_worker_waits_and_all_train_for_equal_seconds(stage, workers, places):
    clock = Clock()
    executor = Workers(clock, by_size, workers)
    winners, _ = stage(executor, clock, places=places, candidates=1.0)
    winners.run(evaluated(by_size), keep=lambda places: 100.0)
    last = list(executor.spent.values())
    assert clock.time <= 900.0 * (1 + 1e-9)
    assert max(last) == pytest.approx(min(last), rel=0.25)
    busy = sum(last) / (min(workers, places) * 900.0)
    assert busy >= 0.8
    judged = [item["arch"] for item in executor.items if item["rung"] == 1 and item["judged"]]
    assert len(judged) == len(set(judged)) == places
    # Nobody is promised more than the budget has.
    assert all(item["until"] <= FIRST_RUNG * 900.0 for item in executor.items[:places])


@pytest.mark.parametrize(("epoch", "asked_s"), [(20, 40.0), (100, 200.0)])
def test_a_teacher_teaches_those_who_will_stay_behind_it_if_that_pays(stage, epoch, asked_s):
    clock = Clock()
    executor = Trained(clock, by_size)
    winners, _ = stage(executor, clock, epoch=range(epoch))
    found = winners.run(evaluated(by_size), keep=lambda places: 100.0)
    assert winners.store.manifest()["winners_share"]["teacher_s"] == asked_s
    first, last = ([i for i in executor.items if i["rung"] == rung] for rung in (0, 1))
    assert not any(item["taught"] for item in first)
    behind = {
        item["arch"]: TEACHER_AHEAD * (1 - by_size(item["arch"])) > 1 - TEACHER for item in last
    }
    assert len(found) == 4 and set(behind.values()) == {True, False}
    pays = asked_s < 100
    assert all(item["taught"] == (behind[item["arch"]] and pays) for item in last)
    # What the teacher is asked takes its time from all, the first included.
    planned = 180.0 - pays * asked_s / 4
    equal = 45.0 + (900.0 - 8 * 45.0) / 4
    assert last[0]["until"] == pytest.approx(min(equal, 45.0 + 1.05 * (planned - 45.0)))


def test_time_lost_is_taken_from_those_that_follow(stage):
    clock = Clock()
    winners, _ = stage(Trained(clock, by_size, pace=1.3), clock)
    winners.run(evaluated(by_size), keep=lambda places: 100.0)
    assert clock.time < 1.1 * 1000.0


def test_a_wrong_guess_is_put_right_before_it_costs_a_place(stage):
    clock = Clock()
    better = str(ARCHS[1])

    def truth(arch, rung):
        return 0.95 if arch == better else by_size(arch)

    # Shared weights put it last: the smallest is thought to be better.
    def guess(arch):
        return 0.501 if str(arch) == better else by_size(arch)

    winners, _ = stage(Trained(clock, truth), clock, candidates=3.0)
    found = winners.run(evaluated(guess), keep=lambda places: 0.0)
    assert better in map(str, found)
    assert found[SPACE.parse(better)]["accuracy"] == 0.95


@pytest.mark.parametrize("cut", [3, 8, 10])
def test_after_a_cut_it_goes_on_with_the_same_architectures(stage, tmp_path, cut):
    clock = Clock()
    broken = Trained(clock, by_size, fails_after=cut)
    winners, _ = stage(broken, clock)
    with pytest.raises(KeyboardInterrupt):
        winners.run(evaluated(by_size), keep=lambda places: 100.0)
    winners.budget.save()
    again = Trained(clock, by_size)
    again.spent = broken.spent
    winners, evaluator = stage(again, clock)
    found = winners.run(evaluated(lambda arch: -by_size(arch)), keep=lambda places: 100.0)
    assert len(again.items) + len(broken.items) == 12
    done = {(item["arch"], item["rung"]) for item in broken.items + again.items}
    assert len(done) == 12
    assert clock.time == pytest.approx(900.0)
    assert set(found) == set(evaluator.finetuned)


def test_a_run_that_chose_its_places_by_an_earlier_rule_goes_on_with_them(stage):
    clock = Clock()
    executor = Trained(clock, by_size)
    winners, _ = stage(executor, clock, limit=101.0, places=None)
    winners.store.update_manifest(winners_places=[4])
    assert len(winners.run(evaluated(by_size), keep=lambda places: 100.0)) == 4
    # Twice as many began, however little time there was for each.
    assert sum(item["rung"] == 0 for item in executor.items) == 8


def test_without_time_they_keep_what_they_inherit(stage):
    clock = Clock()
    winners, _ = stage(Trained(clock, by_size), clock, limit=50.0)
    assert len(winners.run(evaluated(by_size), keep=lambda places: 100.0)) == 4
    assert clock.time == 0.0


def test_winners_of_another_metric_are_chosen_by_its_name_and_direction(stage):
    """Of errors the smaller are better: the largest networks, here, and they are the front."""
    clock = Clock()
    winners, _ = stage(
        Trained(clock, lambda arch, rung: 100 / kib(SPACE.parse(arch))), clock, metric="rmse"
    )
    begun = [
        SimpleNamespace(arch=arch, metrics={"rmse": 100 / kib(arch), "weights_kib": kib(arch)})
        for arch in ARCHS
    ]
    found = winners.run(begun, keep=lambda places: 0.0)
    assert len(found) == 4
    for arch, metrics in found.items():
        assert metrics["rmse"] == pytest.approx(100 / kib(arch)) and "accuracy" not in metrics


def test_weights_that_know_nothing_choose_no_small_networks_alone(stage, monkeypatch):
    clock, lines = Clock(), []
    winners, _ = stage(Trained(clock, by_size), clock)
    winners.evaluator.task.constant = lambda splits: 0.31
    monkeypatch.setattr(winners, "_images", lambda: 580)
    monkeypatch.setattr(winners.progress, "log", lines.append)

    def chance(arch):
        return 0.28 if kib(arch) > kib(ARCHS[3]) else 0.31

    found = winners.run(evaluated(chance), keep=lambda places: 100.0)
    # By chance the smallest looked best, and would have had all places.
    assert ARCHS[-1] in found and ARCHS[0] in found
    assert any("have learnt next to nothing" in line for line in lines)


def test_how_far_they_are_is_told_in_seconds(stage):
    def bars_of(executor, clock):
        winners, _ = stage(executor, clock)
        heard, begin = [], winners.progress.stage

        @contextmanager
        def heard_stage(name, total, *, unit):
            with begin(name, total, unit=unit) as bar:
                yield bar.heard_by(lambda now, note: heard.append((now / total, note)))

        winners.progress.stage = heard_stage
        return winners, heard

    clock = Clock()
    executor = Trained(clock, by_size, fails_after=12)
    winners, heard = bars_of(executor, clock)
    winners.run(evaluated(by_size), keep=lambda places: 100.0)
    # Eight of twelve trainings, in two of five parts of the time.
    assert heard[8] == (pytest.approx(0.4, abs=0.01), "training 8 of 12: accuracy 0.5800")
    assert heard[-1][0] == pytest.approx(1.0, abs=0.01)
    winners, again = bars_of(executor, clock)
    winners.run(evaluated(by_size), keep=lambda places: 100.0)
    assert again == [(heard[-1][0], "")]
