"""How sure a head is of its answer: a score, and the least score at which an image leaves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from search_spaces.errors import InputError

KINDS = ("confidence", "energy", "learned")
"""``confidence``: the largest probability (BranchyNet, Teerapittayanon et al., ICPR 2016, with
probability in place of entropy). ``energy``: the logarithm of the sum of exponentials of the
outputs, which is minus the free energy (Liu et al., Energy-based Out-of-distribution Detection,
NeurIPS 2020). ``learned``: a linear unit on the sorted outputs, trained to tell right answers from
wrong ones, after the gates of Gated Compression (Li et al., 2023)."""


@dataclass(frozen=True)
class Gate:
    """When an image leaves at an exit.

    Attributes:
        kind: of :data:`KINDS`.
        threshold: least score.
        weight: of ``learned``, (outputs,), for the outputs sorted from the largest down.
        bias: of ``learned``.
    """

    kind: str
    threshold: float
    weight: tuple[float, ...] = ()
    bias: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"no gate {self.kind!r}; there are {', '.join(KINDS)}")
        if (self.kind == "learned") != bool(self.weight):
            raise InputError("a learned gate has weights, and no other has")

    def score(self, logits: Tensor) -> Tensor:
        """Return how sure outputs (batch, classes) are, (batch,)."""
        if self.kind == "confidence":
            return logits.softmax(1).amax(1)
        if self.kind == "energy":
            return logits.logsumexp(1)
        ranked = logits.sort(1, descending=True).values
        return torch.sigmoid(ranked @ logits.new_tensor(self.weight) + self.bias)

    def leaves(self, logits: Tensor) -> Tensor:
        """Return which images of (batch, classes) leave, (batch,) bool."""
        return self.score(logits) >= self.threshold


def learned_gate(logits: Tensor, right: Tensor, *, threshold: float = 0.5) -> Gate:
    """Return a gate trained by logistic regression on whether answers were right.

    Args:
        logits: (images, classes) of an exit, of images that its head did not learn from.
        right: (images,) bool.
        threshold: least probability of being right at which an image leaves.

    Raises:
        InputError: all answers are right, or all wrong, so there is nothing to learn.
    """
    if bool(right.all()) or not bool(right.any()):
        raise InputError("a gate learns from right and wrong answers, and these are of one kind")
    ranked = logits.detach().double().sort(1, descending=True).values
    mean, deviation = ranked.mean(0), ranked.std(0).clamp(min=1e-6)
    design = (ranked - mean) / deviation
    wanted = right.double()
    weight = torch.zeros(design.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = torch.nn.functional.binary_cross_entropy_with_logits(design @ weight + bias, wanted)
        # A ridge: outputs that are sums of others would leave weights free.
        value = value + 1e-3 * weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    plain = (weight / deviation).detach()
    shift = float(bias.detach() - (plain * mean).sum())
    return Gate("learned", threshold, tuple(np.float32(v).item() for v in plain.tolist()), shift)
