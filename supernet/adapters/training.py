"""Training all sub-adapters at once, with the weights of the model frozen."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from search_spaces.errors import InputError
from search_spaces.seeds import derive_rng
from search_spaces.space import Arch
from supernet.adapters.elastic import AdaptedDecoder

Sampler = Callable[[int], list[Arch]]
"""Step -> the sub-adapters that it trains; the first learns from the text, others from it."""


def sandwich(adapted: AdaptedDecoder, *, seed: int, random: int = 1) -> Sampler:
    """Return the largest, the smallest and random sub-adapters (Yu and Huang, ICCV 2019)."""
    space = adapted.space

    def archs(step: int) -> list[Arch]:
        rng = derive_rng(seed, "adapters", step)
        return [space.largest(), space.smallest(), *(space.sample(rng) for _ in range(random))]

    return archs


def single_path(adapted: AdaptedDecoder, *, seed: int, largest: float = 0.3) -> Sampler:
    """Return one sub-adapter for each step: any, or with a probability the largest.

    A step costs a third of the sandwich's, and every sub-adapter learns from the text, as in Shears
    (Muñoz et al., NAACL 2024).
    """
    space = adapted.space

    def archs(step: int) -> list[Arch]:
        rng = derive_rng(seed, "one adapter", step)
        return [space.largest() if rng.random() < largest else space.sample(rng)]

    return archs


def train_adapters(
    adapted: AdaptedDecoder,
    rows: Tensor,
    *,
    sampler: Sampler,
    steps: int,
    batch: int = 16,
    learning_rate: float = 2e-3,
    seed: int = 0,
) -> list[float]:
    """Train adapters in place.

    Args:
        adapted: frozen model and adapters.
        rows: (windows, length + 1) int64: a window and the token after it.
        sampler: which sub-adapters a step trains.
        steps: of AdamW; the rate rises over a twentieth of them and falls by a cosine.
        batch: windows of a step.
        learning_rate: peak.
        seed: of the order of windows.

    Returns:
        loss of the first sub-adapter of each step, in nats a token.

    Raises:
        InputError: fewer windows than a batch, or a loss that is not finite.
    """
    if len(rows) < batch:
        raise InputError(f"{len(rows)} windows are fewer than a batch of {batch}; give more text")
    optimizer = torch.optim.AdamW(adapted.adapters(), learning_rate, weight_decay=0.0)
    losses = []
    for step in range(steps):
        rising = min(1.0, (step + 1) / max(1, steps // 20))
        rate = learning_rate * rising * 0.5 * (1 + math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = rate
        chosen = derive_rng(seed, "windows", step).choice(len(rows), batch, replace=False)
        part = rows[torch.from_numpy(chosen)]
        optimizer.zero_grad(set_to_none=True)
        taught: Tensor | None = None
        for arch in sampler(step):
            adapted.configure(arch)
            values = adapted(part[:, :-1]).flatten(0, 1)
            if taught is None:
                loss = F.cross_entropy(values, part[:, 1:].flatten())
                taught = values.detach().softmax(-1)
                losses.append(float(loss.detach()))
            else:
                loss = F.cross_entropy(values, taught)
            loss.backward()
        if not math.isfinite(losses[-1]):
            raise InputError(f"the loss of step {step + 1} is {losses[-1]}; lower learning_rate")
        torch.nn.utils.clip_grad_norm_(adapted.adapters(), 1.0)
        optimizer.step()
    adapted.configure(adapted.space.largest())
    return losses
