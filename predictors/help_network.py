"""The network of HELP: its inputs, its weights, and many of it run side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from predictors.help_devices import REFERENCES
from search_spaces.space import SearchSpace

if TYPE_CHECKING:
    import torch


Parameters = dict[str, "torch.Tensor"]


def inputs_of(space: SearchSpace, genes: np.ndarray) -> tuple[torch.Tensor, ...]:
    """Return what the network is given of architectures: a graph's nodes and edges, or numbers."""
    import torch

    if hasattr(space, "graph_genes"):
        return tuple(torch.from_numpy(x) for x in space.graph_genes(genes))
    return (torch.from_numpy(space.encode_genes(genes)),)


def width_of(inputs: tuple[torch.Tensor, ...]) -> int:
    """Return the numbers of a node, or of an encoded architecture."""
    return inputs[0].shape[-1]


def take(inputs: tuple[torch.Tensor, ...], index: np.ndarray) -> tuple[torch.Tensor, ...]:
    """Return the rows ``index`` of every input."""
    import torch

    at = torch.from_numpy(np.ascontiguousarray(index))
    return tuple(x[at] for x in inputs)


def forward(
    model: Parameters, x: tuple[torch.Tensor, ...], embedding: torch.Tensor
) -> torch.Tensor:
    """Run T networks side by side. ``x``: (T, B, ...); ``embedding``: (T, 10) -> (T, B)."""
    import torch

    if len(x) == 2:
        out, adjacency = x  # (T, B, nodes, types), (T, B, nodes, nodes)
        for i in range(1, 5):
            # Nodes flattened into rows: one matrix product a task instead of one a graph.
            support = (out.flatten(1, 2) @ model[f"gc{i}.weight"]).unflatten(1, out.shape[1:3])
            out = torch.relu(adjacency @ support + model[f"gc{i}.bias"][:, None, None])
        out = out[:, :, -1]  # the global node
    else:
        out = x[0]
        for layer in ("fc1", "fc2"):
            out = torch.relu(_linear(model, layer, out))
    hardware = embedding[:, None]
    for layer in ("hw1", "hw2"):
        hardware = torch.relu(_linear(model, layer, hardware))
    out = torch.cat([out, hardware.expand(-1, out.shape[1], -1)], dim=-1)
    for layer in ("fc3", "fc4"):
        out = torch.relu(_linear(model, layer, out))
    return _linear(model, "fc5", out)[..., 0]


def _linear(model: Parameters, layer: str, x: torch.Tensor) -> torch.Tensor:
    return x @ model[f"{layer}.weight"].transpose(1, 2) + model[f"{layer}.bias"][:, None]


def initial_weights(
    space: SearchSpace, width: int, generator: torch.Generator, inputs: int
) -> Parameters:
    """Return untrained weights, and a learning rate for each (Meta-SGD), by name.

    Args:
        space: with a graph of its own, or without.
        width: of the hidden layers.
        generator: what they are drawn from.
        inputs: numbers of a node, or of an encoded architecture.
    """
    import torch

    def uniform(bound: float, *shape: int) -> torch.Tensor:
        return torch.empty(shape).uniform_(-bound, bound, generator=generator)

    wide = 2 * width
    out: Parameters = {}

    def linear(name: str, rows: int, columns: int) -> None:
        out[f"{name}.weight"] = uniform(columns**-0.5, rows, columns)
        out[f"{name}.bias"] = uniform(columns**-0.5, rows)

    if hasattr(space, "graph_genes"):
        for i in range(1, 5):
            out[f"gc{i}.weight"] = uniform(0.05, inputs if i == 1 else width, width)
            out[f"gc{i}.bias"] = uniform(width**-0.5, width)
    else:
        linear("fc1", width, inputs)
        linear("fc2", width, width)
    linear("hw1", width, REFERENCES)
    linear("hw2", width, width)
    linear("fc3", wide, wide)
    linear("fc4", wide, wide)
    linear("fc5", 1, wide)
    rates = {f"rate.{name}": torch.full_like(p, 1e-3) for name, p in out.items()}
    linear("z.0", 10, REFERENCES)
    linear("z.1", 2 * 3 * (wide + 1), 10)
    out.update(rates)
    return {name: p.requires_grad_() for name, p in out.items()}
