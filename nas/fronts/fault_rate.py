"""The metric ``accuracy_at_fault_rate``: accuracy with faults drawn in the weights' codes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from search_spaces.seeds import derive_seed

if TYPE_CHECKING:
    from nas.job.schema import Job
    from supernet.plain import PlainNetwork

FAULTY = "accuracy_at_fault_rate"
"""Name of the metric."""


@dataclass(frozen=True)
class FaultRate:
    """Which faults a network is evaluated with.

    Attributes:
        kind, rate: as of :class:`supernet.faults.injection.Faults`.
        draws: evaluations with faults of their own, whose mean counts.
        seed: of the draws, the same for every network.
    """

    kind: str
    rate: float
    draws: int
    seed: int

    def accuracy(self, network: PlainNetwork, evaluate: Callable[[PlainNetwork], float]) -> float:
        """Return the mean of ``evaluate`` over networks with faults."""
        from supernet.faults.injection import Faults, with_faults

        total = 0.0
        for draw in range(self.draws):
            faults = Faults(self.kind, self.rate, derive_seed(self.seed, "faults", draw))
            total += evaluate(with_faults(network, faults))
        return total / self.draws


def asked_faults(job: Job) -> FaultRate | None:
    """Return the faults that a job evaluates with; None where it asks for no such metric."""
    metrics = [goal.metric for goal in job.objectives()]
    metrics += [bound.metric for bound in job.constraints()]
    if all(metric.name != FAULTY for metric in metrics):
        return None
    asked = job.search.faults
    return FaultRate(asked.kind, asked.rate, asked.draws, job.seed)
