"""One elastic layer: the largest weights, and the slice of them an architecture uses."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from search_spaces.plan import FLOAT_BITS, STREAM_BITS, LayerPlan
from supernet.batchnorm import BatchNorm
from supernet.convolution import convolve
from supernet.dataflow import activate
from supernet.quantizers.groups import group_quantized
from supernet.quantizers.lsq import ActivationFakeQuantizer, ActivationQuantizer
from supernet.quantizers.registry import QuantizerScheme

_NEVER_NEGATIVE = ("relu", "hsigmoid")


@dataclass(frozen=True)
class LayerRange:
    """What a layer can be in a space.

    Attributes:
        largest: the layer of the largest architecture.
        kernels: kernel sides that occur.
        weight_bits, activation_bits: bit-widths that occur.
        sources: what its input can be, see :class:`~search_spaces.plan.LayerPlan`.
        groups: how many input channels may share a scale; 0 for all of them.
    """

    largest: LayerPlan
    kernels: tuple[int, ...]
    weight_bits: tuple[int, ...]
    activation_bits: tuple[int, ...]
    sources: tuple[str, ...]
    groups: tuple[int, ...] = (0,)


class InputQuantizer(nn.Module):
    """The non-linearity before a layer and the quantisation of the layer's input.

    A ReLU is part of the quantiser. What goes into another non-linearity is quantised as well,
    to the bits of a stream, because runtimes run the layer before it on integers only if its
    output is a quantised tensor.

    Args:
        source: the non-linearity, or ``stream`` for a tensor that is quantised already.
        bits: the bit-widths it serves.
        stream_bits: bits of a stream; a layer asking for as many takes it as it is.
        quantizers: which quantiser; by default LSQ+.
    """

    def __init__(
        self,
        source: str,
        bits: Sequence[int],
        *,
        stream_bits: int | None = None,
        quantizers: QuantizerScheme | None = None,
    ) -> None:
        super().__init__()
        self.source = source
        self.stream_bits = stream_bits
        signed = source not in _NEVER_NEGATIVE
        self.quantizer: ActivationFakeQuantizer = (
            ActivationQuantizer(bits, signed=signed)
            if quantizers is None
            else quantizers.activation_quantizer(bits, signed=signed)
        )
        self.skip_unused()
        self.register_load_state_dict_post_hook(lambda module, _: module.skip_unused())
        self.before: ActivationQuantizer | None = None
        if source not in ("relu", "none", "stream") and self.quantizer.bits:
            self.before = ActivationQuantizer((STREAM_BITS,), signed=True)

    def forward(self, x: Tensor, bits: int) -> Tensor:
        """Activate and fake-quantise ``x`` (batch, ...) to ``bits``."""
        if self.passes(bits):
            return activate(x, self.source)
        # In mixed precision convolutions give bfloat16, which cannot hold 8-bit codes exactly.
        x = x.float()
        if self.before is not None:
            x = self.before(x, STREAM_BITS)
        # Without a zero point the quantiser clips below zero, which is the ReLU.
        return self.quantizer(x if self.source == "relu" else activate(x, self.source), bits)

    def skip_unused(self) -> None:
        """Mark bits that pass as ready: they need no step, so nothing waits for data."""
        unused = [b for b in self.quantizer.bits if self.passes(b)]
        self.quantizer.mark_unused(unused)

    def passes(self, bits: int) -> bool:
        """Whether an input of ``bits`` needs no quantisation here."""
        return bits >= FLOAT_BITS or (self.stream_bits is not None and bits >= self.stream_bits)


class ElasticLayer(nn.Module):
    """A convolution or linear layer with batch norm, elastic in channels, kernel and bits.

    Smaller kernels are the centre of the next larger one times a learned matrix that
    starts as the identity (Once-for-All, section 3.3).

    Batch norm is folded into the weights on export, and a negative scale would turn the
    code -2^(b-1) into one that b bits cannot hold. So codes count in the direction of
    the batch norm's sign, here and after folding alike.

    Args:
        extent: what the layer can be.
        stream_bits: bits of quantised tensors between blocks.
        quantizers: which quantisers; by default LSQ and LSQ+.

    Attributes:
        disturb: what is done to quantised weights before they are used, for training that
            expects faults (:mod:`supernet.faults.training`); usually nothing.
    """

    disturb: Callable[[Tensor, LayerPlan, ElasticLayer], Tensor] | None = None

    def __init__(
        self,
        extent: LayerRange,
        *,
        stream_bits: int,
        quantizers: QuantizerScheme | None = None,
    ) -> None:
        super().__init__()
        quantizers = quantizers or QuantizerScheme()
        largest = extent.largest
        self.name = largest.name
        self.kernels = extent.kernels
        kernel = max(extent.kernels)
        depthwise = largest.groups > 1
        self.groups = largest.groups
        inputs = largest.in_channels // largest.groups
        self.dimensions = largest.dimensions
        sides = replace(largest, kernel=kernel).kernel_sides
        self.weight = nn.Parameter(torch.empty(largest.out_channels, inputs, *sides))
        if largest.kind == "linear":
            # The range of a plain linear layer.
            nn.init.uniform_(self.weight, -1 / math.sqrt(inputs), 1 / math.sqrt(inputs))
        else:
            nn.init.kaiming_normal_(self.weight, mode="fan_out")
        self.transforms = nn.ParameterDict(
            {
                str(small): nn.Parameter(torch.eye(small**self.dimensions))
                for small in extent.kernels[:-1]
            }
        )
        scales = largest.out_channels // largest.shared_norm
        self.gamma = nn.Parameter(torch.ones(scales)) if largest.batch_norm else None
        self.beta = nn.Parameter(torch.zeros(scales))
        self.weight_quantizer = quantizers.weight_quantizer(
            extent.weight_bits,
            extent.kernels,
            channels=largest.out_channels,
            depthwise=depthwise,
            count=self.weight.numel(),
        )
        if 0 not in extent.groups:
            # Steps of groups follow from the weights; those of outputs are never asked for.
            for name, flags in self.weight_quantizer.named_buffers():
                if name.endswith("initialized"):
                    flags.fill_(True)
        self.inputs = nn.ModuleDict(
            {
                source: InputQuantizer(
                    source,
                    extent.activation_bits,
                    stream_bits=stream_bits if source == "stream" else None,
                    quantizers=quantizers,
                )
                for source in extent.sources
            }
        )

    def forward(self, x: Tensor, layer: LayerPlan, norm: BatchNorm) -> Tensor:
        """Run the slice of ``layer`` on ``x`` (batch, in_channels, height, width).

        A linear layer takes (batch, in_channels) or (batch, tokens, in_channels). Returns the
        output before the non-linearity, which belongs to whoever consumes it.
        """
        x = self.inputs[layer.source](x, layer.activation_bits)
        weight = self.quantized_weight(layer)
        bias = self.channels_of(self.beta, layer)
        if layer.kind == "linear":
            return F.linear(x, weight.flatten(1), bias)
        y = convolve(
            x,
            weight,
            None if layer.batch_norm else bias,
            layer.strides,
            layer.pads,
            layer.dilations,
            layer.groups,
        )
        if not layer.batch_norm or self.gamma is None:
            return y
        gain = self.channels_of(self.gamma, layer)
        if layer.shared_norm == 1:
            return norm(self.name, y, gain, bias)
        # Outputs that share a norm lie below each other, as rows of one channel.
        rows = y.unflatten(1, (-1, layer.shared_norm)).flatten(2, 3)
        return norm(self.name, rows, gain, bias).reshape(y.shape)

    def quantized_weight(self, layer: LayerPlan) -> Tensor:
        """Return the fake-quantised slice for ``layer``: (out, in / groups, k or 1, k)."""
        places = self._places(layer)
        # Steps are those of the first channels: of others, all are quantised and then chosen from.
        every = layer if places is None else self._all_outputs(layer)
        w = self.slice_of(every)
        if layer.group and layer.weight_bits < FLOAT_BITS:
            w = group_quantized(w, layer.weight_bits, layer.group)
        else:
            full = None
            if self.weight_quantizer.wants_full(layer.kernel, layer.weight_bits):
                full = self._transformed(self.weight, layer.kernel)
            w = self.weight_quantizer(w, layer.weight_bits, sign=self.code_sign(every), full=full)
            w = w if places is None else w[places]
        if self.disturb is not None:
            w = self.disturb(w, layer, self)
        # Channels last is the faster layout on CPUs, and a one-channel image alone does not
        # say which layout is meant (a clone does); another layout would sum in another order.
        return w.clone(memory_format=torch.channels_last)

    def slice_of(self, layer: LayerPlan) -> Tensor:
        """Return the weights that ``layer`` uses, in float: (out, in / groups, k or 1, k)."""
        inputs = layer.in_channels // layer.groups
        weight: Tensor = self.weight
        if tuple(weight.shape[:2]) != (layer.out_channels, inputs):
            rows = self._places(layer)
            weight = weight[: layer.out_channels] if rows is None else weight[rows]
            # In groups, each output reads all the inputs of its group.
            places = None if layer.out_parts else input_places(layer)
            weight = weight[:, :inputs] if places is None else weight[:, places]
        return self._transformed(weight, layer.kernel)

    @torch.no_grad()
    def weight_step(self, layer: LayerPlan) -> Tensor:
        """Return the signed step of the codes of :meth:`quantized_weight`, (out,) or (1,)."""
        full = self._transformed(self.weight, layer.kernel)
        places = self._places(layer)
        count = layer.out_channels if places is None else len(self.weight)
        step = self.weight_quantizer.step(layer.kernel, layer.weight_bits, count, full=full)
        if places is not None and len(step) > 1:
            step = step[places]
        sign = self.code_sign(layer)
        return step.clone() if sign is None else step * sign

    def code_sign(self, layer: LayerPlan) -> Tensor | None:
        """Return the direction of each output channel's codes, (out,) +-1, or None if all +1."""
        if self.gamma is None:
            return None
        scale = self.channels_of(self.gamma.detach(), layer)
        # Seldom, and looked at in every step.
        if not scale.numel() or not scale.min().item() < 0:
            return None
        sign = 1.0 - 2.0 * (scale < 0)
        return sign if layer.shared_norm == 1 else sign.repeat_interleave(layer.shared_norm)

    def channels_of(self, values: Tensor, layer: LayerPlan) -> Tensor:
        """Return those of the outputs' ``values`` (out of the largest,) that ``layer`` has."""
        places = self._places(layer)
        if places is None:
            return _first(values, layer.out_channels // layer.shared_norm)
        return values[places]

    def _places(self, layer: LayerPlan) -> Tensor | None:
        """Return which outputs ``layer`` has; None for the first, or where there are no others."""
        if not layer.out_parts or len(self.weight) == layer.out_channels:
            return None
        return _places(layer.out_parts)

    def _all_outputs(self, layer: LayerPlan) -> LayerPlan:
        """Return ``layer`` with all the outputs that the largest has, and so all its groups."""
        count = len(self.weight)
        return replace(
            layer,
            in_channels=self.weight.shape[1] * self.groups,
            out_channels=count,
            groups=self.groups,
            in_parts=(),
            out_parts=(),
        )

    def _transformed(self, w: Tensor, kernel: int) -> Tensor:
        side = w.shape[-1]
        for smaller in reversed(self.kernels[:-1]):
            if side <= kernel:
                break
            trim = (side - smaller) // 2
            rows = slice(trim, trim + smaller) if self.dimensions == 2 else slice(None)
            centre = w[:, :, rows, trim : trim + smaller]
            flat = centre.flatten(2) @ self.transforms[str(smaller)]
            w = flat.unflatten(2, tuple(centre.shape[2:]))
            side = smaller
        return w


def input_places(layer: LayerPlan) -> Tensor | None:
    """Return which inputs of the largest layer those of ``layer`` are; None for the first ones."""
    return _places(layer.in_parts)


def _places(parts: Sequence[tuple[int, int]]) -> Tensor | None:
    if all(kept == full for kept, full in parts):
        return None
    begin, places = 0, []
    for kept, full in parts:
        places.append(torch.arange(begin, begin + kept))
        begin += full
    return torch.cat(places)


def _first(values: Tensor, count: int) -> Tensor:
    """Return the first ``count`` of ``values`` (n,): as they are where there are no more.

    A slice of all is a step of its own, forward and backward, as dear as arithmetic on it.
    """
    return values if len(values) == count else values[:count]
