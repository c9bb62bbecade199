"""Section ``finetune``: how the winners are trained on their own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import (
    Field,
    StrictBool,
)

from nas.job.findings import Finding
from nas.job.values import AboveZero, NonNegative, Positive, Section


class FinetuneConfig(Section):
    """Training of each architecture of the front on its own, after the search."""

    epochs: NonNegative | None = None
    """Passes over the training images for each; 0 keeps the weights it inherits from the supernet.
    null shares what is left of the job's budget, and is 0 without one."""
    candidates: Annotated[float, Field(strict=True, ge=1, le=8)] = 1.5
    """Architectures begun for each place on the front where time is shared: those that are
    behind after a quarter of the training give up their places and their time."""
    learning_rate: AboveZero | None = None
    """Peak; null is 0.005 where time is shared and 0.0005 for a number of epochs."""
    batch_size: Positive = 128
    float_share: Annotated[float, Field(strict=True, ge=0, lt=1)] = 0.0
    """Share of each training, at its beginning, that runs in float where time is shared: its steps
    take about three quarters of the time of those at bits."""
    reconstruct: StrictBool = False
    """Before that, fit the weights of each architecture layer by layer to what the layers of the
    largest network give, by least squares on the calibration images; it needs no labels. Where it
    helps on the validation images, training goes on from there. Give a number of epochs with it,
    0 too."""
    distillation: StrictBool | Literal["only"] = True
    """Learn from the largest network's outputs, or the teacher's, beside the targets; only leaves
    the labels out."""


def check_reconstruction(finetune: FinetuneConfig) -> Iterator[Finding]:
    """Yield a reconstruction without a number of epochs to follow it."""
    if finetune.reconstruct and finetune.epochs is None:
        yield (
            ("finetune", "reconstruct"),
            "finetune.reconstruct: say finetune.epochs too (0 trains nothing after it)",
        )
