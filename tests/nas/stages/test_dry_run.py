import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nas.job.schema import Job
from nas.stages.dry_run import estimate, measure_throughput
from search_spaces.errors import InfeasibleError

QUICK = {"processes": 2, "runs": 10}


def plan(*, largest_s=0.0, **sections):
    job = Job.model_validate(
        {"name": "a", "data": {"name": "digits"}, "space": {"preset": "8x8"}, **sections}
    )
    return estimate(
        job,
        Path("out"),
        macs_per_second=lambda size: 1e9,
        step_seconds=lambda config, *parts, **options: (0.1, 0.3),
        largest_s=lambda space: largest_s,
    )


def seconds(found) -> dict[str, float]:
    return {stage.name: stage.seconds for stage in found.stages}


def test_counts_are_those_of_the_job():
    found = plan(
        devices=[{"name": "a"}, {"name": "b"}],
        search={"evaluations": 50, "latency_samples": 7, "front_size": 5, "initial": 10},
    )
    assert found.cardinality == 2361471489403697233920
    assert found.evaluations == 50
    # Two devices have a front each, and one together.
    assert found.measurements == 2 * (7 + 3 * 5)
    assert Path("out/front.csv") in found.files


def test_times_follow_the_work():
    short, long = (plan(supernet={"epochs": epochs, "warmup_epochs": 1}) for epochs in (2, 4))
    warm, full = (1 * 0.1, 1 * 0.3)
    ratio = (warm + 3 * full) / (warm + full)
    assert seconds(long)["supernet"] == pytest.approx(ratio * seconds(short)["supernet"])
    assert plan(supernet={"minutes": 3}).stages[0].seconds == 180
    assert "fine-tuning" in seconds(plan(finetune={"epochs": 1}))
    assert seconds(long)["winners"] == 0 and seconds(plan())["winners"] > 0
    assert found_total(short) == short.seconds
    assert any(line.startswith("estimated time: ") for line in short.lines())


def found_total(found) -> float:
    return sum(seconds(found).values())


def test_throughput_is_plausible_and_leaves_the_threads_alone():
    import torch

    threads = torch.get_num_threads()
    assert 1e6 < measure_throughput(8) < 1e13
    assert torch.get_num_threads() == threads


def test_a_budget_is_divided_and_told_in_steps_and_epochs():
    found = plan(
        budget={"minutes": 10},
        search={"front_size": 4, "evaluations": 50, "initial": 10, "latency_samples": 5},
        finetune={"candidates": 2.0},
        protocol={"processes": 2, "runs": 10},
    )
    assert found.seconds == pytest.approx(600.0)
    assert list(seconds(found)) == ["supernet", "search", "winners", "verification"]
    works = {stage.name: stage.work for stage in found.stages}
    # Half of 30 s for the teacher at 0.1 s a step, half for the others at 0.3 s.
    assert "largest network 150 steps" in works["supernet"]
    assert "then 50 steps of all sizes" in works["supernet"]
    # Twice as many as there are places, were there time to train them all well.
    assert works["winners"].startswith("5 architectures ")
    assert "of which 4 go on to" in works["winners"] and "epochs" in works["winners"]
    assert any(line == "budget: 10 min" for line in found.lines())
    cpu = plan(budget={"cpu_minutes": 10}, search={"front_size": 4, "latency_samples": 5})
    assert any(line.startswith("budget of processor time: ") for line in cpu.lines())


def test_a_machine_too_busy_for_one_timed_pass_has_a_throughput_all_the_same(monkeypatch):
    times = itertools.count(step=10.0)
    monkeypatch.setattr("nas.stages.dry_run.time.monotonic", lambda: next(times))
    assert 0 < measure_throughput(8) < float("inf")
    monkeypatch.setattr("nas.stages.dry_run.time.perf_counter", lambda: 1.0)
    assert 0 < measure_throughput(8) < float("inf")


def test_what_takes_seconds_is_told_before_it():
    job = Job.model_validate(
        {"name": "a", "data": {"name": "digits"}, "space": {"preset": "8x8"},
         "supernet": {"epochs": 2}}
    )  # fmt: skip
    lines: list[str] = []

    def step_seconds(config, *parts, **options):
        assert lines[-1] == "timing steps of training"
        return 0.1, 0.3

    estimate(job, Path("out"), macs_per_second=lambda size: 1e9, step_seconds=step_seconds,
             told=lines.append)  # fmt: skip
    assert lines[0] == "reading the data" and "mobilenet" in lines[1]


@pytest.mark.parametrize(
    ("sections", "work"),
    [
        ({"search": {"front_size": 4}}, "4 models measured"),
        ({"search": {"initial": 5, "evaluations": 12}}, "5 to 12 models, as time allows, measured"),
        ({"search": {"budgets": {"weights_kib": [1, 2, 3, 4, 5, 6]}}}, "6 to 16 models, as time"),
        ({"finetune": {"epochs": 1}}, "16 models measured"),
    ],
)
def test_as_many_places_are_told_as_the_run_can_choose(sections, work):
    found = plan(budget={"minutes": 10}, protocol={"processes": 2, "runs": 10}, **sections)
    assert {stage.name: stage.work for stage in found.stages}["verification"].startswith(work)


NET = """
import torch
from torch import nn

class Told(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, padding=1)
        self.head = nn.Linear(8 * 64, outputs)

    def forward(self, x):
        return self.head(self.conv(x).relu().flatten(1))

def make(input_channels=1, outputs=10):
    return Told(outputs)
"""


def own(tmp_path, *, trained, budget=True, **sections):
    """The plan of a network of the user's own, and what its steps were timed with."""
    (tmp_path / "dry_net.py").write_text(NET)
    asked = []

    def step_seconds(config, *parts, **options):
        asked.append(options["trained"])
        return 0.1, 0.3

    job = Job.model_validate(
        {
            "name": "a",
            "data": {"name": "digits"},
            "space": {
                "name": "module",
                "model": f"{tmp_path}/dry_net.py:make",
                **({} if trained is None else {"trained": trained}),
            },
            "search": {"evaluations": 20, "initial": 10, "latency_samples": 5, "front_size": 4},
            "protocol": {"processes": 2, "runs": 10},
            **({"budget": {"minutes": 10}} if budget else {"supernet": {"epochs": 3}}),
            **sections,
        }
    )
    found = estimate(job, Path("out"), macs_per_second=lambda s: 1e9, step_seconds=step_seconds)
    return {stage.name: stage for stage in found.stages}, asked


def test_a_network_that_comes_trained_is_planned_as_a_run_will_train_it(tmp_path):
    stages, asked = own(tmp_path, trained=True)
    assert asked == [True]
    # It has nothing to learn before it teaches, and teaches all.
    assert stages["supernet"].work.startswith("100 steps of all sizes")
    assert "those behind it" not in stages["winners"].work
    stages, asked = own(tmp_path, trained=None)  # random weights answer by chance
    assert asked == [False] and stages["supernet"].work.startswith("the largest network 150 steps")
    stages, asked = own(tmp_path, trained=True, budget=False)
    new, _ = own(tmp_path, trained=False, budget=False)
    assert asked == [True] and stages["supernet"].seconds > new["supernet"].seconds


def test_a_network_that_answers_well_is_told_without_a_word_in_the_job(tmp_path, monkeypatch):
    from nas.tasks.classification import ImageClassification

    monkeypatch.setattr(ImageClassification, "evaluate", lambda *parts, **options: 0.9)
    assert own(tmp_path, trained=None)[1] == [True]


def test_a_teachers_time_comes_off_only_where_it_is_sure_to_teach():
    def winners(**sections):
        found = plan(budget={"minutes": 10}, search={"front_size": 4}, protocol=QUICK, **sections)
        return {stage.name: stage.work for stage in found.stages}["winners"]

    def seconds_each(work):
        return int(re.search(r"go on to (\d+) s", work)[1])

    # Whether the largest network is ahead of anybody shows after a quarter of the time.
    some, nobody = winners(), winners(finetune={"refit": True})
    assert seconds_each(some) == seconds_each(nobody)
    assert re.search(r"teaches those behind it, \d+ s less in all", some)
    assert "teaches" not in nobody


def test_bounds_that_nothing_keeps_are_told_before_a_run():
    for bound in ({"weights_kib": {"max": 0.1}}, {"size_kib": {"max": 2.0}}):
        with pytest.raises(InfeasibleError, match="the closest architecture found needs"):
            plan(search={"constraints": bound})
    (told,) = plan(search={"budgets": {"weights_kib": [0.1, 100.0]}}).warnings
    assert "keeps weights_kib 0.1" in told


def test_what_is_doubtful_about_the_data_is_told_before_a_run(tmp_path):
    rng = np.random.default_rng(0)
    for label, count in (("rare", 8), ("common", 60)):
        (tmp_path / label).mkdir()
        for number in range(count):
            pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / label / f"{number}.png")
    found = plan(data={"name": "image_folder", "path": str(tmp_path), "image_size": 8})
    assert "warning: classes are uneven, " in found.lines()[-1]
    assert "who always says common" in found.lines()[-1]
    assert not plan().warnings


def test_what_a_budget_has_no_time_for_is_left_out_and_told():
    space = {"preset": "28x28-slim"}
    whole = plan(budget={"minutes": 10}, space=space)
    narrow = plan(budget={"minutes": 10}, space=space, largest_s=1e3)
    assert narrow.cardinality < whole.cardinality and not whole.warnings
    assert "space: without widths 0.75, 1" in narrow.warnings[-1]
