"""How the winners of a search share the time that a budget leaves them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from nas.stages.training import taught_rounds

if TYPE_CHECKING:
    from nas.job.schema import Job

WELL_TRAINED_STEPS = 3500
"""Steps that a winner should have. With fewer, more places make each model worse (a network of
6 KiB on Fashion-MNIST: 90.9 % of the validation images after 1,300 steps, 91.8 after 5,200, 92.3
after 13,300); with more, the gaps between the sizes of a short front cost those as much whose
budget lies within one."""

FEWEST_PLACES = 5
"""Places of a front for which time is shared however little each of them gets."""

MORE_PLACES, TRAINED_SOMEWHAT_STEPS = 7, 1000
"""So many where each gets so many steps, though well trained needs more. With more places each
model is worse, by half a point for half the time and by one where that leaves a few hundred steps;
with fewer, a budget that lies between two of them loses one to four, since a front easily spans a
factor of 50 in size.

Of drawn signs of 48 pixels, a network of 36 pixels and 1,505 steps in 61 s named 74 % rightly,
those of 48 pixels with 458 to 1,041 no more, and one of 24 pixels with 1,750 in 40 s 34 %; of
coloured letters over photographs, networks with 900 to 1,200 steps 77 to 79 %, one with three times
the operations and 511 steps 74 %."""

FIRST_RUNG = 0.25
"""Share of its training after which an architecture must have shown that it deserves the rest."""

TEACHER_AHEAD = 0.6
"""A teacher teaches those of whose error after their first rung its own is less than this part,
which they have at their end without it (.55 to .7 of it on letters, from 4 to 30 KiB). Of a short
budget the largest network, which had a tenth of it, is worse than most winners become: networks of
7.7, 15 and 29 KiB named 90.1, 92.4 and 93.1 % of letters rightly after 50 s without a teacher, and
90.0, 91.4 and 91.4 % with one of 89.6 %."""

QUESTIONS_SHARE = 0.25
"""Of the time of those that it teaches, a teacher may take so much to be asked, which all pay."""


Teaching = Literal["nobody", "those behind it", "all"]


def teaching(job: Job, *, trained: bool) -> Teaching:
    """Return whom a teacher teaches among the winners of ``job``.

    One that the job names, or that came ``trained``, is for all. The largest network of the shared
    weights is for those behind it, and for nobody who ends with the validation examples: it has
    not met them, so its mistakes there would count as much as their labels.
    """
    asked = job.finetune.distillation
    if not asked:
        return "nobody"
    if trained or job.supernet.teacher is not None or asked == "only":
        return "all"
    return "nobody" if job.finetune.refit else "those behind it"


def teaches(teacher: float, student: float, *, higher_is_better: bool, share: bool) -> bool:
    """Return whether a teacher is ahead of what a student will become without it.

    Args:
        teacher, student: their metrics, the student's after :data:`FIRST_RUNG` of its training.
        higher_is_better: direction of the metric.
        share: whether it is at most 1.
    """
    if not higher_is_better:
        return teacher < TEACHER_AHEAD * student
    if share:
        return 1 - teacher < TEACHER_AHEAD * (1 - student)
    return teacher > student


def trained_places(job: Job, seconds: float, *, step_s: float, fronts: int = 1) -> int:
    """Return the places of each front that a budget trains.

    Args:
        job: says how many, or leaves it open; then as many as are trained well.
        seconds: for all winners together.
        step_s: seconds of a training step of a middling one.
        fronts: that share the time.
    """
    begun = 1 + FIRST_RUNG * (job.finetune.candidates - 1)
    each_step_s = step_s * begun * fronts
    well = math.floor(seconds / (each_step_s * WELL_TRAINED_STEPS))
    somewhat = math.floor(seconds / (each_step_s * TRAINED_SOMEWHAT_STEPS))
    fewest, most = possible_places(job)
    return min(most, max(fewest, min(MORE_PLACES, somewhat), well))


def possible_places(job: Job) -> tuple[int, int]:
    """Return the fewest and the most places of a front of ``job``, whatever time turns out."""
    search = job.search
    if search.front_size is not None:
        return search.front_size, search.front_size
    most = min(search.places, search.evaluations)
    if job.budget is None or job.finetune.epochs is not None:
        return most, most
    served = sum(map(len, search.budgets.values()))
    return min(most, max(FEWEST_PLACES, served)), most


@dataclass(frozen=True)
class WinnerShare:
    """How winners share their time.

    Attributes:
        places: of each front.
        begun: architectures of each front that begin.
        rounds: epochs whose augmentation differs, where a teacher is asked.
        teacher_s: seconds in which it is asked by one worker, if it is, which no winner pays for.
    """

    places: int
    begun: int
    rounds: int
    teacher_s: float


def share_winners(
    job: Job,
    seconds: float,
    *,
    step_s: float,
    question_s: float,
    epoch_steps: int,
    images: int,
    fronts: int = 1,
) -> WinnerShare:
    """Return how winners share ``seconds``.

    Where they get few steps, all that is not a step of theirs costs them more than it gives: fewer
    begin that will not stay, and a teacher is asked for fewer views of each image.

    Args:
        job: says for how many places, and how many begin for each of them.
        seconds: for all winners together.
        step_s: seconds of a training step of a middling one.
        question_s: seconds in which a teacher that remembers answers for a batch.
        epoch_steps: batches of an epoch.
        images: of the training set.
        fronts: that share the time.
    """
    places = trained_places(job, seconds, step_s=step_s, fronts=fronts)
    steps = seconds / (step_s * places * fronts)
    more = (job.finetune.candidates - 1) * min(1.0, steps / WELL_TRAINED_STEPS)
    rounds = taught_rounds(images, epochs=steps / max(1, epoch_steps))
    return WinnerShare(
        places, math.ceil(places * (1 + more)), rounds, rounds * epoch_steps * question_s
    )
