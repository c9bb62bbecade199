from pathlib import Path

import pytest

from nas.job.schema import Job
from nas.stages.dry_run import estimate, measure_throughput


def plan(**sections):
    job = Job.model_validate(
        {"name": "a", "data": {"name": "digits"}, "space": {"preset": "8x8"}, **sections}
    )
    return estimate(
        job,
        Path("out"),
        macs_per_second=lambda size: 1e9,
        step_seconds=lambda config, *parts, **options: (0.1, 0.3),
    )


def seconds(found) -> dict[str, float]:
    return {stage.name: stage.seconds for stage in found.stages}


def test_counts_are_exact():
    found = plan(
        devices=[{"name": "a"}, {"name": "b"}],
        search={"evaluations": 50, "latency_samples": 7, "front_size": 5, "initial": 10},
    )
    assert found.cardinality == 2361471489403697233920
    assert found.evaluations == 50
    assert found.measurements == 2 * (7 + 5)
    assert Path("out/front.csv") in found.files


def test_times_follow_the_work():
    short, long = (plan(supernet={"epochs": epochs, "warmup_epochs": 1}) for epochs in (2, 4))
    warm, full = (1 * 0.1, 1 * 0.3)
    ratio = (warm + 3 * full) / (warm + full)
    assert seconds(long)["supernet"] == pytest.approx(ratio * seconds(short)["supernet"])
    assert plan(supernet={"minutes": 3}).stages[0].seconds == 180
    assert "fine-tuning" in seconds(plan(finetune={"epochs": 1}))
    assert found_total(short) == short.seconds
    assert any(line.startswith("estimated time: ") for line in short.lines())


def found_total(found) -> float:
    return sum(seconds(found).values())


def test_throughput_is_plausible_and_leaves_the_threads_alone():
    import torch

    threads = torch.get_num_threads()
    assert 1e6 < measure_throughput(8) < 1e13
    assert torch.get_num_threads() == threads
