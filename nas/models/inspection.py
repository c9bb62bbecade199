"""What a network consists of, and what may vary in it, before any work."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from search_spaces.errors import InputError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class InspectedLayer:
    """A convolution or linear layer.

    Attributes:
        name, kind: path in the network; ``conv`` or ``linear``.
        inputs, outputs: channels.
        kernel: as text, 3x3.
        macs, parameters: for one input; weights and bias.
        width: why the outputs cannot be fewer; empty if they can.
        shares_width: the first layer with the same output channels, if that is another; of a layer
            that keeps the channels of several, what they are, in words.
    """

    name: str
    kind: str
    inputs: int
    outputs: int
    kernel: str
    macs: int
    parameters: int
    width: str
    shares_width: str


@dataclass(frozen=True)
class Inspection:
    """What :func:`inspect_network` found.

    Attributes:
        input_shape: of one input, for which the costs are.
        layers: in order of execution.
        macs, parameters: of the network, for one input; those of products of activations and of
            all that is no layer included.
        operations: of the graph beside the layers, by name -> how many.
        untranslated: those that compute in float by torch's own exporter.
        weighted: those with weights of their own that are no layers here: they stay in float, and
            their channels do not vary.
        uncounted: those whose multiply-accumulates cannot be told, and are in no sum.
        depths: sequences whose depth may vary -> options.
        blocks: what stands in the way, in words; empty if nothing does.
    """

    input_shape: tuple[int, ...]
    layers: list[InspectedLayer]
    macs: int
    parameters: int
    operations: dict[str, int]
    untranslated: list[str]
    weighted: list[str]
    uncounted: list[str]
    depths: dict[str, list[float]]
    blocks: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return asdict(self)


_WEIGHTED = (
    "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "conv3d", "lstm", "gru",
    "rnn_tanh", "rnn_relu",
)  # fmt: skip
"""Operations that multiply with learned weights and are no layers of a space."""

USUAL_SHAPE = (3, 224, 224)
"""Of an input, where neither the network nor the caller says it."""


def own_input_shape(module: nn.Module) -> tuple[int, ...] | None:
    """Return the shape of one input that a network tells: an ONNX file, timm's, one of vectors."""
    from supernet.own_model.vectors import vector_length

    stated = getattr(module, "input_shape", None)
    if not stated:
        known = getattr(module, "pretrained_cfg", None) or getattr(module, "default_cfg", None)
        stated = known.get("input_size") if isinstance(known, dict) else None
    if not stated and (features := vector_length(module)):
        return (features,)
    if not isinstance(stated, (tuple, list)) or len(stated) > 3:
        return None
    return tuple(int(size) for size in stated)


def inspect_network(module: nn.Module, input_shape: Sequence[int] | None = None) -> Inspection:
    """Read a network and tell its layers and what each may vary in.

    Args:
        module: left as it is.
        input_shape: of one input, without the batch; by default :func:`own_input_shape`, or
            :data:`USUAL_SHAPE`.

    Raises:
        InputError: it cannot be read; the message says why and what to do.
    """
    from collections import Counter

    from supernet.onnx.operators import OPERATIONS
    from supernet.own_model.pretrained import find_elastic
    from supernet.own_model.vectors import flattening
    from supernet.own_model.wrap import bits_space
    from supernet.reading.operations import packet

    given = input_shape or own_input_shape(module) or USUAL_SHAPE
    shape = tuple(int(size) for size in given)
    if len(shape) == 1:
        module, shape = flattening(module), (1, *shape)
    blocks: list[str] = []
    space = bits_space(module, input_shape=shape)
    plan = space.plan(space.largest())
    graph = space.graph
    layers = []
    for node, layer in zip(graph.layer_nodes(), plan.layers(), strict=True):
        widths = [graph.widths[part.width] for part in graph.output_parts(node)]
        width = widths[0] if len(widths) == 1 else None
        first = width.layers[0] if width is not None and width.layers else layer.name
        # Of joined tensors, each has channels of its own.
        first = "the layers that are joined before it" if len(widths) > 1 else first
        pinned = [each.pinned for each in widths if each.pinned]
        bias = graph.modules[layer.name].bias is not None or layer.batch_norm
        layers.append(
            InspectedLayer(
                layer.name, layer.kind, layer.in_channels, layer.out_channels,
                "x".join(map(str, layer.kernel_sides)), layer.macs,
                layer.weight_count + bias * layer.out_channels,
                pinned[0] if pinned else "" if widths else "its channels are not followed",
                "" if first == layer.name else first,
            )
        )  # fmt: skip
    operations = Counter(packet(node) for node in graph.operations())
    for name in ("sym_size", "getitem"):
        operations.pop(name, None)
    known = set(OPERATIONS.names())
    try:
        depths = find_elastic(module, shape)["depths"]
    except InputError as error:
        depths = {}
        blocks.append(f"depths: {error}")
    if all(layer.width for layer in layers):
        blocks.append("no layer's width can vary")
    own = sum(math.prod(p.shape) for p in module.parameters())
    return Inspection(
        input_shape=shape,
        layers=layers,
        macs=plan.macs,
        parameters=int(getattr(module, "parameter_count", own)),
        operations=dict(sorted(operations.items())),
        untranslated=sorted(name for name in operations if name not in known),
        weighted=[name for name in sorted(operations) if name in _WEIGHTED],
        uncounted=sorted(graph.uncounted),
        depths=depths,
        blocks=blocks,
    )


def inspection_lines(found: Inspection) -> list[str]:
    """Return an inspection as lines of text."""
    width = max(len("layer"), *(len(layer.name) for layer in found.layers)) + 2
    lines = [
        f"{len(found.layers)} layers, {found.macs:,} multiply-accumulates for an input of "
        f"{'x'.join(map(str, found.input_shape))}, {found.parameters:,} parameters",
        f"{'layer':{width}}{'kind':8}{'channels':>12}{'kernel':>8}{'MACs':>14}  width",
    ]
    for layer in found.layers:
        told = f"fixed: {layer.width}" if layer.width else "free"
        if layer.shares_width:
            told += f", with {layer.shares_width}"
        channels = f"{layer.inputs}->{layer.outputs}"
        lines.append(
            f"{layer.name:{width}}{layer.kind:8}{channels:>12}{layer.kernel:>8}"
            f"{layer.macs:>14,}  {told}"
        )
    lines.append("bits: every layer's weights and input, 2 to 8 or float")
    for path, options in found.depths.items():
        lines.append(f"depth of {path}: {', '.join(f'{o:g}' for o in options)}")
    counts = ", ".join(f"{name} x{count}" for name, count in found.operations.items())
    lines.append(f"other operations: {counts or 'none'}")
    if found.untranslated:
        lines.append(f"of these by torch's exporter, in float: {', '.join(found.untranslated)}")
    if found.weighted:
        lines.append(
            f"weights that stay in float, and widths around them that are fixed: those of "
            f"{', '.join(found.weighted)}"
        )
    if found.uncounted:
        lines.append(f"multiply-accumulates not counted: those of {', '.join(found.uncounted)}")
    lines += [f"blocked: {reason}" for reason in found.blocks]
    return lines
