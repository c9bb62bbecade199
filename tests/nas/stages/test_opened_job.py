"""What a job asks of its space that the space cannot give is told before any training."""

from __future__ import annotations

import numpy as np
import pytest

from nas.fronts.metrics import Constraint, Goal, Metric
from nas.stages.opened_job import require_known_costs
from search_spaces.errors import InputError
from search_spaces.spaces.mobilenet import MobileNetSpace

SPACE = MobileNetSpace.from_config(preset="8x8", input_channels=1, outputs=3)
PEAK = Metric("peak_memory_kib")


class WithoutMemoryFlow(MobileNetSpace):
    """As a network of one's own whose blocks have no memory flow."""

    def _peak_kib(self, blocks, genes):
        return np.full(len(genes), np.nan)


@pytest.mark.parametrize(
    ("goals", "constraints"),
    [([Goal(PEAK)], []), ([Goal(Metric("accuracy"))], [Constraint(PEAK, 100.0)])],
)
def test_a_cost_that_cannot_be_worked_out_is_refused(goals, constraints):
    require_known_costs(SPACE, goals, constraints)
    unknown = WithoutMemoryFlow.from_config(preset="8x8", input_channels=1, outputs=3)
    with pytest.raises(InputError, match="peak_memory_kib cannot be worked out"):
        require_known_costs(unknown, goals, constraints)
    require_known_costs(unknown, [Goal(Metric("macs"))], [Constraint(Metric("flash_kib"), 9.0)])
