"""Which optimiser trains which parameter, and which of them are decayed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from supernet.training.muon import Muon

Named = Iterable[tuple[str, nn.Parameter]]
OptimizerName = Literal["adamw", "muon"]
Precision = Literal["float32", "bfloat16"]


def optimizers(
    name: OptimizerName, parameters: Named, learning_rate: float, *, weight_decay: float
) -> tuple[torch.optim.Optimizer, ...]:
    """Return what trains ``parameters`` where ``name`` trains the weights that mix channels."""
    if name == "muon":
        return muon_and_adamw(parameters, learning_rate, weight_decay=weight_decay)
    return (adamw(parameters, learning_rate, weight_decay=weight_decay),)


def states(
    optimizers: Iterable[torch.optim.Optimizer], named: Mapping[str, nn.Parameter]
) -> dict[str, Tensor]:
    """Return what a checkpoint keeps of ``optimizers``, as ``optimizer.KEY.NAME``.

    Args:
        optimizers: of the parameters.
        named: those whose state is kept, by their names.
    """
    return {
        f"optimizer.{key}.{name}": torch.as_tensor(value)
        for name, parameter in named.items()
        for optimizer in optimizers
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def restore_states(
    optimizers: Iterable[torch.optim.Optimizer],
    named: Mapping[str, nn.Parameter],
    tensors: Mapping[str, Tensor],
) -> None:
    """Take over what :func:`states` kept in ``tensors``, which may hold more.

    Args:
        optimizers: of the parameters.
        named: all parameters by their names.
        tensors: of the checkpoint.
    """
    trainers = {
        parameter: optimizer
        for optimizer in optimizers
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    for full, value in tensors.items():
        kind, _, rest = full.partition(".")
        key, _, name = rest.partition(".")
        if kind == "optimizer" and name in named:
            parameter = named[name]
            trainers[parameter].state[parameter][key] = value.to(parameter.device)


def adamw(parameters: Named, learning_rate: float, *, weight_decay: float) -> torch.optim.Optimizer:
    """Return AdamW that decays convolution and linear weights, and nothing else.

    Args:
        parameters: with their names.
        learning_rate: to begin with.
        weight_decay: of parameters that are called ``weight``.
    """
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for name, parameter in parameters:
        (decayed if name.endswith(".weight") else kept).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": weight_decay},
            {"params": kept, "weight_decay": 0.0},
        ],
        lr=learning_rate,
        fused=True,
    )


def muon_and_adamw(
    parameters: Named, learning_rate: float, *, weight_decay: float
) -> tuple[torch.optim.Optimizer, ...]:
    """Return Muon for weights that mix channels and :func:`adamw` for the rest.

    Both follow one learning rate. No parameter is trained by two.
    """
    mixing: list[nn.Parameter] = []
    rest: list[tuple[str, nn.Parameter]] = []
    for name, parameter in parameters:
        if mixes_channels(name, parameter):
            mixing.append(parameter)
        else:
            rest.append((name, parameter))
    others = adamw(rest, learning_rate, weight_decay=weight_decay)
    if not mixing:
        return (others,)
    return Muon(mixing, learning_rate, weight_decay=weight_decay), others


def mixes_channels(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter is the weight of a layer whose outputs see several channels.

    Others are no matrices in this sense: depthwise filters, filters of a grey picture, scales,
    steps of quantisers, positions.
    """
    return name.endswith(".weight") and parameter.dim() >= 2 and parameter.size(1) > 1
