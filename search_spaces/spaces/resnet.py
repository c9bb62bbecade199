"""The ``resnet`` space: residual stages of basic or bottleneck blocks.

Depth, width, the ratio of a block's inner width to its output, kernel size and resolution
are elastic as in OFA-ResNet50 (Cai et al., Once-for-All, released with the paper), blocks as
in He et al., CVPR 2016 (bottlenecks with the stride in the middle, as in ResNet v1.5), bits
of every layer as in the other spaces.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from search_spaces.errors import InputError
from search_spaces.parameters import one_of, round_channels
from search_spaces.planned import BlockColumn, LayerColumn
from search_spaces.space import Choice, Condition
from search_spaces.spaces.registry import SPACES
from search_spaces.spaces.staged import Block, KernelStage, Sizes, StagedSpace
from search_spaces.spaces.staged_parameters import Conditions, Parameters, bit_choices

BLOCKS = ("basic", "bottleneck")
_ROLES = {"basic": ("conv1", "conv2"), "bottleneck": ("reduce", "conv", "restore")}


@dataclass(frozen=True)
class Stage(KernelStage):
    """A run of residual blocks of one output width.

    Attributes:
        blocks: kinds of block that each block may be: ``basic``, ``bottleneck`` or both.
    """

    blocks: tuple[str, ...] = ("basic",)

    def check(self, place: str, parameters: Parameters) -> None:
        """Raise :class:`InputError` for a value that the stage cannot have."""
        super().check(place, parameters)
        blocks = self.blocks
        if not isinstance(blocks, tuple) or not blocks or len(set(blocks)) != len(blocks):
            raise InputError(f"{place}.blocks={blocks!r} must be a list, each kind once")
        for kind in blocks:
            one_of(f"{place}.blocks", kind, BLOCKS)

    def choices(
        self, name: str, parameters: Parameters, when: Conditions, first: bool
    ) -> list[Choice]:
        """Return the choices of the block called ``name``, active ``when``."""
        choices = []
        if len(self.blocks) > 1:
            choices.append(Choice(f"{name}.block", self.blocks, when))
        choices.append(Choice(f"{name}.kernel", tuple(self.kernels or parameters.kernels), when))
        choices.append(Choice(f"{name}.expand", tuple(self.expands or parameters.expands), when))
        roles: dict[str, Conditions] = {"shortcut": when} if first else {}
        for kind in self.blocks:
            only = when
            if len(self.blocks) > 1:
                only = (*when, Condition(f"{name}.block", frozenset({kind})))
            roles |= dict.fromkeys(_ROLES[kind], only)
        return choices + bit_choices(name, parameters, roles, when)

    def describe(self, block: Block, first: bool) -> list[BlockColumn]:
        """Describe the block; ``first`` tells whether it is the first of its stage."""
        active, size, out_size = block.active, block.size, block.out_size
        kernel = block.value("kernel").astype(np.int64)
        inner = round_channels(block.out * block.value("expand"), block.parameters.divisor)
        stride, channels, out = block.stride, block.channels, block.out

        def layer(kind: str, role: str, sizes: Sizes, source: str) -> LayerColumn:
            on = active
            if len(self.blocks) > 1:
                on = active & (block.value("block") == kind)
            activation = "none" if role in ("conv2", "restore") else "relu"
            return block.layer(role, sizes, activation, source, active=on)

        layers: list[LayerColumn] = []
        points = [("output", "none"), ("sum", "relu")]
        if first:
            # A projection changes the width (He et al., section 3.3, option B).
            sizes = (channels, out, 1, stride, 1, size, out_size)
            layers.append(block.layer("shortcut", sizes, "none", "stream"))
            points.append(("short", "none"))
        if "basic" in self.blocks:
            layers += [
                layer(
                    "basic", "conv1", (channels, inner, kernel, stride, 1, size, out_size), "stream"
                ),
                layer("basic", "conv2", (inner, out, kernel, 1, 1, out_size, out_size), "relu"),
            ]
        if "bottleneck" in self.blocks:
            layers += [
                layer("bottleneck", "reduce", (channels, inner, 1, 1, 1, size, size), "stream"),
                layer(
                    "bottleneck", "conv", (inner, inner, kernel, stride, 1, size, out_size), "relu"
                ),
                layer("bottleneck", "restore", (inner, out, 1, 1, 1, out_size, out_size), "relu"),
            ]
        return [BlockColumn(block.name, "residual", tuple(layers), active, active, tuple(points))]


PRESETS: dict[str, Parameters] = {
    "8x8": Parameters(
        stages=(Stage(16, 1, (1, 2)), Stage(32, 2, (1, 2))), resolutions=(8,), stem_stride=1,
        widths=(0.5, 1.0), kernels=(1, 3), expands=(0.5, 1),
    ),
    "28x28": Parameters(
        stages=(Stage(16, 1, (1, 2)), Stage(32, 2, (1, 2, 3)), Stage(48, 1, (1, 2))),
        resolutions=(20, 24, 28), widths=(0.5, 0.75, 1.0), kernels=(1, 3), expands=(0.5, 1),
    ),
    # The largest is ResNet-20 of He et al., section 4.2, twice as wide.
    "32x32": Parameters(
        stages=(Stage(32, 1, (1, 2, 3)), Stage(64, 2, (1, 2, 3)), Stage(128, 2, (1, 2, 3))),
        stem_channels=32, stem_stride=1, resolutions=(24, 28, 32), widths=(0.5, 0.75, 1.0),
        expands=(0.5, 0.75, 1),
    ),
    "96x96": Parameters(
        stages=(Stage(32, 1, (1, 2)), Stage(64, 2, (1, 2, 3)), Stage(128, 2, (1, 2, 3)),
            Stage(256, 2, (1, 2))),
        stem_channels=32, resolutions=(64, 80, 96), widths=(0.5, 0.75, 1.0), expands=(0.5, 0.75, 1),
    ),
    # OFA-ResNet50: depths, ratios, widths and resolutions of its released supernet.
    "224x224-ofa": Parameters(
        stages=(Stage(256, 1, (2, 3, 4), blocks=("bottleneck",)),
            Stage(512, 2, (2, 3, 4), blocks=("bottleneck",)),
            Stage(1024, 2, (4, 5, 6), blocks=("bottleneck",)),
            Stage(2048, 2, (2, 3, 4), blocks=("bottleneck",))),
        stem_channels=64, stem_kernel=7, stem_pool=True, resolutions=(128, 160, 192, 224),
        widths=(0.65, 0.8, 1.0), expands=(0.2, 0.25, 0.35), divisor=8,
    ),
}  # fmt: skip


@SPACES.register("resnet")
class ResNetSpace(StagedSpace):
    """Elastic ResNet: see :class:`Stage` for what may vary.

    Choices of a block: ``kernel``, ``expand``, ``block`` where its kind is searched, and the bits
    of its layers: ``conv1`` and ``conv2``, or ``reduce``, ``conv`` and ``restore``, and
    ``shortcut`` in the first block of a stage.
    """

    NAME = "resnet"
    PRESETS = PRESETS
    STAGES = {"residual": Stage}  # noqa: RUF012
