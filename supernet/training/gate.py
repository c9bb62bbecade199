"""Training that begins with a network that works never ends below where it began.

What a training has gained is measured on a panel of subnets before and after it. Where they lost on
average, or one of them by more than the noise of its measurement, weights are moved back towards
those it began with, in a straight line: between a trained network and its fine-tuned self there is
no barrier, and points on the line are often better than both ends (Wortsman et al., "Robust
fine-tuning of zero-shot models", CVPR 2022). At the line's beginning nothing is lost, so the
guarantee holds whatever the training did.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from supernet.network import Supernet
from supernet.training.weights import plain_weights

SHARES = (1.0, 0.8, 0.6, 0.4, 0.2)
"""Of the way from where a training began to where it ended, tried in this order."""

Measure = Callable[[Supernet], Sequence[float]]
"""Metrics of the panel, larger is better: of the same subnets on the same images each time."""


@dataclass(frozen=True)
class Gated:
    """What a gate let through.

    Attributes:
        share: of the way that training went; 0 keeps the network as it was.
        before, after: metrics of the panel, of the network that training began with and of the
            one that is kept.
    """

    share: float
    before: tuple[float, ...]
    after: tuple[float, ...]


def pass_gate(
    supernet: Supernet,
    begun: Mapping[str, Tensor],
    before: Sequence[float],
    measure: Measure,
    *,
    noise: Sequence[float] | None = None,
) -> Gated:
    """Leave ``supernet`` with weights at which the panel is no worse than before, on average.

    Args:
        supernet: as training left it; changed in place.
        begun: its ``state_dict()`` before the training.
        before: the panel's metrics with them.
        measure: gives them for other weights.
        noise: by which each metric may fall for no reason; no fall is allowed by default.
    """
    allowed = noise or [0.0] * len(before)
    ended = snapshot(supernet)
    moved = plain_weights(supernet).keys()
    for share in SHARES:
        supernet.load_state_dict(
            {
                name: torch.lerp(begun[name].to(value), value, share)
                if name in moved and value.is_floating_point()
                else value
                for name, value in ended.items()
            }
        )
        after = tuple(measure(supernet))
        each = zip(after, before, allowed, strict=True)
        if sum(after) >= sum(before) and all(now >= then - most for now, then, most in each):
            return Gated(share, tuple(before), after)
    supernet.load_state_dict(begun)
    return Gated(0.0, tuple(before), tuple(before))


def snapshot(supernet: Supernet) -> dict[str, Tensor]:
    """Return a copy of everything in ``supernet``, for :func:`pass_gate`."""
    return {name: value.detach().clone() for name, value in supernet.state_dict().items()}
