"""Spaces whose architectures are networks made of layers.

A :class:`PlannedSpace` describes its blocks once, over a whole matrix of genes:
every field of a :class:`~search_spaces.plan.LayerPlan` is then an array with one
entry an architecture. One architecture's :class:`~search_spaces.plan.NetworkPlan`
is a row of that description and the vectorised costs are sums over it, so the two
cannot disagree.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, ClassVar, TypeVar

import numpy as np

from search_spaces.columns import BlockColumn, LayerColumn, OperatorColumn
from search_spaces.errors import InputError
from search_spaces.memory import flash_bytes, has_memory_flows, peak_of_blocks
from search_spaces.plan import (
    FLOAT_BITS,
    STREAM_BITS,
    BlockPlan,
    LayerPlan,
    NetworkPlan,
    OperatorPlan,
)
from search_spaces.space import Arch, Choice, SearchSpace

_PLAN_CACHE = 4096

__all__ = [
    "COST_NAMES",
    "MEMORY_COSTS",
    "BlockColumn",
    "LayerColumn",
    "OperatorColumn",
    "PlannedSpace",
    "require_kind_of_networks",
    "require_networks",
]

COST_NAMES = (
    "macs",
    "bops",
    "parameters",
    "weights_kib",
    "weight_bits_mean",
    "activation_bits_mean",
    "peak_memory_kib",
    "flash_kib",
)
"""Costs that follow from the architecture alone, in the order of the arrays below."""

MEMORY_COSTS = ("peak_memory_kib", "flash_kib")
"""Those among them that say what a microcontroller needs; see :mod:`search_spaces.memory`."""


class PlannedSpace(SearchSpace):
    """A search space that knows the layers of its networks.

    Args:
        name: registered name.
        choices: see :class:`SearchSpace`.
        input_channels: channels of the images.
        outputs: units of the last layer.

    Attributes:
        dataflows: how tensors run through blocks of kinds that this space alone has, for the
            supernet; the registered kinds need no entry.
        ANSWERS: what its networks answer for: ``one`` (batch, outputs), ``cells`` (batch, cells,
            outputs), ``grid`` (batch, outputs, height, width), ``tokens`` (batch, tokens,
            outputs), or ``sequences`` (batch, symbols of the target, outputs). A task needs one of
            them.
    """

    ANSWERS: ClassVar[str] = "one"

    def __init__(
        self, name: str, choices: Sequence[Choice], *, input_channels: int, outputs: int
    ) -> None:
        super().__init__(name, choices)
        self.input_channels = input_channels
        self.outputs = outputs
        self.dataflows: dict[str, Any] = {}
        self._plans: OrderedDict[Arch, NetworkPlan] = OrderedDict()

    @abstractmethod
    def block_columns(self, genes: np.ndarray) -> list[BlockColumn]:
        """Describe every block of the largest network for gene rows (n, choices)."""

    @abstractmethod
    def resolution_column(self, genes: np.ndarray) -> np.ndarray:
        """Width of the input for gene rows, (n,) int64; the side, where it is square."""

    def height_column(self, genes: np.ndarray) -> np.ndarray:
        """Rows of the input for gene rows, (n,) int64; as many as columns unless overridden."""
        return self.resolution_column(genes)

    def initialize(self, network: Any) -> None:
        """Give the fresh supernet ``network`` weights of the space's own, if it has any."""

    def plan(self, arch: Arch) -> NetworkPlan:
        """Return the layers of ``arch``."""
        if arch in self._plans:
            self._plans.move_to_end(arch)
            return self._plans[arch]
        genes = self.genes([arch])
        width, height = self.resolution_column(genes)[0], self.height_column(genes)[0]
        plan = NetworkPlan(
            space=self.name,
            input_shape=(self.input_channels, int(height), int(width)),
            outputs=self.outputs,
            blocks=tuple(
                BlockPlan(
                    name=block.name,
                    kind=block.kind,
                    layers=tuple(_row(c.layer) for c in block.layers if c.active[0]),
                    residual=bool(block.residual[0]),
                    points=tuple(point for point in block.points if block.point_rows(point[0])[0]),
                    operators=tuple(_row(c.operator) for c in block.operators if c.active[0]),
                )
                for block in self.block_columns(genes)
                if block.active[0]
            ),
        )
        self._plans[arch] = plan
        if len(self._plans) > _PLAN_CACHE:
            self._plans.popitem(last=False)
        return plan

    def costs(self, genes: np.ndarray) -> dict[str, np.ndarray]:
        """Return every cost of :data:`COST_NAMES` for gene rows (n, choices), each (n,) float64.

        The peak of memory is NaN in a space with blocks of a kind that has no memory flow.
        """
        genes = np.asarray(genes)
        zero = np.zeros(len(genes))
        macs, bops, parameters, packed = zero.copy(), zero.copy(), zero.copy(), zero.copy()
        weights, weight_bits = zero.copy(), zero.copy()
        inputs, input_bits = zero.copy(), zero.copy()
        products, of_streams = zero.copy(), zero.copy()
        quantised = np.zeros(len(genes), dtype=bool)
        blocks = self.block_columns(genes)
        for block in blocks:
            for column in block.layers:
                layer, on = column.layer, column.active
                macs += on * layer.macs
                bops += on * (layer.macs * layer.weight_bits * layer.activation_bits)
                parameters += on * (layer.weight_count + layer.out_channels)
                packed += on * layer.packed_bytes
                weights += on * layer.weight_count
                weight_bits += on * (layer.weight_count * layer.weight_bits)
                inputs += on * layer.input_count
                input_bits += on * (layer.input_count * layer.activation_bits)
                quantised |= on & np.less(layer.activation_bits, FLOAT_BITS)
            for item in block.operators:
                own = item.operator.bits
                bops += item.active * (item.operator.macs * own**2)
                products += item.active * item.operator.macs
                of_streams += item.active * (item.operator.macs * (own == 0))
                parameters += item.active * item.operator.parameters
                packed += item.active * (4 * item.operator.parameters)
        macs += products
        bops += of_streams * np.where(quantised, STREAM_BITS, FLOAT_BITS) ** 2
        values = (
            macs,
            bops,
            parameters,
            packed / 1024,
            weight_bits / weights,
            input_bits / inputs,
            self._peak_kib(blocks, genes),
            flash_bytes(blocks, len(genes)) / 1024,
        )
        return dict(zip(COST_NAMES, values, strict=True))

    def _peak_kib(self, blocks: Sequence[BlockColumn], genes: np.ndarray) -> np.ndarray:
        if not has_memory_flows(blocks):
            return np.full(len(genes), np.nan)
        pixels = self.resolution_column(genes) * self.height_column(genes)
        return peak_of_blocks(blocks, self.input_channels * pixels) / 1024

    def cost_features_genes(self, genes: np.ndarray) -> np.ndarray:
        """Numeric features for predictors, one row an architecture: (n, k) float64.

        Logarithms of the totals, then the log-MACs and log-traffic of each block (0 where
        the block is absent), which a latency model needs beside the one-hot choices.
        """
        genes = np.asarray(genes)
        costs = self.costs(genes)
        columns = [np.log(costs[name]) for name in ("macs", "bops", "parameters")]
        columns += [costs["weight_bits_mean"], costs["activation_bits_mean"]]
        depth = np.zeros(len(genes))
        for block in self.block_columns(genes):
            macs = np.zeros(len(genes))
            traffic = np.zeros(len(genes))
            for column in block.layers:
                layer, on = column.layer, column.active
                macs += on * layer.macs
                traffic += on * (layer.input_count + layer.out_channels * layer.out_pixels)
                depth += on
            for item in block.operators:
                macs += item.active * item.operator.macs
            columns += [np.log1p(macs), np.log1p(traffic)]
        return np.column_stack([*columns, depth])


def require_networks(space: SearchSpace, purpose: str) -> PlannedSpace:
    """Return ``space`` if its architectures are networks of layers.

    Args:
        purpose: what needs them, such as ``nas run``; the message names it.

    Raises:
        InputError: its architectures are rows of a table or cells without layers.
    """
    if not isinstance(space, PlannedSpace):
        raise _without_networks(space.name, purpose)
    return space


def require_kind_of_networks(name: str, kind: type[SearchSpace], purpose: str) -> None:
    """Refuse a registered space without networks before it asks for parameters of its own.

    Args:
        name: it is registered by.
        kind: its class.
        purpose: as of :func:`require_networks`.

    Raises:
        InputError: its architectures are rows of a table or cells without layers.
    """
    if not issubclass(kind, PlannedSpace):
        raise _without_networks(name, purpose)


def _without_networks(name: str, purpose: str) -> InputError:
    return InputError(
        f"the space {name!r} has no networks that could be built; {purpose} needs a "
        "space of layers, such as mobilenet"
    )


_Plan = TypeVar("_Plan", LayerPlan, OperatorPlan)


def _row(plan: _Plan) -> _Plan:
    values = {}
    for item in fields(plan):
        values[item.name] = _first(getattr(plan, item.name))
    return type(plan)(**values)


def _first(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_first, value))
    return np.asarray(value).flat[0].item()
