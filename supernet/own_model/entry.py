"""What a network takes, seen from the first convolution that its inputs reach."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

_SIDE = 64
"""Of the inputs that are tried; where they end does not matter, only where they come first."""

_USUAL = (3, 1)


@dataclass(frozen=True)
class Entry:
    """Where inputs enter a network.

    Attributes:
        convolution: the first that they reach; None in a network without.
        channels: of the inputs.
        signals: whether they are (batch, channels, length), and not images.
    """

    convolution: nn.Conv1d | nn.Conv2d | None
    channels: int
    signals: bool


class _Reached(Exception):
    """An input has come to a convolution, and need not go on."""


def entry_of(network: nn.Module) -> Entry:
    """Return where inputs enter, as found by sending some in: layers may be made in any order."""
    convolutions = list(_convolutions(network))
    if not convolutions:
        return Entry(None, 3, False)
    # The first that was made is so often the one that this is where to begin.
    first = convolutions[0]
    counts = [first.in_channels, *_USUAL, *(c.in_channels for c in convolutions)]
    for signals in (isinstance(first, nn.Conv1d), not isinstance(first, nn.Conv1d)):
        for channels in dict.fromkeys(counts):
            reached = _reached(network, channels, signals)
            if reached is not None:
                return Entry(reached, channels, signals)
    return Entry(first, first.in_channels, isinstance(first, nn.Conv1d))


def fits(network: nn.Module, channels: int, entry: Entry) -> bool:
    """Whether inputs of ``channels`` reach a convolution as it takes them."""
    return _reached(network, channels, entry.signals) is not None


@torch.no_grad()
def _reached(network: nn.Module, channels: int, signals: bool) -> nn.Conv1d | nn.Conv2d | None:
    """Return the first convolution that inputs reach, if they have the channels it takes."""
    at: list[tuple[Any, tuple[int, ...]]] = []

    def stop(module: nn.Module, given: Any) -> None:
        at.append((module, tuple(given[0].shape)))
        raise _Reached

    handles = [c.register_forward_pre_hook(stop) for c in _convolutions(network)]
    training, parameter = network.training, next(network.parameters())
    sides = (_SIDE,) if signals else (_SIDE, _SIDE)
    try:
        network.eval()(torch.zeros(2, channels, *sides, dtype=parameter.dtype))
    except (_Reached, RuntimeError, ValueError, IndexError, TypeError, AssertionError):
        pass  # Whether it came that far is what counts.
    finally:
        network.train(training)
        for handle in handles:
            handle.remove()
    if not at:
        return None
    convolution, shape = at[0]
    rank = 3 if isinstance(convolution, nn.Conv1d) else 4
    takes = len(shape) == rank and shape[1] == convolution.in_channels
    return convolution if takes else None


def _convolutions(network: nn.Module) -> Iterator[nn.Conv1d | nn.Conv2d]:
    return (m for m in network.modules() if isinstance(m, (nn.Conv1d, nn.Conv2d)))
