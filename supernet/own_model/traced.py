"""A plain torch module as it was read: its layers, operators and constants under roles, its shapes.

The module is read by :mod:`supernet.reading`. Convolutions and linear layers (with the batch norm
behind them) become layers, layer norms, constants and products of activations become operators;
everything else stays the ATen operation it is.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from search_spaces.errors import InputError
from supernet.ptq.transposed import convolutions_for_transposed
from supernet.reading.capture import arguments, attribute, module_path
from supernet.reading.counting import count_macs
from supernet.reading.operations import kind_of, packet
from supernet.reading.reader import read_network

BATCH = 2
"""Images in the shapes that are asked for."""


class TracedModule:
    """A module as a graph whose layers and operators are called by their roles.

    A layer that the module calls in two places is two layers here, ``NAME`` and ``NAME_call2``,
    which begin with the same weights.

    Args:
        module: takes one tensor (batch, channels, height, width), or (batch, channels, samples),
            and returns (batch, outputs).
        input_shape: of one input.
        sequences: paths of the ``nn.Sequential`` modules whose depth varies.
        sides: heights of the images that will occur; by default that of ``input_shape``.
        read: ``module`` as :func:`supernet.reading.reader.read_network` read it without folding,
            where that was done before; left as it is. Not for several ``sides``.

    Attributes:
        graph: nodes; layers and operators are ``call_module`` nodes whose target is their role.
        modules: layers and norms by path.
        layers: role -> path, for every convolution and linear layer in order of execution.
        norms: role of a layer -> path of the batch norm behind it.
        operators: role -> path of a layer norm or of a constant.
        products: role -> node whose multiplications are beside those of the layers.
        lengths: path of each of the sequences -> number of its elements.
        sizes: names of the nodes that are numbers or shapes.
        uncounted: operations whose multiply-accumulates cannot be told.

    Raises:
        InputError: something that cannot be read; the message names it.
    """

    def __init__(
        self,
        module: nn.Module,
        input_shape: tuple[int, ...],
        *,
        sequences: Sequence[str] = (),
        sides: Sequence[int] = (),
        read: fx.GraphModule | None = None,
    ) -> None:
        self.module = module
        self.input_shape = input_shape
        own = dict(module.named_modules())
        for path in sequences:
            if not isinstance(own.get(path), nn.Sequential):
                known = [p for p, m in own.items() if isinstance(m, nn.Sequential) and p]
                raise InputError(f"{path!r} is no nn.Sequential of the module (there are: {known})")
        self.lengths = {path: len(own[path]) for path in sequences}
        # Sizes that do not vary are constants, which more operations can be captured with.
        dynamic = range(2, 1 + len(input_shape)) if len(set(sides)) > 1 else ()
        read = read_network(
            module if read is None else read,
            torch.zeros(BATCH, *input_shape),
            fold=False,
            dynamic=(0, *dynamic),
        )
        convolutions_for_transposed(read)
        self.modules = dict(read.named_modules())
        self.graph = read.graph
        self._values = {
            str(n.target): attribute(read, str(n.target)) for n in read.graph.nodes
            if n.op == "get_attr"
        }  # fmt: skip
        self.layers: dict[str, str] = {}
        self.norms: dict[str, str] = {}
        self.operators: dict[str, str] = {}
        self.products: dict[str, fx.Node] = {}
        self._read = fx.GraphModule(read, copy.deepcopy(self.graph))
        # Roles take the place of paths, and no module has them.
        self.graph.owning_module = None
        self.sizes: set[str] = set()
        self.uncounted: set[str] = set()
        self._macs: dict[int, dict[str, int]] = {}
        self._shapes = {input_shape[1]: self._propagate(input_shape[1])}
        self._set_scopes(set(sequences))
        self._merge_norms()
        self._read_group_norms()
        self._name_roles()

    # -------------------------------------------------------------- questions

    def shape(self, node: fx.Node, side: int) -> tuple[int, ...]:
        """Return the shape of a value for :data:`BATCH` images of ``side`` pixels."""
        if side not in self._shapes:
            self._shapes[side] = self._propagate(side)
        return self._shapes[side][node.meta.get("value", node.name)]

    def counted_macs(self, node: fx.Node, side: int) -> int:
        """Return the multiply-accumulates of an operation that no formula is known of.

        They are those of one image of ``side`` pixels; 0 for operations with a formula.
        """
        if side not in self._macs:
            self._shapes[side] = self._propagate(side)
        return self._macs[side].get(node.name, 0)

    def layer_nodes(self) -> Iterator[fx.Node]:
        """Yield the node of every layer in order of execution."""
        return (node for node in self.graph.nodes if node.target in self.layers)

    def shared_norm(self, role: str) -> int:
        """Return how many outputs of a layer share a channel of its batch norm."""
        node = next(node for node in self.layer_nodes() if role_of(node) == role)
        return int(node.meta.get("shared_norm", 1))

    def operator_nodes(self) -> Iterator[fx.Node]:
        """Yield the node of every operator in order of execution."""
        return (node for node in self.graph.nodes if node.target in self.operators)

    def operations(self) -> Iterator[fx.Node]:
        """Yield the operations of the module as it was read, without layers and constants."""
        return (n for n in self._read.graph.nodes if n.op == "call_function")

    def value(self, path: str) -> Tensor:
        """Return the constant called ``path``."""
        return self._values[path].detach()

    def value_of(self, path: str) -> Tensor:
        """Return it as the module holds it: a parameter, or another tensor."""
        return self._values[path]

    @torch.no_grad()
    def reorder_value(self, path: str, axis: int, places: Tensor) -> None:
        """Put what lies along an axis of the constant called ``path`` into another order."""
        value = self._values[path]
        # The module may hold the same tensor.
        sorted_value = value.detach().index_select(axis, places)
        learned = isinstance(value, nn.Parameter)
        self._values[path] = nn.Parameter(sorted_value) if learned else sorted_value

    def has_shape(self, node: fx.Node) -> bool:
        """Whether a node is a tensor."""
        return node.meta.get("value", node.name) in self._shapes[self.input_shape[1]]

    def own_shape(self, node: fx.Node) -> tuple[int, ...] | None:
        """Return the shape of a node at ``input_shape``; None where it is no tensor."""
        return self._shapes[self.input_shape[1]].get(node.meta.get("value", node.name))

    def outputs(self) -> int:
        """Return the outputs for one input; of several tensors or a map, those of the first."""
        last = next(reversed(self.graph.nodes))
        shape = self.own_shape(self.tensors(last)[0])
        assert shape is not None
        return shape[-1] if len(shape) < 4 else shape[1]

    def output_axes(self) -> int | None:
        """Return how many axes the module's output has; None of several outputs."""
        (last, *others) = self.tensors(next(reversed(self.graph.nodes)))
        shape = self.own_shape(last)
        return None if others or shape is None else len(shape)

    def is_constant(self, node: fx.Node) -> bool:
        """Whether a node is a constant or a learned tensor."""
        return node.op == "get_attr" or self.is_value(node)

    def is_value(self, node: fx.Node) -> bool:
        """Whether a node is a learned tensor, which is an operator."""
        return node.op == "call_module" and str(node.target).startswith("value_")

    def tensors(self, node: fx.Node) -> list[fx.Node]:
        """Return the arguments of a node that are tensors, those in lists included."""
        found: list[fx.Node] = []
        fx.node.map_arg(node.args, found.append)
        return [argument for argument in found if argument.name not in self.sizes]

    def is_group_norm(self, node: fx.Node) -> bool:
        """Whether a node is a norm over groups of channels."""
        path = self.operators.get(str(node.target)) if node.op == "call_module" else None
        return isinstance(self.modules.get(path or ""), nn.GroupNorm)

    def module_of(self, node: Any) -> nn.Module | None:
        """Return the layer or norm that a node calls by its path, None for other nodes."""
        if not isinstance(node, fx.Node) or node.op != "call_module":
            return None
        return self.modules.get(node.target)

    # --------------------------------------------------------------- building

    def _propagate(self, side: int) -> dict[str, tuple[int, ...]]:
        # The graph as it was read: its nodes keep their names when it is changed later.
        channels, height, *rest = self.input_shape
        sizes = [side, *(round(width * side / height) for width in rest)]
        images = torch.zeros(BATCH, channels, *sizes)
        shapes: dict[str, tuple[int, ...]] = {}
        macs: dict[str, int] = {}
        known, uncounted = self.sizes, self.uncounted

        class Shapes(fx.Interpreter):
            def run_node(self, n: fx.Node) -> Any:
                counted = count_macs(n, *self.fetch_args_kwargs_from_env(n))
                if counted is None:
                    uncounted.add(packet(n))
                elif counted:
                    macs[n.name] = counted // BATCH
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
        self._macs[side] = macs
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
            if not isinstance(self.module_of(node), nn.BatchNorm2d):
                continue
            before = node.args[0]
            before.meta["norm"] = node.target
            node.replace_all_uses_with(before)
            self.graph.erase_node(node)

    def _read_group_norms(self) -> None:
        """Make norms over groups of channels modules, whose channels can be told from numbers."""
        for node in list(self.graph.nodes):
            found = self._group_norm(node)
            if found is None:
                continue
            path = module_path(node) or node.name
            if path in self.modules and self.modules[path].__class__ is nn.GroupNorm:
                path = f"{path}_{node.name}"  # Called before.
            self.modules[path] = found
            node.op, node.target, node.kwargs = "call_module", path, {}
            node.args = (node.args[0],)
        self._drop_unused()

    def _group_norm(self, node: fx.Node) -> nn.GroupNorm | None:
        """Return the module that a node computes; None where it is no norm over groups."""
        name = packet(node)
        if name not in ("group_norm", "instance_norm"):
            return None
        given = arguments(node)
        shape = self.own_shape(node)
        scales = [given.get(key) for key in ("weight", "bias")]
        known = all(n is None or (isinstance(n, fx.Node) and n.op == "get_attr") for n in scales)
        if shape is None or not known:
            return None
        groups = shape[1]
        if name == "group_norm":
            groups = int(given["num_groups"])
        elif given.get("running_mean") is not None or not given["use_input_stats"]:
            return None
        norm = nn.GroupNorm(groups, shape[1], eps=given["eps"])
        with torch.no_grad():
            for own, scale in zip((norm.weight, norm.bias), scales, strict=True):
                if scale is not None:
                    own.copy_(self._values[str(scale.target)])
        return norm.eval()

    def _drop_unused(self) -> None:
        self.graph.eliminate_dead_code(lambda node: node.op in ("placeholder", "output"))

    def _name_roles(self) -> None:
        used: dict[str, str] = {}
        for node in list(self.graph.nodes):
            if node.op == "call_module":
                module, path = self.module_of(node), node.target
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
            elif kind_of(node).product or self.counted_macs(node, self.input_shape[1]):
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


def role_of(node: fx.Node) -> str:
    """Return the role that a node of a layer, an operator or a point calls."""
    return str(node.target)


def source_of(node: fx.Node) -> fx.Node:
    """Return the node whose value is the first argument of ``node``."""
    source = node.args[0]
    assert isinstance(source, fx.Node)
    return source
