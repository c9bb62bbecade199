"""Vectors in which examples of a class are near each other: for search, and for faces and parts
that were not there when the network was trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from nas.fronts.metrics import MetricKind
from nas.tasks.base import TASKS, Task
from nas.tasks.data import expect
from nas.tasks.overlays import Drawing
from nas.tasks.scores import Score, WholeScore

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from nas.data.splits import DataSplits
    from nas.job.sections.data import DataConfig

UNITS = 64
"""Values of a vector."""

TEMPERATURE = 0.1
"""Of the softmax over similarities (Khosla et al., section 4.2)."""

NEAREST = (1, 5)
"""Among how many neighbours one of the same class is looked for."""

_ROWS = 1024


class Embedding(Task):
    """Vectors of unit length: supervised contrastive loss, recall among the nearest neighbours.

    In a batch each example draws those of its class near and pushes all others away (Khosla et
    al., NeurIPS 2020, equation 2). Distillation brings the cosines between the examples of a batch
    to the teacher's (relational distillation, Park et al., CVPR 2019), so lengths and directions
    of the two need not agree.

    The metric is the share of examples whose nearest neighbour among all others of the set is of
    their class.
    """

    metric_name = "recall_at_1"
    metric_is_share = True
    further_metrics: ClassVar[dict[str, MetricKind]] = {
        "recall_at_5": MetricKind("", maximise=True, share=True),
    }

    def load(self, config: DataConfig, seed: int) -> DataSplits:
        """See :meth:`Task.load`."""
        from nas.data.splits import load_splits

        return expect(load_splits(config, seed, kind="classes"), "classes", self)

    def outputs(self, splits: DataSplits) -> int:
        """Return the values of a vector."""
        return UNITS

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the supervised contrastive loss. outputs: (batch, units); targets: (batch,).

        Examples without another of their class in the batch push and are not drawn; a batch
        without any pair has a loss of 0.
        """
        import torch

        alike = cosines(outputs) / TEMPERATURE
        itself = torch.eye(len(alike), dtype=torch.bool, device=alike.device)
        share = alike - alike.masked_fill(itself, -torch.inf).logsumexp(1, keepdim=True)
        same = (targets[:, None] == targets[None]) & ~itself
        count = same.sum(1)
        each = -(share * same).sum(1) / count.clamp(min=1)
        return each.sum() / (count > 0).sum().clamp(min=1)

    def distillation_loss(self, outputs: Tensor, teacher_outputs: Tensor) -> Tensor:
        """Return the squared distance of cosines to the teacher's, on the scale of the loss."""
        apart = cosines(outputs) - cosines(teacher_outputs.detach())
        return apart.pow(2).mean() / TEMPERATURE

    def score(self) -> Score:
        """See :meth:`Task.score`."""
        return WholeScore(_recalls)

    def constant(self, splits: DataSplits) -> float:
        """See :meth:`Task.constant`: how often any other example is of the same class."""
        import torch

        count = torch.bincount(splits.validation.labels[splits.validation.indices]).double()
        pairs = count.sum() * (count.sum() - 1)
        return float((count * (count - 1)).sum() / pairs.clamp(min=1))

    def drawing(self, output: np.ndarray, target: np.ndarray, classes: tuple[str, ...]) -> Drawing:
        """See :meth:`Task.drawing`: the class, which neighbours should have."""
        return Drawing(caption=classes[int(target)])

    def output_text(self, splits: DataSplits) -> str:
        """See :meth:`Task.output_text`."""
        return (
            f"a vector of {UNITS} values. Divide it by its length; the sum of products of two such "
            "vectors, their cosine from -1 to 1, says how alike two inputs are. Keep the vectors "
            "of known examples and take the class of the nearest; choose the least cosine that "
            "counts as the same on pairs of your own."
        )


@TASKS.register("image_embedding")
class ImageEmbedding(Embedding):
    """Vectors of images."""


@TASKS.register("audio_embedding")
class AudioEmbedding(Embedding):
    """Vectors of sounds."""


@TASKS.register("signal_embedding")
class SignalEmbedding(Embedding):
    """Vectors of signals."""


def cosines(vectors: torch.Tensor) -> torch.Tensor:
    """Return the cosine between any two of vectors (n, units): (n, n)."""
    from torch.nn import functional as F

    unit = F.normalize(vectors.float(), dim=1)
    return unit @ unit.T


def _recalls(outputs: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Return for each of :data:`NEAREST` the share with one of its class among so many others."""
    unit = outputs / np.maximum(np.linalg.norm(outputs, axis=1, keepdims=True), 1e-12)
    most = min(max(NEAREST), len(unit) - 1)
    found = np.zeros(len(NEAREST))
    for begin in range(0, len(unit), _ROWS):
        rows = np.arange(begin, min(begin + _ROWS, len(unit)))
        alike = unit[rows] @ unit.T
        alike[np.arange(len(rows)), rows] = -np.inf
        # Of equal ones the first, so that batches and machines agree.
        nearest = np.argsort(-alike, axis=1, kind="stable")[:, :most]
        right = targets[nearest] == targets[rows, None]
        found += [right[:, :count].any(1).sum() for count in NEAREST]
    return {f"recall_at_{n}": float(f / len(unit)) for n, f in zip(NEAREST, found, strict=True)}
