"""Layers as products of two thin ones, cut by a singular value decomposition of what they do.

A layer's weights ``W`` (outputs, inputs) become ``up (outputs, rank) @ down (rank, inputs)``. The
decomposition is of ``W L``, where ``L L^T`` is the covariance of the layer's inputs, so that the
error of its outputs is least for every rank at once (SVD-LLM, Wang et al., ICLR 2025, section 3.1);
the factors of a smaller rank are a prefix of those of a larger one. Both factors get the root of
each singular value, so that few bits serve both alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from search_spaces.errors import InputError
from supernet.ptq.graph import FloatGraph, Layer, Recorded, images_of, trace_float
from supernet.ptq.sensitivity import changes

_RIDGE = 1e-4
"""Of the mean variance of an input, added so that inputs that never vary do no harm."""

_PATCHES = 4096
"""Patches of a batch that the covariance of a convolution's inputs is made of."""

DOWN, UP = "down", "up"
"""Names of the two factors, behind the layer's own name."""


@dataclass(frozen=True)
class Factors:
    """The nested factors of one layer.

    Attributes:
        down: (rank, inputs), most important row first.
        up: (outputs, rank), likewise by column.
        values: singular values (rank,), of outputs on the images seen.
    """

    down: Tensor
    up: Tensor
    values: Tensor

    @property
    def largest(self) -> int:
        """The rank at which nothing is lost."""
        return len(self.values)

    def cut(self, rank: int) -> tuple[Tensor, Tensor]:
        """Return ``down`` (rank, inputs) and ``up`` (outputs, rank) of a smaller rank."""
        return self.down[:rank], self.up[:, :rank]


def most_useful_rank(outputs: int, inputs: int) -> int:
    """Return the largest rank at which two layers have fewer weights than one."""
    return max(0, (outputs * inputs - 1) // (outputs + inputs))


@torch.no_grad()
def layer_factors(graph: FloatGraph, batches: Iterable[Any]) -> dict[str, Factors]:
    """Return the factors of every layer that could be two.

    Args:
        graph: of a float network.
        batches: images, or (images, targets) whose targets are ignored.

    Raises:
        InputError: there are no images.
    """
    sums: dict[str, Tensor] = {}
    seen = 0
    for images in images_of(batches):
        recorded = Recorded(graph.module, images)
        for name, node in graph.layers.items():
            layer = graph.layer(name)
            if not can_be_two(layer):
                continue
            rows = _rows(layer, recorded.input_of(node), seen)
            product = rows.double().T @ rows.double() / len(rows)
            sums[name] = product if name not in sums else sums[name] + product
        seen += 1
    if not seen:
        raise InputError("the ranks of layers need at least one batch of images")
    found = {}
    for name, total in sums.items():
        covariance = total / seen
        ridge = _RIDGE * float(covariance.diagonal().mean().clamp(min=1e-12))
        covariance.diagonal().add_(ridge)
        root = torch.linalg.cholesky(covariance)
        weight = graph.layer(name).weight.detach().flatten(1).double()
        left, values, right = torch.linalg.svd(weight @ root, full_matrices=False)
        share = values.clamp(min=0).sqrt()
        # down L = sqrt(S) V^T, solved from the right.
        down = torch.linalg.solve_triangular(root, share[:, None] * right, upper=False, left=False)
        found[name] = Factors(down.float(), (left * share).float(), values.float())
    return found


def can_be_two(layer: nn.Module) -> bool:
    """Whether a layer is a product that two can share: linear, or an ungrouped convolution."""
    if isinstance(layer, nn.Conv2d):
        shape = layer.weight.flatten(1).shape
        return layer.groups == 1 and most_useful_rank(*shape) >= 1
    return isinstance(layer, nn.Linear) and most_useful_rank(*layer.weight.shape) >= 1


def _rows(layer: Layer, x: Tensor, number: int) -> Tensor:
    """Return what each output is a product with, (rows, inputs)."""
    if isinstance(layer, nn.Linear):
        return x.reshape(-1, x.shape[-1])
    kernel, padding = layer.kernel_size, layer.padding
    if isinstance(padding, str):
        raise InputError("a convolution padded by name cannot be two layers; give numbers")
    patches = F.unfold(x, kernel, layer.dilation, padding, layer.stride)
    rows = patches.transpose(1, 2).reshape(-1, patches.shape[1])
    if len(rows) > _PATCHES:
        generator = torch.Generator().manual_seed(number)
        rows = rows[torch.randint(len(rows), (_PATCHES,), generator=generator)]
    return rows


def _two(layer: Layer, down: Tensor, up: Tensor) -> tuple[Layer, Layer]:
    """Return layers of ``down`` (rank, inputs) and ``up`` (outputs, rank), with the bias last."""
    rank, outputs = down.shape[0], up.shape[0]
    first: Layer
    second: Layer
    if isinstance(layer, nn.Linear):
        first = nn.Linear(layer.in_features, rank, bias=False)
        second = nn.Linear(rank, outputs)
    else:
        first = nn.Conv2d(
            layer.in_channels, rank, layer.kernel_size,  # type: ignore[arg-type]
            layer.stride, layer.padding, layer.dilation, bias=False,  # type: ignore[arg-type]
        )  # fmt: skip
        second = nn.Conv2d(rank, outputs, 1)
    first.weight.copy_(down.reshape(first.weight.shape))
    second.weight.copy_(up.reshape(second.weight.shape))
    assert second.bias is not None
    second.bias.copy_(torch.zeros(outputs) if layer.bias is None else layer.bias.detach())
    return first.eval(), second.eval()


@torch.no_grad()
def with_ranks(
    graph: FloatGraph, factors: Mapping[str, Factors], ranks: Mapping[str, int]
) -> nn.Module:
    """Return the network of ``graph`` with some layers as two.

    Args:
        graph: a traced network; left as it is.
        factors: from :func:`layer_factors`.
        ranks: of the layers that become two; the others stay.

    Raises:
        InputError: a layer without factors, or a rank that it does not have.
    """
    import copy

    module = copy.deepcopy(graph.module)
    places = {str(node.target): node for node in module.graph.nodes if node.op == "call_module"}
    for name, rank in ranks.items():
        if name not in factors:
            raise InputError(f"the layer {name!r} cannot be two layers")
        if not 1 <= rank <= factors[name].largest:
            raise InputError(
                f"the layer {name!r} has ranks from 1 to {factors[name].largest}, not {rank}"
            )
        node = places[str(graph.layers[name].target)]
        latest = node.args[0]
        with module.graph.inserting_before(node):
            for part, layer in zip(
                (DOWN, UP), _two(graph.layer(name), *factors[name].cut(rank)), strict=True
            ):
                path = f"{node.target}_{part}"
                module.add_submodule(path, layer)
                latest = module.graph.call_module(path, (latest,))
        node.replace_all_uses_with(latest)
        module.graph.erase_node(node)
        module.delete_submodule(str(node.target))
    module.graph.lint()
    # Made anew, so that its layers stand in the order of execution.
    ordered = fx.GraphModule(module, module.graph)
    ordered.meta.update(module.meta)
    module = ordered
    return module


@torch.no_grad()
def rank_sensitivity(
    graph: FloatGraph,
    batches: Iterable[Any],
    versions: Mapping[str, Sequence[Tensor]],
    metric: str = "kl",
) -> dict[str, list[float]]:
    """Return what the network's outputs change by when one layer has other weights.

    Args:
        graph: of the float network.
        batches: images, or (images, targets) whose targets are ignored.
        versions: of each layer, weights in its own shape.
        metric: of :data:`supernet.ptq.sensitivity.METRICS`.

    Returns:
        of each layer's versions the mean change.
    """
    totals = {name: torch.zeros(len(weights)) for name, weights in versions.items()}
    seen = 0
    for images in images_of(batches):
        recorded = Recorded(graph.module, images)
        for name, weights in versions.items():
            node: fx.Node = graph.layers[name]
            layer, x = graph.layer(name), recorded.input_of(node)
            for k, weight in enumerate(weights):
                # One at a time: a layer has many ranks and bits, and a batch of all is large.
                output = torch.func.functional_call(layer, {"weight": weight}, (x,))
                change = changes(recorded, node, output[None], [metric])
                totals[name][k] += change.item() * len(images)
        seen += len(images)
    return {name: (total / max(1, seen)).tolist() for name, total in totals.items()}


def traced(module: nn.Module, batches: Sequence[Any]) -> FloatGraph:
    """Return ``module`` read for its factors; see :func:`supernet.ptq.graph.trace_float`."""
    return trace_float(module, next(iter(images_of(batches))))
