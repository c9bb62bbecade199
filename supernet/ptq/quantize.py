"""A trained float network to an integer one, from a few unlabelled images.

The network is walked once, node by node, with all calibration images side by side in float and
as quantised so far. Each layer is quantised when it is reached: its range, its rounding and its
bias see the errors that the layers before it have left.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from search_spaces.errors import InputError
from search_spaces.number_formats import NumberFormat, bits_of, number_format
from search_spaces.plan import (
    FLOAT_BITS,
    BlockPlan,
    LayerPlan,
    NetworkPlan,
    OperatorPlan,
)
from search_spaces.seeds import derive_seed
from search_spaces.sparsity import NO_SPARSITY, Sparsity
from supernet.plain import PlainLayer, PlainNetwork, Source
from supernet.ptq.adaround import RoundingRecipe, learn_rounding
from supernet.ptq.balance import balance
from supernet.ptq.bias import correct_bias
from supernet.ptq.compensate import compensate
from supernet.ptq.equalize import equalize
from supernet.ptq.graph import FloatGraph, Layer, images_of, run_node, shape_of, trace_float
from supernet.ptq.quantisation_points import (
    behind_point,
    insert_points,
    layer_source,
    relu_follows,
)
from supernet.ptq.ranges import RangeObserver, quantize_weight, weight_steps
from supernet.quantizers.formats import EncodedWeights, encode_weights
from supernet.reading.compare import node_values, relative_difference
from supernet.reading.operations import packet
from supernet.reading.reader import TOLERANCE
from supernet.sparsity.masks import graph_sparsity, magnitude_mask

STEPS = ("equalize", "balance", "mse", "compensate", "bias", "adaround")
"""What may be done beyond folding batch norms and rounding to nearest over the whole range."""

Bits = tuple[int | str, int | str]
"""Of weights and inputs: bits of integers, or the name of a number format."""

TRANSPOSED_BITS = 8
"""Of the weights of transposed convolutions, in which few weights make all of what is enlarged."""

_COMPARED = 8
"""Images on which a network is compared with itself before a step."""


@torch.no_grad()
def quantize_post_training(
    module: nn.Module,
    batches: Iterable[Any],
    bits: Bits | Mapping[str, Bits] = (8, 8),
    *,
    steps: Sequence[str] = STEPS,
    edge_bits: int | None = 8,
    per_channel: bool = True,
    rounding: RoundingRecipe = RoundingRecipe(),
    seed: int = 0,
    group: int = 0,
    sparsity: Sparsity | Mapping[str, Sparsity] | None = None,
    on_layer: Callable[[int, int], None] | None = None,
) -> PlainNetwork:
    """Return ``module`` as a quantised network for :func:`supernet.onnx.export.export_onnx`.

    Args:
        module: a trained float network that ``torch.export`` can capture, or one extracted in float
            (:func:`supernet.training.subnets.float_plan`). Left as it is.
        batches: calibration images (batch, channels, height, width), not augmented; targets of
            (images, targets) are ignored. 256 to 1000 images are enough.
        bits: (weight bits, activation bits) of every layer, or of each by its name (all must be
            given); 32 is float. Of one pair, weights of transposed convolutions have at least 8
            bits. In place of bits the name of a number format
            (:data:`~search_spaces.number_formats.NUMBER_FORMATS`), such as ``"fp8_e4m3"``.
        steps: of :data:`STEPS`, in any order: ``equalize`` ranges across layers, ``balance`` those
            of activations, ranges of least squared error (``mse``), rounding that makes up for
            what it lost (``compensate``), ``bias`` correction, learned rounding (``adaround``)
            in place of it. Weights in number formats stay at their nearest values.
        edge_bits: bits of the first and the last layer where ``bits`` is one pair; None treats
            them as the others.
        per_channel: a weight step for each output channel, otherwise one for the layer.
        rounding: of ``adaround``.
        seed: of ``adaround``.
        group: weights of a channel that share a scale, of layers in number formats; 0 takes
            ``per_channel``. Integers have no groups, so that integer kernels take them.
        sparsity: zeros among the weights, chosen by their size: of every layer but the first and
            the last where a layer can have the pattern, or of layers by their names
            (:func:`supernet.sparsity.masks.graph_sparsity`). Zero weights of the float network
            that its pattern covers stay zero.
        on_layer: told after each layer how many are done, and of how many.

    Raises:
        InputError: an unknown step, a network that cannot be traced, bits for layers that do not
            exist or for some of them only, a layer that cannot have the sparsity named for it, or
            no images.
    """
    for step in steps:
        if step not in STEPS:
            raise InputError(f"unknown post-training step {step!r} (available: {', '.join(STEPS)})")
    images = list(images_of(batches))
    if not images:
        raise InputError("quantisation needs at least one batch of calibration images")
    graph = trace_float(module, images[0])
    wanted = layer_bits(tuple(graph.layers), bits, edge_bits, graph.transposed)
    if "equalize" in steps:
        before = node_values(graph.module, [images[0][:_COMPARED]])
        equalize(graph)
        _check_equalised(graph, before, images[0][:_COMPARED], "equalize")
    if "balance" in steps:
        before = node_values(graph.module, [images[0][:_COMPARED]])
        fine = all(bits_of(weight) >= 8 for weight, _ in wanted.values())
        balance(graph, images[0], strength=1.0 if fine else 0.5)
        _check_equalised(graph, before, images[0][:_COMPARED], "balance")
    patterns = graph_sparsity(graph, sparsity, {name: w for name, (w, _) in wanted.items()})
    walk = _Walk(graph, wanted, frozenset(steps), per_channel, rounding, seed, group, patterns)
    walk.run(images, on_layer)
    network = walk.network()
    difference = relative_difference(network(images[0]), walk.outputs)
    if difference > TOLERANCE:
        raise InputError(
            f"the quantised network differs from its own layers by {difference:.3g} (relative); "
            "its forward depends on something that reading misses"
        )
    return network


def _check_equalised(
    graph: FloatGraph, before: Mapping[fx.Node, Any], images: Tensor, step: str
) -> None:
    """Compare a network with itself before its ranges were equalised by ``step``.

    Raises:
        InputError: its outputs differ; the message names the first layer whose outputs are no
            multiples, channel by channel, of what they were.
    """
    after = node_values(graph.module, [images])
    last = next(reversed(graph.module.graph.nodes))
    difference = relative_difference(after[last], before[last])
    if difference <= 10 * TOLERANCE:
        return
    for name, node in graph.layers.items():
        channels = 1 if isinstance(graph.layer(name), nn.Conv2d) else before[node].dim() - 1
        axes = [axis for axis in range(before[node].dim()) if axis != channels]
        ratio = after[node].abs().sum(axes) / before[node].abs().sum(axes).clamp(min=1e-12)
        shape = [-1 if axis == channels else 1 for axis in range(before[node].dim())]
        if relative_difference(after[node], before[node] * ratio.view(shape)) > 10 * TOLERANCE:
            break
    raise InputError(
        f"equalising ranges changes the outputs by {difference:.3g} (relative), first at the layer "
        f"{name}; leave out the step {step!r}"
    )


def layer_bits(
    layers: tuple[str, ...],
    bits: Bits | Mapping[str, Bits],
    edge_bits: int | None = 8,
    transposed: frozenset[str] = frozenset(),
) -> dict[str, Bits]:
    """Return the bits of each layer, see :func:`quantize_post_training`.

    ``transposed`` layers have weights of at least ``TRANSPOSED_BITS`` where ``bits`` is one pair.
    """
    if not isinstance(bits, Mapping):
        weight, activation = (_checked(number, i == 1) for i, number in enumerate(bits))
        fine: int | str = weight
        if isinstance(weight, int):
            fine = max(weight, TRANSPOSED_BITS)
        plain = {n: (fine if n in transposed else weight, activation) for n in layers}
        if edge_bits is None:
            return plain
        # Float stays float.
        edge = tuple(
            number if bits_of(number) >= FLOAT_BITS else edge_bits
            for number in (weight, activation)
        )
        edges = {layers[0], layers[-1]}
        return plain | {name: (edge[0], edge[1]) for name in layers if name in edges}
    missing, unknown = set(layers) - set(bits), set(bits) - set(layers)
    if missing or unknown:
        raise InputError(
            f"bits must name every layer: missing {sorted(missing)}, unknown {sorted(unknown)}"
        )
    return {
        name: (_checked(bits[name][0], False), _checked(bits[name][1], True)) for name in layers
    }


def _checked(number: int | str, activations: bool) -> int | str:
    if not isinstance(number, str):
        return int(number)
    chosen = number_format(number)
    if activations and not chosen.activations:
        raise InputError(f"{number} is a format of weights; inputs of layers cannot have it")
    return number


@dataclass
class _Walk:
    """The walk over a network; ``graph`` keeps the float layers, ``body`` becomes integer."""

    graph: FloatGraph
    bits: Mapping[str, Bits]
    steps: frozenset[str]
    per_channel: bool
    rounding: RoundingRecipe
    seed: int
    group: int = 0
    patterns: Mapping[str, Sparsity] = field(default_factory=dict)
    names: dict[fx.Node, str] = field(default_factory=dict)
    quantized: dict[str, PlainLayer] = field(default_factory=dict)
    outputs: Any = None

    def __post_init__(self) -> None:
        self.body = self.graph.module
        self.beside = self.graph.beside()
        self.method = "mse" if "mse" in self.steps else "max"
        points: list[fx.Node] = []
        # Formats that are no integers run as floats, so nothing between layers need be integers.
        if any(isinstance(a, int) and a < FLOAT_BITS for _, a in self.bits.values()):
            points = insert_points(self.body, self.graph.layers)
        self.points = set(points)
        for name, node in self.graph.layers.items():
            self.names[node] = name

    def run(
        self, images: Sequence[Tensor], on_layer: Callable[[int, int], None] | None = None
    ) -> None:
        """Quantise every layer and point."""
        floats: dict[fx.Node, list[Any]] = {}
        codes: dict[fx.Node, list[Any]] = {}
        last_use = _last_uses(self.body.graph)
        for node in self.body.graph.nodes:
            if node.op == "placeholder":
                floats[node] = codes[node] = list(images)
            elif node in self.names:
                floats[node], codes[node] = self._layer(node, floats, codes)
                if on_layer is not None:
                    on_layer(len(self.quantized), len(self.names))
            elif node in self.points:
                before = node.all_input_nodes[0]
                floats[node] = floats[before]
                codes[node] = self._point(node, floats[before], codes[before])
            else:
                floats[node] = self._each(node, floats, len(images))
                codes[node] = self._each(node, codes, len(images))
            if node.op == "output":
                self.outputs = codes[node][0]
            for done in last_use.get(node, ()):
                floats.pop(done, None)
                codes.pop(done, None)

    def network(self) -> PlainNetwork:
        """Return the quantised network."""
        for name, layer in self.quantized.items():
            self.graph.replace(name, layer)
        self.body.recompile()
        plans = tuple(layer.layer for layer in self.quantized.values())
        beside = tuple(
            OperatorPlan(path, path, "value", count, parameters=count)
            for path, count in self.beside.items()
        )
        # Of several outputs, the first.
        output = next(reversed(self.body.graph.nodes)).all_input_nodes[0]
        plan = NetworkPlan(
            space="post-training",
            input_shape=self.graph.input_shape,  # type: ignore[arg-type]
            outputs=shape_of(output)[-1],
            blocks=(BlockPlan("network", "traced", plans, operators=beside),),
        )
        return PlainNetwork(plan, [self.body]).eval()  # type: ignore[list-item]

    def _each(self, node: fx.Node, values: dict[fx.Node, list[Any]], count: int) -> list[Any]:
        def run(index: int) -> Any:
            return run_node(self.body, node, lambda parent: values[parent][index])

        return [run(index) for index in range(count)]

    def _point(self, node: fx.Node, floats: list[Tensor], codes: list[Tensor]) -> list[Tensor]:
        source = self._source(node)
        before = node.all_input_nodes[0]
        if packet(before) == "max_pool2d" and before.all_input_nodes[0] in self.points:
            # A maximum of codes is a code of the same grid.
            same = self._source(before.all_input_nodes[0])
            source.step, source.zero_point = same.step, same.zero_point
        else:
            self._set_grid(source, floats)
        return [source(x) for x in codes]

    def _source(self, node: fx.Node) -> Source:
        found = self.body.get_submodule(str(node.target))
        assert isinstance(found, Source)
        return found

    def _set_grid(self, source: Source, values: Sequence[Tensor]) -> None:
        observer = RangeObserver(self.method)
        for x in values:
            observer.see(x)
        if source.chosen is not None:
            source.step = observer.format_step(source.chosen)
            return
        grid = observer.grid(source.bits)
        source.step, source.zero_point = grid.step, grid.zero_point

    def _layer(
        self, node: fx.Node, floats: dict[fx.Node, list[Any]], codes: dict[fx.Node, list[Any]]
    ) -> tuple[list[Tensor], list[Tensor]]:
        name, before = self.names[node], node.all_input_nodes[0]
        layer = self.graph.layer(name)
        weight_number, activation_number = self.bits[name]
        weight_bits, activation_bits = bits_of(weight_number), bits_of(activation_number)
        expected = [layer(x) for x in floats[before]]
        if isinstance(activation_number, str):
            chosen = number_format(activation_number)
            source = Source("none", bits=activation_bits, chosen=chosen)
        else:
            source = layer_source(activation_number, quantized=behind_point(node, self.points))
        if source.bits < FLOAT_BITS:
            self._set_grid(source, floats[before])
        inputs = [source(x) for x in codes[before]]
        op = _copy_with_bias(layer)
        mask = None
        if not (pattern := self.patterns.get(name, NO_SPARSITY)).dense:
            mask = magnitude_mask(op.weight, pattern)
            op.weight.mul_(mask)
        step = code_range = encoded = None
        if isinstance(weight_number, str):
            encoded = self._encoded(op, number_format(weight_number))
            op.weight.copy_(torch.from_numpy(encoded.decoded()))
            unit, top = encoded.chosen.whole_codes
            if top and not self.group and isinstance(activation_number, int):
                # Whole numbers of one byte: integer kernels compute with them.
                step = torch.from_numpy(encoded.scales[:, 0] * unit)
                code_range, encoded = (-top, top), None
        elif weight_number < FLOAT_BITS:
            step = weight_steps(
                op.weight, weight_bits, method=self.method, per_channel=self.per_channel
            )
            rounded, step = self._rounded(node, op, step, weight_bits, inputs, expected, mask)
            op.weight.copy_(rounded)
        if "bias" in self.steps:
            correct_bias(op, expected, [op(x) for x in inputs])
        plan = layer_plan(name, node, op, weight_bits, activation_bits)
        self.quantized[name] = PlainLayer(
            plan,
            source=source,
            op=op,
            norm=nn.Identity(),
            weight_step=step,
            code_range=code_range,
            encoded=encoded,
            chosen=number_format(weight_number) if isinstance(weight_number, str) else None,
        )
        return expected, [op(x) for x in inputs]

    def _encoded(self, layer: Layer, chosen: NumberFormat) -> EncodedWeights:
        each = "channel" if self.per_channel else "tensor"
        return encode_weights(layer.weight, chosen, scales=self.group or each, method=self.method)

    def _rounded(
        self,
        node: fx.Node,
        op: Layer,
        step: Tensor,
        bits: int,
        inputs: list[Tensor],
        expected: list[Tensor],
        mask: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Return the weights on a grid, and its steps; ``op`` has those that stay."""
        if "compensate" in self.steps and "adaround" not in self.steps:
            seed = derive_seed(self.seed, "compensate", self.names[node])
            # What goes is made up for, so it is told.
            whole = self.graph.layer(self.names[node])
            return compensate(whole, step, bits, inputs, seed=seed, mask=mask)
        if "adaround" not in self.steps:
            return quantize_weight(op.weight, step, bits), step
        learned = learn_rounding(
            op,
            step,
            bits,
            inputs=torch.cat(inputs),
            targets=torch.cat(expected),
            activation=F.relu if relu_follows(node) else None,
            recipe=self.rounding,
            seed=derive_seed(self.seed, "adaround", self.names[node]),
            mask=mask,
        )
        return learned, step


def _copy_with_bias(layer: nn.Module) -> Any:
    import copy

    op = copy.deepcopy(layer)
    if op.bias is None:
        op.bias = nn.Parameter(op.weight.new_zeros(op.weight.shape[0]))
    return op


def layer_plan(
    name: str, node: fx.Node, op: Layer, weight_bits: int, activation_bits: int
) -> LayerPlan:
    """Return the sizes of a convolution or linear layer ``op`` at its ``node``."""
    before, after = shape_of(node.all_input_nodes[0]), shape_of(node)
    shared: dict[str, Any] = {
        "name": name,
        "role": name.rpartition(".")[2],
        "out_channels": op.weight.shape[0],
        "weight_bits": weight_bits,
        "activation_bits": activation_bits,
        "source": "none",
        "batch_norm": False,
    }
    if not isinstance(op, nn.Conv2d):
        return LayerPlan(
            **shared, in_channels=op.in_features, kernel=1, stride=1, groups=1, in_size=1,
            out_size=1, kind="linear", tokens=max(1, math.prod(after[1:-1])),
        )  # fmt: skip
    heights = {"in_height": before[-2], "out_height": after[-2]}
    square = before[-2] == before[-1] and after[-2] == after[-1]
    sides: dict[str, Any] = {**({} if square else heights), **sides_of(op)}
    return LayerPlan(
        **shared,
        in_channels=op.in_channels,
        groups=op.groups,
        in_size=before[-1],
        out_size=after[-1],
        **sides,
    )


def sides_of(op: nn.Conv2d) -> dict[str, int]:
    """Return a layer plan's fields of a convolution's kernel, stride, padding and dilation."""
    found = {}
    for name, value in (
        ("kernel", op.kernel_size),
        ("stride", op.stride),
        ("padding", op.padding),
        ("dilation", op.dilation),
    ):
        height, width = (int(side) for side in value)
        found[name] = width
        if height != width:
            found[f"{name}_height"] = height
    return found


def _last_uses(graph: fx.Graph) -> dict[fx.Node, list[fx.Node]]:
    """Return, for each node, the values that nothing after it uses."""
    last: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        for parent in node.all_input_nodes:
            last[parent] = node
    done: dict[fx.Node, list[fx.Node]] = {}
    for parent, node in last.items():
        done.setdefault(node, []).append(parent)
    return done
