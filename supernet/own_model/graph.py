"""A plain torch module as a graph of layers, with what is known about the widths of its tensors.

The module is traced with ``torch.fx``. Convolutions and linear layers (with the batch norm
behind them) become layers, layer norms and parameters become operators; everything else
stays the torch function it is. Channel counts that must be equal, because tensors are
added or go through a depthwise convolution, are found and form one *width*.
"""

from __future__ import annotations

import copy
import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from search_spaces.errors import InputError
from supernet.onnx.operators import OPERATIONS

BATCH = 2
LEAVES = (nn.Conv2d, nn.Linear, nn.BatchNorm2d, nn.LayerNorm)
ACTIVATIONS = {"relu": "relu", "hardswish": "hswish", "hardsigmoid": "hsigmoid", "gelu": "gelu"}
_ARITHMETIC = ("add", "sub", "mul", "maximum", "minimum", "truediv", "div")
MIXING = ("add", "sub", "mul", "maximum", "minimum", "matmul", "bmm", "cat", "concat", "mean",
          "adaptive_avg_pool2d", "avg_pool2d", "max_pool2d")  # fmt: skip
"""Operations that run on integers if what goes into them is quantised."""

_MOVING = ("flatten", "reshape", "view", "unflatten", "squeeze", "unsqueeze", "permute",
           "transpose", "contiguous", "dropout", "getitem", "chunk", "split",
           "interpolate")  # fmt: skip
_KEEPS_GRID = (*_MOVING, "max_pool2d", "relu")
_KEEPS_SIGN = (*_KEEPS_GRID, "mean", "adaptive_avg_pool2d", "avg_pool2d")
_POSITIVE = ("relu", "relu6", "sigmoid", "hardsigmoid", "softmax", "exp")
_POINTWISE = ("relu", "relu6", "hardtanh", "hardswish", "hardsigmoid", "sigmoid", "tanh",
              "silu", "gelu", "neg", "exp", "sqrt", "abs", "dropout", "contiguous")  # fmt: skip
_POOLS = ("adaptive_avg_pool2d", "avg_pool2d", "max_pool2d", "interpolate")
_NOT_IN_PLACE = {
    operator.iadd: operator.add, operator.isub: operator.sub, operator.imul: operator.mul,
    "add_": "add", "mul_": "mul", "relu_": "relu",
}  # fmt: skip


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


class _Tracer(fx.Tracer):
    def __init__(self, sequences: Sequence[str]) -> None:
        super().__init__()
        self.sequences = set(sequences)
        self.places: list[tuple[str, int]] = []
        self.passages: dict[tuple[str, int], tuple[fx.Node, fx.Node]] = {}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if isinstance(m, (nn.MultiheadAttention, nn.RNNBase)):
            raise InputError(
                f"{module_qualified_name}: a {type(m).__name__} cannot be taken apart; write it "
                "with nn.Linear, matmul and softmax"
            )
        return isinstance(m, LEAVES)

    def call_module(self, m: Any, forward: Any, args: Any, kwargs: Any) -> Any:
        path = self.path_of_module(m)
        parent, _, last = path.rpartition(".")
        if parent not in self.sequences or not last.isdigit():
            return super().call_module(m, forward, args, kwargs)
        self.places.append((parent, int(last)))
        try:
            result = super().call_module(m, forward, args, kwargs)
        finally:
            place = self.places.pop()
        if len(args) != 1 or not isinstance(result, fx.Proxy):
            raise InputError(f"{path}: an element that can be left out takes and gives one tensor")
        self.passages[place] = (args[0].node, result.node)
        return result

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        node = super().create_node(*args, **kwargs)
        node.meta["scope"] = tuple(self.places)
        return node


class ModuleGraph:
    """The graph of a module.

    Args:
        module: takes one tensor (batch, channels, side, side) and returns (batch, outputs).
        input_shape: (channels, side, side) of one image.
        sequences: paths of the ``nn.Sequential`` modules whose depth varies.

    Attributes:
        graph: nodes; layers, operators and quantisation points are ``call_module`` nodes whose
            target is their role.
        layers: role -> path, for every convolution and linear layer in order of execution.
        norms: role of a layer -> path of the batch norm behind it.
        operators: role -> path of a layer norm or of a parameter.
        points: role -> non-linearity before it.
        sources: role of a layer -> non-linearity before its input quantiser, see
            :class:`~search_spaces.plan.LayerPlan`.
        elements: of the sequences, those that can be left out.

    Raises:
        InputError: something that cannot be traced, quantised or exported; the message names
            it.
    """

    def __init__(
        self, module: nn.Module, input_shape: tuple[int, int, int], *, sequences: Sequence[str] = ()
    ) -> None:
        self.module = module
        self.input_shape = input_shape
        self.modules = dict(module.named_modules())
        for path in sequences:
            if not isinstance(self.modules.get(path), nn.Sequential):
                known = [p for p, m in self.modules.items() if isinstance(m, nn.Sequential) and p]
                raise InputError(f"{path!r} is no nn.Sequential of the module (there are: {known})")
        training = module.training
        module.eval()
        try:
            tracer = _Tracer(sequences)
            self.graph = tracer.trace(module)
        except (fx.proxy.TraceError, TypeError) as error:
            raise InputError(
                f"the module's forward depends on values of its tensors and cannot be traced: "
                f"{error}"
            ) from error
        finally:
            module.train(training)
        self.layers: dict[str, str] = {}
        self.norms: dict[str, str] = {}
        self.operators: dict[str, str] = {}
        self.points: dict[str, str] = {}
        self.sources: dict[str, str] = {}
        self._traced = copy.deepcopy(self.graph)
        self._sizes: set[str] = set()
        self._shapes = {input_shape[1]: self._propagate(input_shape[1])}
        self._check_operations()
        self._merge_norms(tracer.passages)
        self._name_roles()
        self.elements = self._elements(tracer.passages)
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
                values[node] = x
            elif node.op == "output":
                return fx.node.map_arg(node.args[0], values.__getitem__)  # type: ignore[no-any-return]
            else:
                args = fx.node.map_arg(node.args, values.__getitem__)
                kwargs = fx.node.map_arg(node.kwargs, values.__getitem__)
                if node.op == "call_module":
                    values[node] = ops[node.target](*args)
                elif node.op == "call_method":
                    values[node] = getattr(args[0], node.target)(*args[1:], **kwargs)
                else:
                    values[node] = node.target(*args, **kwargs)
        raise AssertionError("a traced graph ends with its output")

    # --------------------------------------------------------------- building

    def _check_operations(self) -> None:
        for node in self.graph.nodes:
            if node.op not in ("call_function", "call_method") or node.name in self._sizes:
                continue
            # In place, an operation would overwrite what quantisers need for gradients.
            node.target = _NOT_IN_PLACE.get(node.target, node.target)
            if node.kwargs.get("inplace"):
                node.kwargs = {**node.kwargs, "inplace": False}
            if _name(node) not in OPERATIONS:
                raise InputError(
                    f"{_where(node)}: the operation {_name(node)!r} cannot be exported "
                    f"(known: {', '.join(OPERATIONS.names())})"
                )

    def _propagate(self, side: int) -> dict[str, tuple[int, ...]]:
        # The graph as it was traced: its nodes keep their names when it is changed later.
        parameter = next(self.module.parameters(), torch.zeros(1))
        images = torch.zeros(BATCH, self.input_shape[0], side, side, device=parameter.device)
        shapes: dict[str, tuple[int, ...]] = {}
        sizes = self._sizes

        class Shapes(fx.Interpreter):
            def run_node(self, n: fx.Node) -> Any:
                value = super().run_node(n)
                if isinstance(value, Tensor):
                    shapes[n.name] = tuple(value.shape)
                elif isinstance(value, (int, float, torch.Size)):
                    sizes.add(n.name)
                return value

        training = self.module.training
        self.module.eval()
        try:
            with torch.no_grad():
                Shapes(fx.GraphModule(self.module, self._traced)).run(images)
        except RuntimeError as error:
            raise InputError(
                f"the module does not run on images {tuple(images.shape[1:])}: {error}"
            ) from error
        finally:
            self.module.train(training)
        return shapes

    def _merge_norms(self, passages: dict[tuple[str, int], tuple[fx.Node, fx.Node]]) -> None:
        for node in list(self.graph.nodes):
            module = self._module(node)
            if not isinstance(module, nn.BatchNorm2d):
                continue
            before = node.args[0]
            if not isinstance(self._module(before), nn.Conv2d) or len(before.users) > 1:
                raise InputError(
                    f"{node.target}: a batch norm must stand directly behind a convolution that "
                    "nothing else reads; it is folded into that convolution on export"
                )
            if not module.affine or not module.track_running_stats:
                raise InputError(f"{node.target}: a batch norm needs affine and running statistics")
            before.meta["norm"] = node.target
            node.replace_all_uses_with(before)
            for place, (source, result) in passages.items():
                passages[place] = (
                    before if source is node else source,
                    before if result is node else result,
                )
            self.graph.erase_node(node)

    def _name_roles(self) -> None:
        used: dict[str, str] = {}
        for node in list(self.graph.nodes):
            if node.op == "call_module":
                module, path = self._module(node), node.target
                role = path.replace(".", "_")
                node.target = role
                if isinstance(module, (nn.Conv2d, nn.Linear)):
                    self.layers[role] = path
                    if "norm" in node.meta:
                        self.norms[role] = node.meta["norm"]
                else:
                    if len(module.normalized_shape) != 1:
                        raise InputError(f"{path}: a layer norm over one dimension is supported")
                    self.operators[role] = path
            elif node.op == "get_attr":
                path, role = node.target, "value_" + node.target.replace(".", "_")
                node.op, node.target, node.args = "call_module", role, ()
                self.operators[role] = path
            else:
                continue
            if role in used:
                raise InputError(
                    f"{path} is used twice, or its name is that of {used[role]} but for dots; a "
                    "layer must have its own weights and its own place"
                )
            used[role] = path
        if not self.layers:
            raise InputError("the module has no convolution and no linear layer")

    def _elements(
        self, passages: Mapping[tuple[str, int], tuple[fx.Node, fx.Node]]
    ) -> list[Element]:
        found = []
        for (sequence, position), (source, result) in passages.items():
            inside = [
                node for node in self.layer_nodes() if (sequence, position) in node.meta["scope"]
            ]
            if not inside:
                raise InputError(
                    f"{sequence}.{position} has no layer; elements of a sequence of elastic depth "
                    "need one"
                )
            found.append(Element(sequence, position, source, result, inside[0].target))
        return found

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
        name, tensors = _name(node), self._tensors(node)
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
        if name in ("cat", "concat"):
            axis = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else 0)
            if here is not None and axis % len(here) != first.axis:
                return self._track_together(node, tensors, shape)
        if name == "mean" and here is not None:
            dims = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else ())
            dims = [d % len(shape[0]) for d in ([dims] if isinstance(dims, int) else dims)]
            if dims and first.axis not in dims:
                kept = len(here) == len(shape[0])
                moved = 0 if kept else sum(d < first.axis for d in dims)
                return Track(first.axis - moved, first.width, first.repeat)
        if name in ("flatten", "reshape", "view", "squeeze", "unflatten") and here is not None:
            before, a = shape[0], first.axis
            if here[: a + 1] == before[: a + 1]:
                return first
            if here[:a] == before[:a] and len(here) == a + 1:
                return Track(a, first.width, first.repeat * math.prod(before[a + 1 :]))
        if name in ("permute", "transpose"):
            rank = len(shape[0])
            order = list(range(rank))
            if name == "transpose":
                i, j = (a % rank for a in node.args[1:3])
                order[i], order[j] = order[j], order[i]
            else:
                dims = node.args[1:] if isinstance(node.args[1], int) else node.args[1]
                order = [d % rank for d in dims]
            return Track(order.index(first.axis), first.width, first.repeat)
        for track in tracks:
            self._pin(track, node)
        return None

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
                self._tracks.pop(source)
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
            or (f"they go into {_name(node)!r} ({_where(node)}), which needs all of them")
        )

    # ----------------------------------------------------------------- points

    def _place_points(self) -> None:
        floats = self._float_additions()
        for node in list(self.graph.nodes):
            if node.op == "call_module" or _name(node) not in MIXING or node in floats:
                continue
            tensors = self._tensors(node)
            if _name(node) in _ARITHMETIC and len(tensors) < 2:
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
        found = ACTIVATIONS.get(_name(tensor))
        if found is not None and tensor.kwargs.get("approximate", "none") == "none":
            before = tensor.args[0]
            if (border or tensor not in borders) and not self._on_grid(before):
                return found, before
        return ("relu" if self._never_negative(tensor) else "none"), tensor

    def _on_grid(self, node: fx.Node) -> bool:
        if node.op == "call_module":
            return node.target in self.points
        tensors = self._tensors(node)
        return _name(node) in _KEEPS_GRID and bool(tensors) and self._on_grid(tensors[0])

    def _never_negative(self, node: fx.Node) -> bool:
        if node.op == "call_module":
            return self.points.get(node.target) in ("relu", "hsigmoid")
        tensors = self._tensors(node)
        if _name(node) in _POSITIVE:
            return True
        return _name(node) in _KEEPS_SIGN and bool(tensors) and self._never_negative(tensors[0])

    def _is_value(self, node: fx.Node) -> bool:
        return node.op == "call_module" and str(node.target).startswith("value_")

    def _float_additions(self) -> set[fx.Node]:
        """Return the additions of a float stream: those whose sums a layer norm reads."""
        found: set[fx.Node] = set()
        for node in reversed(list(self.graph.nodes)):
            if _name(node) == "add" and any(
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


def _name(node: fx.Node) -> str:
    if node.op in ("call_function", "call_method"):
        return node.target if isinstance(node.target, str) else node.target.__name__
    return str(node.target)


def _where(node: fx.Node) -> str:
    stack = node.meta.get("nn_module_stack")
    path = next(reversed(stack.values()))[0] if stack else ""
    return f"{path} ({node.name})" if path else node.name
