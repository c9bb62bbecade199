"""Section ``budget``: the time of the whole run."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import StrictBool

from nas.job.findings import Finding
from nas.job.sections.finetune import FinetuneConfig
from nas.job.sections.supernet import SupernetConfig
from nas.job.values import AboveZero, Section, Share


class BudgetConfig(Section):
    """The time of a whole run, which divides it between its stages."""

    minutes: AboveZero | None = None
    """Of the wall clock."""
    cpu_minutes: AboveZero | None = None
    """Of processors: those of the run and of every process it starts, added up."""
    supernet: Share = 0.05
    """Share of it for the shared weights and the teacher. Measurements take what they need,
    the search up to 5 % of it, even if evaluations are left then, and the architectures of the
    front are trained in the rest."""
    teacher: Share = 0.5
    """Share of the supernet's time in which the largest network alone is trained, in float."""
    narrow: StrictBool = True
    """Whether the space goes without its last resolutions and widths where the time leaves the
    largest network of a front too few steps of its own."""


def check_budget(
    budget: BudgetConfig, supernet: SupernetConfig | None, finetune: FinetuneConfig | None
) -> Iterator[Finding]:
    """Yield what is wrong with a budget, and what divides its time a second time."""
    if (budget.minutes is None) == (budget.cpu_minutes is None):
        both = budget.minutes is not None
        yield (
            ("budget", "cpu_minutes") if both else ("budget",),
            "budget: give minutes of the wall clock or cpu_minutes of processors"
            + (", not both" if both else ""),
        )
    # What divides the time a second time.
    for section, config, keys in (
        ("supernet", supernet, ("epochs", "minutes", "warmup_epochs")),
        ("finetune", finetune, ("epochs",)),
    ):
        if config is None:
            continue
        for key in keys:
            # The default says nothing: the job that a run keeps names every key.
            if getattr(config, key) != type(config).model_fields[key].default:
                yield (
                    (section, key),
                    f"{section}.{key}: the budget divides the time; leave {key} out, or leave "
                    "out budget",
                )
