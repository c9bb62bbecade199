"""Training an integer network in integers, with quantisation-aware scaling: a reference.

Lin et al., *On-Device Training Under 256KB Memory*, NeurIPS 2022, section 3.1. A weight is a code
times a step, so the gradient by codes is ``step`` times that of the weight, while codes are
``1 / step`` times as large: beside each other they are off by the square of the step, which differs
from layer to layer. Scaled by ``step ** -2`` the update of codes is that of float weights in steps.
Codes stay integers; what a step of training adds to them is mostly below one, so it is rounded up
or down by chance, with the right mean.

This says what a device computes. It runs in torch, which keeps more than a device would: the memory
is told by :mod:`search_spaces.training`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from search_spaces.errors import InputError
from search_spaces.plan import FLOAT_BITS
from search_spaces.training.update import Update
from supernet.dataflow import activate
from supernet.plain import PlainLayer, PlainNetwork, Source
from supernet.quantizers.lsq import activation_range

ROUNDINGS = ("stochastic", "nearest", "none")
"""``none`` keeps codes that are no integers: float training of the same network."""

Loss = Callable[[Tensor, Tensor], Tensor]


def quantisation_aware(gradient_of_codes: Tensor, step: Tensor) -> Tensor:
    """Return the gradient by codes, scaled so that codes move as float weights do.

    Args:
        gradient_of_codes: (out, ...).
        step: of the codes of each output channel, (out,) or (1,).
    """
    return gradient_of_codes / step.view(-1, *[1] * (gradient_of_codes.dim() - 1)).square()


class PassingSource(Source):
    """A layer's input whose rounding gradients pass straight through, clipped values apart."""

    def forward(self, x: Tensor) -> Tensor:
        """Activate and fake-quantise ``x`` of any shape, with gradients."""
        y = activate(x, self.source)
        with torch.no_grad():
            rounded = super().forward(x)
        if self.bits >= FLOAT_BITS or self.chosen is not None:
            return y + (rounded - y).detach()
        low, high = activation_range(self.bits)
        inside = y.clamp((low - self.zero_point) * self.step, (high - self.zero_point) * self.step)
        return inside + (rounded - inside).detach()


class Int8Training:
    """Trains chosen layers and channels of an integer network, codes staying integers.

    Args:
        network: with weights in integers, of any number of bits up to 8; left as it is. Batch norms
            are folded into its weights.
        update: which layers, which of their input channels, and the optimiser. With
            ``update.last`` the last layers, with ``shares`` those that are named.
        learning_rate: of float weights.
        rounding: of :data:`ROUNDINGS`.
        scaled: quantisation-aware scaling; without it gradients of codes are taken as they are.
        momentum: of the optimiser ``momentum``.
        seed: of stochastic rounding.

    Attributes:
        network: the one that is trained; its weights are codes times steps after every step.

    Raises:
        InputError: a layer that is to be updated has float weights, or a number format; an unknown
            rounding; the optimiser ``adam``, whose division by root mean squares has no scale to
            be aware of.
    """

    def __init__(
        self,
        network: PlainNetwork,
        update: Update,
        *,
        learning_rate: float,
        rounding: str = "stochastic",
        scaled: bool = True,
        momentum: float = 0.9,
        seed: int = 0,
    ) -> None:
        if rounding not in ROUNDINGS:
            raise InputError(f"no rounding {rounding!r}; there are {', '.join(ROUNDINGS)}")
        if update.optimizer == "adam":
            raise InputError("integer training knows the optimisers sgd and momentum, not adam")
        self.network = folded(network)
        self.learning_rate, self.rounding, self.scaled = learning_rate, rounding, scaled
        self.momentum = momentum if update.optimizer == "momentum" else 0.0
        self.generator = torch.Generator().manual_seed(seed)
        self._layers = chosen_layers(self.network, update)
        self._biases = update.biases
        self._speed: dict[str, Tensor] = {}
        self.codes: dict[str, Tensor] = {}
        self.network.requires_grad_(False)
        for name, (layer, channels) in self._layers.items():
            if layer.weight_step is None:
                raise InputError(
                    f"{name} has no integer codes, so it cannot be trained in integers; quantise "
                    "its weights to 8 bits or fewer"
                )
            self.codes[name] = layer.weight_codes().float()
            layer.op.weight.requires_grad_(channels > 0)
            if update.biases and layer.op.bias is not None:
                layer.op.bias.requires_grad_(True)
        _pass_gradients(self.network)

    def step(self, inputs: Tensor, targets: Tensor, loss: Loss) -> float:
        """Train one step on ``inputs`` (batch, ...) and return the loss before it."""
        self.network.zero_grad(set_to_none=True)
        value = loss(self.network(inputs), targets)
        value.backward()
        with torch.no_grad():
            for name, (layer, channels) in self._layers.items():
                if channels and layer.op.weight.grad is not None:
                    self._weights(name, layer, channels)
                bias = layer.op.bias
                if self._biases and bias is not None and bias.grad is not None:
                    moved = self._moved(f"{name}.bias", bias.grad)
                    bias.sub_(self.learning_rate * moved)
                    self._round_bias(layer, bias)
        return float(value.detach())

    def _weights(self, name: str, layer: PlainLayer, channels: int) -> None:
        weight, step = layer.op.weight, layer.weight_step
        assert weight.grad is not None and step is not None
        column = step.view(-1, *[1] * (weight.dim() - 1))
        gradient = weight.grad * column  # by codes
        if self.scaled:
            gradient = quantisation_aware(gradient, step)
        moved = self._moved(name, _first(gradient, layer, channels))
        codes = self.codes[name] - self.learning_rate * moved
        if self.rounding == "nearest":
            codes = codes.round()
        elif self.rounding == "stochastic":
            codes = (codes + torch.rand(codes.shape, generator=self.generator)).floor()
        self.codes[name] = codes.clamp(*layer.code_range)
        weight.copy_(self.codes[name] * column)

    def _moved(self, name: str, gradient: Tensor) -> Tensor:
        if not self.momentum:
            return gradient
        self._speed[name] = self.momentum * self._speed.get(name, 0.0) + gradient
        return self._speed[name]

    def _round_bias(self, layer: PlainLayer, bias: Tensor) -> None:
        """Keep a bias a whole number of its steps, as 32-bit integers hold it."""
        if self.rounding == "none" or layer.source.bits > 8 or layer.weight_step is None:
            return
        step = layer.weight_step.abs() * layer.source.step
        bias.copy_((bias / step).round() * step)


def chosen_layers(network: PlainNetwork, update: Update) -> dict[str, tuple[PlainLayer, int]]:
    """Return the layers that are updated by name, and how many of their input channels.

    Raises:
        InputError: the network has no layer of a name.
    """
    layers = {layer.layer.name: layer for layer in network.plain_layers()}
    shares: Mapping[str, float] = update.shares
    if not shares:
        names = list(layers)
        chosen = names if update.last is None else names[-update.last :]
        shares = dict.fromkeys(chosen, update.share)
    for name in shares:
        if name not in layers:
            raise InputError(f"the network has no layer {name!r} to update; it has {list(layers)}")
    found = {}
    for name, share in shares.items():
        found[name] = layers[name], channel_count(share, layers[name].layer.in_channels)
    return found


def channel_count(share: float, channels: int) -> int:
    """Return how many of ``channels`` a share is, rounded up."""
    return math.ceil(round(share * channels, 6))


def channel_squares(gradient: Tensor, layer: PlainLayer) -> Tensor:
    """Return the sums of squares of a weights' gradient by the input channel that they read, (in,).

    Args:
        gradient: (out, in / groups, ...).
        layer: whose weights they are.
    """
    plan = layer.layer
    squares = gradient.square().flatten(2).sum(2) if gradient.dim() > 2 else gradient.square()
    return squares.unflatten(0, (plan.groups, -1)).sum(1).flatten()


def _first(gradient: Tensor, layer: PlainLayer, channels: int) -> Tensor:
    """Return ``gradient`` of the weights that read the first input channels, others zero."""
    plan = layer.layer
    if channels >= plan.in_channels:
        return gradient
    found = torch.zeros_like(gradient)
    if plan.groups == 1:
        found[:, :channels] = gradient[:, :channels]
        return found
    # Of each group the outputs read their own inputs.
    inputs = plan.in_channels // plan.groups
    outputs = plan.out_channels // plan.groups
    for group in range(plan.groups):
        own = max(0, min(inputs, channels - group * inputs))
        rows = slice(group * outputs, (group + 1) * outputs)
        found[rows, :own] = gradient[rows, :own]
    return found


@torch.no_grad()
def folded(network: PlainNetwork) -> PlainNetwork:
    """Return a copy whose batch norms are part of its weights, steps and biases."""
    found = copy.deepcopy(network).eval()
    for layer in found.plain_layers():
        norm = layer.norm
        if not isinstance(norm, nn.BatchNorm2d):
            continue
        assert norm.running_mean is not None and norm.running_var is not None
        gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        op: Any = layer.op
        op.weight.mul_(gain.view(-1, *[1] * (op.weight.dim() - 1)))
        bias = norm.running_mean.new_zeros(len(gain)) if op.bias is None else op.bias
        op.bias = nn.Parameter((bias - norm.running_mean) * gain + norm.bias)
        if layer.weight_step is not None:
            layer.weight_step = layer.weight_step * gain
        layer.norm = nn.Identity()
    return found


def _pass_gradients(network: PlainNetwork) -> None:
    """Let gradients pass the quantisers of ``network``, in place."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if type(child) is Source:
                passing = PassingSource(
                    child.source, bits=child.bits, step=child.step, zero_point=child.zero_point,
                    before=child.before, chosen=child.chosen,
                )  # fmt: skip
                setattr(module, name, passing)
