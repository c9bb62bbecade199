"""The ``mobilenet`` space: inverted residual (MBConv) stages with everything elastic.

Depth, expansion ratio, kernel size, width multiplier and input resolution as in
Once-for-All (Cai et al., ICLR 2020, section 3), and the bits of every layer's
weights and input activations as in APQ (Wang et al., CVPR 2020).
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from search_spaces.errors import InputError
from search_spaces.plan import FLOAT_BITS, LayerPlan
from search_spaces.planned import BlockColumn, LayerColumn, PlannedSpace
from search_spaces.space import Choice, Condition
from search_spaces.spaces import SPACES

BITS = (1, 2, 3, 4, 5, 6, 7, 8, 16, FLOAT_BITS)


@dataclass(frozen=True)
class Stage:
    """A run of MBConv blocks of one output width.

    Attributes:
        channels: output channels at width 1.0.
        stride: of the first block.
        depths: allowed numbers of blocks, ascending.
        kernels, expands: allowed depthwise kernel sides and expansion ratios; ``None``
            takes those of the space.
        activation: ``relu`` or ``hswish``.
        squeeze: squeeze-and-excite after the depthwise convolution (MobileNetV3).
        fused: a full convolution in place of expansion and depthwise convolution (fused
            MBConv; Gupta & Akin, 2020), which many processors run faster at high resolution.
    """

    channels: int
    stride: int
    depths: tuple[int, ...]
    kernels: tuple[int, ...] | None = None
    expands: tuple[float, ...] | None = None
    activation: str = "relu"
    squeeze: bool = False
    fused: bool = False


@dataclass(frozen=True)
class MobileNetParameters:
    """Everything that defines a ``mobilenet`` space; a preset is one of these.

    Attributes:
        stages: the elastic stages.
        stem_channels, stem_stride, stem_activation: of the first 3x3 convolution.
        head_channels: of the last 1x1 convolution, before pooling.
        feature_channels: of a linear layer between pooling and classifier; 0 for none.
        head_activation: after the last convolution (and the feature layer).
        resolutions: sides of the square input, pixels.
        widths: width multipliers of all channel counts but the outputs.
        kernels, expands: for every stage that names none of its own.
        weight_bits, activation_bits: allowed bits of each searchable layer; 32 is float.
        edge_bits: bits of the first and last layers, which are not searched.
        granularity: ``layer`` gives each convolution bits of its own, ``block`` one pair
            to the convolutions of a block.
        divisor: channel counts are rounded to multiples of it.
    """

    stages: tuple[Stage, ...]
    stem_channels: int
    head_channels: int
    resolutions: tuple[int, ...]
    stem_stride: int = 2
    stem_activation: str = "relu"
    feature_channels: int = 0
    head_activation: str = "relu"
    widths: tuple[float, ...] = (1.0,)
    kernels: tuple[int, ...] = (3, 5, 7)
    expands: tuple[float, ...] = (2, 3, 4)
    weight_bits: tuple[int, ...] = (2, 3, 4, 8)
    activation_bits: tuple[int, ...] = (2, 3, 4, 8)
    edge_bits: int = 8
    granularity: str = "layer"
    divisor: int = 4


PRESETS: dict[str, MobileNetParameters] = {
    "8x8": MobileNetParameters(
        stages=(
            Stage(16, 1, (1, 2)),
            Stage(32, 2, (1, 2, 3)),
        ),
        stem_channels=16,
        stem_stride=1,
        head_channels=64,
        resolutions=(8,),
        widths=(0.5, 1.0),
        kernels=(3, 5),
        expands=(2, 3),
    ),
    "28x28": MobileNetParameters(
        # Full convolutions where feature maps are large: there they cost a CPU no more than
        # an expansion and a depthwise convolution, in training and on the device.
        stages=(
            Stage(16, 1, (1, 2), kernels=(3,), fused=True),
            Stage(32, 2, (1, 2, 3), kernels=(3,), fused=True),
            Stage(48, 1, (1, 2)),
        ),
        stem_channels=16,
        head_channels=128,
        resolutions=(20, 24, 28),
        widths=(0.5, 0.75, 1.0),
        kernels=(3, 5),
        expands=(2, 3),
    ),
    "32x32": MobileNetParameters(
        stages=(
            Stage(24, 1, (1, 2, 3)),
            Stage(40, 2, (1, 2, 3)),
            Stage(80, 2, (1, 2, 3)),
            Stage(96, 1, (1, 2)),
        ),
        stem_channels=24,
        stem_stride=1,
        head_channels=256,
        resolutions=(24, 28, 32),
        widths=(0.5, 0.75, 1.0),
    ),
    "96x96": MobileNetParameters(
        stages=(
            Stage(16, 1, (1, 2)),
            Stage(24, 2, (1, 2, 3)),
            Stage(40, 2, (1, 2, 3)),
            Stage(80, 2, (1, 2, 3)),
            Stage(96, 1, (1, 2)),
        ),
        stem_channels=16,
        head_channels=256,
        resolutions=(64, 80, 96),
        widths=(0.5, 0.75, 1.0),
    ),
    # OFA-MobileNetV3 (Once-for-All, appendix B): 4 x 4 x 4 x 4 x 4 blocks at the largest.
    "224x224-ofa": MobileNetParameters(
        stages=(
            Stage(16, 1, (1,), kernels=(3,), expands=(1,)),
            Stage(24, 2, (2, 3, 4)),
            Stage(40, 2, (2, 3, 4), squeeze=True),
            Stage(80, 2, (2, 3, 4), activation="hswish"),
            Stage(112, 1, (2, 3, 4), activation="hswish", squeeze=True),
            Stage(160, 2, (2, 3, 4), activation="hswish", squeeze=True),
        ),
        stem_channels=16,
        stem_activation="hswish",
        head_channels=960,
        feature_channels=1280,
        head_activation="hswish",
        resolutions=(128, 160, 192, 224),
        expands=(3, 4, 6),
        divisor=8,
    ),
}


def round_channels(channels: float | np.ndarray, divisor: int) -> np.ndarray:
    """Round to the nearest multiple of ``divisor``, never below it nor by more than 10 % down."""
    channels = np.asarray(channels, dtype=np.float64)
    rounded = np.maximum(divisor, np.floor(channels / divisor + 0.5) * divisor)
    rounded = np.where(rounded < 0.9 * channels, rounded + divisor, rounded)
    return rounded.astype(np.int64)


@SPACES.register("mobilenet")
class MobileNetSpace(PlannedSpace):
    """Elastic MobileNet: see :class:`MobileNetParameters` for what may vary.

    Choice names: ``resolution``, ``width``, and for block ``b`` of stage ``s`` (both from 1)
    ``s1.depth``, ``s1.b1.kernel``, ``s1.b1.expand`` and the bits ``s1.b1.w.depthwise``
    (weights) and ``s1.b1.a.depthwise`` (input activations) of each of its convolutions, or
    ``s1.b1.w`` and ``s1.b1.a`` with ``granularity="block"``.
    """

    def __init__(
        self, parameters: MobileNetParameters, *, input_channels: int = 3, outputs: int = 10
    ) -> None:
        _check(parameters)
        self.parameters = parameters
        super().__init__(
            "mobilenet", _choices(parameters), input_channels=input_channels, outputs=outputs
        )

    @classmethod
    def from_config(
        cls,
        *,
        preset: str = "32x32",
        input_channels: int = 3,
        outputs: int = 10,
        **overrides: Any,
    ) -> MobileNetSpace:
        """Build the space from a preset, some of its parameters replaced.

        Raises:
            InputError: an unknown preset or parameter, or a value it cannot take.
        """
        if preset not in PRESETS:
            raise InputError(f"unknown preset {preset!r} (available: {', '.join(PRESETS)})")
        known = [f.name for f in fields(MobileNetParameters)]
        values = {}
        for name, value in overrides.items():
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise InputError(
                    f"unknown parameter {name!r} of the space 'mobilenet'{hint} "
                    f"(allowed: {', '.join(known)})"
                )
            if name == "stages":
                if not isinstance(value, (list, tuple)):
                    raise InputError(f"stages={value!r} must be a list of mappings")
                value = tuple(_stage(entry, i) for i, entry in enumerate(value))
            values[name] = tuple(value) if isinstance(value, list) else value
        return cls(
            replace(PRESETS[preset], **values), input_channels=input_channels, outputs=outputs
        )

    def resolution_column(self, genes: np.ndarray) -> np.ndarray:
        """Side of the square input image in pixels for gene rows: (n,) int64."""
        return self._column(np.asarray(genes), "resolution").astype(np.int64)

    def block_columns(self, genes: np.ndarray) -> list[BlockColumn]:
        """Describe every block of the largest network for gene rows (n, choices)."""
        p = self.parameters
        genes = np.asarray(genes)
        every = np.ones(len(genes), dtype=bool)
        never = ~every
        width = self._column(genes, "width")
        size = self.resolution_column(genes)
        edge_w, edge_a = self._edge_bits

        def channels(count: int) -> np.ndarray:
            return round_channels(count * width, p.divisor)

        out = channels(p.stem_channels)
        out_size = _strided(size, p.stem_stride)
        stem = LayerPlan(
            "stem", "stem", self.input_channels, out, 3, p.stem_stride, 1, size, out_size,
            edge_w, edge_a, p.stem_activation, "none",
        )  # fmt: skip
        points = (("output", p.stem_activation),)
        blocks = [BlockColumn("stem", "stem", (LayerColumn(stem, every),), every, never, points)]
        current, size = out, out_size
        for s, stage in enumerate(p.stages, start=1):
            depth = self._column(genes, f"s{s}.depth")
            out = channels(stage.channels)
            for b in range(1, stage.depths[-1] + 1):
                stride = stage.stride if b == 1 else 1
                active = depth >= b
                block = self._mbconv(genes, f"s{s}.b{b}", stage, active, current, out, size, stride)
                blocks.append(block)
                current = out
                size = _strided(size, stride)
        head = channels(p.head_channels)
        layers = [
            LayerColumn(
                LayerPlan(
                    "head.conv", "head", current, head, 1, 1, 1, size, size,
                    edge_w, edge_a, p.head_activation, "stream",
                ),
                every,
            )
        ]  # fmt: skip
        source = "none"
        if p.feature_channels:
            feature = channels(p.feature_channels)
            layers.append(
                LayerColumn(
                    LayerPlan(
                        "head.feature", "feature", head, feature, 1, 1, 1, 1, 1,
                        edge_w, edge_a, p.head_activation, source, "linear", False,
                    ),
                    every,
                )
            )  # fmt: skip
            head, source = feature, p.head_activation
        classifier = LayerPlan(
            "head.classifier", "classifier", head, self.outputs, 1, 1, 1, 1, 1,
            edge_w, edge_a, "none", source, "linear", False,
        )  # fmt: skip
        layers.append(LayerColumn(classifier, every))
        points = (("pool", p.head_activation),)
        blocks.append(BlockColumn("head", "head", tuple(layers), every, never, points))
        return blocks

    def _mbconv(
        self,
        genes: np.ndarray,
        name: str,
        stage: Stage,
        active: np.ndarray,
        channels: np.ndarray,
        out: np.ndarray,
        size: np.ndarray,
        stride: int,
    ) -> BlockColumn:
        p = self.parameters
        ratio = self._column(genes, f"{name}.expand")
        kernel = self._column(genes, f"{name}.kernel").astype(np.int64)
        middle = np.where(ratio == 1, channels, round_channels(channels * ratio, p.divisor))
        expanded = active & ((ratio != 1) | stage.fused)
        out_size = _strided(size, stride)

        def layer(role: str, *sizes: Any, activation: str, source: Any) -> LayerPlan:
            weight, inputs = (
                self._column(genes, _bits_name(name, kind, role, p.granularity)).astype(np.int64)
                for kind in ("w", "a")
            )
            return LayerPlan(f"{name}.{role}", role, *sizes, weight, inputs, activation, source)

        layers = []
        if stage.fused:
            layers.append(
                LayerColumn(
                    layer(
                        "expand", channels, middle, kernel, stride, 1, size, out_size,
                        activation=stage.activation, source="stream",
                    ),
                    expanded,
                )
            )  # fmt: skip
        elif expanded.any() or 1 not in (stage.expands or p.expands):
            layers.append(
                LayerColumn(
                    layer(
                        "expand", channels, middle, 1, 1, 1, size, size,
                        activation=stage.activation, source="stream",
                    ),
                    expanded,
                )
            )  # fmt: skip
        if not stage.fused:
            layers.append(
                LayerColumn(
                    layer(
                        "depthwise", middle, middle, kernel, stride, middle, size, out_size,
                        activation=stage.activation,
                        source=np.where(ratio == 1, "stream", stage.activation),
                    ),
                    active,
                )
            )  # fmt: skip
        points = [("output", "none"), ("sum", "none")]
        if stage.squeeze:
            # MobileNetV3 squeezes to a quarter of the expanded width.
            squeezed = round_channels(middle / 4, p.divisor)
            edge = self._edge_bits
            squeeze = LayerPlan(
                f"{name}.squeeze", "squeeze", middle, squeezed, 1, 1, 1, 1, 1,
                *edge, "relu", "none", "conv", False,
            )  # fmt: skip
            excite = LayerPlan(
                f"{name}.excite", "excite", squeezed, middle, 1, 1, 1, 1, 1,
                *edge, "hsigmoid", "relu", "conv", False,
            )  # fmt: skip
            points += [("gate", stage.activation), ("scale", "hsigmoid")]
            layers += [LayerColumn(squeeze, active), LayerColumn(excite, active)]
        layers.append(
            LayerColumn(
                layer(
                    "project", middle, out, 1, 1, 1, out_size, out_size,
                    activation="none", source="none" if stage.squeeze else stage.activation,
                ),
                active,
            )
        )  # fmt: skip
        residual = active & (stride == 1) & (channels == out)
        return BlockColumn(name, "mbconv", tuple(layers), active, residual, tuple(points))

    @property
    def _edge_bits(self) -> tuple[int, int]:
        # A space without quantised weights (or activations) has none at its edges either.
        p = self.parameters
        return (
            FLOAT_BITS if p.weight_bits == (FLOAT_BITS,) else p.edge_bits,
            FLOAT_BITS if p.activation_bits == (FLOAT_BITS,) else p.edge_bits,
        )

    def _column(self, genes: np.ndarray, name: str) -> np.ndarray:
        j = self.index[name]
        return np.asarray(self.choices[j].options)[genes[:, j]]


def _strided(size: np.ndarray, stride: int) -> np.ndarray:
    return (size + stride - 1) // stride


def _roles(stage: Stage, expands: Sequence[float]) -> list[str]:
    if stage.fused:
        return ["expand", "project"]
    always = ["depthwise", "project"]
    return always if tuple(expands) == (1,) else ["expand", *always]


def _bits_name(block: str, kind: str, role: str, granularity: str) -> str:
    return f"{block}.{kind}" if granularity == "block" else f"{block}.{kind}.{role}"


def _choices(p: MobileNetParameters) -> list[Choice]:
    choices = [Choice("resolution", p.resolutions), Choice("width", p.widths)]
    for s, stage in enumerate(p.stages, start=1):
        choices.append(Choice(f"s{s}.depth", stage.depths))
        expands = tuple(stage.expands or p.expands)
        for b in range(1, stage.depths[-1] + 1):
            name = f"s{s}.b{b}"
            deep_enough = frozenset(d for d in stage.depths if d >= b)
            when = () if b <= stage.depths[0] else (Condition(f"s{s}.depth", deep_enough),)
            choices.append(Choice(f"{name}.kernel", tuple(stage.kernels or p.kernels), when))
            choices.append(Choice(f"{name}.expand", expands, when))
            expanded = frozenset(e for e in expands if e != 1)
            for role in [""] if p.granularity == "block" else _roles(stage, expands):
                only = when
                if role == "expand" and 1 in expands and not stage.fused:
                    only = (*when, Condition(f"{name}.expand", expanded))
                for kind, bits in (("w", p.weight_bits), ("a", p.activation_bits)):
                    choices.append(Choice(_bits_name(name, kind, role, p.granularity), bits, only))
    return choices


def _stage(entry: Any, position: int) -> Stage:
    if isinstance(entry, Stage):
        return entry
    if not isinstance(entry, Mapping):
        raise InputError(f"stages[{position}] must be a mapping, not {entry!r}")
    known = [f.name for f in fields(Stage)]
    for name in entry:
        if name not in known:
            raise InputError(
                f"unknown key {name!r} in stages[{position}] (allowed: {', '.join(known)})"
            )
    missing = [name for name in ("channels", "stride", "depths") if name not in entry]
    if missing:
        raise InputError(f"stages[{position}] lacks {', '.join(missing)}")
    return Stage(**{k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()})


def _check(p: MobileNetParameters) -> None:
    if not p.stages:
        raise InputError("stages is empty: a mobilenet needs at least one stage")
    if p.granularity not in ("layer", "block"):
        raise InputError(f"granularity={p.granularity!r} is not one of ['layer', 'block']")
    for name in ("weight_bits", "activation_bits"):
        _ascending(name, getattr(p, name))
        for bits in getattr(p, name):
            if bits not in BITS:
                raise InputError(f"{name}: {bits!r} is not one of {list(BITS)}")
    if 1 in (*p.weight_bits, p.edge_bits):
        raise InputError("weights need at least 2 bits: a signed code of 1 bit is 0 or -1 only")
    if p.edge_bits not in BITS:
        raise InputError(f"edge_bits={p.edge_bits!r} is not one of {list(BITS)}")
    for name in ("resolutions", "widths", "kernels", "expands"):
        _ascending(name, getattr(p, name))
    for name in ("stem_channels", "head_channels", "stem_stride", "divisor"):
        _whole(name, getattr(p, name))
    _whole("feature_channels", p.feature_channels, least=0)
    for name in ("resolutions", "kernels"):
        for value in getattr(p, name):
            _whole(name, value)
    for name, activation in (
        ("stem_activation", p.stem_activation),
        ("head_activation", p.head_activation),
        *((f"stages[{i}].activation", stage.activation) for i, stage in enumerate(p.stages)),
    ):
        if activation not in ("relu", "hswish"):
            raise InputError(f"{name}={activation!r} is not one of ['relu', 'hswish']")
    for i, stage in enumerate(p.stages):
        for name in ("channels", "stride"):
            _whole(f"stages[{i}].{name}", getattr(stage, name))
        for name in ("depths", "kernels", "expands"):
            if name == "depths" or getattr(stage, name) is not None:
                _ascending(f"stages[{i}].{name}", getattr(stage, name))
        for name in ("depths", "kernels"):
            for value in getattr(stage, name) or ():
                _whole(f"stages[{i}].{name}", value)
        for kernel in stage.kernels or p.kernels:
            if kernel % 2 == 0:
                raise InputError(f"stages[{i}]: kernel {kernel} is even; use odd kernel sides")
        for ratio in stage.expands or p.expands:
            if ratio < 1:
                raise InputError(f"stages[{i}]: expansion ratio {ratio} must be at least 1")


def _whole(name: str, value: Any, *, least: int = 1) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InputError(f"{name}={value!r} must be a whole number from {least}")


def _ascending(name: str, values: Any) -> None:
    if not isinstance(values, tuple) or not values:
        raise InputError(f"{name}={values!r} must be a list with at least one value")
    if not all(isinstance(v, (int, float)) and not isinstance(v, bool) and v > 0 for v in values):
        raise InputError(f"{name}={list(values)} must be positive numbers")
    if list(values) != sorted(set(values)):
        raise InputError(f"{name}={list(values)} must be ascending, each value once")
