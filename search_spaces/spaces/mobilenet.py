"""The ``mobilenet`` space: inverted residual (MBConv) stages with everything elastic.

Depth, expansion ratio, kernel size, width multiplier and input resolution as in
Once-for-All (Cai et al., ICLR 2020, section 3), the bits of every layer's weights and
input activations as in APQ (Wang et al., CVPR 2020), and the kind of block (MBConv or
fused MBConv) as in MobileDets (Xiong et al., CVPR 2021).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from search_spaces.errors import InputError
from search_spaces.parameters import one_of, round_channels
from search_spaces.plan import LayerPlan, Numbers
from search_spaces.planned import BlockColumn, LayerColumn
from search_spaces.space import Choice, Condition
from search_spaces.spaces.registry import SPACES
from search_spaces.spaces.staged import Block, KernelStage, StagedSpace
from search_spaces.spaces.staged_parameters import Conditions, Parameters, bit_choices

BLOCKS = ("mbconv", "fused")


@dataclass(frozen=True)
class Stage(KernelStage):
    """A run of MBConv blocks of one output width.

    Attributes:
        activation: ``relu`` or ``hswish``.
        squeeze: squeeze-and-excite after the depthwise convolution (MobileNetV3).
        fused: a full convolution in place of expansion and depthwise convolution (fused
            MBConv; Gupta & Akin, 2020), which many processors run faster at high resolution.
        blocks: kinds of block that each block may be, ``mbconv`` and ``fused``; one kind alone is
            the same as ``fused``, two make it a choice. Empty follows ``fused``.
    """

    activation: str = "relu"
    squeeze: bool = False
    fused: bool = False
    blocks: tuple[str, ...] = ()

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of block it can have."""
        return self.blocks or (("fused",) if self.fused else ("mbconv",))

    def check(self, place: str, parameters: Parameters) -> None:
        """Raise :class:`InputError` for a value that the stage cannot have."""
        super().check(place, parameters)
        for ratio in self.expands or parameters.expands:
            if ratio < 1:
                raise InputError(f"{place}: expansion ratio {ratio} must be at least 1")
        one_of(f"{place}.activation", self.activation, ("relu", "hswish"))
        if not isinstance(self.blocks, tuple) or len(set(self.blocks)) != len(self.blocks):
            raise InputError(f"{place}.blocks={self.blocks!r} must be a list, each kind once")
        for kind in self.blocks:
            one_of(f"{place}.blocks", kind, BLOCKS)
        if self.blocks and self.fused:
            raise InputError(f"{place}: give either fused or blocks, not both")

    def choices(
        self, name: str, parameters: Parameters, when: Conditions, first: bool
    ) -> list[Choice]:
        """Return the choices of the block called ``name``, active ``when``."""
        expands = tuple(self.expands or parameters.expands)
        choices = []
        if len(self.kinds) > 1:
            choices.append(Choice(f"{name}.block", self.kinds, when))
        choices.append(Choice(f"{name}.kernel", tuple(self.kernels or parameters.kernels), when))
        choices.append(Choice(f"{name}.expand", expands, when))
        return choices + bit_choices(name, parameters, self._roles(name, expands, when), when)

    def _roles(
        self, name: str, expands: tuple[float, ...], when: Conditions
    ) -> dict[str, Conditions]:
        if self.kinds == ("fused",):
            return {"expand": when, "project": when}
        split = when
        roles = {}
        if len(self.kinds) > 1:
            split = (*when, Condition(f"{name}.block", frozenset({"mbconv"})))
            roles["fused"] = (*when, Condition(f"{name}.block", frozenset({"fused"})))
        wider = frozenset(e for e in expands if e != 1)
        if wider:
            only = () if len(wider) == len(expands) else (Condition(f"{name}.expand", wider),)
            roles["expand"] = (*split, *only)
        return {**roles, "depthwise": split, "project": when}

    def describe(self, block: Block, first: bool) -> list[BlockColumn]:
        """Describe the block; ``first`` tells whether it is the first of its stage."""
        p, active, size, out_size = block.parameters, block.active, block.size, block.out_size
        channels, stride = block.channels, block.stride
        ratio = block.value("expand")
        kernel = block.value("kernel").astype(np.int64)
        middle = np.where(ratio == 1, channels, round_channels(channels * ratio, p.divisor))
        fused = np.full(len(active), self.kinds == ("fused",))
        if len(self.kinds) > 1:
            fused = block.value("block") == "fused"

        full = (channels, middle, kernel, stride, 1, size, out_size)
        layers = []
        if self.kinds == ("fused",):
            layers.append(block.layer("expand", full, self.activation, "stream"))
        elif len(self.kinds) > 1:
            layers.append(
                block.layer("fused", full, self.activation, "stream", active=active & fused)
            )
        if "mbconv" in self.kinds:
            if tuple(self.expands or p.expands) != (1,):
                layers.append(
                    block.layer(
                        "expand", (channels, middle, 1, 1, 1, size, size), self.activation,
                        "stream", active=active & ~fused & (ratio != 1),
                    )
                )  # fmt: skip
            layers.append(
                block.layer(
                    "depthwise", (middle, middle, kernel, stride, middle, size, out_size),
                    self.activation, np.where(ratio == 1, "stream", self.activation),
                    active=active & ~fused,
                )
            )  # fmt: skip
        points = [("output", "none"), ("sum", "none")]
        if self.squeeze:
            layers += self._squeeze(block, middle)
            points += [("gate", self.activation), ("scale", "hsigmoid")]
        layers.append(
            block.layer(
                "project", (middle, block.out, 1, 1, 1, out_size, out_size), "none",
                "none" if self.squeeze else self.activation,
            )
        )  # fmt: skip
        residual = active & (stride == 1) & (channels == block.out)
        return [BlockColumn(block.name, "mbconv", tuple(layers), active, residual, tuple(points))]

    def _squeeze(self, block: Block, middle: np.ndarray) -> list[LayerColumn]:
        # MobileNetV3 squeezes to a quarter of the expanded width.
        p = block.parameters
        squeezed = round_channels(middle / 4, p.divisor)
        rest: Any = ("conv", False)
        squeeze: LayerPlan[Numbers] = LayerPlan(
            f"{block.name}.squeeze", "squeeze", middle, squeezed, 1, 1, 1, 1, 1,
            *p.edges, "relu", "none", *rest,
        )  # fmt: skip
        excite: LayerPlan[Numbers] = LayerPlan(
            f"{block.name}.excite", "excite", squeezed, middle, 1, 1, 1, 1, 1,
            *p.edges, "hsigmoid", "relu", *rest,
        )  # fmt: skip
        return [LayerColumn(squeeze, block.active), LayerColumn(excite, block.active)]


@dataclass(frozen=True)
class MobileNetParameters(Parameters):
    """Everything that defines a ``mobilenet`` space; a preset is one of these."""

    kernels: tuple[int, ...] = (3, 5, 7)
    expands: tuple[float, ...] = (2, 3, 4)


_LEAN: dict[str, Any] = {
    "kernels": (3,), "expands": (1, 2), "activation_bits": (8,), "granularity": "block",
}  # fmt: skip

PRESETS: dict[str, MobileNetParameters] = {
    "8x8": MobileNetParameters(
        stages=(Stage(16, 1, (1, 2)), Stage(32, 2, (1, 2, 3))), stem_channels=16, stem_stride=1,
        head_channels=64, resolutions=(8,), widths=(0.5, 1.0), kernels=(3, 5), expands=(2, 3),
    ),
    # Full convolutions where feature maps are large: there they cost a CPU no more than
    # an expansion and a depthwise convolution, in training and on the device.
    "28x28": MobileNetParameters(
        stages=(Stage(16, 1, (1, 2), kernels=(3,), fused=True),
            Stage(32, 2, (1, 2, 3), kernels=(3,), fused=True), Stage(48, 1, (1, 2))),
        stem_channels=16, head_channels=128, resolutions=(20, 24, 28), widths=(0.5, 0.75, 1.0),
        kernels=(3, 5), expands=(2, 3),
    ),
    "32x32": MobileNetParameters(
        stages=(Stage(24, 1, (1, 2, 3)), Stage(40, 2, (1, 2, 3)), Stage(80, 2, (1, 2, 3)),
            Stage(96, 1, (1, 2))),
        stem_channels=24, stem_stride=1, head_channels=256, resolutions=(24, 28, 32),
        widths=(0.5, 0.75, 1.0),
    ),
    # Spectrograms of 49 frames and 40 bands, or of other numbers: the height follows the data.
    "49x40": MobileNetParameters(
        stages=(Stage(24, 1, (1, 2)), Stage(40, 2, (1, 2)), Stage(64, 2, (1, 2))), stem_channels=16,
        stem_kernel=5, head_channels=128, resolutions=(40,), widths=(0.5, 0.75, 1.0),
        kernels=(3, 5), expands=(2, 3),
    ),
    "96x96": MobileNetParameters(
        stages=(Stage(16, 1, (1, 2)), Stage(24, 2, (1, 2, 3)), Stage(40, 2, (1, 2, 3)),
            Stage(80, 2, (1, 2, 3)), Stage(96, 1, (1, 2))),
        stem_channels=16, head_channels=256, resolutions=(64, 80, 96), widths=(0.5, 0.75, 1.0),
    ),
    # What gives most accuracy for a second of training and a KiB of weights: full convolutions,
    # since each channel of a depthwise one brings a scale and a bias that few bits do not shrink;
    # half the side in every stage, so that most weights are where an image has few pixels; and
    # activations at 8 bits, because fewer save no weights, and no time on most runtimes.
    "8x8-lean": MobileNetParameters(
        stages=(Stage(12, 1, (1, 2), fused=True), Stage(24, 2, (1, 2), fused=True),
            Stage(48, 2, (1, 2), fused=True)),
        stem_channels=12, stem_stride=1, resolutions=(8,), widths=(0.34, 0.5, 0.67, 1.0), **_LEAN,
    ),
    "28x28-lean": MobileNetParameters(
        stages=(Stage(16, 1, (1, 2), fused=True), Stage(32, 2, (1, 2), fused=True),
            Stage(96, 2, (1, 2), fused=True)),
        stem_channels=16, resolutions=(28,), widths=(0.5, 0.75, 1.0), **_LEAN,
    ),
    "32x32-lean": MobileNetParameters(
        stages=(Stage(16, 1, (1, 2), fused=True), Stage(32, 2, (1, 2), fused=True),
            Stage(96, 2, (1, 2), fused=True)),
        stem_channels=16, resolutions=(32,), widths=(0.5, 0.75, 1.0), **_LEAN,
    ),
    # Spectrograms, as of keywords.
    "49x40-lean": MobileNetParameters(
        stages=(Stage(24, 2, (1, 2), fused=True), Stage(48, 2, (1, 2, 3), fused=True)),
        stem_channels=16, stem_kernel=5, resolutions=(40,), widths=(0.34, 0.5, 0.67, 1.0), **_LEAN,
    ),
    # The same for photographs: their classes need more layers than maps of letters do, and where a
    # map has few pixels, depthwise convolutions keep many channels small.
    "64x64-lean": MobileNetParameters(
        stages=(Stage(16, 1, (1, 2), fused=True), Stage(32, 2, (1, 2), fused=True),
            Stage(64, 2, (1, 2), fused=True),
            Stage(112, 2, (1, 2, 3), kernels=(3, 5), expands=(2, 3, 4))),
        stem_channels=16, resolutions=(48, 64), widths=(0.5, 0.75, 1.0), **_LEAN,
    ),
    "128x128-lean": MobileNetParameters(
        stages=(Stage(16, 2, (1, 2), fused=True), Stage(32, 2, (1, 2), fused=True),
            Stage(64, 2, (1, 2, 3), kernels=(3, 5), expands=(2, 3, 4)),
            Stage(112, 2, (1, 2, 3), kernels=(3, 5), expands=(2, 3, 4))),
        stem_channels=16, resolutions=(96, 112, 128), widths=(0.5, 0.75, 1.0), **_LEAN,
    ),
    # OFA-MobileNetV3 (Once-for-All, appendix B): 4 x 4 x 4 x 4 x 4 blocks at the largest.
    "224x224-ofa": MobileNetParameters(
        stages=(Stage(16, 1, (1,), kernels=(3,), expands=(1,)), Stage(24, 2, (2, 3, 4)),
            Stage(40, 2, (2, 3, 4), squeeze=True), Stage(80, 2, (2, 3, 4), activation="hswish"),
            Stage(112, 1, (2, 3, 4), activation="hswish", squeeze=True),
            Stage(160, 2, (2, 3, 4), activation="hswish", squeeze=True)),
        stem_channels=16, stem_activation="hswish", head_channels=960, feature_channels=1280,
        head_activation="hswish", resolutions=(128, 160, 192, 224), expands=(3, 4, 6), divisor=8,
    ),
}  # fmt: skip
# The lean ones with a last stage whose width is its own: at a few KiB more layers and fewer
# channels at the end do better, at more the channels.
PRESETS |= {
    f"{side}x{side}-fine": replace(
        lean,
        stages=(*lean.stages[:-1], replace(lean.stages[-1], widths=(0.5, 1.0))),
        widths=(0.34, *lean.widths),
    )
    for side, lean in ((side, PRESETS[f"{side}x{side}-lean"]) for side in (28, 32))
}

# Of 40 random networks, 20 seconds of letters for each alone, those whose full convolutions
# give two or three times as many channels as the block hands on had 7 and 9 % less error at equal
# size than those that keep their number, and those of two blocks where maps are largest 7 % more
# (experiments/supernet/widening.py; intervals just reach no difference). So none of the others are
# here. After 50 seconds, 6 KiB of the one kind name 89, 5 of the other 91.5 % rightly.
PRESETS |= {
    f"{side}x{side}-slim": replace(
        PRESETS[f"{side}x{side}-lean"],
        stages=(Stage(16, 1, (1,), fused=True), Stage(32, 2, (1, 2), fused=True),
            Stage(64, 2, (1, 2), fused=True, widths=(0.5, 1.0))),
        widths=(0.34, 0.5, 0.75, 1.0), expands=(2, 3),
    )
    for side in (28, 32)
}  # fmt: skip

# Photographs so, too, and at half of their side: in as many seconds many looks at fewer pixels
# teach more. Of coloured letters on photographs, networks of 17 KiB named 76 to 77 % rightly after
# 45 seconds at 32, 40 and 48 pixels and 67 at 64; with blocks that keep their channels and
# depthwise ones at the end 66, with inverted residuals throughout 40.
PRESETS["64x64-slim"] = replace(
    PRESETS["64x64-lean"],
    stages=(Stage(16, 1, (1,), fused=True), Stage(32, 2, (1, 2), fused=True),
        Stage(64, 2, (1, 2), fused=True), Stage(96, 2, (1, 2), fused=True, widths=(0.5, 1.0))),
    widths=(0.34, 0.5, 0.75, 1.0), expands=(2, 3), resolutions=(32, 48, 64),
)  # fmt: skip


@SPACES.register("mobilenet")
class MobileNetSpace(StagedSpace):
    """Elastic MobileNet: see :class:`MobileNetParameters` and :class:`Stage` for what may vary.

    Choices of a block: ``kernel``, ``expand``, ``block`` where its kind is searched, and the bits
    of its layers ``expand``, ``depthwise`` (or ``fused``) and ``project``.
    """

    NAME = "mobilenet"
    PRESETS = PRESETS
    STAGES = {"mbconv": Stage}  # noqa: RUF012
