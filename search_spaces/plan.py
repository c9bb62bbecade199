"""The concrete network an architecture describes, layer by layer, without any framework.

A :class:`NetworkPlan` is the one place where sizes are worked out: the supernet
builds modules from it, the costs below are sums over it, the latency predictor
takes features from it and the report draws it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from search_spaces import memory
from search_spaces.layers import (
    FLOAT_BITS,
    STREAM_BITS,
    BlockPlan,
    LayerPlan,
    Number,
    Numbers,
    OperatorPlan,
)

__all__ = [
    "FLOAT_BITS",
    "STREAM_BITS",
    "BlockPlan",
    "LayerPlan",
    "NetworkPlan",
    "Number",
    "Numbers",
    "OperatorPlan",
]


@dataclass(frozen=True)
class NetworkPlan:
    """A whole network. ``input_shape``: (channels, height, width) of one image."""

    space: str
    input_shape: tuple[int, int, int]
    outputs: int
    blocks: tuple[BlockPlan, ...]

    def layers(self) -> Iterator[LayerPlan[int]]:
        """Yield every layer in order of execution."""
        for block in self.blocks:
            yield from block.layers

    def operators(self) -> Iterator[OperatorPlan[int]]:
        """Yield every operator that is no layer."""
        for block in self.blocks:
            yield from block.operators

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of the input."""
        return self.input_shape[1], self.input_shape[2]

    @property
    def stream_bits(self) -> int:
        """Bits of the tensors between blocks: 8, or float where no activation is quantised."""
        quantised = any(layer.activation_bits < FLOAT_BITS for layer in self.layers())
        return STREAM_BITS if quantised else FLOAT_BITS

    @property
    def macs(self) -> int:
        """Multiply-accumulate operations for one image."""
        return sum(x.macs for x in self.layers()) + sum(x.macs for x in self.operators())

    @property
    def bops(self) -> int:
        """Bit operations: MACs x weight bits x activation bits, summed over layers.

        A product of two activations counts the bits of its operator, or of the streams, twice.
        """
        stream = self.stream_bits
        products = sum(item.macs * (item.bits or stream) ** 2 for item in self.operators())
        return products + sum(
            layer.macs * layer.weight_bits * layer.activation_bits for layer in self.layers()
        )

    @property
    def parameters(self) -> int:
        """Weights plus one bias per output channel, batch norm folded, and those of operators."""
        return sum(layer.weight_count + layer.out_channels for layer in self.layers()) + sum(
            operator.parameters for operator in self.operators()
        )

    @property
    def weights_kib(self) -> float:
        """KiB of packed weights, scales and biases, and of operators' float32 parameters."""
        packed = sum(layer.packed_bytes for layer in self.layers())
        return (packed + 4 * sum(item.parameters for item in self.operators())) / 1024

    @property
    def peak_memory_kib(self) -> float:
        """KiB of the activations alive at once; see :mod:`search_spaces.memory`."""
        return memory.plan_peak_bytes(self) / 1024

    @property
    def flash_kib(self) -> float:
        """KiB of constants as a microcontroller's kernels store them."""
        return memory.plan_flash_bytes(self) / 1024

    @property
    def weight_bits_mean(self) -> float:
        """Mean bits of a weight, over all weights of the network."""
        layers = list(self.layers())
        total = sum(layer.weight_count for layer in layers)
        return sum(layer.weight_count * layer.weight_bits for layer in layers) / total

    @property
    def activation_bits_mean(self) -> float:
        """Mean bits of a layer input, over all layer-input elements of the network."""
        layers = list(self.layers())
        total = sum(layer.input_count for layer in layers)
        return sum(layer.input_count * layer.activation_bits for layer in layers) / total
