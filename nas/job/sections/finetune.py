"""Section ``finetune``: how the winners are trained on their own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import (
    Field,
    StrictBool,
    StrictStr,
)

from nas.job.findings import Finding, dotted
from nas.job.values import AboveZero, NonNegative, Positive, Section
from search_spaces.errors import InputError
from search_spaces.sparsity import DENSE, NO_SPARSITY, Sparsity, parse_sparsity

if TYPE_CHECKING:
    from nas.job.sections.budget import BudgetConfig
    from nas.job.sections.supernet import SupernetConfig


class SparsityConfig(Section):
    """Zeros among the weights of each architecture of the front, by magnitude, in one shot.

    They are chosen before its own training and stay zeros in it. Files store them like other codes
    and runtimes are no faster for them; the report tells what sparse storage would take.
    """

    pattern: StrictStr = DENSE
    """Of every layer but the first and the last: a share of zeros anywhere, such as 50%, or N:M,
    such as 2:4, which of every 4 weights along a layer's inputs keeps 2; layers whose inputs are no
    whole number of groups stay dense."""
    layers: dict[StrictStr, StrictStr] = {}
    """Patterns of layers by their name or role, instead, such as {project: 2:4, head: dense}."""

    def default(self) -> Sparsity:
        """Return the pattern of layers that are not named."""
        return parse_sparsity(self.pattern)

    def named(self) -> dict[str, Sparsity]:
        """Return the patterns of those that are."""
        return {name: parse_sparsity(text) for name, text in self.layers.items()}


class FinetuneConfig(Section):
    """Training of each architecture of the front on its own, after the search."""

    epochs: NonNegative | None = None
    """Passes over the training images for each; 0 keeps the weights it inherits from the supernet.
    null shares what is left of the job's budget, and is 0 without one."""
    candidates: Annotated[float, Field(strict=True, ge=1, le=8)] = 1.5
    """Architectures begun at most for each place on the front where time is shared: those that are
    behind after a quarter of the training give up their places and their time. Fewer begin where a
    winner gets less than 3,500 steps, which all of them need."""
    learning_rate: AboveZero | None = None
    """Peak; null is 0.01 where time is shared and half of it or more is in float, otherwise 0.005,
    0.002 for a network that came trained, and 0.0005 for a number of epochs."""
    optimizer: Literal["adamw", "muon"] | None = None
    """Of weights that mix channels, where time is shared: muon makes each step of a matrix
    orthogonal (Jordan et al., 2024) and needs far fewer of them. null is muon, and adamw, which
    always trains the rest, for a network that came trained."""
    batch_size: Positive = 128
    float_share: Annotated[float, Field(strict=True, ge=0, lt=1)] | None = None
    """Share of each training, at its beginning, that runs in float where time is shared: its steps
    take about three quarters of the time of those at bits, and may be larger. null is 0.75, 0.5
    where activations have fewer than 3 bits or weights fewer than 2, and 0 for a network that came
    trained."""
    reconstruct: StrictBool = False
    """Before that, fit the weights of each architecture layer by layer to what the layers of the
    largest network give, by least squares on the calibration images; it needs no labels. Where it
    helps on the validation images, training goes on from there. Give a number of epochs with it,
    0 too."""
    distillation: StrictBool | Literal["only"] = True
    """Learn from the largest network's outputs, or the teacher's, beside the targets; only leaves
    the labels out. Where time is shared, the largest network teaches those alone that it is ahead
    of."""
    refit: StrictBool = False
    """Train each architecture of the front on the validation examples too, once it is chosen by
    them: for three quarters of the time that is shared, by labels alone unless a teacher is named,
    and from random weights (with batch norm, and unless weights or zeros were given). Its
    validation figures are those of the quarter before. For few examples: a quarter of a hundred set
    apart is missed more than it is of 10,000."""
    sparsity: SparsityConfig | None = None
    """Prune the weights of each architecture before its own training; null leaves all. The search
    evaluates dense weights."""


def check_reconstruction(finetune: FinetuneConfig) -> Iterator[Finding]:
    """Yield a reconstruction without a number of epochs to follow it."""
    if finetune.reconstruct and finetune.epochs is None:
        yield (
            ("finetune", "reconstruct"),
            "finetune.reconstruct: say finetune.epochs too (0 trains nothing after it)",
        )


def check_refit(
    finetune: FinetuneConfig, supernet: SupernetConfig | None, budget: BudgetConfig | None
) -> Iterator[Finding]:
    """Yield a last part of the time where nothing shares time."""
    if not finetune.refit:
        return
    if finetune.epochs is not None:
        yield (
            ("finetune", "refit"),
            "finetune.refit: takes a part of the time that a budget leaves; leave finetune.epochs "
            "out",
        )
    elif budget is None and supernet is not None and (supernet.epochs or supernet.minutes):
        yield (
            ("finetune", "refit"),
            "finetune.refit: takes a part of the time that a budget leaves, and there is none; "
            "give budget: {minutes: 25} instead of supernet.epochs or supernet.minutes",
        )


def check_sparsity(finetune: FinetuneConfig) -> Iterator[Finding]:
    """Yield patterns that are none, and a section that asks for nothing."""
    asked = finetune.sparsity
    if asked is None:
        return
    known: list[Sparsity] = []
    named = [(("layers", name), text) for name, text in asked.layers.items()]
    for place, text in [(("pattern",), asked.pattern), *named]:
        try:
            known.append(parse_sparsity(text))
        except InputError as error:
            at = ("finetune", "sparsity", *place)
            yield at, f"{dotted(at)}: {error}"
            known.append(Sparsity(0.5))
    if all(pattern == NO_SPARSITY for pattern in known):
        yield (
            ("finetune", "sparsity"),
            "finetune.sparsity: every layer is dense; give a pattern such as 50% or 2:4, or leave "
            "the section out",
        )
