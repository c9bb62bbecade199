"""What tasks share whose networks tell a symbol at each place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nas.tasks.base import Task

if TYPE_CHECKING:
    from torch import Tensor


class SymbolTask(Task):
    """Cross-entropy at each place: outputs (batch, places, symbols), targets (batch, places)."""

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy. targets: int64."""
        from torch.nn import functional as F

        return F.cross_entropy(
            outputs.flatten(0, 1), targets.flatten(), label_smoothing=self.label_smoothing
        )

    def distillation_loss(self, outputs: Tensor, teacher_outputs: Tensor) -> Tensor:
        """Return the cross-entropy against the teacher's probabilities (Hinton et al., 2015)."""
        from torch.nn import functional as F

        taught = teacher_outputs.detach().flatten(0, 1).softmax(-1)
        return F.cross_entropy(outputs.flatten(0, 1), taught)

    def decide(self, outputs: Tensor) -> Tensor:
        """Return the likeliest symbol after each place: (batch, places)."""
        return outputs.argmax(-1)
