"""The ``signal`` space: one-dimensional convolutions for windows of one or more channels.

Blocks are those of the ``mobilenet`` and ``resnet`` spaces with kernels of 1 x k: an inverted
residual with a long depthwise kernel sees far for few weights (a depthwise kernel of 33 costs
what three points of a full one do at 11 channels), which is what InceptionTime (Fawaz et al.,
2020) buys with full kernels of 40. Depth, width, kernel, expansion, length and bits are elastic.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from search_spaces.errors import InputError
from search_spaces.spaces.mobilenet import Stage as MBConvStage
from search_spaces.spaces.registry import SPACES
from search_spaces.spaces.resnet import Stage as ResidualStage
from search_spaces.spaces.staged import Columns, StagedSpace
from search_spaces.spaces.staged_parameters import Parameters


@dataclass(frozen=True)
class SignalParameters(Parameters):
    """Everything that defines a ``signal`` space; a preset is one of these.

    Attributes:
        resolutions: shares of the data's length, 0 to 1, to which a window is resampled.
    """

    resolutions: tuple[float, ...] = (0.5, 1.0)  # type: ignore[assignment]
    stem_kernel: int = 9
    kernels: tuple[int, ...] = (9, 17, 33)
    expands: tuple[float, ...] = (1, 2, 3)


_LEAN: dict[str, Any] = {
    "resolutions": (1.0,),
    "widths": (0.5, 0.75, 1.0),
    "expands": (0.5, 1),
    "activation_bits": (8,),
    "granularity": "block",
}

PRESETS: dict[str, SignalParameters] = {
    # Named by the length they are made for, about.
    "32": SignalParameters(
        stages=(MBConvStage(24, 1, (1, 2)), MBConvStage(32, 2, (1, 2))), stem_channels=16,
        stem_kernel=5, stem_stride=1, head_channels=64, resolutions=(1.0,), widths=(0.5, 0.75, 1.0),
        kernels=(3, 5, 9),
    ),
    "256": SignalParameters(
        stages=(MBConvStage(24, 1, (1, 2)), MBConvStage(40, 2, (1, 2)), MBConvStage(56, 2, (1, 2))),
        stem_channels=16, stem_stride=2, head_channels=96, widths=(0.5, 0.75, 1.0),
    ),
    "1024": SignalParameters(
        stages=(MBConvStage(24, 2, (1, 2)), MBConvStage(40, 2, (1, 2)),
            MBConvStage(56, 2, (1, 2)), MBConvStage(64, 1, (1, 2))),
        stem_channels=16, stem_stride=2, head_channels=96, widths=(0.5, 0.75, 1.0),
    ),
    # What gives most accuracy for a second of training on a processor: full convolutions, as many
    # positions as the stem leaves, and activations at 8 bits, because fewer save no weights.
    "32-lean": SignalParameters(
        stages=(ResidualStage(24, 1, (1, 2)), ResidualStage(32, 2, (1, 2))),
        stem_kernel=5,
        stem_stride=1,
        kernels=(3, 5, 9),
        **_LEAN,
    ),
    "256-lean": SignalParameters(
        stages=(
            ResidualStage(16, 1, (1, 2)),
            ResidualStage(24, 2, (1, 2)),
            ResidualStage(32, 2, (1, 2)),
        ),
        kernels=(5, 9, 17),
        **_LEAN,
    ),
    "1024-lean": SignalParameters(
        stages=(
            ResidualStage(16, 2, (1, 2)),
            ResidualStage(24, 2, (1, 2)),
            ResidualStage(40, 2, (1, 2)),
        ),
        kernels=(5, 9, 17),
        **_LEAN,
    ),
    # Blocks of two full convolutions (Wang et al., 2017, their ResNet for time series, narrower).
    "256-residual": SignalParameters(
        stages=(ResidualStage(24, 1, (1, 2)), ResidualStage(32, 2, (1, 2)),
            ResidualStage(48, 2, (1, 2))),
        stem_channels=24, stem_stride=2, widths=(0.5, 0.75, 1.0), kernels=(3, 5, 9),
        expands=(0.5, 1),
    ),
}  # fmt: skip
# Without kernels of 17 points, which learn more of few examples by heart: of four sets, a quarter
# or half of whose training examples told the others after equal seconds, 17 points had a higher
# loss than 5 on three, and gained nothing over 9 on the fourth; its steps take 1.5 to 1.8 times as
# long.
PRESETS |= {
    f"{length}-short": replace(PRESETS[f"{length}-lean"], kernels=(5, 9)) for length in (256, 1024)
}


@SPACES.register("signal")
class SignalSpace(StagedSpace):
    """Elastic one-dimensional networks: see :class:`SignalParameters` for what may vary.

    Stages are of the kind ``mbconv`` (see :class:`search_spaces.spaces.mobilenet.Stage`) or
    ``residual`` (see :class:`search_spaces.spaces.resnet.Stage`). The choice ``resolution`` is the
    share of the data's length. Inputs are (channels, 1, length).

    Raises:
        InputError: data of another height than 1.
    """

    NAME = "signal"
    PRESETS = PRESETS
    PRESET = "256"
    STAGES = {"mbconv": MBConvStage, "residual": ResidualStage}  # noqa: RUF012
    DIMENSIONS = 1
    SHARES = True

    def __init__(
        self, parameters: Parameters, *, input_size: tuple[int, int] | None = None, **rest: Any
    ) -> None:
        size = (1, int(self._named_length(parameters))) if input_size is None else input_size
        if size[0] != 1:
            raise InputError(
                f"the space signal builds networks for signals, and the data is images of "
                f"{size[0]} x {size[1]}; use mobilenet or resnet"
            )
        super().__init__(parameters, input_size=size, **rest)

    def resolution_column(self, genes: np.ndarray) -> np.ndarray:
        """Length of the input for gene rows: (n,) int64, at least 1."""
        assert self.input_size is not None
        share = Columns(self, genes).value("resolution").astype(float)
        length = np.rint(share * self.input_size[1]).astype(np.int64)
        return np.maximum(1, length)

    @staticmethod
    def _named_length(parameters: Parameters) -> int:
        # Without data the length that the preset is named after gives costs to look at.
        for name, preset in PRESETS.items():
            if preset.stages == parameters.stages:
                return int(name.partition("-")[0])
        return 256
