"""Spaces of networks that are a stem, stages of blocks, and a head.

A space of this kind is a list of stages. A stage knows the choices of its blocks and
describes them as columns; everything that spaces share is here: stem and head, depth,
width, resolution, bits, early exits, presets and what a job may override.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from search_spaces.errors import InputError
from search_spaces.parameters import (
    ascending,
    from_mapping,
    odd,
    one_of,
    round_channels,
    strided,
)
from search_spaces.plan import LayerPlan, Numbers
from search_spaces.planned import BlockColumn, LayerColumn, PlannedSpace
from search_spaces.space import Choice
from search_spaces.spaces.presets import PresetSpace
from search_spaces.spaces.staged_parameters import (
    Conditions,
    Parameters,
    bits_name,
    check_parameters,
    shared_choices,
)

Sizes = tuple[Numbers, Numbers, Numbers, Numbers, Numbers, Numbers, Numbers]
"""in_channels, out_channels, kernel, stride, groups, in_size, out_size of a layer."""


@dataclass(frozen=True)
class Block:
    """Where a block stands: what a stage needs to know to describe it.

    Attributes:
        name: ``s1.b2``.
        parameters: of the space.
        columns: the genes.
        active: (n,) bool, rows that have the block.
        channels, out: of its input and output, (n,).
        size: width of its input, (n,).
        stride: of the block.
        height: rows of its input, (n,); -1 for as many as columns.
        dimensions: of its convolutions.
    """

    name: str
    parameters: Parameters
    columns: Columns
    active: np.ndarray
    channels: np.ndarray
    out: np.ndarray
    size: np.ndarray
    stride: int
    height: np.ndarray | int = -1
    dimensions: int = 2

    @cached_property
    def out_size(self) -> np.ndarray:
        """Width of the block's output, (n,)."""
        return strided(self.size, self.stride)

    @property
    def out_height(self) -> np.ndarray | int:
        """Rows of the block's output; see :attr:`height`."""
        return strided_height(self.height, self.stride, self.dimensions)

    def rows(self, size: Any) -> np.ndarray | int:
        """Return the rows of a feature map whose width is :attr:`size` or :attr:`out_size`."""
        return self.height if size is self.size else self.out_height

    def value(self, choice: str) -> np.ndarray:
        """Return the values of the block's choice ``choice``: (n,)."""
        return self.columns.value(f"{self.name}.{choice}")

    def layer(
        self,
        role: str,
        sizes: Sizes,
        activation: str,
        source: Any,
        *,
        active: np.ndarray | None = None,
        **rest: Any,
    ) -> LayerColumn:
        """Describe a layer at its own bits.

        ``sizes``: in_channels, out_channels, kernel, stride, groups, and as in_size and out_size
        the block's own :attr:`size` or :attr:`out_size`, which decide the heights too.
        """
        bits = self.columns.bits(self.name, role, self.parameters.granularity)
        plan: LayerPlan[Numbers] = LayerPlan(
            f"{self.name}.{role}", role, *sizes, *bits, activation, source,
            in_height=self.rows(sizes[5]), out_height=self.rows(sizes[6]),
            dimensions=self.dimensions, **rest,
        )  # fmt: skip
        return LayerColumn(plan, self.active if active is None else active)


@dataclass(frozen=True)
class Features:
    """A feature map over ``n`` architectures.

    Attributes:
        channels, size: channels and columns, (n,).
        height: rows, (n,); -1 for as many as columns.
    """

    channels: np.ndarray
    size: np.ndarray
    height: np.ndarray | int


class Columns:
    """The values of choices over gene rows (n, choices)."""

    def __init__(self, space: PlannedSpace, genes: np.ndarray) -> None:
        self.space, self.genes = space, np.asarray(genes)

    def value(self, name: str) -> np.ndarray:
        """Return the value of the choice ``name`` in every row: (n,)."""
        j = self.space.index[name]
        return np.asarray(self.space.choices[j].options)[self.genes[:, j]]

    def numbers(self, name: str) -> np.ndarray:
        """Return the value of the choice ``name`` as whole numbers: (n,) int64."""
        return self.value(name).astype(np.int64)

    def bits(self, block: str, role: str, granularity: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the bits of a layer's weights and of its input: (n,) int64 each."""
        weight, inputs = (bits_name(block, kind, role, granularity) for kind in ("w", "a"))
        return self.numbers(weight), self.numbers(inputs)


@dataclass(frozen=True)
class BlockStage(ABC):
    """A run of blocks of one output width.

    Attributes:
        channels: output channels at width 1.0.
        stride: of the first block.
        depths: allowed numbers of blocks, ascending.
        widths: multipliers of the stage's own channels, beside that of the whole network.
    """

    channels: int
    stride: int
    depths: tuple[int, ...]
    widths: tuple[float, ...] = field(default=(1.0,), kw_only=True)

    @abstractmethod
    def check(self, place: str, parameters: Parameters) -> None:
        """Raise :class:`InputError` for a value that the stage cannot have."""

    @abstractmethod
    def choices(
        self, name: str, parameters: Parameters, when: Conditions, first: bool
    ) -> list[Choice]:
        """Return the choices of the block called ``name``, active ``when``."""

    @abstractmethod
    def describe(self, block: Block, first: bool) -> list[BlockColumn]:
        """Describe the block; ``first`` tells whether it is the first of its stage."""


@dataclass(frozen=True)
class KernelStage(BlockStage):
    """A run of blocks whose kernels and inner widths are elastic.

    Attributes:
        kernels: allowed sides of the kernels; ``None`` takes those of the space.
        expands: allowed ratios of a block's inner width; ``None`` takes those of the space.
    """

    kernels: tuple[int, ...] | None = None
    expands: tuple[float, ...] | None = None

    def check(self, place: str, parameters: Parameters) -> None:
        """Raise :class:`InputError` for a value that the stage cannot have."""
        for name in ("kernels", "expands"):
            if getattr(self, name) is not None:
                ascending(f"{place}.{name}", getattr(self, name))
        for kernel in self.kernels or parameters.kernels:
            odd(place, kernel)


class StagedSpace(PresetSpace):
    """A stem, stages of blocks, a head.

    Choice names: ``resolution``, ``width``, ``exit`` where there are exits, ``s1.depth``,
    ``s1.width`` where a stage has widths of its own, and ``s1.b1.CHOICE`` for the blocks of stage 1
    (all counted from 1). Bits are
    ``s1.b1.w.ROLE`` (weights) and ``s1.b1.a.ROLE`` (input activations) for each layer, or
    ``s1.b1.w`` and ``s1.b1.a`` with ``granularity="block"``.

    Attributes:
        STAGES: kinds of stages by name; the first is used where a stage names none.
        DIMENSIONS: of its convolutions: 2, or 1 along the width of inputs of height 1.
        SHARES: whether ``resolutions`` are shares of the data's size instead of pixels.
        RECTANGLES: whether inputs may be other than square.
    """

    PRESETS: ClassVar[Mapping[str, Parameters]]
    LARGE: ClassVar[tuple[str, ...]] = ("resolutions", "widths")
    STAGES: ClassVar[Mapping[str, type[BlockStage]]]
    DIMENSIONS: ClassVar[int] = 2
    SHARES: ClassVar[bool] = False
    RECTANGLES: ClassVar[bool] = True
    parameters: Parameters

    def __init__(
        self,
        parameters: Parameters,
        *,
        input_channels: int = 3,
        outputs: int = 10,
        input_size: tuple[int, int] | None = None,
    ) -> None:
        check_parameters(self.NAME, parameters, shares=self.SHARES)
        if not self.RECTANGLES and input_size is not None and input_size[0] != input_size[1]:
            raise InputError(
                f"the space {self.NAME} builds networks for square images, and the data is "
                f"{input_size[0]} x {input_size[1]}; use mobilenet or resnet"
            )
        self.parameters = parameters
        self.input_size = input_size
        choices = [*shared_choices(parameters), *self.end_choices(parameters)]
        super().__init__(self.NAME, choices, input_channels=input_channels, outputs=outputs)

    @classmethod
    def parameters_of(cls, preset: str | None, overrides: Mapping[str, Any]) -> Any:
        """See :meth:`PresetSpace.parameters_of`; stages may be mappings."""
        parameters = super().parameters_of(preset, overrides)
        if "stages" in overrides:
            value = overrides["stages"]
            if not isinstance(value, (list, tuple)):
                raise InputError(f"stages={value!r} must be a list of mappings")
            stages = tuple(cls._stage(entry, i) for i, entry in enumerate(value))
            parameters = replace(parameters, stages=stages)
        return parameters

    @classmethod
    def _stage(cls, entry: Any, position: int) -> BlockStage:
        if isinstance(entry, BlockStage):
            return entry
        kind = next(iter(cls.STAGES))
        if isinstance(entry, Mapping) and len(cls.STAGES) > 1:
            entry = dict(entry)
            kind = entry.pop("kind", kind)
            one_of(f"stages[{position}].kind", kind, cls.STAGES)
        stage: BlockStage = from_mapping(cls.STAGES[kind], entry, f"stages[{position}]")
        return stage

    def resolution_column(self, genes: np.ndarray) -> np.ndarray:
        """Width of the input for gene rows, (n,) int64; the side, where it is square."""
        return Columns(self, genes).numbers("resolution")

    def height_column(self, genes: np.ndarray) -> np.ndarray:
        """Rows of the input for gene rows, (n,) int64, in the ratio of the data."""
        width = self.resolution_column(genes)
        if self.input_size is None or self.input_size[0] == self.input_size[1]:
            return width
        rows = np.rint(width * self.input_size[0] / self.input_size[1]).astype(np.int64)
        return np.maximum(1, rows)

    def block_columns(self, genes: np.ndarray) -> list[BlockColumn]:
        """Describe every block of the largest network for gene rows (n, choices)."""
        p = self.parameters
        columns = Columns(self, genes)
        every = np.ones(len(columns.genes), dtype=bool)
        width = columns.value("width")
        size = self.resolution_column(genes)
        square = self.input_size is None or self.input_size[0] == self.input_size[1]
        height: np.ndarray | int = -1 if square else self.height_column(genes)
        last = columns.value("exit") if p.exits else np.full(len(every), len(p.stages))

        def channels(count: float | np.ndarray) -> np.ndarray:
            return round_channels(count * width, p.divisor)

        def own_width(s: int, stage: BlockStage) -> np.ndarray | float:
            return columns.value(f"s{s}.width") if len(stage.widths) > 1 else stage.widths[0]

        current = channels(p.stem_channels)
        blocks = [self._stem(current, size, height, every)]
        after: dict[int, Features] = {}
        for stride in (p.stem_stride, 2 if p.stem_pool else 1):
            size = strided(size, stride)
            height = strided_height(height, stride, self.DIMENSIONS)
        for s, stage in enumerate(p.stages, start=1):
            depth = columns.value(f"s{s}.depth")
            out = channels(stage.channels * own_width(s, stage))
            for b in range(1, stage.depths[-1] + 1):
                block = Block(
                    f"s{s}.b{b}", p, columns, (depth >= b) & (last >= s), current, out, size,
                    stage.stride if b == 1 else 1, height, self.DIMENSIONS,
                )  # fmt: skip
                blocks += stage.describe(block, b == 1)
                current, size, height = out, block.out_size, block.out_height
            after[s] = Features(current, size, height)
            blocks += self.after_stage(columns, s)
            if s in p.exits:
                wide = channels(2 * stage.channels) if p.head_channels else None
                blocks.append(self._head(f"exit{s}", last == s, current, wide, None, size, height))
        here = last == len(p.stages)
        return blocks + self.end(columns, after, here)

    def after_stage(self, columns: Columns, stage: int) -> list[BlockColumn]:
        """Describe what follows stage ``stage``, counted from 1; nothing, unless overridden."""
        return []

    def end_choices(self, parameters: Parameters) -> list[Choice]:
        """Return the choices of what follows the last stage; none, unless overridden."""
        return []

    def end(
        self, columns: Columns, after: Mapping[int, Features], active: np.ndarray
    ) -> list[BlockColumn]:
        """Describe what follows the last stage, in the rows ``active`` (n,): a head of classes.

        ``after``: what each stage gives, by its number from 1.
        """
        p, width = self.parameters, columns.value("width")
        wide, feature = (
            round_channels(count * width, p.divisor) if count else None
            for count in (p.head_channels, p.feature_channels)
        )
        x = after[len(p.stages)]
        return [self._head("head", active, x.channels, wide, feature, x.size, x.height)]

    def _stem(
        self, out: np.ndarray, size: np.ndarray, height: np.ndarray | int, every: np.ndarray
    ) -> BlockColumn:
        p = self.parameters
        after = strided_height(height, p.stem_stride, self.DIMENSIONS)
        layer: LayerPlan[Numbers] = LayerPlan(
            "stem", "stem", self.input_channels, out, p.stem_kernel, p.stem_stride, 1, size,
            strided(size, p.stem_stride), *p.edges, p.stem_activation, "none",
            in_height=height, out_height=after, dimensions=self.DIMENSIONS,
        )  # fmt: skip
        kind = "pooled_stem" if p.stem_pool else "stem"
        points = (("output", p.stem_activation),)
        return BlockColumn("stem", kind, (LayerColumn(layer, every),), every, ~every, points)

    def _head(
        self,
        name: str,
        active: np.ndarray,
        channels: np.ndarray,
        wide: np.ndarray | None,
        feature: np.ndarray | None,
        size: np.ndarray,
        height: np.ndarray | int,
    ) -> BlockColumn:
        p = self.parameters
        plans: list[LayerPlan[Numbers]] = []
        points: tuple[tuple[str, str], ...] = ()
        if wide is not None:
            plans.append(
                LayerPlan(
                    f"{name}.conv", "head", channels, wide, 1, 1, 1, size, size,
                    *p.edges, p.head_activation, "stream", in_height=height, out_height=height,
                    dimensions=self.DIMENSIONS,
                )
            )  # fmt: skip
            channels, points = wide, (("pool", p.head_activation),)
        source = "none"
        if feature is not None:
            plans.append(
                LayerPlan(
                    f"{name}.feature", "feature", channels, feature, 1, 1, 1, 1, 1,
                    *p.edges, p.head_activation, source, "linear", False,
                )
            )  # fmt: skip
            channels, source = feature, p.head_activation
        plans.append(
            LayerPlan(
                f"{name}.classifier", "classifier", channels, self.outputs, 1, 1, 1, 1, 1,
                *p.edges, "none", source, "linear", False,
            )
        )  # fmt: skip
        layers = tuple(LayerColumn(plan, active) for plan in plans)
        return BlockColumn(name, "head", layers, active, np.zeros_like(active), points)


def strided_height(height: np.ndarray | int, stride: int, dimensions: int) -> np.ndarray | int:
    """Return the rows of a feature map after a stride; -1, for a square one, stays."""
    if dimensions == 1 or (isinstance(height, int) and height < 0):
        return height
    return strided(height, stride)
