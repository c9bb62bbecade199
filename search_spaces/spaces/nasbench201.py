"""The cell space of NAS-Bench-201: six edges of a four-node graph, five operations each.

Source: Dong and Yang, *NAS-Bench-201*, ICLR 2020. Every one of the 15,625 strings is an
architecture of its own: an edge that carries no signal still costs time on a runtime
that does not remove it, so dead edges are a feature here and not an equivalence.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from search_spaces.errors import InputError
from search_spaces.space import Arch, Choice, SearchSpace
from search_spaces.spaces.registry import SPACES, refuse_parameters

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
"""Edges in the order of the architecture string, as (source node, target node)."""

PATHS = ((0, 2, 5), (0, 4), (1, 5), (3,))
"""Every path from the input node to the output node, as indices into :data:`EDGES`."""

NODE_TYPES = ("input", *OPERATIONS, "output", "global")

_STAGES = ((16, 32), (32, 16), (64, 8))  # (channels, side of the feature map)
_CELLS_PER_STAGE = 5
_TOKEN = re.compile(r"^(?P<op>\w+)~(?P<source>\d)$")


@SPACES.register("nasbench201")
class NasBench201(SearchSpace):
    """NAS-Bench-201; an architecture is written ``|op~0|+|op~0|op~1|+|op~0|op~1|op~2|``."""

    def __init__(self) -> None:
        super().__init__(
            "nasbench201",
            [Choice(f"edge{source}{target}", OPERATIONS) for source, target in EDGES],
        )

    @classmethod
    def from_config(
        cls, *, input_channels: int = 3, outputs: int = 10, **parameters: Any
    ) -> NasBench201:
        """Return the space, which has no parameters.

        Raises:
            InputError: a parameter is given.
        """
        refuse_parameters("nasbench201", parameters, allowed=())
        return cls()

    def parse(self, text: str) -> Arch:
        """Return the architecture of a NAS-Bench-201 string or of ``str(arch)``.

        Raises:
            InputError: the string is malformed, an operation is unknown, or an edge
                comes from another node than its place says.
        """
        text = text.strip()
        if not text.startswith("|"):
            return super().parse(text)
        groups = [group.strip("|").split("|") for group in text.split("+")]
        if [len(group) for group in groups] != [1, 2, 3]:
            raise InputError(
                f"{text!r} is not a NAS-Bench-201 string: expected three groups of one, two and "
                "three edges, as in |op~0|+|op~0|op~1|+|op~0|op~1|op~2|"
            )
        values = {}
        tokens = [token for group in groups for token in group]
        for (source, target), token in zip(EDGES, tokens, strict=True):
            match = _TOKEN.match(token)
            if match is None or match["op"] not in OPERATIONS:
                raise InputError(f"{token!r} is not one of {', '.join(OPERATIONS)} with ~node")
            if int(match["source"]) != source:
                raise InputError(f"{token!r} stands where an edge from node {source} belongs")
            values[f"edge{source}{target}"] = match["op"]
        return self.arch(values)

    def text(self, arch: Arch) -> str:
        """Return the string NAS-Bench-201 itself writes."""
        groups: tuple[list[str], ...] = ([], [], [])
        for source, target in EDGES:
            groups[target - 1].append(f"{arch[f'edge{source}{target}']}~{source}")
        return "+".join("|" + "|".join(group) + "|" for group in groups)

    def live_genes(self, genes: np.ndarray) -> np.ndarray:
        """Return which edges lie on a path without ``none`` from input to output.

        ``genes``: (n, 6) int -> (n, 6) bool.
        """
        open_edges = np.asarray(genes) != 0
        live = np.zeros_like(open_edges)
        for path in PATHS:
            through = open_edges[:, path].all(axis=1)
            live[np.ix_(through, path)] = True
        return live

    def needed_genes(self, genes: np.ndarray) -> np.ndarray:
        """Return which edges are not ``none`` and feed, through such edges, the output.

        A compiler that removes dead code keeps exactly these; it cannot know that a
        kept edge only ever sees zeros. ``genes``: (n, 6) int -> (n, 6) bool.
        """
        open_edges = np.asarray(genes) != 0
        reaches = np.zeros((len(open_edges), 4), dtype=bool)  # node -> output
        reaches[:, 3] = True
        needed = np.zeros_like(open_edges)
        for node in (2, 1, 0):
            for i, (source, target) in enumerate(EDGES):
                if source == node:
                    needed[:, i] = open_edges[:, i] & reaches[:, target]
                    reaches[:, node] |= needed[:, i]
        return needed

    def depth_genes(self, genes: np.ndarray) -> np.ndarray:
        """Return longest live paths: (n, 3), in edges, in convolutions, in non-skip operations.

        The longest path bounds what a device that runs branches side by side can save.
        """
        genes = np.asarray(genes)
        open_edges = genes != 0
        weights = (open_edges, (genes == 2) | (genes == 3), genes >= 2)
        out = np.zeros((len(genes), 3))
        for path in PATHS:
            through = open_edges[:, path].all(axis=1)
            for k, weight in enumerate(weights):
                out[:, k] = np.maximum(out[:, k], through * weight[:, path].sum(axis=1))
        return out

    def feature_blocks_genes(self, genes: np.ndarray) -> dict[str, np.ndarray]:
        """Named feature blocks beyond the one-hot encoding, for kernels; each (n, k) float.

        ``live``: one-hot operations of live edges. ``live_counts``: operations of live
        edges summed over the cell. ``needed`` and ``needed_counts``: the same of needed
        edges. ``depth``: :meth:`depth_genes` and whether any path is open.
        """
        genes = np.asarray(genes)
        operations = genes[:, :, None] == np.arange(1, len(OPERATIONS))
        live = self.live_genes(genes)
        blocks = {}
        for name, mask in (("live", live), ("needed", self.needed_genes(genes))):
            kept = operations & mask[:, :, None]
            blocks[name] = kept.reshape(len(genes), -1).astype(np.float64)
            blocks[f"{name}_counts"] = kept.sum(axis=1).astype(np.float64)
        depth = self.depth_genes(genes)
        blocks["depth"] = np.column_stack([depth, live.any(axis=1)]).astype(np.float64)
        return blocks

    def degenerate_genes(self, genes: np.ndarray) -> np.ndarray:
        """Return which cells pass no signal at all: (n,) bool."""
        return np.logical_not(self.live_genes(genes).any(axis=1))

    def costs(self, genes: np.ndarray) -> dict[str, np.ndarray]:
        """Analytic costs of the CIFAR-10 network with cells of ``genes``, each (n,) float64.

        ``macs`` and ``parameters`` count every edge, as the benchmark does; ``live_macs``
        only live edges. Fixed stem, reduction blocks and classifier are included.
        """
        genes = np.asarray(genes)
        area = sum(c * c * s * s for c, s in _STAGES) * _CELLS_PER_STAGE
        weights = sum(c * c for c, s in _STAGES) * _CELLS_PER_STAGE
        taps = np.array([0, 0, 1, 9, 0])[genes]  # kernel positions of each edge's convolution
        live = self.live_genes(genes)
        stem = 3 * 16 * 9
        # A reduction block: 3x3 stride 2, 3x3, and a 1x1 short cut on the pooled input.
        reductions = [(16, 32, 16), (32, 64, 8)]
        fixed_weights = stem + sum(9 * a * b + 9 * b * b + a * b for a, b, _ in reductions) + 640
        fixed_macs = (
            stem * 32 * 32
            + sum((9 * a * b + 9 * b * b + a * b) * s * s for a, b, s in reductions)
            + 640
        )
        return {
            "macs": (fixed_macs + area * taps.sum(axis=1)).astype(np.float64),
            "parameters": (fixed_weights + weights * taps.sum(axis=1)).astype(np.float64),
            "live_macs": (fixed_macs + area * (taps * live).sum(axis=1)).astype(np.float64),
        }

    def graph_genes(self, genes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return node types and adjacency of the operation-on-node graph, for graph networks.

        Nodes: input, the six edges, output, and a global node that sees all others.

        Returns:
            nodes: (n, 9, 8) float32, one-hot over :data:`NODE_TYPES`.
            adjacency: (n, 9, 9) float32 with self loops; row i lists the nodes i receives from.
        """
        genes = np.asarray(genes)
        n, edges = len(genes), len(EDGES)
        out, last = edges + 1, edges + 2
        kind = np.zeros((n, edges + 3), dtype=np.int64)
        kind[:, 1 : edges + 1] = genes + 1
        kind[:, out] = NODE_TYPES.index("output")
        kind[:, last] = NODE_TYPES.index("global")
        nodes = np.eye(len(NODE_TYPES), dtype=np.float32)[kind]
        adjacency = np.eye(edges + 3, dtype=np.float32)
        for i, (source, target) in enumerate(EDGES):
            if source == 0:
                adjacency[i + 1, 0] = 1
            if target == 3:
                adjacency[out, i + 1] = 1
            for j, (origin, _) in enumerate(EDGES):
                if origin == target:
                    adjacency[j + 1, i + 1] = 1
        adjacency[last, :] = 1
        return nodes, np.broadcast_to(adjacency, (n, edges + 3, edges + 3)).copy()
