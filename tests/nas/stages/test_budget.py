"""A budget counts across processes, divides without a rest, and says what it cannot pay."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace

import pytest

from nas.job.default_time import default_minutes
from nas.job.schema import Job
from nas.job.sections.budget import BudgetConfig
from nas.record.run_folder import RunStore
from nas.stages import training
from nas.stages.budget import (
    ESTIMATE_S,
    Budget,
    EndTime,
    divide,
    measuring_timed,
    round_seconds,
)
from search_spaces.errors import InputError


class Clock:
    def __init__(self):
        self.time = 100.0

    def __call__(self):
        return self.time


def test_what_was_spent_before_counts_after_a_cut(tmp_path):
    clock = Clock()
    first = Budget(60.0, path=tmp_path / "budget.json", now=clock)
    clock.time += 25.0
    first.save()
    clock.time = 7.0  # another process, whose clock reads something else
    again = Budget(60.0, path=tmp_path / "budget.json", now=clock)
    assert again.spent() == 25.0
    clock.time += 30.0
    assert again.left() == 5.0
    clock.time += 30.0
    assert again.left() == 0.0


def test_the_start_counts_once_however_often_a_run_is_resumed(tmp_path):
    clock = Clock()

    def process(*, set_up: float, work: float | None) -> Budget:
        clock.time = 3.0  # of another process
        budget = Budget(60.0, path=tmp_path / "budget.json", now=clock, counted_from=0.0)
        clock.time += set_up
        if work is not None:
            budget.start()
            clock.time += work
        budget.save()
        return budget

    assert process(set_up=4.0, work=10.0).spent() == 17.0
    assert process(set_up=6.0, work=10.0).spent() == 27.0
    assert process(set_up=6.0, work=0.0).spent() == 27.0


def test_what_was_measured_before_a_cut_is_part_of_the_round(tmp_path):
    store = RunStore.create(tmp_path / "run", {"name": "job"})
    clock = Clock()
    budget = Budget(60.0, path=tmp_path / "budget.json", now=clock)
    with pytest.raises(KeyboardInterrupt), measuring_timed(budget, store, lambda: 2.0):
        clock.time += 8.0
        raise KeyboardInterrupt
    with measuring_timed(budget, store, lambda: 2.0):
        clock.time += 3.0
    assert store.manifest()["measuring_s"] == 22.0
    # What is read back from a store of measurements, once all is there, takes no time.
    with measuring_timed(budget, store, lambda: 2.0):
        clock.time += 1.0
    assert store.manifest()["measuring_s"] == 22.0
    with measuring_timed(None, RunStore.create(tmp_path / "other", {}), lambda: 2.0):
        pass
    assert "measuring_s" not in RunStore.open(tmp_path / "other").manifest()


def test_a_start_that_was_cut_off_is_not_the_one_that_counts(tmp_path):
    clock = Clock()
    first = Budget(60.0, path=tmp_path / "budget.json", now=clock)
    clock.time += 5.0
    first.save()
    again = Budget(60.0, path=tmp_path / "budget.json", now=clock)
    clock.time += 8.0
    again.start()
    assert again.spent() == 13.0


@pytest.mark.parametrize("spent, told", [(59.0, False), (65.0, False), (80.0, True)])
def test_a_budget_that_was_passed_is_told(tmp_path, spent, told):
    clock = Clock()
    budget = Budget(60.0, path=tmp_path / "budget.json", now=clock)
    clock.time += spent
    found = budget.passed()
    assert (found is not None) == told
    if told:
        assert "took 80 s of the wall clock, and its budget is 60 s" in found


def test_it_is_saved_while_work_goes_on(tmp_path):
    clock = Clock()
    budget = Budget(60.0, path=tmp_path / "budget.json", now=clock)
    clock.time += 3.0
    with budget.running(every_s=0.01):
        deadline = time.monotonic() + 10.0
        while not budget.path.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert json.loads(budget.path.read_text())["spent_s"] == 3.0
        clock.time += 4.0
    assert json.loads(budget.path.read_text())["spent_s"] == 7.0


def test_a_damaged_record_is_named_with_the_cure(tmp_path):
    path = tmp_path / "budget.json"
    path.write_text("{}")
    with pytest.raises(InputError, match=r"budget\.json is damaged.*begin a new run"):
        Budget(60.0, path=path, now=Clock())


def test_each_kind_has_its_clock(tmp_path):
    wall = Budget.of(BudgetConfig(minutes=2.0), tmp_path / "a.json")
    cpu = Budget.of(BudgetConfig(cpu_minutes=3.0), tmp_path / "b.json")
    assert (wall.limit_s, cpu.limit_s) == (120.0, 180.0)
    assert cpu.in_processor_time and not wall.in_processor_time
    # What this process did before, imports or another run, is its own affair...
    assert cpu.spent() < 0.1
    # ... unless it does nothing else.
    whole = BudgetConfig(cpu_minutes=3.0)
    assert Budget.of(whole, tmp_path / "c.json", whole_process=True).spent() > 0.1


def test_the_parts_are_the_whole():
    found = divide(1500.0, BudgetConfig(minutes=25, supernet=0.3), measuring=60.0)
    parts = (found.supernet, found.search, found.winners, found.verification)
    assert sum(parts) == pytest.approx(1500.0)
    assert found.supernet == pytest.approx(450.0)
    assert found.winners > found.search
    assert all(part > 0 for part in parts)


def test_a_budget_that_measuring_would_eat_is_refused():
    words = r"measuring alone takes about 80 of 100 s; give more.* at least 2\.7 minutes"
    with pytest.raises(InputError, match=words):
        divide(100.0, BudgetConfig(minutes=1), measuring=40.0)


@pytest.mark.parametrize(("seconds", "kept"), [(30, 3.6), (90, 10.8), (1500, 25.0)])
def test_what_a_few_small_models_take_at_the_end_is_kept_of_a_short_budget(seconds, kept):
    config = BudgetConfig(minutes=seconds / 60)
    assert divide(seconds, config, measuring=5.0).verification == pytest.approx(5.0 + kept)


@pytest.mark.parametrize(("spent", "steps"), [(3.0, 180), (12.0, 96), (50.0, 90)])
def test_what_the_start_of_a_short_run_took_is_taken_off_the_supernet(monkeypatch, spent, steps):
    monkeypatch.setattr(training, "measure_steps", lambda *parts, **options: (0.1, 0.1))
    context = SimpleNamespace(
        job=SimpleNamespace(budget=BudgetConfig(cpu_minutes=1.5, supernet=0.2))
    )
    store = SimpleNamespace(manifest=dict, update_manifest=lambda **entries: None)
    budget = SimpleNamespace(limit_s=90.0, spent=lambda: spent, in_processor_time=True)
    found = training._steps_in_budget(context, store, None, (), budget, trained=False)
    assert found == (steps, pytest.approx(0.5))


@pytest.mark.parametrize(("left", "retries"), [(0.0, 1), (25.0, 2), (500.0, 3)])
def test_latencies_are_tried_again_as_far_as_the_budget_leaves_time(left, retries):
    kept = {"measuring_s": 10.0}
    store = SimpleNamespace(manifest=lambda: kept, update_manifest=kept.update)
    config = {"search": {"latency_samples": 4, "front_size": 4}, "budget": {"cpu_minutes": 1.5}}
    job = Job.model_validate({"name": "x", "data": {"name": "digits"}, **config})
    budget = SimpleNamespace(left=lambda: left, limit_s=90.0)
    end = EndTime(budget, store, job)
    assert end.kept(8) == pytest.approx(1.25 * 20.0 + 10.8)
    assert end.retries(4) == retries
    # A resumed run has less time and tries as often, or it would measure all again.
    budget.left = lambda: 0.0
    assert end.retries(4) == retries


def test_a_job_that_says_nothing_of_time_gets_minutes_by_its_data():
    assert default_minutes(1_000 * 64) == 10.0
    assert default_minutes(55_000 * 784) == 25.0
    assert default_minutes(10_000_000 * 784) == 25.0
    assert 10.0 < default_minutes(10_000 * 784) < 25.0


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({}, False),
        ({"supernet": {"batch_size": 32}}, False),
        ({"budget": None}, True),
        ({"budget": {"cpu_minutes": 3}}, True),
        ({"supernet": {"epochs": 2}}, True),
        ({"supernet": {"minutes": 2}}, True),
        ({"finetune": {"epochs": 1}}, True),
    ],
)
def test_what_a_job_says_of_time(more, says):
    job = Job.model_validate({"name": "x", "data": {"name": "digits"}, **more})
    assert job.says_how_long() is says
    if not says:
        given = job.with_minutes(7.5)
        assert given.budget.minutes == 7.5 and given.supernet.schedule == "taught"
        assert given.supernet.batch_size == job.supernet.batch_size


def test_measuring_comes_on_top_and_takes_half_at_most():
    assert default_minutes(1_000 * 64, measuring=60.0) == 12.0
    for measuring in (0.0, 100.0, 700.0, 5000.0):
        seconds = 60 * default_minutes(1_000 * 64, measuring=measuring)
        config = BudgetConfig(minutes=seconds / 60)
        assert divide(seconds, config, measuring=measuring).winners > 0


def test_estimates_of_a_simulator_take_hardly_any_time():
    cpu, mcu = (
        {"name": "cpu", "runtime": "onnxruntime"},
        {"name": "mcu", "simulator": "roofline", "hardware": "mcu-simd"},
    )

    def job(*devices):
        raw = {"name": "a", "data": {"name": "digits"}, "devices": list(devices)}
        return Job.model_validate({**raw, "search": {"latency_samples": 10, "front_size": 2}})

    assert round_seconds(job(cpu), 4.0) == 40.0
    assert round_seconds(job(mcu), 4.0) == 10 * ESTIMATE_S
    assert round_seconds(job(cpu, mcu), 4.0) == 40.0 + 10 * ESTIMATE_S
