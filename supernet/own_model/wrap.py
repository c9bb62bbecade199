"""A search space from a torch module of your own, and one of its bit-widths alone.

:func:`wrap` takes a plain ``nn.Module`` and the names of what may vary in it: widths of
layers, kernel sizes, depths of ``nn.Sequential`` parts, bits. The result is a space like
the built-in ones: :class:`~supernet.network.Supernet` starts from the module's own weights,
and training, search, extraction and export follow. :func:`bits_space` keeps the network as
it is and lets only its bit-widths vary. How weights of a narrower layer and of a smaller
kernel are taken from the larger ones is that of Once-for-All (Cai et al., ICLR 2020).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from search_spaces.errors import InputError
from search_spaces.plan import FLOAT_BITS, NetworkPlan
from search_spaces.planned import BlockColumn, LayerColumn, OperatorColumn, PlannedSpace
from search_spaces.space import Arch, Choice, Condition
from supernet.batchnorm import EPSILON
from supernet.own_model import importance
from supernet.own_model.graph import ModuleGraph
from supernet.own_model.options import Bits, OptionReader, Options, read_ascending
from supernet.own_model.plans import PlanColumns
from supernet.own_model.traced import role_of
from supernet.own_model.vectors import flattening
from supernet.reading.compare import one_or_tuple, relative_difference
from supernet.reading.normal_form import STATISTICS
from supernet.training.subnets import float_plan

if TYPE_CHECKING:
    from supernet.network import Supernet

KIND = "graph"

_ANSWERS: dict[int | None, str] = {2: "one", 4: "grid"}
"""Axes of a module's output -> what it answers for."""


def wrap(
    module: nn.Module,
    *,
    input_shape: tuple[int, ...],
    name: str = "module",
    widths: Options | None = None,
    kernels: Options | None = None,
    depths: Options | None = None,
    resolutions: Sequence[int] | None = None,
    weight_bits: Bits = (2, 3, 4, 8),
    activation_bits: Bits = (2, 3, 4, 8),
    edge_bits: int | None = 8,
    ties: Sequence[Sequence[str]] = (),
    divisor: int = 4,
    sort_channels: bool = False,
) -> ModuleSpace:
    """Return the search space of the variants of ``module``.

    Names are those of ``module.named_modules()`` and may be patterns (``blocks.*.conv1``).
    Layers whose outputs are added, or joined by a depthwise convolution, share one width; naming
    one of them is enough. Dropout is left out.

    Args:
        module: takes one tensor (batch, channels, height, width) or (batch, channels, samples),
            returns (batch, outputs) for most tasks, or whatever else, and can be captured by
            ``torch.export``. It is the largest variant, and is not changed.
        input_shape: (channels, height, width) of one image, (channels, samples) of a signal, or
            (features,) of a vector; only the resolution of square images can vary.
        name: of the space.
        widths: layer -> allowed shares of its output channels, ascending, at most 1.
        kernels: convolution -> allowed kernel sides, ascending; the largest is its own.
        depths: ``nn.Sequential`` -> allowed numbers of its elements, ascending; the last
            elements are left out first, so they must keep the shape of what goes in.
        resolutions: allowed sides of the image, ascending; by default that of ``input_shape``.
        weight_bits, activation_bits: allowed bits of each layer's weights and input; or
            layer -> bits, of which the last pattern that fits counts. 32 is float.
        edge_bits: bits of the first and the last layer; ``None`` searches them like the others.
        ties: groups of layers that have one width choice, besides those the graph ties.
        divisor: narrower widths are rounded to multiples of it.
        sort_channels: put channels in the order of their importance, see
            :mod:`supernet.own_model.importance`: for a trained module.

    Raises:
        InputError: an unknown name; a layer whose width cannot vary, and why; widths that clash;
            an operation that cannot be exported.
    """
    if len(input_shape) == 1:
        module, input_shape = flattening(module), (1, *input_shape)
    return ModuleSpace(
        module,
        input_shape=input_shape,
        name=name,
        widths=widths or {},
        kernels=kernels or {},
        depths=depths or {},
        resolutions=tuple(resolutions or (input_shape[1],)),
        weight_bits=weight_bits,
        activation_bits=activation_bits,
        edge_bits=edge_bits,
        ties=ties,
        divisor=divisor,
        sort_channels=sort_channels,
    )


def bits_space(
    module: nn.Module,
    *,
    input_shape: tuple[int, ...],
    name: str = "module-bits",
    weight_bits: Bits = (2, 3, 4, 8),
    activation_bits: Bits = (2, 3, 4, 8),
    edge_bits: int | None = None,
) -> ModuleSpace:
    """Return the space of the bit-widths of a fixed network, whose weights are kept.

    Choices are ``w.LAYER`` and ``a.LAYER`` for every convolution and linear layer. What the
    layers are is in ``space.plan(space.largest()).layers()`` (name, ``weight_count``, ``macs``,
    ``input_count``); :meth:`ModuleSpace.at` gives the architecture of an assignment of bits;
    ``Supernet(space)`` holds the module's weights, ``.statistics(arch, images)`` recalibrates
    batch norm and initialises quantisers that have no steps yet, ``.extract`` and
    :func:`supernet.onnx.export.export_onnx` write the file.

    Args and errors: as :func:`wrap`. ``edge_bits=None`` searches the first and last layer too.
    """
    return wrap(
        module,
        input_shape=input_shape,
        name=name,
        weight_bits=weight_bits,
        activation_bits=activation_bits,
        edge_bits=edge_bits,
    )


class ModuleSpace(PlannedSpace):
    """The variants of a module; see :func:`wrap`.

    Choice names: ``resolution``, ``depth.SEQUENCE``, ``width.LAYER`` (the first layer that has
    the width), ``kernel.LAYER``, ``w.LAYER`` and ``a.LAYER``.

    Attributes:
        graph: the traced module.
        module: a copy of it.
        trained: whether the module came trained; None where nobody said.
        skipped: layer that a pattern for widths named -> why its channels cannot vary.
        answers: ``one`` where the module returns (batch, outputs), ``grid`` where it returns
            (batch, outputs, height, width), None for anything else.
    """

    trained: bool | None = None

    def __init__(
        self,
        module: nn.Module,
        *,
        input_shape: tuple[int, ...],
        name: str,
        widths: Options,
        kernels: Options,
        depths: Options,
        resolutions: tuple[int, ...],
        weight_bits: Bits,
        activation_bits: Bits,
        edge_bits: int | None,
        ties: Sequence[Sequence[str]],
        divisor: int,
        sort_channels: bool,
    ) -> None:
        if len(input_shape) not in (2, 3):
            raise InputError(
                f"input_shape={input_shape} must be (channels, height, width), or (channels, "
                "samples) of a signal"
            )
        read_ascending("resolutions", resolutions)
        if resolutions[-1] != input_shape[1]:
            raise InputError(
                f"resolutions={list(resolutions)} must end with the side of input_shape, "
                f"{input_shape[1]}"
            )
        if len(resolutions) > 1 and len(set(input_shape[1:])) > 1:
            raise InputError(
                f"resolutions={list(resolutions)}: the resolution of inputs {input_shape} that "
                "are not square cannot vary"
            )
        self.module = copy.deepcopy(module).cpu().eval()
        self.graph = ModuleGraph(
            self.module, input_shape, sequences=tuple(depths), sides=resolutions
        )
        self._input_shape = input_shape
        reader = OptionReader(self.graph, divisor)
        self._names = reader.names
        self._nodes = {self.graph.layers[role_of(n)]: n for n in self.graph.layer_nodes()}
        reader.tie(ties)
        if sort_channels:
            importance.sort_channels(self.graph)
        self._depths = reader.depths(depths)
        self._widths = reader.widths(widths)
        self._kernels = reader.kernels(kernels)
        edges = () if edge_bits is None else (self._names[0], self._names[-1])
        self._bits = {
            "w": reader.bits("weight_bits", weight_bits, edges, edge_bits),
            "a": reader.bits("activation_bits", activation_bits, edges, edge_bits),
        }
        self.skipped = reader.skipped
        choices = self._choices(resolutions)
        self._columns = PlanColumns(
            self.graph, reader, choices, widths=self._widths, kernels=self._kernels
        )
        super().__init__(
            name,
            choices,
            input_channels=input_shape[0],
            outputs=self.graph.outputs(),
        )
        self.answers = _ANSWERS.get(self.graph.output_axes())
        self.dataflows = {KIND: self.graph.run}
        self._check()

    # ---------------------------------------------------------------- questions

    def at(self, bits: Mapping[str, tuple[int, int]], *, base: Arch | None = None) -> Arch:
        """Return an architecture with the bits of some layers replaced.

        Args:
            bits: layer -> (weight bits, activation bits).
            base: the architecture to change; by default the largest.

        Raises:
            InputError: an unknown layer, or bits that are no option of it.
        """
        values = dict((base or self.largest()).items)
        for layer, (weight, activation) in bits.items():
            if layer not in self._nodes:
                raise InputError(f"unknown layer {layer!r} (there are: {', '.join(self._names)})")
            values |= {f"w.{layer}": weight, f"a.{layer}": activation}
        return self.arch(values)

    def pretrained_statistics(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Return the batch-norm statistics of the module: layer -> (mean, variance).

        They are those of the largest architecture in float.
        """
        found = {}
        for role, path in self.graph.norms.items():
            layer = self.graph.layers[role]
            norm, bias = self.graph.modules[path], self.graph.modules[layer].bias
            mean = norm.running_mean.clone()
            # Ours differ in epsilon, and have no bias before the norm.
            variance = norm.running_var + (norm.eps - EPSILON)
            mean = mean if bias is None else mean - bias.detach()
            shared = self.graph.shared_norm(role)
            found[layer] = (mean[::shared], variance[::shared])
        return found

    def as_it_came(self, plan: NetworkPlan) -> bool:
        """Whether ``plan`` is the module itself: all of it, in float or at 8 bits and more."""
        lowest = min(min(layer.weight_bits, layer.activation_bits) for layer in plan.layers())
        return lowest >= 8 and float_plan(plan) == float_plan(self.plan(self.largest()))

    def input_shape(self, side: int) -> tuple[int, int, int]:
        """Return (channels, height, width) of one input of the height ``side``; a signal has 1."""
        channels, height, *rest = self._input_shape
        if not rest:
            return channels, 1, height
        return channels, side, rest[0] * side // height

    def resolution_column(self, genes: np.ndarray) -> np.ndarray:
        """Width of the input for gene rows: (n,) int64."""
        sides = self._columns.column(np.asarray(genes), "resolution").astype(np.int64)
        return sides * self._input_shape[-1] // self._input_shape[1]

    def height_column(self, genes: np.ndarray) -> np.ndarray:
        """Rows of the input for gene rows: (n,) int64."""
        sides = self._columns.column(np.asarray(genes), "resolution").astype(np.int64)
        return np.ones_like(sides) if len(self._input_shape) == 2 else sides

    def block_columns(self, genes: np.ndarray) -> list[BlockColumn]:
        """Describe the network, which is one block, for gene rows (n, choices)."""
        genes, columns = np.asarray(genes), self._columns
        every = np.ones(len(genes), dtype=bool)
        layers = tuple(
            LayerColumn(columns.layer(genes, node), columns.active(genes, node))
            for node in self.graph.layer_nodes()
        )
        operators = tuple(
            OperatorColumn(columns.operator(genes, node), columns.active(genes, node))
            for node in self.graph.operator_nodes()
        )
        operators += tuple(
            OperatorColumn(columns.product(genes, role, node), columns.active(genes, node))
            for role, node in self.graph.products.items()
        )
        operators += tuple(
            OperatorColumn(columns.function(role, node), columns.active(genes, node))
            for role, node in self.graph.functions.items()
        )
        scopes = {n.target: n for n in self.graph.graph.nodes if n.target in self.graph.points}
        return [
            BlockColumn(
                KIND,
                KIND,
                layers,
                every,
                ~every,
                tuple(self.graph.points.items()),
                operators,
                {role: columns.active(genes, scopes[role]) for role in self.graph.points},
            )
        ]

    @torch.no_grad()
    def initialize(self, network: Any) -> None:
        """Give the supernet ``network`` the module's weights."""
        for role, path in self.graph.layers.items():
            source, layer = self.graph.modules[path], network.layer(path)
            weight = source.weight
            layer.weight.copy_(weight[..., None, None] if weight.dim() == 2 else weight)
            norm = self.graph.norms.get(role)
            if norm is not None and norm.endswith(STATISTICS):
                _set_exact_steps(layer)
            if norm is not None:
                shared = self.graph.shared_norm(role)
                layer.gamma.copy_(self.graph.modules[norm].weight[::shared])
                layer.beta.copy_(self.graph.modules[norm].bias[::shared])
            elif source.bias is not None:
                layer.beta.copy_(source.bias)
        for node in self.graph.operator_nodes():
            path = self.graph.operators[role_of(node)]
            operator = network.operator(path)
            if path in self.graph.modules:
                norm = self.graph.modules[path]
                operator.epsilon = norm.eps
                if isinstance(norm, nn.GroupNorm):
                    alone = norm.num_groups == 1
                    operator.unit = 0 if alone else norm.num_channels // norm.num_groups
                if norm.weight is not None:
                    operator.scale.copy_(norm.weight)
                    operator.shift.copy_(0 if norm.bias is None else norm.bias)
            else:
                operator.set(self.graph.value(path))
                if (axis := self.graph.value_axis(node)) is not None:
                    operator.axis = axis
                # What was computed from weights, or is none, is no weight of its own.
                learned = isinstance(self.graph.value_of(path), nn.Parameter)
                operator.value.requires_grad_(learned)

    # ------------------------------------------------------------------ choices

    def _choices(self, resolutions: tuple[int, ...]) -> list[Choice]:
        choices = [Choice("resolution", resolutions)]
        # A sequence may lie within an element of another: the outer one comes first.
        for path in sorted(self._depths, key=lambda p: p.count(".")):
            inside = [e for e in self.graph.elements if e.sequence == path]
            outer = inside[0].source.meta["scope"] if inside else ()
            scope = min((e.result.meta["scope"] for e in inside), key=len, default=outer)
            choices.append(Choice(f"depth.{path}", self._depths[path], self._when(scope[:-1])))
        for index, (name, options) in self._widths.items():
            nodes = [self._nodes[n] for n in self.graph.widths[index].layers]
            whens = [self._when(node.meta["scope"]) for node in nodes]
            # Needed as soon as one of its layers is there.
            when = whens[0] if all(w == whens[0] for w in whens) else ()
            choices.append(Choice(f"width.{name}", options, when))
        for name, node in self._nodes.items():
            when = self._when(node.meta["scope"])
            if name in self._kernels:
                choices.append(Choice(f"kernel.{name}", self._kernels[name], when))
            for kind in ("w", "a"):
                choices.append(Choice(f"{kind}.{name}", self._bits[kind][name], when))
        return choices

    def _when(self, scope: Sequence[tuple[str, int]]) -> tuple[Condition, ...]:
        conditions = []
        for path, position in scope:
            options = self._depths[path]
            if position >= options[0]:
                deep = frozenset(d for d in options if d > position)
                conditions.append(Condition(f"depth.{path}", deep))
        return tuple(conditions)

    def _check(self) -> None:
        """Compare the largest architecture with the module, and run the smallest."""
        from supernet.network import Supernet

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network: Supernet = Supernet(self)
            images = torch.randn(2, *self._input_shape)
        largest = float_plan(self.plan(self.largest()))
        found = network.evaluate(images, largest, self.pretrained_statistics())
        with torch.no_grad():
            expected = self.module(images)
        error = relative_difference(found, one_or_tuple(expected))
        if not error < 1e-3:
            raise InputError(
                f"the space's largest network differs from the module by {error:.3g}; its forward "
                "does something that tracing misses, such as a branch or a global"
            )
        smallest = float_plan(self.plan(self.smallest()))
        try:
            with torch.no_grad():
                network(torch.randn(2, *smallest.input_shape), smallest)
        except RuntimeError as error:
            raise InputError(
                f"the smallest network does not run ({error}); a fixed number of channels or "
                "pixels in the module's forward, such as x.view(-1, 1024), is the usual reason"
            ) from error


def _set_exact_steps(layer: Any) -> None:
    """Give weights that are all one steps by which they stay so at any bits."""
    quantizer = layer.weight_quantizer
    for bits in {b for b in quantizer.bits if b < FLOAT_BITS}:
        high = quantizer.code_range(bits)[1]
        quantizer.set_step(1, bits, torch.full((len(layer.weight),), 1 / high))
