"""What defines spaces of detectors and segmenters, and their presets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from search_spaces.spaces.mobilenet import MobileNetParameters
from search_spaces.spaces.mobilenet import Stage as MBConvStage

SCALES = ("coarse", "fine", "both")
"""Where a detector predicts: the last feature map, the one of ``fine_stage``, or both."""


@dataclass(frozen=True)
class DenseParameters(MobileNetParameters):
    """What defines the end of a network beside its backbone.

    Attributes:
        end_channels: of head or decoder at width 1.0.
        end_widths: multipliers of ``end_channels``.
    """

    end_channels: int = 48
    end_widths: tuple[float, ...] = (0.5, 1.0)
    stem_channels: int = 12
    widths: tuple[float, ...] = (0.5, 0.75, 1.0)
    kernels: tuple[int, ...] = (3, 5)
    expands: tuple[float, ...] = (1, 2, 3)
    weight_bits: tuple[int, ...] = (4, 8)
    activation_bits: tuple[int, ...] = (8,)
    granularity: str = "block"


@dataclass(frozen=True)
class DetectorParameters(DenseParameters):
    """Everything that defines a ``detector`` space; a preset is one of these.

    Attributes:
        fine_stage: number of the stage, from 1, whose output a fine level predicts from.
        scales: of :data:`SCALES`, in that order.
        end_depths: depthwise separable convolutions of a level's tower.
    """

    fine_stage: int = 2
    scales: tuple[str, ...] = SCALES
    end_depths: tuple[int, ...] = (1, 2)


@dataclass(frozen=True)
class SegmenterParameters(DenseParameters):
    """Everything that defines a ``segmenter`` space; a preset is one of these.

    Attributes:
        kept_stages: numbers of the stages, from 1, whose outputs the decoder joins, the last
            first; those of one size would be joined twice, so each is larger than the next.
        end_steps: how many of them.
    """

    kept_stages: tuple[int, ...] = (1, 2)
    end_steps: tuple[int, ...] = (1, 2)


_BACKBONE = (
    MBConvStage(16, 2, (1, 2)),
    MBConvStage(32, 2, (1, 2, 3)),
    MBConvStage(64, 2, (1, 2)),
)

_LEAN: dict[str, Any] = {
    "stem_channels": 8,
    "widths": (0.25, 0.34, 0.5, 0.67, 0.84, 1.0),
    "kernels": (3,),
    "expands": (1, 2),
    "end_channels": 48,
    "end_widths": (0.34, 0.67, 1.0),
}

DETECTORS: dict[str, DetectorParameters] = {
    # Cells of 8 and 16 pixels.
    "96x96": DetectorParameters(stages=_BACKBONE, resolutions=(64, 80, 96)),
    "192x192": DetectorParameters(
        stages=(MBConvStage(16, 2, (1, 2)), MBConvStage(32, 2, (1, 2, 3)),
            MBConvStage(64, 2, (1, 2, 3)), MBConvStage(96, 1, (1, 2))),
        end_channels=64, resolutions=(128, 160, 192),
    ),
    # What gives most for a second of training and a KiB of weights (see mobilenet's lean presets):
    # one layer alone on the largest map, full convolutions, most weights where cells are, and one
    # grid of cells.
    "96x96-lean": DetectorParameters(
        stages=(MBConvStage(24, 2, (1,), fused=True), MBConvStage(48, 2, (1, 2, 3), fused=True)),
        **_LEAN, fine_stage=1, scales=("coarse",), resolutions=(80, 96),
    ),
    "192x192-lean": DetectorParameters(
        stages=(MBConvStage(16, 2, (1,), fused=True), MBConvStage(32, 2, (1, 2), fused=True),
            MBConvStage(64, 2, (1, 2, 3), fused=True)),
        **_LEAN, fine_stage=2, resolutions=(160, 192),
    ),
    # For demonstrations on digits.
    "48x48": DetectorParameters(
        stages=(MBConvStage(16, 2, (1, 2)), MBConvStage(32, 2, (1, 2))), stem_channels=8,
        fine_stage=1, end_channels=32, resolutions=(32, 48), widths=(0.5, 1.0), kernels=(3,),
        expands=(1, 2),
    ),
}  # fmt: skip

SEGMENTERS: dict[str, SegmenterParameters] = {
    "96x96": SegmenterParameters(stages=_BACKBONE, end_channels=32, resolutions=(64, 80, 96)),
    "96x96-lean": SegmenterParameters(
        stages=(MBConvStage(24, 2, (1,), fused=True), MBConvStage(40, 2, (1, 2), fused=True),
            MBConvStage(56, 2, (1, 2), fused=True)),
        **_LEAN, end_steps=(2,), resolutions=(80, 96),
    ),
    "192x192": SegmenterParameters(
        stages=(MBConvStage(16, 2, (1, 2)), MBConvStage(32, 2, (1, 2, 3)),
            MBConvStage(64, 2, (1, 2, 3))),
        end_channels=48, resolutions=(128, 160, 192),
    ),
    "48x48": SegmenterParameters(
        stages=(MBConvStage(16, 1, (1, 2)), MBConvStage(32, 2, (1, 2)), MBConvStage(48, 2, (1,))),
        stem_channels=8, end_channels=24, resolutions=(32, 48), widths=(0.5, 1.0), kernels=(3,),
        expands=(1, 2),
    ),
}  # fmt: skip
