"""A space that goes without the networks its budget has no time for."""

from __future__ import annotations

import pytest

from nas.job.schema import Job, job_space
from nas.record.run_folder import RunStore
from nas.stages.opened_job import RunContext
from nas.stages.progress import Progress
from nas.stages.winners import reach
from nas.stages.winners.reach import (
    REACH_EPOCHS,
    REACH_STEPS,
    epoch_steps,
    largest_step_seconds,
    narrow_space,
    narrowed,
    reachable_step,
    told,
)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def job(**more) -> Job:
    return Job.model_validate(
        {
            "name": "photos",
            "budget": {"cpu_minutes": 10},
            "data": {"name": "digits"},
            "space": {"name": "mobilenet", "preset": "64x64-slim"},
            "devices": [{"name": "cpu", "runtime": "onnxruntime"}],
            **more,
        }
    )


def build(of: Job):
    return job_space(of, input_channels=3, outputs=10, input_size=(64, 64))


MANY = 1000
"""Steps of an epoch of so many examples that the steps alone count."""


def macs(space) -> int:
    return space.plan(space.largest()).macs


def test_a_step_is_within_reach_if_every_place_has_enough_of_them():
    wide = reachable_step(job(budget={"cpu_minutes": 40}), MANY)
    assert 40 * 60 / 5 / REACH_STEPS > wide > 3 * reachable_step(job(), MANY)
    # Few examples have been seen often enough after fewer steps.
    few = reachable_step(job(), 5)
    assert few == pytest.approx(reachable_step(job(), MANY) * REACH_STEPS / (5 * REACH_EPOCHS))


@pytest.mark.parametrize("share", [1.5, 0.7, 0.3, 0.1, 0.01])
def test_what_stays_is_the_most_that_there_is_time_for(share):
    whole = build(job())
    most_s = reachable_step(job(), MANY)
    # As if time went by operations alone.
    kept = narrowed(
        job(),
        whole,
        build=build,
        epoch_steps=MANY,
        step_s=lambda s: most_s / share * macs(s) / macs(whole),
    )
    if share > 1:
        assert not kept
        return
    for name, values in kept.items():
        before = getattr(whole.parameters, name)
        assert values == before[: len(values)] and 0 < len(values) < len(before)
    small = build(job().with_space(kept))
    if share > 0.2:
        assert macs(small) / macs(whole) <= share
    else:
        # The least that there is, although there is no time for that: two of each.
        assert {len(v) for v in kept.values()} == {2} and set(kept) == set(whole.LARGE)
    assert small.smallest() == small.parse(str(whole.smallest()))


def test_an_interval_of_time_that_is_not_by_operations_is_measured_again():
    whole, asked = build(job()), []
    most_s = reachable_step(job(), MANY)

    def step_s(space):
        asked.append(macs(space))
        return most_s * (1.5 if len(asked) < 3 else 0.9)

    kept = narrowed(job(), whole, build=build, step_s=step_s, epoch_steps=MANY)
    assert len(asked) == 3 and asked == sorted(asked, reverse=True)
    assert macs(build(job().with_space(kept))) == asked[-1]


@pytest.mark.parametrize(
    "more",
    [
        {"budget": {"cpu_minutes": 10, "narrow": False}},
        {"budget": None, "supernet": {"epochs": 2}},
        {"supernet": {"init_from": "weights.safetensors"}},
        {"study": "postgresql://somewhere/study"},
        {"latency": {"known_devices": "table.csv"}},
        {"search": {"warm_start": "runs/before"}},
    ],
)
def test_what_others_depend_on_stays_whole(more):
    asked = job(**more)

    def never(space):
        raise AssertionError("nothing is to be timed")

    assert narrowed(asked, build(asked), build=build, step_s=never, epoch_steps=MANY) == {}


def test_it_is_told_in_words_what_is_left_out_and_what_keeps_it():
    kept = {"widths": (0.34, 0.5), "resolutions": (32, 48)}
    assert "search.front_size" not in told(kept, build(job()), 1)
    text = told(kept, build(job()), 5)
    assert "fewer networks than 5 (search.front_size), or budget.narrow: false" in text
    assert "widths 0.75, 1 and resolutions 64" in text
    assert "budget.narrow: false" in text and str(REACH_STEPS) in text


def test_a_run_records_what_it_leaves_out_and_goes_on_with_that(tmp_path, monkeypatch, capsys):
    asked = job(space={"name": "mobilenet", "preset": "8x8-lean"})
    context = RunContext.of(asked, threads=1)
    store = RunStore.create(tmp_path / "run", {"job": asked.resolved()})
    # Here and now a step takes some time, but ten minutes are enough for 8x8 pixels.
    step_s = largest_step_seconds(asked, context.task, context.splits)(context.space)
    each = epoch_steps(asked, context.splits)
    assert 0 < step_s < reachable_step(asked, each)
    assert narrow_space(context, store, Progress()) is context

    def slow(space):
        return 1.5 * reachable_step(asked, each) * macs(space) / macs(context.space)

    monkeypatch.setattr(reach, "largest_step_seconds", lambda *parts, **rest: slow)
    small = narrow_space(context, store, Progress())
    assert macs(small.space) < macs(context.space)
    assert "space: without widths 1" in capsys.readouterr().err
    # Whoever resumes the run has the same space, and nothing more to leave out.
    assert store.job().space == small.job.space
    resumed = RunContext.of(store.job(), threads=1)
    assert narrow_space(resumed, store, Progress()) is resumed
    assert macs(resumed.space) == macs(small.space)
