"""A plain torch module as a graph of layers, with what is known about the widths of its tensors.

The module is read by :mod:`supernet.reading`. Convolutions and linear layers (with the batch norm
behind them) become layers, layer norms, constants and products of activations become operators;
everything else stays the ATen operation it is. Channel counts that must be equal, because tensors
are added or go through a depthwise convolution, are found and form one *width*.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from search_spaces.errors import InputError
from supernet.reading.capture import arguments, module_path, packet
from supernet.reading.reader import read_network

BATCH = 2
ACTIVATIONS = {"relu": "relu", "hardswish": "hswish", "hardsigmoid": "hsigmoid", "gelu": "gelu"}
_ARITHMETIC = ("add", "sub", "mul", "maximum", "minimum", "div")
MIXING = ("add", "sub", "mul", "maximum", "minimum", "matmul", "bmm", "cat", "mean",
          "adaptive_avg_pool2d", "avg_pool2d", "max_pool2d")  # fmt: skip
"""Operations that run on integers if what goes into them is quantised."""

PRODUCTS = ("matmul", "bmm", "scaled_dot_product_attention", "conv_transpose2d", "conv1d", "conv2d",
            "conv_transpose1d", "linear")  # fmt: skip
"""Operations beside the layers that multiply and accumulate."""

_SPLITTING = ("chunk", "split", "split_with_sizes", "unbind")
_RESHAPING = ("flatten", "reshape", "squeeze", "unsqueeze", "unflatten")
_MOVING = (*_RESHAPING, *_SPLITTING, "permute", "transpose", "getitem", "select", "slice",
           "expand", "roll", "upsample_nearest2d")  # fmt: skip
_KEEPS_GRID = (*_MOVING, "max_pool2d", "relu")
_KEEPS_SIGN = (*_KEEPS_GRID, "mean", "adaptive_avg_pool2d", "avg_pool2d")
_POSITIVE = ("relu", "relu6", "sigmoid", "hardsigmoid", "softmax", "exp")
_POINTWISE = ("relu", "relu6", "hardtanh", "hardswish", "hardsigmoid", "sigmoid", "tanh",
              "silu", "gelu", "neg", "exp", "sqrt", "abs", "leaky_relu", "elu", "mish", "clamp",
              "erf", "softplus")  # fmt: skip
_POOLS = ("adaptive_avg_pool2d", "avg_pool2d", "max_pool2d", "upsample_nearest2d",
          "upsample_bilinear2d", "upsample_bicubic2d")  # fmt: skip


@dataclass
class Width:
    """A number of channels; several layers may share it.

    Attributes:
        size: channels of the module itself.
        layers: names of the layers whose outputs have it.
        pinned: why it cannot vary; empty if it can.
    """

    size: int
    layers: list[str] = field(default_factory=list)
    pinned: str = ""


@dataclass(frozen=True)
class Track:
    """Where the channels of a tensor are: ``size of axis = width x repeat``."""

    axis: int
    width: int
    repeat: int = 1


@dataclass(frozen=True)
class Element:
    """An element of a sequence that may be left out.

    Attributes:
        sequence, position: path of the ``nn.Sequential``, and place in it from 0.
        source, result: nodes whose values go in and come out.
        marker: role of one of its layers; the element is left out where that layer is.
    """

    sequence: str
    position: int
    source: fx.Node
    result: fx.Node
    marker: str


class ModuleGraph:
    """The graph of a module.

    Args:
        module: takes one tensor (batch, channels, height, width), or (batch, channels, samples),
            and returns (batch, outputs).
        input_shape: of one input.
        sequences: paths of the ``nn.Sequential`` modules whose depth varies.
        sides: heights of the images that will occur; by default that of ``input_shape``.

    Attributes:
        graph: nodes; layers, operators and quantisation points are ``call_module`` nodes whose
            target is their role.
        modules: layers and norms by path.
        layers: role -> path, for every convolution and linear layer in order of execution.
        norms: role of a layer -> path of the batch norm behind it.
        operators: role -> path of a layer norm or of a constant.
        products: role -> node whose multiplications are beside those of the layers.
        points: role -> non-linearity before it.
        sources: role of a layer -> non-linearity before its input quantiser, see
            :class:`~search_spaces.plan.LayerPlan`.
        elements: of the sequences, those that can be left out.

    Raises:
        InputError: something that cannot be read or quantised; the message names it.
    """

    def __init__(
        self,
        module: nn.Module,
        input_shape: tuple[int, ...],
        *,
        sequences: Sequence[str] = (),
        sides: Sequence[int] = (),
    ) -> None:
        self.module = module
        self.input_shape = input_shape
        own = dict(module.named_modules())
        for path in sequences:
            if not isinstance(own.get(path), nn.Sequential):
                known = [p for p, m in own.items() if isinstance(m, nn.Sequential) and p]
                raise InputError(f"{path!r} is no nn.Sequential of the module (there are: {known})")
        self.lengths = {path: len(own[path]) for path in sequences}  # type: ignore[arg-type]
        # Sizes that do not vary are constants, which more operations can be captured with.
        dynamic = range(2, 1 + len(input_shape)) if len(set(sides)) > 1 else ()
        read = read_network(
            module, torch.zeros(BATCH, *input_shape), fold=False, dynamic=(0, *dynamic)
        )
        self.modules = dict(read.named_modules())
        self.graph = read.graph
        self._values = {
            str(n.target): _attribute(read, str(n.target)) for n in read.graph.nodes
            if n.op == "get_attr"
        }  # fmt: skip
        self.layers: dict[str, str] = {}
        self.norms: dict[str, str] = {}
        self.operators: dict[str, str] = {}
        self.products: dict[str, fx.Node] = {}
        self.points: dict[str, str] = {}
        self.sources: dict[str, str] = {}
        self._read = fx.GraphModule(read, copy.deepcopy(self.graph))
        # Roles take the place of paths, and no module has them.
        self.graph.owning_module = None  # type: ignore[assignment]
        self._sizes: set[str] = set()
        self._shapes = {input_shape[1]: self._propagate(input_shape[1])}
        self._set_scopes(set(sequences))
        self._merge_norms()
        self._name_roles()
        self.elements = self._elements()
        self.widths: list[Width] = []
        self._parents: list[int] = []
        self._tracks: dict[fx.Node, Track] = {}
        self._track()
        self._place_points()
        self.graph.lint()

    # -------------------------------------------------------------- questions

    def shape(self, node: fx.Node, side: int) -> tuple[int, ...]:
        """Return the shape of a value for :data:`BATCH` images of ``side`` pixels."""
        if side not in self._shapes:
            self._shapes[side] = self._propagate(side)
        return self._shapes[side][node.meta.get("value", node.name)]

    def layer_nodes(self) -> Iterator[fx.Node]:
        """Yield the node of every layer in order of execution."""
        return (node for node in self.graph.nodes if node.target in self.layers)

    def operator_nodes(self) -> Iterator[fx.Node]:
        """Yield the node of every operator in order of execution."""
        return (node for node in self.graph.nodes if node.target in self.operators)

    def output_width(self, node: fx.Node) -> int | None:
        """Return the index of the width of a node's channels, if they are tracked."""
        track = self._tracks.get(node)
        return None if track is None else self._root(track.width)

    def input_width(self, node: fx.Node) -> tuple[int | None, int]:
        """Return the width of what goes into a layer and how often each channel occurs."""
        track = self._tracks.get(node.meta["input"])
        if node.meta.get("own_inputs"):
            track = None
        return (None, 1) if track is None else (self._root(track.width), track.repeat)

    def tie(self, names: Sequence[str]) -> None:
        """Give the layers called ``names`` one width.

        Raises:
            InputError: their channels differ in number.
        """
        nodes = {self.layers[node.target]: node for node in self.layer_nodes()}
        first, *others = (nodes[name] for name in names)
        for other in others:
            a, b = (self._root(self._tracks[node].width) for node in (first, other))
            if self.widths[a].size != self.widths[b].size:
                raise InputError(
                    f"ties: {names[0]} has {self.widths[a].size} output channels and "
                    f"{self.layers[other.target]} {self.widths[b].size}; tie equal ones"
                )
            self._union(a, b)

    def operations(self) -> Iterator[fx.Node]:
        """Yield the operations of the module as it was read, without layers and constants."""
        return (n for n in self._read.graph.nodes if n.op == "call_function")

    def free_widths(self) -> list[Width]:
        """Return every width that layers have, each once."""
        return [w for i, w in enumerate(self.widths) if self._root(i) == i and w.layers]

    # ---------------------------------------------------------------- running

    def run(self, x: Tensor, ops: Mapping[str, Any], residual: bool = False) -> Tensor:
        """Run the graph with the operations ``ops`` by role; a dataflow.

        ``x``: (batch, channels, side, side) -> (batch, outputs).
        """
        left_out = {(e.sequence, e.position) for e in self.elements if e.marker not in ops}
        passing = {
            e.result: e.source for e in self.elements if (e.sequence, e.position) in left_out
        }
        values: dict[fx.Node, Any] = {}
        for node in self.graph.nodes:
            if node in passing and not left_out & set(node.meta["scope"][:-1]):
                values[node] = values[passing[node]]
                continue
            if left_out & set(node.meta["scope"]):
                continue
            if node.op == "placeholder":
                # Signals may come as images one pixel high.
                values[node] = x.flatten(2) if len(self.input_shape) == 2 else x
            elif node.op == "output":
                return fx.node.map_arg(node.args[0], values.__getitem__)  # type: ignore[no-any-return]
            else:
                args = fx.node.map_arg(node.args, values.__getitem__)
                kwargs = fx.node.map_arg(node.kwargs, values.__getitem__)
                if node.op == "call_module":
                    values[node] = ops[node.target](*args)
                elif node.op == "get_attr":
                    constant = self._values[node.target]
                    values[node] = constant.to(x.device) if isinstance(x, Tensor) else constant
                else:
                    values[node] = node.target(*args, **kwargs)
        raise AssertionError("a traced graph ends with its output")

    # --------------------------------------------------------------- building

    def value(self, path: str) -> Tensor:
        """Return the constant called ``path``."""
        return self._values[path].detach()

    def value_of(self, path: str) -> Tensor:
        """Return it as the module holds it: a parameter, or another tensor."""
        return self._values[path]

    def has_shape(self, node: fx.Node) -> bool:
        """Whether a node is a tensor."""
        return node.meta.get("value", node.name) in self._shapes[self.input_shape[1]]

    def _propagate(self, side: int) -> dict[str, tuple[int, ...]]:
        # The graph as it was read: its nodes keep their names when it is changed later.
        channels, height, *rest = self.input_shape
        sizes = [side, *(round(width * side / height) for width in rest)]
        images = torch.zeros(BATCH, channels, *sizes)
        shapes: dict[str, tuple[int, ...]] = {}
        known = self._sizes

        class Shapes(fx.Interpreter):
            def run_node(self, n: fx.Node) -> Any:
                value = super().run_node(n)
                if isinstance(value, Tensor):
                    shapes[n.name] = tuple(value.shape)
                elif isinstance(value, (int, float, torch.Size)):
                    known.add(n.name)
                return value

        try:
            with torch.no_grad():
                Shapes(self._read).run(images)
        except RuntimeError as error:
            raise InputError(
                f"the module does not run on images {tuple(images.shape[1:])}: {error}"
            ) from error
        return shapes

    def _set_scopes(self, sequences: set[str]) -> None:
        """Note the elements of sequences that each node belongs to, the outermost first."""
        for node in self.graph.nodes:
            found = []
            for entry in (node.meta.get("nn_module_stack") or {}).values():
                parent, _, last = str(entry[0]).rpartition(".")
                if parent in sequences and last.isdigit():
                    found.append((parent, int(last)))
            node.meta["scope"] = tuple(found)
        for node in self.graph.nodes:
            if node.op == "get_attr":
                # Of a constant, where it is used.
                scopes = [user.meta["scope"] for user in node.users] or [()]
                first = scopes[0]
                alike = next(
                    (
                        n
                        for n in range(len(first), 0, -1)
                        if all(s[:n] == first[:n] for s in scopes)
                    ),
                    0,
                )
                node.meta["scope"] = first[:alike]

    def _merge_norms(self) -> None:
        for node in list(self.graph.nodes):
            if not isinstance(self._module(node), nn.BatchNorm2d):
                continue
            before = node.args[0]
            before.meta["norm"] = node.target
            node.replace_all_uses_with(before)
            self.graph.erase_node(node)

    def _name_roles(self) -> None:
        used: dict[str, str] = {}
        for node in list(self.graph.nodes):
            if node.op == "call_module":
                module, path = self._module(node), node.target
                if "_call" in path:
                    raise InputError(
                        f"{path.partition('_call')[0]} is used twice; a layer must have its own "
                        "weights and its own place"
                    )
                role = path.replace(".", "_")
                node.target = role
                if isinstance(module, (nn.Conv2d, nn.Linear)):
                    self.layers[role] = path
                    if "norm" in node.meta:
                        self.norms[role] = node.meta["norm"]
                else:
                    self.operators[role] = path
            elif node.op == "get_attr" and self._values[node.target].is_floating_point():
                path, role = node.target, "value_" + node.target.replace(".", "_")
                node.op, node.target, node.args = "call_module", role, ()
                self.operators[role] = path
            elif packet(node) in PRODUCTS:
                self.products[f"product_{node.name}"] = node
                continue
            else:
                continue
            if role in used:
                raise InputError(
                    f"the name of {path} is that of {used[role]} but for dots; rename one of them"
                )
            used[role] = path
        if not self.layers:
            raise InputError("the module has no convolution and no linear layer")

    def _elements(self) -> list[Element]:
        found = []
        for sequence, length in self.lengths.items():
            for position in range(length):
                found.append(self._element(sequence, position))
        return found

    def _element(self, sequence: str, position: int) -> Element:
        place, name = (sequence, position), f"{sequence}.{position}"
        inside = [n for n in self.graph.nodes if place in n.meta["scope"]]
        layers = [n for n in inside if n.target in self.layers]
        if not layers:
            raise InputError(
                f"{name} has no layer; elements of a sequence of elastic depth need one"
            )
        sources = {
            parent: None
            for n in inside
            for parent in self._tensors(n)
            if place not in parent.meta["scope"] and not self._is_constant(parent)
        }
        results = {n: None for n in inside if any(place not in u.meta["scope"] for u in n.users)}
        if len(sources) != 1 or len(results) != 1:
            raise InputError(f"{name}: an element that can be left out takes and gives one tensor")
        (source,), (result,) = sources, results
        return Element(sequence, position, source, result, layers[0].target)

    def _is_constant(self, node: fx.Node) -> bool:
        return node.op == "get_attr" or self._is_value(node)

    # ----------------------------------------------------------------- widths

    def _track(self) -> None:
        for node in self.graph.nodes:
            track = self._track_node(node)
            if track is not None:
                self._tracks[node] = track
        for element in self.elements:
            source, result = (self._tracks.get(n) for n in (element.source, element.result))
            if source is not None and result is not None and source.axis == result.axis:
                if self.widths[self._root(source.width)].size == (
                    self.widths[self._root(result.width)].size
                ):
                    self._union(source.width, result.width)
            elif result is not None:
                self._pin(result, element.result, "leaves an element of elastic depth")

    def _track_node(self, node: fx.Node) -> Track | None:
        name, tensors = packet(node), self._tensors(node)
        if node.target in self.layers:
            return self._track_layer(node)
        if node.op == "placeholder":
            width = self._new(self.input_shape[0], "the channels of the image are given")
            return Track(1, width)
        tracks = [self._tracks[t] for t in tensors if t in self._tracks]
        if node.name in self._sizes or not tensors:
            return None
        first = tracks[0] if tracks else None
        if node.target in self.operators:
            return self._track_norm(node, first)
        if first is None:
            return None
        shape = [self.shape(t, self.input_shape[1]) for t in tensors]
        here = self._shapes[self.input_shape[1]].get(node.name)
        if name in _POINTWISE or name in _POOLS:
            return first
        if name in _ARITHMETIC:  # fmt: skip
            return self._track_together(node, tensors, shape)
        if name == "cat":
            axis = node.args[1] if len(node.args) > 1 else 0
            if here is not None and axis % len(here) != first.axis:
                return self._track_together(node, tensors, shape)
        if name == "mean" and here is not None:
            given = arguments(node)
            dims = [d % len(shape[0]) for d in given.get("dim") or ()]
            if dims and first.axis not in dims:
                moved = 0 if given.get("keepdim") else sum(d < first.axis for d in dims)
                return Track(first.axis - moved, first.width, first.repeat)
        if name in _RESHAPING and here is not None:
            before, a = shape[0], first.axis
            if here[: a + 1] == before[: a + 1]:
                self._free_axis(node, a)
                return first
            if here[:a] == before[:a] and len(here) == a + 1:
                self._free_axis(node, a)
                return Track(a, first.width, first.repeat * math.prod(before[a + 1 :]))
        if name in ("permute", "transpose"):
            rank = len(shape[0])
            order = list(range(rank))
            if name == "transpose":
                i, j = (a % rank for a in node.args[1:3])
                order[i], order[j] = order[j], order[i]
            else:
                order = [d % rank for d in node.args[1]]
            return Track(order.index(first.axis), first.width, first.repeat)
        for track in tracks:
            self._pin(track, node)
        return None

    def _free_axis(self, node: fx.Node, axis: int) -> None:
        """Let a reshape find the size of the channels itself, which may be fewer."""
        if packet(node) != "reshape":
            return
        shape = list(node.args[1])  # type: ignore[arg-type]
        if isinstance(shape[axis], int) and -1 not in shape:
            shape[axis] = -1
            node.args = (node.args[0], shape)

    def _track_layer(self, node: fx.Node) -> Track:
        module = self.modules[self.layers[node.target]]
        path = self.layers[node.target]
        source = node.args[0]
        node.meta["input"] = source
        track = self._tracks.get(source)
        if isinstance(module, nn.Linear):
            rank = len(self.shape(source, self.input_shape[1]))
            if track is not None and track.axis != rank - 1:
                self._pin(track, node)
                # What is multiplied along another axis has its own inputs here.
                node.meta["own_inputs"] = True
            return Track(rank - 1, self._new(module.out_features, layer=path))
        if track is not None and track.axis != 1:
            self._pin(track, node)
        if module.groups == 1:
            return Track(1, self._new(module.out_channels, layer=path))
        if track is not None and module.groups == module.in_channels == module.out_channels:
            self.widths[self._root(track.width)].layers.append(path)
            return Track(1, track.width)
        reason = f"{path} is a convolution in groups"
        if track is not None:
            self._pin(track, node, reason)
        return Track(1, self._new(module.out_channels, reason, layer=path))

    def _track_norm(self, node: fx.Node, track: Track | None) -> Track | None:
        if track is not None and not node.target.startswith("value_"):
            rank = len(self.shape(node.args[0], self.input_shape[1]))
            if track.axis == rank - 1 and track.repeat == 1:
                return track
            self._pin(track, node)
        return None

    def _track_together(
        self, node: fx.Node, tensors: Sequence[fx.Node], shapes: Sequence[tuple[int, ...]]
    ) -> Track | None:
        tracks = [self._tracks.get(t) for t in tensors]
        known = [t for t in tracks if t is not None]
        alike = len({(t.axis, t.repeat, self.widths[self._root(t.width)].size) for t in known}) == 1
        if len(known) == len(tensors) and alike and len({len(s) for s in shapes}) == 1:
            for track in known[1:]:
                self._union(known[0].width, track.width)
            return known[0]
        for track in known:
            self._pin(track, node)
        return known[0] if alike else None

    def _new(self, size: int, pinned: str = "", *, layer: str = "") -> int:
        self.widths.append(Width(size, [layer] if layer else [], pinned))
        self._parents.append(len(self._parents))
        return len(self.widths) - 1

    def _root(self, width: int) -> int:
        while self._parents[width] != width:
            width = self._parents[width]
        return width

    def _union(self, a: int, b: int) -> None:
        a, b = self._root(a), self._root(b)
        if a == b:
            return
        first, second = sorted((a, b))
        self._parents[second] = first
        merged, gone = self.widths[first], self.widths[second]
        merged.layers += [name for name in gone.layers if name not in merged.layers]
        merged.pinned = merged.pinned or gone.pinned

    def _pin(self, track: Track, node: fx.Node, reason: str = "") -> None:
        width = self.widths[self._root(track.width)]
        width.pinned = (
            width.pinned
            or reason
            or (
                "they are the network's outputs"
                if node.op == "output"
                else f"they go into {packet(node)!r} ({_where(node)}), which needs all of them"
            )
        )

    # ----------------------------------------------------------------- points

    def _place_points(self) -> None:
        floats = self._float_additions()
        for node in list(self.graph.nodes):
            if node.op == "call_module" or packet(node) not in MIXING or node in floats:
                continue
            tensors = self._tensors(node)
            if packet(node) in _ARITHMETIC and len(tensors) < 2:
                continue  # with a number, which no integer kernel takes
            for tensor in tensors:
                if not self._on_grid(tensor) and not self._is_value(tensor):
                    self._insert_point(tensor)
        self._agree_on_points()
        for node in self.layer_nodes():
            source = node.args[0]
            if self._on_grid(source):
                self.sources[node.target] = "stream"
                continue
            self.sources[node.target], before = self._activation(source)
            node.args = (before,)
        self._drop_unused()
        for node in list(self.layer_nodes()):
            # Runtimes run a convolution on integers only if its output is quantised.
            plain = [u for u in node.users if u.op not in ("call_module", "output")]
            if plain and isinstance(self.modules[self.layers[node.target]], nn.Conv2d):
                self._insert_point(node)

    def _drop_unused(self) -> None:
        self.graph.eliminate_dead_code(lambda node: node.op in ("placeholder", "output"))

    def _agree_on_points(self) -> None:
        """Quantise what leaves each element of a sequence, if that of one of them is."""
        for sequence in {element.sequence for element in self.elements}:
            borders = [e.result for e in self.elements if e.sequence == sequence]
            if any(self._on_grid(node) for node in borders):
                for node in borders:
                    if not self._on_grid(node):
                        self._insert_point(node)

    def _insert_point(self, tensor: fx.Node) -> None:
        name, before = self._activation(tensor, border=True)
        role = f"point_{tensor.name}"
        with self.graph.inserting_after(tensor):
            point = self.graph.create_node("call_module", role, (before,), {})
        point.meta["scope"], point.meta["value"] = tensor.meta["scope"], tensor.name
        tensor.replace_all_uses_with(point, lambda user: user is not point)
        # The value that enters or leaves an element is its quantised one.
        self.elements = [
            replace(
                element,
                source=point if element.source is tensor else element.source,
                result=point if element.result is tensor else element.result,
            )
            for element in self.elements
        ]
        self.points[role] = name

    def _activation(self, tensor: fx.Node, *, border: bool = False) -> tuple[str, fx.Node]:
        """Return the non-linearity that a quantiser of ``tensor`` takes over, and its input.

        Args:
            tensor: the value to quantise.
            border: whether the quantiser may do so where the value enters or leaves an element
                that can be left out.
        """
        borders = {e.source for e in self.elements} | {e.result for e in self.elements}
        found = ACTIVATIONS.get(packet(tensor))
        if found is not None and tensor.kwargs.get("approximate", "none") == "none":
            before = tensor.args[0]
            if (border or tensor not in borders) and not self._on_grid(before):
                return found, before
        return ("relu" if self._never_negative(tensor) else "none"), tensor

    def _on_grid(self, node: fx.Node) -> bool:
        if node.op == "call_module":
            return node.target in self.points
        tensors = self._tensors(node)
        return packet(node) in _KEEPS_GRID and bool(tensors) and self._on_grid(tensors[0])

    def _never_negative(self, node: fx.Node) -> bool:
        if node.op == "call_module":
            return self.points.get(node.target) in ("relu", "hsigmoid")
        tensors = self._tensors(node)
        if packet(node) in _POSITIVE:
            return True
        return packet(node) in _KEEPS_SIGN and bool(tensors) and self._never_negative(tensors[0])

    def _is_value(self, node: fx.Node) -> bool:
        return node.op == "call_module" and str(node.target).startswith("value_")

    def _float_additions(self) -> set[fx.Node]:
        """Return the additions of a float stream: those whose sums a layer norm reads."""
        found: set[fx.Node] = set()
        for node in reversed(list(self.graph.nodes)):
            if packet(node) == "add" and any(
                user in found or (user.target in self.operators and not self._is_value(user))
                for user in node.users
            ):
                found.add(node)
        return found

    def _tensors(self, node: fx.Node) -> list[fx.Node]:
        """Return the arguments of a node that are tensors, those in lists included."""
        found: list[fx.Node] = []
        fx.node.map_arg(node.args, found.append)
        return [argument for argument in found if argument.name not in self._sizes]

    def _module(self, node: Any) -> nn.Module | None:
        if not isinstance(node, fx.Node) or node.op != "call_module":
            return None
        return self.modules.get(node.target)


def _where(node: fx.Node) -> str:
    path = module_path(node)
    return f"{path} ({node.name})" if path else node.name


def _attribute(module: nn.Module, path: str) -> Tensor:
    found: Any = module
    for part in path.split("."):
        found = getattr(found, part)
    return found  # type: ignore[no-any-return]
