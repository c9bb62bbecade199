"""A kind of block of another package, one convolution beside a residual, and a space of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from search_spaces.block_kinds import BlockKind
from search_spaces.memory import Roles, Tape, Tensor
from search_spaces.planned import BlockColumn
from search_spaces.space import Choice
from search_spaces.spaces.staged import Block, BlockStage, StagedSpace
from search_spaces.spaces.staged_parameters import Conditions, Parameters, bit_choices


def dataflow(x: Any, ops: Mapping[str, Any], residual: bool) -> Any:
    """Convolve and add. ``x``: (batch, channels, height, width), quantised as a stream."""
    h = ops["output"](ops["conv"](x))
    return ops["sum"](x + h) if residual else h


def memory(tape: Tape, roles: Roles, x: Tensor) -> Tensor:
    """The same on a tape of allocations."""
    h = roles.chain(tape, x, ["conv"], tape.stream_bits)
    return tape.op([h, x], h.count, tape.stream_bits, roles.block.residual)


PLAIN_RESIDUAL = BlockKind(dataflow, memory)


@dataclass(frozen=True)
class Stage(BlockStage):
    """Blocks of one convolution each."""

    def check(self, place: str, parameters: Parameters) -> None:
        """There is nothing that it could not have."""

    def choices(
        self, name: str, parameters: Parameters, when: Conditions, first: bool
    ) -> list[Choice]:
        """A kernel, and the bits of the layer."""
        kernel = Choice(f"{name}.kernel", parameters.kernels, when)
        return [kernel, *bit_choices(name, parameters, {"conv": when}, when)]

    def describe(self, block: Block, first: bool) -> list[BlockColumn]:
        """One layer."""
        kernel = block.value("kernel").astype(int)
        sizes = (block.channels, block.out, kernel, block.stride, 1, block.size, block.out_size)
        layer = block.layer("conv", sizes, "relu", "stream")
        residual = block.active & (block.stride == 1) & (block.channels == block.out)
        points = (("output", "relu"), ("sum", "none"))
        return [BlockColumn(block.name, "plain_residual", (layer,), block.active, residual, points)]


class PlainResidualSpace(StagedSpace):
    """Stages of the block."""

    NAME = "plain_residual"
    PRESET = "8x8"
    STAGES = {"plain": Stage}  # noqa: RUF012  # a constant of the class, as in the built-in spaces
    PRESETS = {  # noqa: RUF012
        "8x8": Parameters(
            stages=(Stage(8, 1, (1, 2)), Stage(12, 2, (1, 2))),
            resolutions=(8,),
            stem_channels=8,
            stem_stride=1,
            widths=(0.5, 1.0),
            kernels=(1, 3),
            divisor=4,
        )
    }
