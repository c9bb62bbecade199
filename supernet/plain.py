"""Stand-alone networks: fixed sizes, fixed bits, frozen statistics, nothing shared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from search_spaces.number_formats import NumberFormat
from search_spaces.plan import FLOAT_BITS, STREAM_BITS, BlockPlan, LayerPlan, NetworkPlan
from supernet.batchnorm import EPSILON
from supernet.convolution import Conv2d
from supernet.dataflow import Dataflow, activate, dataflow_of
from supernet.quantizers.formats import EncodedWeights, encode_weights, round_to_format
from supernet.quantizers.groups import group_encoded
from supernet.quantizers.lsq import activation_range, quantize_dequantize, weight_range

if TYPE_CHECKING:
    from supernet.elastic import ElasticLayer, InputQuantizer
    from supernet.network import Supernet


class Source(nn.Module):
    """A non-linearity and, where ``bits`` is below float, a fixed quantiser after it.

    Attributes:
        source: name of the non-linearity (``relu, hswish, none, stream``).
        bits: of the codes; :data:`FLOAT_BITS` where nothing is quantised here.
        step, zero_point: of the grid ``step * (code - zero_point)``.
        before: step and zero point of the grid of what goes into the non-linearity, with
            codes of a stream's bits; ``None`` where that is not quantised.
        chosen: the number format of the codes, whose values are times ``step``; None: integers.
    """

    def __init__(
        self,
        source: str,
        *,
        bits: int,
        step: float = 1.0,
        zero_point: int = 0,
        before: tuple[float, int] | None = None,
        chosen: NumberFormat | None = None,
    ) -> None:
        super().__init__()
        self.source, self.bits, self.chosen = source, bits, chosen
        self.step, self.zero_point = step, zero_point
        self.before = before

    def forward(self, x: Tensor) -> Tensor:
        """Activate and fake-quantise ``x`` of any shape."""
        if self.bits >= FLOAT_BITS:
            return activate(x, self.source)
        if self.before is not None:
            x = quantize_dequantize(x, *self.before, *activation_range(STREAM_BITS))
        if self.chosen is not None:
            return round_to_format(activate(x, self.source) / self.step, self.chosen) * self.step
        if self.source != "relu":
            # A ReLU needs no pass of its own: the grid starts at zero.
            x = activate(x, self.source)
        return quantize_dequantize(x, self.step, self.zero_point, *activation_range(self.bits))

    def extra_repr(self) -> str:
        """Return the constants for ``print(module)``."""
        kind = "" if self.chosen is None else f", {self.chosen.name}"
        grid = f"step={self.step:.6g}, zero={self.zero_point}"
        return f"{self.source}, bits={self.bits}{kind}, {grid}"


class PlainLayer(nn.Module):
    """Input quantiser, convolution or linear layer, batch norm.

    Attributes:
        layer: sizes and bits.
        source: :class:`Source` before it.
        op: ``nn.Conv2d`` or ``nn.Linear``, holding fake-quantised weights: each is an integer
            code times ``weight_step``.
        norm: ``nn.BatchNorm2d`` with frozen statistics, or ``nn.Identity``.
        weight_step: signed step of each output channel, (out,), or (1,); absent for float.
        code_range: smallest and largest code; by default two's complement of the weight bits.
        encoded: the weights as codes of a number format that 8-bit integers do not hold; ``op``
            has their values, and there is no ``weight_step``.
        chosen: the number format of the weights; None for integers and floats.
    """

    weight_step: Tensor | None

    def __init__(
        self,
        layer: LayerPlan,
        *,
        source: Source,
        op: nn.Conv2d | nn.Linear,
        norm: nn.Module,
        weight_step: Tensor | None,
        code_range: tuple[int, int] | None = None,
        encoded: EncodedWeights | None = None,
        chosen: NumberFormat | None = None,
    ) -> None:
        super().__init__()
        self.layer, self.encoded = layer, encoded
        self.chosen = encoded.chosen if encoded is not None else chosen
        self.code_range = code_range or weight_range(layer.weight_bits)
        self.source, self.op, self.norm = source, op, norm
        self.register_buffer("weight_step", weight_step)

    def forward(self, x: Tensor) -> Tensor:
        """Run on ``x`` (batch, in_channels, height, width), or (batch, in_channels) if linear."""
        return self.norm(self.op(self.source(x)))

    def weight_codes(self) -> Tensor:
        """Return the integer codes of the weights, in their shape: int8, int16 above 8 bits.

        Raises:
            ValueError: the layer's weights are float.
        """
        if self.weight_step is None:
            raise ValueError(f"the weights of {self.layer.name} are float and have no codes")
        weight = self.op.weight
        step = self.weight_step.view(-1, *[1] * (weight.dim() - 1))
        return (
            (weight / step).round().to(torch.int8 if self.layer.weight_bits <= 8 else torch.int16)
        )


class PlainBlock(nn.Module):
    """A block of plain layers, operators and quantisation points.

    Args:
        block: its plan.
        ops: its modules by role.
        dataflow: runs tensors through them; by default the registered one of the block's kind.
    """

    def __init__(
        self, block: BlockPlan, ops: Mapping[str, nn.Module], dataflow: Dataflow | None = None
    ) -> None:
        super().__init__()
        self.block = block
        self.ops = nn.ModuleDict(ops)
        self.dataflow = dataflow or dataflow_of(block.kind)

    def forward(self, x: Tensor) -> Tensor:
        """Run on ``x`` (batch, channels, height, width)."""
        return self.dataflow(x, dict(self.ops.items()), self.block.residual)


class PlainNetwork(nn.Sequential):
    """An extracted architecture.

    Attributes:
        plan: its layers, with sizes and bits.
    """

    def __init__(self, plan: NetworkPlan, blocks: list[PlainBlock]) -> None:
        super().__init__(*blocks)
        self.plan = plan

    def plain_layers(self) -> list[PlainLayer]:
        """Return the layers in order of execution."""
        return [m for m in self.modules() if isinstance(m, PlainLayer)]


@torch.no_grad()
def extract_network(
    supernet: Supernet, plan: NetworkPlan, statistics: Mapping[str, tuple[Tensor, Tensor]]
) -> PlainNetwork:
    """Copy the slice of ``plan`` out of ``supernet`` with the given batch-norm statistics.

    Returns:
        A network in evaluation mode whose outputs equal the supernet's exactly.

    Raises:
        KeyError: ``statistics`` lacks a layer of the plan.
    """
    blocks = []
    for block in plan.blocks:
        ops: dict[str, nn.Module] = {
            layer.role: _extract_layer(supernet, layer, statistics) for layer in block.layers
        }
        for name, _ in block.points:
            ops[name] = _extract_source(supernet.point(block.name, name), plan.stream_bits)
        for operator in block.operators:
            ops[operator.role] = supernet.operator(operator.name).extract(operator)
        blocks.append(PlainBlock(block, ops, supernet.dataflow(block)))
    network = PlainNetwork(plan, blocks).eval()
    for tensor in (*network.parameters(), *network.buffers()):
        # Module.to would ask it of tensors of five dimensions as well, which have no such format.
        # A clone: tensors of one channel are of both formats already, and sums follow strides.
        if tensor.dim() == 4:
            tensor.data = tensor.data.clone(memory_format=torch.channels_last)
    return network


def _batch_norm(
    elastic: ElasticLayer, layer: LayerPlan, mean: Tensor, variance: Tensor
) -> nn.BatchNorm2d:
    """Return the batch norm of a layer with its statistics, (out_channels,) each."""
    assert elastic.gamma is not None, "a layer with batch norm has a gain"
    norm = nn.BatchNorm2d(layer.out_channels, eps=EPSILON)
    assert norm.running_mean is not None and norm.running_var is not None
    own = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    gain, shift = (elastic.channels_of(v, layer) for v in (elastic.gamma, elastic.beta))
    for value, shared in zip(own, (gain, shift, mean, variance), strict=True):
        value.copy_(shared.repeat_interleave(layer.shared_norm))
    return norm


def _extract_source(quantizer: InputQuantizer, bits: int) -> Source:
    if quantizer.passes(bits):
        return Source(quantizer.source, bits=FLOAT_BITS)
    step, zero_point = quantizer.quantizer.constants(bits)
    before = None if quantizer.before is None else quantizer.before.constants(STREAM_BITS)
    return Source(quantizer.source, bits=bits, step=step, zero_point=zero_point, before=before)


def _extract_layer(
    supernet: Supernet, layer: LayerPlan, statistics: Mapping[str, tuple[Tensor, Tensor]]
) -> PlainLayer:
    elastic = supernet.layer(layer.name)
    weight = elastic.quantized_weight(layer).detach().clone()
    if layer.kind == "linear":
        op: nn.Conv2d | nn.Linear = nn.Linear(layer.in_channels, layer.out_channels)
        weight = weight.flatten(1)
    else:
        op = Conv2d(
            layer.in_channels,
            layer.out_channels,
            layer.kernel_sides,
            layer.strides,
            layer.pads,
            layer.dilations,
            groups=layer.groups,
            bias=not layer.batch_norm,
        )
    op.weight.copy_(weight)
    if op.bias is not None:
        op.bias.copy_(elastic.channels_of(elastic.beta, layer))
    norm: nn.Module = nn.Identity()
    if layer.batch_norm:
        norm = _batch_norm(elastic, layer, *statistics[layer.name])
    step = code_range = encoded = chosen = None
    if layer.group and layer.weight_bits < FLOAT_BITS:
        encoded = group_encoded(elastic.slice_of(layer).flatten(1), layer.weight_bits, layer.group)
    elif layer.weight_bits < FLOAT_BITS:
        step = elastic.weight_step(layer)
        code_range = elastic.weight_quantizer.code_range(layer.weight_bits)
        chosen = elastic.weight_quantizer.number_format(layer.weight_bits)
        if chosen is not None and not chosen.whole_codes[1]:
            encoded = encode_weights(op.weight, chosen, steps=step.expand(layer.out_channels))
            step = code_range = None
    return PlainLayer(
        layer,
        source=_extract_source(
            cast("InputQuantizer", elastic.inputs[layer.source]), layer.activation_bits
        ),
        op=op,
        norm=norm,
        weight_step=step,
        code_range=code_range,
        encoded=encoded,
        chosen=chosen,
    )
