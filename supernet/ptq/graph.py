"""A float network as a graph of its convolutions and linear layers, batch norm folded.

Any module that :mod:`supernet.reading` can read will do: a user's own, or an extracted network
in float.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Union

import torch
from torch import Tensor, fx, nn

from search_spaces.errors import InputError
from search_spaces.plan import FLOAT_BITS, STREAM_BITS
from supernet.plain import PlainLayer
from supernet.ptq.transposed import convolutions_for_transposed
from supernet.reading.capture import attribute, put
from supernet.reading.counting import Products
from supernet.reading.operations import kind_of
from supernet.reading.reader import read_network

LAYERS = (nn.Conv2d, nn.Linear)

_NAMES = "plan_names"
"""Key of the names in plans of the layers of a network that was read."""

_TRANSPOSED = "transposed"
"""Key of the paths of the convolutions that were transposed ones."""

Layer = Union[nn.Conv2d, nn.Linear]


@dataclass(frozen=True)
class FloatGraph:
    """A traced float network.

    Attributes:
        module: the graph; its own copy of the weights.
        layers: name -> node of each convolution and linear layer, in order of execution. A layer
            of an extracted network has its plan's name, others the module's path.
        input_shape: (channels, height, width) of one image.
        transposed: names of the convolutions that were transposed ones, see
            :mod:`supernet.ptq.transposed`.
    """

    module: fx.GraphModule
    layers: Mapping[str, fx.Node]
    input_shape: tuple[int, ...]
    transposed: frozenset[str] = frozenset()

    def layer(self, name: str) -> Layer:
        """Return the layer called ``name``."""
        found = self.module.get_submodule(str(self.layers[name].target))
        assert isinstance(found, LAYERS)
        return found

    def beside(self) -> dict[str, int]:
        """Return the float values that a file holds beside those of the layers.

        Recurrent weights, norms that no layer takes up, learned tensors, masks: how many by path.
        """
        found: dict[str, int] = {}
        layers = set(self.layers.values())
        for node in self.module.graph.nodes:
            path = str(node.target)
            if node.op == "get_attr":
                values = [attribute(self.module, path)]
            elif node.op == "call_module" and node not in layers:
                values = list(self.module.get_submodule(path).parameters())
            else:
                continue
            count = sum(v.numel() for v in values if torch.is_floating_point(v))
            if count:
                found[path] = count
        return found

    def beside_kib(self) -> float:
        """Return the KiB of :meth:`beside`."""
        return 4 * sum(self.beside().values()) / 1024

    @torch.no_grad()
    def products(self, example: Tensor) -> dict[str, float]:
        """Return ``macs`` and ``bops`` of products that are no layers, such as attention's.

        Those that run on integers have inputs of :data:`STREAM_BITS`, others are float.

        Args:
            example: inputs (batch, ...), of which the first is run.
        """
        counting = Products(self.module)
        counting.run(example[:1])
        found = dict.fromkeys(("macs", "bops"), 0.0)
        for node, macs in counting.macs.items():
            found["macs"] += macs
            found["bops"] += macs * (STREAM_BITS if kind_of(node).integer else FLOAT_BITS) ** 2
        return found

    def replace(self, name: str, module: nn.Module) -> None:
        """Put ``module`` in the place of the layer called ``name``."""
        put(self.module, str(self.layers[name].target), module)


@torch.no_grad()
def trace_float(module: nn.Module, example: Tensor, *, fold: bool = True) -> FloatGraph:
    """Read ``module``, fold its batch norms, and make transposed convolutions convolutions.

    Args:
        module: left as it is; read in evaluation mode.
        example: images (batch, channels, height, width) or signals (batch, channels, samples),
            for shapes.
        fold: fold batch norms into the layers before them; one that follows no layer becomes a
            1x1 depthwise convolution.

    Raises:
        InputError: the module cannot be read, see :func:`supernet.reading.reader.read_network`.
    """
    from torch.fx.passes.shape_prop import ShapeProp

    # Of what was read before, the paths are no longer those of plain layers.
    names = getattr(module, "meta", {}).get(_NAMES) or _plan_names(module)
    read = read_network(module, example, fold=fold)
    transposed = convolutions_for_transposed(read)
    read.meta[_TRANSPOSED] = (*read.meta.get(_TRANSPOSED, ()), *transposed)
    read.meta[_NAMES] = names
    read.meta["batch_first"] = _batch_first(read, example)
    ShapeProp(read).propagate(example)
    layers: dict[str, fx.Node] = {}
    for node in read.graph.nodes:
        if node.op == "call_module" and isinstance(read.get_submodule(str(node.target)), LAYERS):
            layers[names.get(str(node.target), str(node.target))] = node
    if not layers:
        raise InputError(f"{type(module).__name__} has no convolution and no linear layer")
    return FloatGraph(read, layers, tuple(example.shape[1:]), frozenset(read.meta[_TRANSPOSED]))


def _batch_first(module: fx.GraphModule, example: Tensor) -> bool:
    """Whether the batch is the first dimension, or part of it, of all that follows the input."""
    from torch.fx.passes.shape_prop import ShapeProp

    first = example[:1]
    found = []
    for count in (2, 3):
        ShapeProp(module).propagate(first.expand(count, *first.shape[1:]))
        found.append(
            [
                tuple(meta.shape)
                for node in module.graph.nodes
                if hasattr(meta := node.meta.get("tensor_meta"), "shape")
            ]
        )
    return all(
        small == large or (small[1:] == large[1:] and small[0] * 3 == large[0] * 2)
        for small, large in zip(*found, strict=True)
    )


def shape_of(node: fx.Node) -> tuple[int, ...]:
    """Return the shape of a node's output for the traced example."""
    return tuple(node.meta["tensor_meta"].shape)


class Recorded:
    """Every value of one forward pass, from which parts of the network can be run again.

    Args:
        module: the traced network.
        images: (batch, channels, height, width).
    """

    def __init__(self, module: fx.GraphModule, images: Tensor) -> None:
        self.module = module
        self.batch = len(images)
        self.values: dict[fx.Node, Any] = {}
        self._from_input: set[fx.Node] = set()
        for node in module.graph.nodes:
            if node.op == "placeholder":
                self.values[node] = images
                self._from_input.add(node)
            else:
                self.values[node] = run_node(module, node, self.values.__getitem__)
                if any(parent in self._from_input for parent in node.all_input_nodes):
                    self._from_input.add(node)

    def input_of(self, node: fx.Node) -> Tensor:
        """Return the input of a layer's node."""
        return self.values[node.all_input_nodes[0]]

    def outputs(self) -> tuple[Tensor, ...]:
        """Return the network's outputs."""
        return _several(self.values[next(reversed(self.module.graph.nodes))])

    def rerun(self, node: fx.Node, versions: Tensor) -> tuple[Tensor, ...]:
        """Return the network's outputs for several versions of one node's output at once.

        Only what depends on the node is computed again, with the versions side by side in the
        batch.

        Args:
            node: whose output is replaced.
            versions: (versions, batch, ...).

        Returns:
            (versions, batch, ...) of each output.
        """
        if not self.module.meta.get("batch_first", True):
            found = [self._rerun(node, one) for one in versions]
            return tuple(torch.stack(parts) for parts in zip(*found, strict=True))
        count = len(versions)
        values: dict[fx.Node, Any] = {node: versions.flatten(0, 1)}
        changed = {node}

        def value(parent: fx.Node) -> Any:
            if parent not in values:
                values[parent] = self._tiled(parent, count)
            return values[parent]

        for other in self.module.graph.nodes:
            if other is node or other.op == "placeholder":
                continue
            # Sizes are asked again: the batch is another one.
            is_size = not isinstance(self.values[other], (Tensor, tuple, list))
            if is_size or any(parent in changed for parent in other.all_input_nodes):
                values[other] = run_node(self.module, other, value)
                if any(parent in changed for parent in other.all_input_nodes):
                    changed.add(other)
        results = _several(value(next(reversed(self.module.graph.nodes))))
        return tuple(result.unflatten(0, (count, self.batch)) for result in results)

    def _rerun(self, node: fx.Node, version: Tensor) -> tuple[Tensor, ...]:
        values: dict[fx.Node, Any] = {node: version}
        for other in self.module.graph.nodes:
            if other is not node and any(parent in values for parent in other.all_input_nodes):
                values[other] = run_node(
                    self.module, other, lambda parent: values.get(parent, self.values[parent])
                )
        last = next(reversed(self.module.graph.nodes))
        return _several(values.get(last, self.values[last]))

    def _tiled(self, node: fx.Node, count: int) -> Any:
        value = self.values[node]
        if node not in self._from_input:
            return value
        if isinstance(value, (tuple, list)):
            return type(value)(_tile(item, count) for item in value)
        return _tile(value, count)


def _several(outputs: Any) -> tuple[Tensor, ...]:
    return tuple(outputs) if isinstance(outputs, (tuple, list)) else (outputs,)


def _tile(value: Any, count: int) -> Any:
    return value.repeat(count, *[1] * (value.dim() - 1)) if isinstance(value, Tensor) else value


def run_node(module: fx.GraphModule, node: fx.Node, value: Callable[[fx.Node], Any]) -> Any:
    """Compute ``node`` from the values of the nodes before it."""
    arguments = fx.node.map_arg(node.args, value)
    options = fx.node.map_arg(node.kwargs, value)
    if node.op == "call_module":
        return module.get_submodule(str(node.target))(*arguments, **options)
    if callable(node.target):
        return node.target(*arguments, **options)
    if node.op == "call_method":
        return getattr(arguments[0], str(node.target))(*arguments[1:], **options)
    if node.op == "get_attr":
        found: Any = module
        for part in str(node.target).split("."):
            found = getattr(found, part)
        return found
    return arguments[0]  # the output


def images_of(batches: Iterable[Any]) -> Iterator[Tensor]:
    """Yield the images of batches that are images, or (images, targets)."""
    for batch in batches:
        yield batch[0] if isinstance(batch, (tuple, list)) else batch


def _plan_names(module: nn.Module) -> dict[str, str]:
    return {
        f"{path}.op" if path else "op": child.layer.name
        for path, child in module.named_modules()
        if isinstance(child, PlainLayer)
    }
