"""Spaces of networks that answer for every place of an image: ``detector`` and ``segmenter``.

The stem and the stages are those of ``mobilenet`` and ``resnet``. What follows them joins feature
maps of several sizes: anchor-free detection heads on one or two scales, as small as
TinyissimoYOLO's (Moosmann et al., 2023) and FOMO's or with the two scales of ST Yolo LC, and a
light decoder for masks. Depth, width, kernel, expansion and resolution of the backbone, width and
depth of the heads, which scales there are, and the bits of every layer are elastic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, cast

import numpy as np

from search_spaces.dense_flows import MOST_LAYERS
from search_spaces.errors import InputError
from search_spaces.parameters import ascending, one_of, round_channels, whole
from search_spaces.plan import LayerPlan, Numbers
from search_spaces.planned import BlockColumn, LayerColumn
from search_spaces.space import Choice, Condition
from search_spaces.spaces.dense_presets import (
    DETECTORS,
    SCALES,
    SEGMENTERS,
    DenseParameters,
    DetectorParameters,
    SegmenterParameters,
)
from search_spaces.spaces.mobilenet import Stage as MBConvStage
from search_spaces.spaces.registry import SPACES
from search_spaces.spaces.resnet import Stage as ResidualStage
from search_spaces.spaces.staged import Columns, Features, Sizes, StagedSpace
from search_spaces.spaces.staged_parameters import Conditions, Parameters, bit_choices

UNSURE = -3.0
"""Value before the logistic function, in a fresh detector: nearly sure of no class."""


class _DenseSpace(StagedSpace):
    """What detectors and segmenters share: a feature map is kept, an end joins several."""

    STAGES = {"mbconv": MBConvStage, "residual": ResidualStage}  # noqa: RUF012
    RECTANGLES = False
    # What is small in an image is gone at a smaller resolution.
    LARGE = ("widths",)

    def _fork(self, stage: int, active: np.ndarray) -> BlockColumn:
        return BlockColumn(f"fork{stage}", "fork", (), active, np.zeros_like(active))

    def _width(self, columns: Columns) -> np.ndarray:
        p = cast(DenseParameters, self.parameters)
        return round_channels(p.end_channels * columns.value("end.width"), p.divisor)

    def _layer(
        self,
        columns: Columns,
        role: str,
        sizes: Sizes,
        active: np.ndarray,
        *,
        activation: str = "none",
        source: str = "stream",
    ) -> LayerColumn:
        """Describe a layer of the end at bits of its own; it stays square."""
        bits = columns.bits("end", role, self.parameters.granularity)
        plan: LayerPlan[Numbers] = LayerPlan(f"end.{role}", role, *sizes, *bits, activation, source)
        return LayerColumn(plan, active)

    def _side(
        self, columns: Columns, role: str, x: Features, wide: np.ndarray, active: np.ndarray
    ) -> LayerColumn:
        """Describe a layer of the end that takes a map of the backbone to the end's width."""
        return self._layer(columns, role, (x.channels, wide, 1, 1, 1, x.size, x.size), active)

    @staticmethod
    def _end(
        kind: str,
        layers: Sequence[LayerColumn],
        active: np.ndarray,
        points: Sequence[tuple[str, str]],
        rows: Mapping[str, np.ndarray],
    ) -> BlockColumn:
        return BlockColumn(
            "end", kind, tuple(layers), active, np.zeros_like(active), tuple(points),
            points_active=rows,
        )  # fmt: skip

    def _strides(self) -> list[int]:
        """Return the stride, in pixels of the input, after each stage."""
        p = self.parameters
        after = [p.stem_stride * (2 if p.stem_pool else 1)]
        for stage in p.stages:
            after.append(after[-1] * stage.stride)
        return after[1:]

    def _check_resolutions(self) -> None:
        coarsest = self._strides()[-1]
        for side in self.parameters.resolutions:
            if side % coarsest:
                raise InputError(
                    f"resolutions={list(self.parameters.resolutions)}: {side} is no multiple of "
                    f"{coarsest}, the stride of the last stage, so cells would stand over the edge "
                    "of the image"
                )


def _check_end(p: DenseParameters) -> None:
    whole("end_channels", p.end_channels)
    ascending("end_widths", p.end_widths)
    if p.exits or p.head_channels or p.feature_channels:
        raise InputError(
            "exits, head_channels and feature_channels belong to heads that name a class; leave "
            "them out of detectors and segmenters"
        )


@SPACES.register("detector")
class DetectorSpace(_DenseSpace):
    """Elastic detectors: see :class:`DetectorParameters` for what may vary.

    Choices beside those of the backbone: ``end.scales``, ``end.width``, ``end.depth``, and the
    bits of the layers of the block ``end``. Networks give (batch, cells, outputs), see
    :func:`supernet.dense.detect`.
    """

    NAME = "detector"
    ANSWERS = "cells"
    PRESETS = DETECTORS
    PRESET = "96x96"

    def __init__(self, parameters: Parameters, **rest: Any) -> None:
        p = cast(DetectorParameters, parameters)
        _check_end(p)
        ascending("end_depths", p.end_depths)
        for depth in p.end_depths:
            whole("end_depths", depth)
            one_of("end_depths", depth, range(1, MOST_LAYERS + 1))
        if not isinstance(p.scales, tuple) or not p.scales:
            raise InputError(f"scales={p.scales!r} must be a list of {', '.join(SCALES)}")
        for scale in p.scales:
            one_of("scales", scale, SCALES)
        if sorted(set(p.scales), key=SCALES.index) != list(p.scales):
            raise InputError(f"scales={list(p.scales)} must be in the order {', '.join(SCALES)}")
        super().__init__(parameters, **rest)
        one_of("fine_stage", p.fine_stage, range(1, len(p.stages)))
        self._check_resolutions()
        strides = self._strides()
        if strides[-1] != 2 * strides[p.fine_stage - 1]:
            raise InputError(
                f"fine_stage={p.fine_stage}: its cells are of {strides[p.fine_stage - 1]} pixels "
                f"and those of the last stage of {strides[-1]}; they must be half as large"
            )

    def initialize(self, network: Any) -> None:
        """See :meth:`PlannedSpace.initialize`: cells begin by being sure of no class.

        Otherwise the many cells of the background outweigh all else in the first steps (Lin et
        al., ICCV 2017, focal loss, section 3.3).
        """
        for level in ("fine", "coarse"):
            if self._possible(cast(DetectorParameters, self.parameters), f"{level}_"):
                network.layer(f"end.{level}_predict").beta.data[:-4] = UNSURE

    def end_choices(self, parameters: Parameters) -> list[Choice]:
        """See :meth:`StagedSpace.end_choices`."""
        p = cast(DetectorParameters, parameters)
        choices = [
            Choice("end.scales", p.scales),
            Choice("end.width", p.end_widths),
            Choice("end.depth", p.end_depths),
        ]
        roles: dict[str, Conditions] = {"top": (), "lateral": self._on(p, "fine")}
        for level in ("fine", "coarse"):
            for i in range(1, p.end_depths[-1] + 1):
                deep: Conditions = ()
                if i > p.end_depths[0]:
                    enough = frozenset(d for d in p.end_depths if d >= i)
                    deep = (Condition("end.depth", enough),)
                for part in ("depthwise", "pointwise"):
                    roles[f"{level}_{part}{i}"] = (*self._on(p, level), *deep)
        there = {r: when for r, when in roles.items() if self._possible(p, r)}
        return choices + bit_choices("end", p, there, ())

    @staticmethod
    def _on(p: DetectorParameters, level: str) -> Conditions:
        values = frozenset(s for s in p.scales if s in (level, "both"))
        return () if len(values) == len(p.scales) else (Condition("end.scales", values),)

    @staticmethod
    def _possible(p: DetectorParameters, role: str) -> bool:
        level = "fine" if role == "lateral" else role.partition("_")[0]
        return level == "top" or any(s in (level, "both") for s in p.scales)

    def after_stage(self, columns: Columns, stage: int) -> list[BlockColumn]:
        """See :meth:`StagedSpace.after_stage`: the map of the fine level is kept."""
        p = cast(DetectorParameters, self.parameters)
        if stage != p.fine_stage or not self._possible(p, "lateral"):
            return []
        return [self._fork(stage, columns.value("end.scales") != "coarse")]

    def end(
        self, columns: Columns, after: Mapping[int, Features], active: np.ndarray
    ) -> list[BlockColumn]:
        """See :meth:`StagedSpace.end`: the heads of one level or two."""
        p = cast(DetectorParameters, self.parameters)
        scales, wide = columns.value("end.scales"), self._width(columns)
        layers = [self._side(columns, "top", after[len(p.stages)], wide, active)]
        size = after[len(p.stages)].size
        points = [("top_out", "none")]
        rows: dict[str, np.ndarray] = {}
        for level in ("fine", "coarse"):
            if not self._possible(p, f"{level}_"):
                continue
            on = active & ((scales == level) | (scales == "both"))
            side = size
            if level == "fine":
                kept = after[p.fine_stage]
                side = kept.size
                layers.append(self._side(columns, "lateral", kept, wide, on))
                points += [("side", "none"), ("joined", "none")]
                rows |= {"side": on, "joined": on}
            layers += self._tower(columns, level, wide, side, on)
        return [self._end("detect", layers, active, points, rows)]

    def _tower(
        self, columns: Columns, level: str, wide: np.ndarray, side: np.ndarray, on: np.ndarray
    ) -> list[LayerColumn]:
        p = cast(DetectorParameters, self.parameters)
        depth = columns.value("end.depth")
        layers = []
        for i in range(1, p.end_depths[-1] + 1):
            here = on & (depth >= i)
            layers += [
                self._layer(
                    columns, f"{level}_depthwise{i}", (wide, wide, 3, 1, wide, side, side), here,
                    activation="relu", source="stream" if i == 1 else "relu",
                ),
                self._layer(
                    columns, f"{level}_pointwise{i}", (wide, wide, 1, 1, 1, side, side), here,
                    activation="relu", source="relu",
                ),
            ]  # fmt: skip
        predict: LayerPlan[Numbers] = LayerPlan(
            f"end.{level}_predict", f"{level}_predict", wide, self.outputs, 1, 1, 1, 1, 1,
            *p.edges, "none", "relu", "linear", False, tokens=side * side,
        )  # fmt: skip
        return [*layers, LayerColumn(predict, on)]


@SPACES.register("segmenter")
class SegmenterSpace(_DenseSpace):
    """Elastic networks for masks: see :class:`SegmenterParameters` for what may vary.

    Choices beside those of the encoder: ``end.steps``, ``end.width``, and the bits of the layers
    of the block ``end``. Networks give (batch, classes, height, width), coarser than the image,
    see :func:`supernet.dense.decode`.
    """

    NAME = "segmenter"
    ANSWERS = "grid"
    PRESETS = SEGMENTERS
    PRESET = "96x96"

    def __init__(self, parameters: Parameters, **rest: Any) -> None:
        p = cast(SegmenterParameters, parameters)
        _check_end(p)
        ascending("end_steps", p.end_steps)
        ascending("kept_stages", p.kept_stages)
        one_of("end_steps", p.end_steps[-1], range(1, len(p.kept_stages) + 1))
        for steps in p.end_steps:
            whole("end_steps", steps)
        super().__init__(parameters, **rest)
        for stage in p.kept_stages:
            one_of("kept_stages", stage, range(1, len(p.stages)))
        self._check_resolutions()
        strides = self._strides()
        sizes = [strides[s - 1] for s in p.kept_stages] + [strides[-1]]
        if any(a >= b for a, b in pairwise(sizes)):
            raise InputError(
                f"kept_stages={list(p.kept_stages)}: the stages and the last one have strides of "
                f"{', '.join(map(str, sizes))} pixels; each must be smaller than the next"
            )

    def _order(self, stage: int) -> int:
        """Return when the decoder joins a kept stage: 1 for the last one."""
        p = cast(SegmenterParameters, self.parameters)
        return len(p.kept_stages) - p.kept_stages.index(stage)

    def end_choices(self, parameters: Parameters) -> list[Choice]:
        """See :meth:`StagedSpace.end_choices`."""
        p = cast(SegmenterParameters, parameters)
        choices = [Choice("end.steps", p.end_steps), Choice("end.width", p.end_widths)]
        roles: dict[str, Conditions] = {"top": ()}
        for i in range(1, p.end_steps[-1] + 1):
            when: Conditions = ()
            if i > p.end_steps[0]:
                when = (Condition("end.steps", frozenset(s for s in p.end_steps if s >= i)),)
            roles |= {f"{part}{i}": when for part in ("lateral", "depthwise", "pointwise")}
        return choices + bit_choices("end", p, roles, ())

    def after_stage(self, columns: Columns, stage: int) -> list[BlockColumn]:
        """See :meth:`StagedSpace.after_stage`: the maps that the decoder joins are kept."""
        p = cast(SegmenterParameters, self.parameters)
        if stage not in p.kept_stages or self._order(stage) > p.end_steps[-1]:
            return []
        return [self._fork(stage, columns.value("end.steps") >= self._order(stage))]

    def end(
        self, columns: Columns, after: Mapping[int, Features], active: np.ndarray
    ) -> list[BlockColumn]:
        """See :meth:`StagedSpace.end`: the decoder."""
        p = cast(SegmenterParameters, self.parameters)
        steps, wide = columns.value("end.steps"), self._width(columns)
        layers = [self._side(columns, "top", after[len(p.stages)], wide, active)]
        size = after[len(p.stages)].size
        points = [("top_out", "none")]
        rows: dict[str, np.ndarray] = {}
        for i in range(1, p.end_steps[-1] + 1):
            on = active & (steps >= i)
            kept = after[p.kept_stages[-i]]
            side = kept.size
            size = np.where(on, side, size)
            layers += [
                self._side(columns, f"lateral{i}", kept, wide, on),
                self._layer(
                    columns, f"depthwise{i}", (wide, wide, 3, 1, wide, side, side), on,
                    activation="relu",
                ),
                self._layer(
                    columns, f"pointwise{i}", (wide, wide, 1, 1, 1, side, side), on,
                    activation="relu", source="relu",
                ),
            ]  # fmt: skip
            points += [(f"side{i}", "none"), (f"joined{i}", "none"), (f"out{i}", "relu")]
            rows |= {name: on for name in (f"side{i}", f"joined{i}", f"out{i}")}
        classify: LayerPlan[Numbers] = LayerPlan(
            "end.classify", "classify", wide, self.outputs, 1, 1, 1, size, size,
            *p.edges, "none", "stream", "conv", False,
        )  # fmt: skip
        layers.append(LayerColumn(classify, active))
        points.append(("output", "none"))
        return [self._end("decode", layers, active, points, rows)]
