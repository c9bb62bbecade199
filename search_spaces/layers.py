"""Layers, operators and blocks of a network, of one architecture or of many at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar, Union

import numpy as np

FLOAT_BITS = 32
"""Bit-width that stands for an unquantised weight or activation."""

STREAM_BITS = 8
"""Bits of the tensors that pass between blocks; residual sums need more than a layer's input."""

Numbers = Union[int, np.ndarray]
"""A number of ``n`` architectures: one for all of them, or an array (n,)."""

Number = TypeVar("Number", int, Union[int, np.ndarray])
"""A number of one architecture, or of ``n`` at once, see :data:`Numbers`."""


@dataclass(frozen=True)
class LayerPlan(Generic[Number]):
    """One convolution or linear layer with the batch norm and activation folded into it.

    The numeric fields are integers, ``LayerPlan[int]``, or integer arrays with one entry an
    architecture where a space describes many at once; the properties work for both.

    Attributes:
        name: path of the layer in the network, e.g. ``stages.1.0.depthwise``.
        role: ``stem``, ``expand``, ``depthwise``, ``project``, ``squeeze``, ``excite``,
            ``head``, ``classifier`` or another word of its space.
        in_channels, out_channels: of the sliced layer.
        kernel: side of the square kernel (1 for a linear layer); its length in one dimension.
        stride, groups: as in a convolution.
        in_size, out_size: width of the feature map, its side where it is square (1 for a linear
            layer).
        weight_bits, activation_bits: of the weights and of the layer's input; 32 is float.
        activation: non-linearity after it, ``relu``, ``hswish``, ``hsigmoid``, ``gelu`` or
            ``none``.
        source: non-linearity applied to the layer's input just before it is quantised, or
            ``stream`` where the input is a tensor between blocks, quantised already.
        kind: ``conv``, or ``linear`` on vectors.
        batch_norm: whether a batch norm follows; otherwise the layer has a bias.
        tokens: vectors of one image that a linear layer runs on; 1 for a convolution.
        padding: zeros on each side; -1 stands for ``dilation * (kernel // 2)``, which keeps the
            size up to the stride.
        dilation: as in a convolution.
        in_height, out_height: rows of the feature map; -1 for as many as columns.
        dimensions: 2, or 1 for a convolution along the width alone: kernel 1 x k, and stride,
            padding and dilation along the width.
        kernel_height, stride_height, padding_height, dilation_height: along the rows, of a
            convolution of two dimensions where they differ from those along the columns; -1
            for equal ones.
        group: input channels of a linear layer whose weights share a scale; 0 for all of them.
        in_parts: (channels, those of the largest architecture) of each tensor that the input is
            joined from along its channels, in order; empty for one tensor. The sliced layer reads
            the first channels of each.
        out_parts: likewise of the outputs, of a layer in groups whose input is joined; empty where
            the sliced layer gives the first channels.
        shared_norm: outputs, one after the other, that have one scale, shift and statistics of
            their batch norm, as those that a pixel shuffle makes one channel of.
    """

    name: str
    role: str
    in_channels: Number
    out_channels: Number
    kernel: Number
    stride: Number
    groups: Number
    in_size: Number
    out_size: Number
    weight_bits: Number
    activation_bits: Number
    activation: str = "none"
    source: str = "stream"
    kind: str = "conv"
    batch_norm: bool = True
    tokens: Number = 1
    padding: Number = -1
    dilation: Number = 1
    in_height: Number = -1
    out_height: Number = -1
    dimensions: int = 2
    kernel_height: int = -1
    stride_height: int = -1
    padding_height: int = -1
    dilation_height: int = -1
    group: Number = 0
    in_parts: tuple[tuple[Number, int], ...] = ()
    out_parts: tuple[tuple[Number, int], ...] = ()
    shared_norm: int = 1

    @property
    def in_pixels(self) -> Number:
        """Places of the input's feature map."""
        return self.in_size * _rows(self.in_height, self.in_size)

    @property
    def out_pixels(self) -> Number:
        """Places of the output's feature map."""
        return self.out_size * _rows(self.out_height, self.out_size)

    @property
    def kernel_sides(self) -> tuple[Number, Number]:
        """Rows and columns of the kernel."""
        return self._sides(self.kernel, self.kernel_height, 1)

    @property
    def strides(self) -> tuple[Number, Number]:
        """Stride along rows and columns."""
        return self._sides(self.stride, self.stride_height, 1)

    @property
    def pads(self) -> tuple[Number, Number]:
        """Zeros on each side of rows and columns."""
        return self._sides(self.pad, self.padding_height, 0)

    @property
    def dilations(self) -> tuple[Number, Number]:
        """Dilation along rows and columns."""
        return self._sides(self.dilation, self.dilation_height, 1)

    @property
    def kernel_area(self) -> Number:
        """Weights of the kernel for one pair of channels."""
        rows, columns = self.kernel_sides
        return rows * columns

    def _sides(self, along: Number, across: int, alone: int) -> tuple[Number, Number]:
        if self.dimensions == 1:
            return alone, along
        return (along if across < 0 else across), along

    @property
    def pad(self) -> Number:
        """Zeros on each side of the input."""
        return self.dilation * (self.kernel // 2) if self.padding < 0 else self.padding

    @property
    def weight_count(self) -> Number:
        """Number of weights, without bias."""
        return self.out_channels * (self.in_channels // self.groups) * self.kernel_area

    @property
    def macs(self) -> Number:
        """Multiply-accumulate operations for one image."""
        return self.weight_count * self.out_pixels * self.tokens

    @property
    def input_count(self) -> Number:
        """Number of input activations for one image."""
        return self.in_channels * self.in_pixels * self.tokens

    @property
    def output_count(self) -> Number:
        """Number of outputs for one image."""
        return self.out_channels * self.out_pixels * self.tokens

    @property
    def scales(self) -> Number:
        """Scales of the weights of one output channel: one, or one a group."""
        groups = -(-self.in_channels // (self.group + (self.group == 0)))
        return 1 + (self.group > 0) * (groups - 1)

    @property
    def packed_bytes(self) -> Number:
        """Bytes of the packed weights, float32 scales and one int32 bias per output channel.

        A float layer has no scales and a float32 bias.
        """
        weights = (self.weight_count * self.weight_bits + 7) // 8
        per_channel = 4 + 4 * self.scales * (self.weight_bits < FLOAT_BITS)
        return weights + per_channel * self.out_channels


def _rows(height: Number, width: Number) -> Number:
    """Return the rows of a feature map; ``height`` -1 stands for a square one."""
    # A space knows heights of all its architectures or of none.
    return width if isinstance(height, int) and height < 0 else height


@dataclass(frozen=True)
class OperatorPlan(Generic[Number]):
    """An operation beside the layers that has parameters or costs of its own.

    Its parameters are float; products are of activations, at the bits of the streams unless
    ``bits`` says otherwise. Numeric fields are integers or arrays, as in :class:`LayerPlan`.

    Attributes:
        name: path in the network.
        role: its name among the operations of its block.
        kind: which operation; the supernet has a registry of them.
        channels: of its input and output.
        tokens: vectors of one image it runs on.
        heads: of an attention; 1 otherwise.
        macs: multiply-accumulates of one image.
        parameters: float parameters.
        bits: of the factors of its products; 0 for those of the streams.
        entries: of an embedding's table; layers that an attention's memory is joined of; 0
            otherwise.
        table_bytes: of the table that integers compute a function by.
    """

    name: str
    role: str
    kind: str
    channels: Number
    tokens: Number = 1
    heads: Number = 1
    macs: Number = 0
    parameters: Number = 0
    bits: int = 0
    entries: Number = 0
    table_bytes: Number = 0


@dataclass(frozen=True)
class BlockPlan:
    """A run of layers that a reader thinks of as one unit (stem, MBConv, head).

    Attributes:
        name: path of the block, e.g. ``stages.1.0``.
        kind: ``stem``, ``mbconv``, ``head``, ... for drawing.
        layers: in order of execution.
        residual: whether the block's input is added to its output.
        points: tensors that are no layer's input and are quantised all the same, so that
            the integer network never falls back to float: ``(name, activation before)``.
        operators: operations with parameters or costs that are no layers.
    """

    name: str
    kind: str
    layers: tuple[LayerPlan[int], ...]
    residual: bool = False
    points: tuple[tuple[str, str], ...] = ()
    operators: tuple[OperatorPlan[int], ...] = ()
