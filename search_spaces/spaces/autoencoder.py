"""The ``signal_autoencoder`` space: networks that give a window back from a narrow code of it.

The encoder is that of ``signal``. A code of few channels for every :data:`PATCH` values of the
window follows it, and one convolution that gives these values back. What a network has learnt to
give back of normal windows, it cannot give back of others (Sakurada & Yairi, MLSDA 2014).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from search_spaces.errors import InputError
from search_spaces.parameters import ascending, odd, whole
from search_spaces.plan import LayerPlan, Numbers
from search_spaces.planned import BlockColumn, LayerColumn
from search_spaces.space import Choice
from search_spaces.spaces.mobilenet import Stage as MBConvStage
from search_spaces.spaces.registry import SPACES
from search_spaces.spaces.signal import SignalParameters, SignalSpace
from search_spaces.spaces.staged import Columns, Features
from search_spaces.spaces.staged_parameters import Parameters, bit_choices

PATCH = 8
"""Values of a channel that each place of the output gives back: the stride of the encoder."""


@dataclass(frozen=True)
class AutoencoderParameters(SignalParameters):
    """Everything that defines a ``signal_autoencoder`` space; a preset is one of these.

    Attributes:
        codes: channels of the code; a window of C channels is compressed by 8 C / code.
        end_kernel: of the convolution that gives the window back, in places of the code.
    """

    codes: tuple[int, ...] = (1, 2, 4)
    end_kernel: int = 3
    resolutions: tuple[float, ...] = (1.0,)
    weight_bits: tuple[int, ...] = (4, 8)
    activation_bits: tuple[int, ...] = (8,)
    granularity: str = "block"


PRESETS: dict[str, SignalParameters] = {
    "256": AutoencoderParameters(
        stages=(MBConvStage(24, 2, (1, 2)), MBConvStage(40, 2, (1, 2))), stem_channels=16,
        stem_stride=2, widths=(0.5, 0.75, 1.0), kernels=(5, 9, 17),
    ),
}  # fmt: skip


@SPACES.register("signal_autoencoder")
class AutoencoderSpace(SignalSpace):
    """Elastic autoencoders of windows: see :class:`AutoencoderParameters` for what may vary.

    Choices beside those of ``signal``: ``end.code``, and the bits of the block ``end``. Networks
    give (batch, 8 * channels, 1, length / 8): the values of a channel in a row.

    Raises:
        InputError: strides whose product is not :data:`PATCH`, or a length that is no multiple.
    """

    NAME = "signal_autoencoder"
    ANSWERS = "grid"
    PRESETS = PRESETS

    def __init__(self, parameters: Parameters, **rest: Any) -> None:
        p = cast(AutoencoderParameters, parameters)
        ascending("codes", p.codes)
        for code in p.codes:
            whole("codes", code)
        odd("end_kernel", p.end_kernel)
        if p.exits or p.head_channels or p.feature_channels:
            raise InputError(
                "exits, head_channels and feature_channels belong to heads that name a class; "
                "leave them out of autoencoders"
            )
        if tuple(p.resolutions) != (1.0,):
            raise InputError(
                f"resolutions={list(p.resolutions)}: an autoencoder gives every value back, so "
                "windows keep their length; use [1.0]"
            )
        stride = p.stem_stride * math.prod(stage.stride for stage in p.stages)
        if stride != PATCH:
            raise InputError(f"strides of stem and stages multiply to {stride}, not to {PATCH}")
        super().__init__(parameters, **rest)
        assert self.input_size is not None
        if self.input_size[1] % PATCH:
            raise InputError(
                f"windows of {self.input_size[1]} values: an autoencoder needs a multiple of "
                f"{PATCH}; cut others (data.options.window)"
            )

    def end_choices(self, parameters: Parameters) -> list[Choice]:
        """See :meth:`StagedSpace.end_choices`."""
        p = cast(AutoencoderParameters, parameters)
        return [Choice("end.code", p.codes), *bit_choices("end", p, {"top": ()}, ())]

    def end(
        self, columns: Columns, after: Mapping[int, Features], active: np.ndarray
    ) -> list[BlockColumn]:
        """See :meth:`StagedSpace.end`: the code, and the window from it."""
        p = cast(AutoencoderParameters, self.parameters)
        x = after[len(p.stages)]
        code, bits = columns.numbers("end.code"), columns.bits("end", "top", p.granularity)
        place: dict[str, Any] = {"in_height": x.height, "out_height": x.height, "dimensions": 1}
        top: LayerPlan[Numbers] = LayerPlan(
            "end.top", "top", x.channels, code, 1, 1, 1, x.size, x.size, *bits, "none", "stream",
            **place,
        )  # fmt: skip
        back: LayerPlan[Numbers] = LayerPlan(
            "end.classify", "classify", code, self.outputs, p.end_kernel, 1, 1, x.size, x.size,
            *p.edges, "none", "stream", "conv", False, **place,
        )  # fmt: skip
        layers = (LayerColumn(top, active), LayerColumn(back, active))
        points = (("top_out", "none"), ("output", "none"))
        return [BlockColumn("end", "decode", layers, active, np.zeros_like(active), points)]

    @staticmethod
    def _named_length(parameters: Parameters) -> int:
        return 256
