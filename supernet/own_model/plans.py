"""The layer plans of a module's variants, each a column over many architectures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import fx, nn

from search_spaces.plan import FLOAT_BITS, LayerPlan, OperatorPlan
from search_spaces.space import Choice
from supernet.own_model.graph import ModuleGraph
from supernet.own_model.options import OptionReader
from supernet.own_model.traced import BATCH, role_of
from supernet.own_model.widths import Part
from supernet.ptq.quantize import sides_of
from supernet.reading.operations import kind_of, packet

_CODES, _STAIRS, _CURVE = 256, 1600, 4096
"""Bytes of a table of codes, of the stairs of 8-bit codes, and of a curve of 256 cells."""


class PlanColumns:
    """Describes layers and operators of a module for rows of genes (n, choices).

    Args:
        graph: the module.
        reader: of the options, for how widths are rounded.
        choices: of the space, in the order of the genes.
        widths: index of a width -> (name of its choice's layer, allowed shares).
        kernels: convolutions whose kernels vary.
    """

    def __init__(
        self,
        graph: ModuleGraph,
        reader: OptionReader,
        choices: Sequence[Choice],
        *,
        widths: Mapping[int, tuple[str, tuple[float, ...]]],
        kernels: Mapping[str, Sequence[int]],
    ) -> None:
        self.graph = graph
        self._reader, self._choices = reader, choices
        self._widths, self._kernels = widths, kernels
        self._index = {choice.name: place for place, choice in enumerate(choices)}

    def column(self, genes: np.ndarray, name: str) -> np.ndarray:
        """Return the values of the choice called ``name``: (n,)."""
        j = self._index[name]
        return np.asarray(self._choices[j].options)[genes[:, j]]

    def active(self, genes: np.ndarray, node: fx.Node) -> np.ndarray:
        """Return which rows have a node, by the depths of its sequences: (n,) bool."""
        active = np.ones(len(genes), dtype=bool)
        for path, position in node.meta["scope"]:
            active &= self.column(genes, f"depth.{path}") > position
        return active

    def _channels(self, genes: np.ndarray, width: int | None, otherwise: int) -> np.ndarray:
        if width is None or width not in self._widths:
            return np.full(len(genes), otherwise)
        name, options = self._widths[width]
        whole = self.graph.widths[width]
        counts = np.array([self._reader.narrow(whole, share) for share in options])
        return counts[genes[:, self._index[f"width.{name}"]]] * (otherwise // whole.size)

    def _inputs(self, genes: np.ndarray, node: fx.Node, full: int) -> dict[str, Any]:
        """Return ``in_channels`` of a layer, and ``in_parts`` where they are of several tensors."""
        return self._joined(genes, "in", self.graph.input_parts(node), full)

    def _outputs(self, genes: np.ndarray, node: fx.Node, full: int) -> dict[str, Any]:
        """Return ``out_channels`` of a layer, and ``out_parts`` likewise."""
        return self._joined(genes, "out", self.graph.output_parts(node), full)

    def _joined(
        self, genes: np.ndarray, side: str, parts: Sequence[Part], full: int
    ) -> dict[str, Any]:
        if len(parts) < 2:
            only = parts[0].width if parts else None
            return {f"{side}_channels": self._channels(genes, only, full)}
        sizes = [self.graph.widths[part.width].size * part.repeat for part in parts]
        kept = [
            self._channels(genes, part.width, size) for part, size in zip(parts, sizes, strict=True)
        ]
        joined = tuple(zip(kept, sizes, strict=True))
        return {f"{side}_channels": sum(kept), f"{side}_parts": joined}

    def _sizes(self, genes: np.ndarray, node: fx.Node) -> np.ndarray:
        """Shape of a value at each row's resolution: (n, dimensions)."""
        sides = self._choices[0].options
        shapes = np.array([self.graph.shape(node, int(side)) for side in sides])
        return shapes[genes[:, 0]]

    def layer(self, genes: np.ndarray, node: fx.Node) -> LayerPlan[Any]:
        """Return the layer that a node is."""
        name = self.graph.layers[role_of(node)]
        module = self.graph.modules[name]
        source = self._sizes(genes, node.meta["input"])
        bits = [self.column(genes, f"{kind}.{name}").astype(np.int64) for kind in ("w", "a")]
        if isinstance(module, nn.Linear):
            return LayerPlan(
                name, role_of(node),
                kernel=1, stride=1, groups=1, in_size=1, out_size=1,
                weight_bits=bits[0], activation_bits=bits[1],
                source=self.graph.sources[role_of(node)], kind="linear", batch_norm=False,
                tokens=np.maximum(1, source[:, :-1].prod(1) // BATCH),
                **self._inputs(genes, node, module.in_features),
                **self._outputs(genes, node, module.out_features),
            )  # fmt: skip
        result = self._sizes(genes, node)
        inputs = self._inputs(genes, node, module.in_channels)
        sides: dict[str, Any] = sides_of(module)
        if name in self._kernels:
            own = module.kernel_size[0]
            kernel = self.column(genes, f"kernel.{name}").astype(np.int64)
            sides["padding"] = sides["padding"] - module.dilation[0] * (own - kernel) // 2
            sides["kernel"] = kernel
        if (source[:, -2:-1] != source[:, -1:]).any() or (result[:, -2] != result[:, -1]).any():
            sides |= {"in_height": source[:, -2], "out_height": result[:, -2]}
        # Of groups, as many are left as there are channels for.
        each = module.in_channels // module.groups
        groups = inputs["in_channels"] // each if module.groups > 1 else 1
        return LayerPlan(
            name=name,
            role=role_of(node),
            groups=groups,
            in_size=source[:, -1],
            out_size=result[:, -1],
            weight_bits=bits[0],
            activation_bits=bits[1],
            source=self.graph.sources[role_of(node)],
            batch_norm=role_of(node) in self.graph.norms,
            shared_norm=node.meta.get("shared_norm", 1),
            **inputs,
            **self._outputs(genes, node, module.out_channels),
            **sides,
        )

    def product(self, genes: np.ndarray, role: str, node: fx.Node) -> OperatorPlan[Any]:
        """Return the multiplications of an operation that is no layer, at its full width."""
        if not kind_of(node).product:
            sides = self._choices[0].options
            counted = np.array([self.graph.counted_macs(node, int(side)) for side in sides])
            return OperatorPlan(
                role, role, "product", 1, macs=counted[genes[:, 0]], bits=FLOAT_BITS
            )
        tensors = [self._sizes(genes, n) for n in node.all_input_nodes if self.graph.has_shape(n)]
        result = self._sizes(genes, node)
        count = result.prod(1) // BATCH
        name = packet(node)
        if name == "scaled_dot_product_attention":
            query, key = tensors[0], tensors[1]
            macs = query.prod(1) // BATCH * key[:, -2] + count * key[:, -2]
        elif name in ("matmul", "bmm"):
            macs = count * tensors[0][:, -1]
        elif name.startswith("conv_transpose"):
            macs = tensors[0].prod(1) // BATCH * tensors[1][:, 1:].prod(1)
        else:
            macs = count * tensors[1][:, 1:].prod(1)
        return OperatorPlan(role, role, "product", int(result[0, -1]), macs=macs)

    def function(self, role: str, node: fx.Node) -> OperatorPlan[Any]:
        """Return a function of numbers, which integers compute by a table, and its bytes.

        What it reads are codes, but for sums of a linear layer, whose functions are staircases; one
        that is multiplied with something else gives whole numbers of 32 bits, or is a curve.
        """
        sums = node.all_input_nodes[0].target in self.graph.layers
        gate = any(packet(user) == "mul" for user in node.users)
        size = (_CURVE if gate else _STAIRS) if sums else (4 * _CODES if gate else _CODES)
        return OperatorPlan(role, role, "product", 1, table_bytes=size)

    def operator(self, genes: np.ndarray, node: fx.Node) -> OperatorPlan[Any]:
        """Return the layer norm or constant that a node is."""
        path = self.graph.operators[role_of(node)]
        if path not in self.graph.modules:
            value = self.graph.value(path)
            axis = self.graph.value_axis(node)
            if axis is None:
                count = value.numel()
                return OperatorPlan(path, role_of(node), "value", count, parameters=count)
            size = value.shape[axis]
            channels = self._channels(genes, self.graph.output_width(node), size)
            numbers = channels * (value.numel() // size)
            return OperatorPlan(path, role_of(node), "channels", channels, parameters=numbers)
        norm = self.graph.modules[path]
        grouped = isinstance(norm, nn.GroupNorm)
        size = norm.num_channels if grouped else norm.normalized_shape[0]
        channels = self._channels(genes, self.graph.output_width(node), size)
        if grouped:
            return OperatorPlan(
                path, role_of(node), "group_norm", channels, parameters=2 * channels
            )
        tokens = np.maximum(1, self._sizes(genes, node)[:, :-1].prod(1) // BATCH)
        return OperatorPlan(
            path, role_of(node), "layer_norm", channels, tokens, parameters=2 * channels
        )
