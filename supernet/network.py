"""The weight-sharing network over a whole search space."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from search_spaces.errors import InputError
from search_spaces.plan import STREAM_BITS, BlockPlan, NetworkPlan, OperatorPlan
from search_spaces.planned import PlannedSpace
from search_spaces.space import Arch
from supernet.batchnorm import BatchNorm, BatchStatistics, FrozenStatistics, record_statistics
from supernet.dataflow import Dataflow, Operation, dataflow_of
from supernet.elastic import ElasticLayer, InputQuantizer, LayerRange
from supernet.operators import OPERATORS, ElasticOperator
from supernet.plain import PlainNetwork, extract_network
from supernet.quantizers.registry import QuantizerScheme


class Supernet(nn.Module):
    """Every architecture of ``space`` in one set of weights.

    Args:
        space: a space with layer plans.
        zero_init_residual: start the batch-norm scale of the last layer of each residual block
            at 0, so that every depth starts as the same function (Goyal et al., 2017, 5.1).
        quantizers: which quantisers serve weights and layer inputs; by default LSQ and LSQ+.
    """

    def __init__(
        self,
        space: PlannedSpace,
        *,
        zero_init_residual: bool = True,
        quantizers: QuantizerScheme | None = None,
    ) -> None:
        super().__init__()
        self.space = space
        self.layers = nn.ModuleDict()
        self.points = nn.ModuleDict()
        self.ranges = layer_ranges(space)
        for extent in self.ranges.values():
            self.layers[_key(extent.largest.name)] = ElasticLayer(
                extent, stream_bits=STREAM_BITS, quantizers=quantizers
            )
        self.operators = nn.ModuleDict(
            {_key(o.name): OPERATORS.get(o.kind)(o) for o in largest_operators(space)}
        )
        for block in space.block_columns(_neighbours(space)):
            # Whether a block has a residual can depend on the width, through rounding.
            for name, source in block.points:
                if block.point_rows(name).any():
                    point = InputQuantizer(source, (STREAM_BITS,))
                    self.points[_key(f"{block.name}.{name}")] = point
        for plan in (space.plan(arch) for arch in space.decode(np.array(_bases(space)))):
            for planned in plan.blocks:
                if not (zero_init_residual and planned.residual):
                    continue
                last = self.layer(planned.layers[-1].name)
                if last.gamma is not None:
                    nn.init.zeros_(last.gamma)
        space.initialize(self)

    def forward(self, x: Tensor, arch: Arch | NetworkPlan, norm: BatchNorm | None = None) -> Tensor:
        """Run one architecture.

        Args:
            x: images (batch, channels, height, width) at the architecture's resolution.
            arch: the architecture, or a plan made from one (for instance at other bits).
            norm: how to normalise; by batch statistics unless given.

        Returns:
            (batch, outputs).
        """
        plan = self.plan(arch)
        norm = norm or BatchStatistics()
        for block in plan.blocks:
            ops = self._operations(block, plan.stream_bits, norm)
            x = self.dataflow(block)(x, ops, block.residual)
        return x

    def dataflow(self, block: BlockPlan) -> Dataflow:
        """Return how tensors run through ``block``."""
        own = self.space.dataflows.get(block.kind)
        return dataflow_of(block.kind) if own is None else own

    def plan(self, arch: Arch | NetworkPlan) -> NetworkPlan:
        """Return the layers of ``arch``; a plan passes unchanged."""
        return arch if isinstance(arch, NetworkPlan) else self.space.plan(arch)

    def statistics(
        self, arch: Arch | NetworkPlan, batches: Iterable[Tensor]
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Re-estimate the batch-norm statistics of ``arch``, at its bits.

        ``batches``: calibration images (batch, channels, height, width), not augmented.
        """
        plan = self.plan(arch)
        if self.fully_initialized() and not any(layer.batch_norm for layer in plan.layers()):
            # Nothing to estimate, and no step that waits for data.
            return {}
        return record_statistics(lambda x, norm: self(x, plan, norm), batches)

    def evaluate(
        self, x: Tensor, arch: Arch | NetworkPlan, statistics: Mapping[str, tuple[Tensor, Tensor]]
    ) -> Tensor:
        """Run ``x`` (batch, channels, height, width) with frozen statistics, without gradients."""
        with torch.no_grad():
            return self(x, arch, FrozenStatistics(statistics))

    def extract(
        self, arch: Arch | NetworkPlan, statistics: Mapping[str, tuple[Tensor, Tensor]]
    ) -> PlainNetwork:
        """Return ``arch`` as a stand-alone module with outputs identical to :meth:`evaluate`."""
        return extract_network(self, self.plan(arch), statistics)

    def fully_initialized(self) -> bool:
        """Whether every quantiser has steps for every bit-width it serves."""
        return all(
            bool(flags.all())
            for name, flags in self.named_buffers()
            if name.endswith("initialized")
        )

    def batch_normalised(self) -> bool:
        """Whether most of its layers are followed by batch norm."""
        layers = [cast(ElasticLayer, layer) for layer in self.layers.values()]
        return 2 * sum(layer.gamma is not None for layer in layers) > len(layers)

    def layer(self, name: str) -> ElasticLayer:
        """Return the elastic layer of a plan's layer name."""
        return cast(ElasticLayer, self.layers[_key(name)])

    def point(self, block: str, name: str) -> InputQuantizer:
        """Return the quantisation point ``name`` of the block called ``block``."""
        return cast(InputQuantizer, self.points[_key(f"{block}.{name}")])

    def operator(self, name: str) -> ElasticOperator:
        """Return the elastic operator of a plan's operator name."""
        return cast(ElasticOperator, self.operators[_key(name)])

    def _operations(
        self, block: BlockPlan, stream_bits: int, norm: BatchNorm
    ) -> dict[str, Operation]:
        ops: dict[str, Operation] = {
            layer.role: partial(self.layer(layer.name), layer=layer, norm=norm)
            for layer in block.layers
        }
        for operator in block.operators:
            ops[operator.role] = partial(self.operator(operator.name), operator=operator)
        for name, _ in block.points:
            ops[name] = partial(self.point(block.name, name), bits=stream_bits)
        return ops


def layer_ranges(space: PlannedSpace) -> dict[str, LayerRange]:
    """Return what each layer of ``space`` can be, by layer name.

    Found by varying one choice at a time from architectures that are the largest in all but
    what makes the choice active.
    """
    genes = _neighbours(space)
    ranges = {}
    for block in space.block_columns(genes):
        for column in block.layers:
            layer, on = column.layer, column.active

            def seen(values: Any, on: np.ndarray = on) -> tuple[Any, ...]:
                return tuple(sorted({v.item() for v in np.broadcast_to(values, on.shape)[on]}))

            if not on.any():
                continue
            plan = _first_plan(space, genes, on)
            ranges[layer.name] = LayerRange(
                largest={item.name: item for item in plan.layers()}[layer.name],
                kernels=seen(layer.kernel),
                weight_bits=seen(layer.weight_bits),
                activation_bits=seen(layer.activation_bits),
                sources=seen(layer.source),
                groups=seen(layer.group),
            )
    return ranges


def largest_operators(space: PlannedSpace) -> list[OperatorPlan]:
    """Return the operators of ``space`` that are no layers, each at its largest."""
    genes = _neighbours(space)
    found = []
    for block in space.block_columns(genes):
        for column in block.operators:
            if column.active.any():
                plan = _first_plan(space, genes, column.active)
                found += [o for o in plan.operators() if o.name == column.operator.name]
    return found


def _first_plan(space: PlannedSpace, genes: np.ndarray, on: np.ndarray) -> NetworkPlan:
    first = int(np.flatnonzero(on)[0])
    return space.plan(space.decode(genes[first : first + 1])[0])


def _neighbours(space: PlannedSpace) -> np.ndarray:
    """Gene rows of large architectures and of all that differ from one in one choice.

    The first is the largest. Choices that are inactive in it (the kernel of a kind of block
    that it does not use) are active in one of the others, which are the largest but for that.
    Last come those that differ in two choices of one block, whose kind and width together say
    which layer follows which.
    """
    bases = _bases(space)
    rows = []
    for base in bases:
        rows.append(base)
        for j, option in _other_options(space, base):
            rows.append(_changed(base, (j, option)))
    blocks = [choice.name.rpartition(".")[0] for choice in space.choices]
    for base in bases:
        for (i, first), (j, second) in itertools.combinations(_other_options(space, base), 2):
            if i != j and blocks[i] and blocks[i] == blocks[j]:
                rows.append(_changed(base, (i, first), (j, second)))
    return np.array(rows)


def _other_options(space: PlannedSpace, base: np.ndarray) -> list[tuple[int, int]]:
    """Return every choice and option of it that ``base`` has not."""
    return [
        (j, option)
        for j, count in enumerate(space.option_counts)
        for option in range(count)
        if option != base[j]
    ]


def _changed(base: np.ndarray, *genes: tuple[int, int]) -> np.ndarray:
    row = base.copy()
    for j, option in genes:
        row[j] = option
    return row


def _bases(space: PlannedSpace) -> list[np.ndarray]:
    bases = [space.option_counts - 1]
    seen = space.active(bases[0][None])[0]
    while not seen.all():
        base = space.option_counts - 1
        fixed: set[int] = set()
        for j in np.flatnonzero(~seen):
            trial = base.copy()
            parents = _activate(space, trial, int(j))
            # A parent that another choice of this row needs as it is must not change.
            if all(trial[p] == base[p] for p in fixed):
                base, fixed = trial, fixed | parents
        active = space.active(base[None])[0]
        if not (active & ~seen).any():
            names = [space.choices[j].name for j in np.flatnonzero(~seen)]
            raise InputError(f"space {space.name!r}: no architecture has the choices {names}")
        seen |= active
        bases.append(base)
    return bases


def _activate(space: PlannedSpace, row: np.ndarray, j: int) -> set[int]:
    """Set in ``row`` the parents of choice ``j`` so that it is active; returns the parents."""
    parents: set[int] = set()
    for condition in space.choices[j].when:
        parent = space.index[condition.parent]
        options = space.choices[parent].options
        if options[row[parent]] not in condition.values:
            row[parent] = max(i for i, o in enumerate(options) if o in condition.values)
        parents |= {parent} | _activate(space, row, parent)
    return parents


def _key(name: str) -> str:
    # Module names cannot hold dots.
    return name.replace(".", "_")
