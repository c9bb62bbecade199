"""Networks of vectors (batch, features), such as multi-layer perceptrons on tables of numbers.

Data come as (batch, channels, height, width), so such a network is given a flattening before it.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn


@torch.no_grad()
def vector_length(network: nn.Module) -> int:
    """Return the features of the vectors that a network takes; 0 where it takes something else.

    A network that flattens its inputs itself takes vectors, too. One of sequences may take a
    single one without a batch, (steps, features), but what it gives for a step follows from others.
    """
    stated = getattr(network, "input_shape", None)
    if stated is not None:
        return int(stated[0]) if len(stated) == 1 else 0
    if any(isinstance(m, nn.modules.conv._ConvNd) for m in network.modules()):
        return 0
    first = next((m for m in network.modules() if isinstance(m, nn.Linear)), None)
    if first is None:
        return 0
    training = network.training
    vectors = torch.randn(2, first.in_features, generator=torch.Generator().manual_seed(0))
    try:
        both, one = network.eval()(vectors), network(vectors[:1])
    except (RuntimeError, ValueError, IndexError, TypeError, AssertionError):
        return 0
    finally:
        network.train(training)
    if not isinstance(both, Tensor) or both.dim() != 2 or len(both) != 2:
        return 0
    return first.in_features if torch.allclose(both[:1], one, rtol=1e-3, atol=1e-5) else 0


def flattening(network: nn.Module) -> nn.Module:
    """Return a copy of ``network`` that flattens what it is given to (batch, features)."""
    network = copy.deepcopy(network)
    network.register_forward_pre_hook(_flat)
    return network


def _flat(module: nn.Module, inputs: Any) -> Any:
    return (inputs[0].flatten(1), *inputs[1:])
