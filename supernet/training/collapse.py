"""Noticing that a training has collapsed, early and by name."""

from __future__ import annotations

import math
from collections.abc import Sequence

from search_spaces.errors import NasError


class TrainingCollapse(NasError):
    """Training no longer leads anywhere; the message names the step and the cure."""

    exit_code = 2


class CollapseGuard:
    """Ends a training whose losses or gradients are not finite or whose validation falls.

    Validation counts as fallen when it lies below ``fall`` of its best in ``patience``
    successive checks: new bit-widths cost a network accuracy for a while, and not so much.

    Args:
        learning_rate: named in messages.
        fall: share of the best validation below which it has fallen, 0 to 1.
        patience: successive checks.
    """

    def __init__(self, learning_rate: float, *, fall: float = 0.5, patience: int = 2) -> None:
        self.learning_rate = learning_rate
        self.fall, self.patience = fall, patience
        self.best = -math.inf
        self.fallen = 0

    def losses(self, step: int, values: Sequence[float]) -> None:
        """Check the losses of ``step`` (from 1).

        Raises:
            TrainingCollapse: one is infinite or not a number.
        """
        if not all(math.isfinite(value) for value in values):
            raise TrainingCollapse(
                f"training collapsed in step {step}: the losses are {list(values)}; {self._cure()}"
            )

    def gradients(self, step: int, norm: float) -> None:
        """Check the norm of all gradients.

        Raises:
            TrainingCollapse: it is infinite or not a number.
        """
        if not math.isfinite(norm):
            raise TrainingCollapse(
                f"training collapsed in step {step}: the gradients are not finite; {self._cure()}"
            )

    def validation(self, step: int, value: float) -> None:
        """Check a validation metric, larger is better.

        Raises:
            TrainingCollapse: it is not finite, or has fallen for good.
        """
        if not math.isfinite(value):
            raise TrainingCollapse(
                f"training collapsed by step {step}: validation gives {value}; {self._cure()}"
            )
        self.fallen = self.fallen + 1 if value < self.fall * self.best else 0
        self.best = max(self.best, value)
        if self.fallen >= self.patience:
            raise TrainingCollapse(
                f"training collapsed by step {step}: validation fell from {self.best:.4f} to "
                f"{value:.4f} and stayed there for {self.fallen} checks; {self._cure()}"
            )

    def _cure(self) -> str:
        return (
            f"lower the learning rate (now {self.learning_rate:g}) or lengthen the warm-up, and "
            "begin anew"
        )
