"""Two forms of one network on the same data, and the first layer at which they differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from supernet.reading.normal_form import STATISTICS


def relative_difference(found: Any, expected: Any) -> float:
    """Return the largest difference over the largest expected value; infinite if shapes differ.

    Args:
        found, expected: tensors, or tuples of them.
    """
    if isinstance(expected, (tuple, list)):
        if not isinstance(found, (tuple, list)) or len(found) != len(expected):
            return float("inf")
        return max(
            (relative_difference(f, e) for f, e in zip(found, expected, strict=True)), default=0.0
        )
    if isinstance(expected, Mapping):
        return relative_difference(found, list(expected.values()))
    if not isinstance(found, Tensor) or not isinstance(expected, Tensor):
        return 0.0 if found is expected or found == expected else float("inf")
    if found.shape != expected.shape:
        return float("inf")
    if not expected.numel():
        return 0.0
    a, b = found.detach().double(), expected.detach().double()
    if not bool(torch.isfinite(a).all()) and bool(torch.isfinite(b).all()):
        return float("inf")
    return float((a - b).abs().max() / b.abs().max().clamp(min=1e-6))


@torch.no_grad()
def first_difference(
    module: nn.Module, graph: fx.GraphModule, inputs: Sequence[Tensor], *, tolerance: float
) -> str | None:
    """Compare a module with its graph on data.

    Args:
        module: the reference; evaluated in evaluation mode, its mode is restored.
        graph: whose layers have the module's paths.
        inputs: of both.
        tolerance: largest :func:`relative_difference` of the outputs.

    Returns:
        None if outputs agree, else in words where they differ first and by how much, or that the
        module changes its inputs.
    """
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    own = [x.to(device, copy=True) for x in inputs]
    training = module.training
    module.eval()
    try:
        expected = _to_cpu(module(*own))
        if any(not torch.equal(a.to(device), b) for a, b in zip(inputs, own, strict=True)):
            return (
                "it changes its input in place, which others may still read; write x = x - mean "
                "for x -= mean, and x = x.sub(mean) for x.sub_(mean)"
            )
        difference = relative_difference(graph(*inputs), one_or_tuple(expected))
        if difference <= tolerance:
            return None
        if relative_difference(_to_cpu(module(*own)), expected) > tolerance:
            return "it computes something else at each call: random numbers, or a state it changes"
        wanted = _outputs(
            module, own, (n.target for n in graph.graph.nodes if n.op == "call_module")
        )
    finally:
        module.train(training)
    found = node_values(graph, inputs)
    for node, value in found.items():
        if node.op != "call_module" or str(node.target) not in wanted:
            continue
        path = str(node.target)
        if any(user.target == f"{path}{STATISTICS}" for user in node.users):
            continue  # The place of a norm that comes behind it.
        here = relative_difference(value, wanted[path])
        # A batch norm folded into its convolution differs there, and is right after it.
        if here > tolerance and not _norm_follows(path, value, wanted, tolerance):
            return f"the first layer that differs is {path}, by {here:.3g} (relative)"
    return f"every layer agrees, but the outputs differ by {difference:.3g} (relative)"


def _norm_follows(path: str, value: Any, wanted: Mapping[str, Any], tolerance: float) -> bool:
    names = list(wanted)
    after = names[names.index(path) + 1 : names.index(path) + 4]
    return any(relative_difference(value, wanted[name]) <= tolerance for name in after)


def _outputs(module: nn.Module, inputs: Sequence[Tensor], paths: Iterable[Any]) -> dict[str, Any]:
    """Return the outputs of submodules in order of execution, on the processor."""
    asked = {str(p) for p in paths}
    found: dict[str, Any] = {}
    handles = []
    for path, part in module.named_modules():
        norm = isinstance(part, nn.modules.batchnorm._BatchNorm)
        if path in asked or norm:
            handles.append(
                part.register_forward_hook(
                    lambda _m, _i, out, path=path: found.setdefault(path, _to_cpu(out))
                )
            )
    try:
        module(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    return found


@torch.no_grad()
def node_values(graph: fx.GraphModule, inputs: Sequence[Tensor]) -> dict[fx.Node, Any]:
    """Return what every node of a graph computes from ``inputs``."""

    class Keep(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            kept[n] = value
            return value

    kept: dict[fx.Node, Any] = {}
    Keep(graph, garbage_collect_values=False).run(*inputs)
    return kept


def one_or_tuple(value: Any) -> Any:
    """Return what a capture returns for a module's outputs: one, or nested ones in a row."""
    flat = _flat(value)
    return flat[0] if len(flat) == 1 else tuple(flat)


def _flat(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (tuple, list)):
        return [leaf for part in value for leaf in _flat(part)]
    return [] if value is None else [value]


def _to_cpu(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, Mapping):
        return {key: _to_cpu(part) for key, part in value.items()}
    if isinstance(value, (tuple, list)):
        return [_to_cpu(part) for part in value]
    return value
