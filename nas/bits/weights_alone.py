"""Bits for the linear layers of a model that others trained, by weights alone.

Each layer in turn is quantised at each bit-width, and what that does to the model's probabilities
on calibration inputs is what the bits cost (the divergence of ZeroQ, Cai et al., CVPR 2020, section
3.2). The integer programme of :mod:`nas.bits.allocation` finds the bits within the budgets.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from nas.bits.allocation import Allocation, Bits, BitTable, allocate, allocate_greedily
from nas.bits.search import resolve_budgets, uniform_bits
from search_spaces.atomic import write_bytes_atomic, write_json_atomic
from search_spaces.errors import InfeasibleError
from search_spaces.model_files.grouped import GroupedWeights, check_form, store_grouped
from search_spaces.plan import FLOAT_BITS

if TYPE_CHECKING:
    from torch import Tensor, nn

ROWS = 1024
"""Inputs of a layer that quantisers calibrate with."""

Model = TypeVar("Model", bound="nn.Module")


@dataclass(frozen=True)
class WeightBits:
    """What :func:`bits_by_weights` found.

    Attributes:
        table: divergences in nats and costs of every layer's bits.
        budgets: in units.
        best: the proven optimum.
        others: greedy descent and the best uniform bits, where they meet the budgets.
        weights: of each layer at its bits.
        metric: name of what the models were judged by.
        judged: on held-out data, by method; ``float`` is the model as it came.
    """

    table: BitTable
    budgets: dict[str, float]
    best: Allocation
    others: list[Allocation]
    weights: dict[str, GroupedWeights]
    metric: str
    judged: dict[str, float]


def bits_by_weights(
    model: Model,
    layers: Mapping[str, nn.Linear],
    budgets: Mapping[str, float | str],
    *,
    outputs: Callable[[], Tensor],
    judge: Callable[[Model], float],
    metric: str,
    weight_bits: Sequence[int] = (2, 3, 4),
    group: int = 32,
    method: str = "nearest",
) -> WeightBits:
    """Find the bits of linear layers, and quantise the layers to them.

    Args:
        model: left as it is.
        layers: of it, by their paths.
        budgets: on ``weights_kib`` or ``weight_bits_mean``: a number or a share such as "60%".
        outputs: runs the model on calibration inputs and returns its values before softmax,
            (..., classes).
        judge: returns the metric of a model on held-out data.
        metric: its name.
        weight_bits: options, 1 to 4.
        group: channels of a scale, see ``GroupedWeights``.
        method: of :data:`supernet.weight_only.model.METHODS`.

    Raises:
        InputError: bits, a method or a group that cannot be, told before any work.
        InfeasibleError: the budgets cannot be met.
    """
    import torch

    from supernet.weight_only.model import WeightOnly

    ways = {bits: WeightOnly(bits=bits, group=group, method=method) for bits in weight_bits}
    for name, layer in layers.items():
        shape = (layer.weight.shape[0], layer.weight.shape[1])
        for bits in weight_bits:
            check_form(shape, bits, 1, group, f"layer {name}")
    inputs = inputs_of_layers(layers, outputs)
    made: dict[str, dict[int, GroupedWeights]] = {}
    hurt = []
    with torch.inference_mode():
        expected = outputs().log_softmax(-1)
        for name, layer in layers.items():
            own = layer.weight.detach().numpy().copy()
            bias = None if layer.bias is None else layer.bias.detach().numpy()
            made[name] = {b: way.quantise(own, inputs[name], bias) for b, way in ways.items()}
            row = []
            for grouped in made[name].values():
                layer.weight.copy_(torch.from_numpy(grouped.dequantised()))
                found = outputs().log_softmax(-1)
                row.append(float((expected.exp() * (expected - found)).sum(-1).mean()))
            layer.weight.copy_(torch.from_numpy(own))
            hurt.append(row)
    table = _table(model, layers, made, hurt)
    limits = resolve_budgets(table, budgets)
    best = allocate(table, limits)
    others = []
    for other in (allocate_greedily, uniform_bits):
        try:
            others.append(other(table, limits))
        except InfeasibleError:
            continue

    def chosen(allocation: Allocation) -> dict[str, GroupedWeights]:
        return {
            name: made[name][option.weight_bits]
            for name, option in zip(table.layers, allocation.options, strict=True)
        }

    judged = {"float": judge(model)}
    for allocation in (best, *others):
        judged[allocation.method] = judge(with_weights(model, chosen(allocation)))
    return WeightBits(table, limits, best, others, chosen(best), metric, judged)


def linear_layers(model: nn.Module) -> dict[str, nn.Linear]:
    """Return the linear layers of a model by their paths, in order."""
    from torch import nn

    return {name: part for name, part in model.named_modules() if isinstance(part, nn.Linear)}


def with_weights(model: Model, weights: Mapping[str, GroupedWeights]) -> Model:
    """Return a copy of a model whose layers have the values of quantised weights."""
    import torch

    copied = copy.deepcopy(model)
    layers = linear_layers(copied)
    with torch.no_grad():
        for name, grouped in weights.items():
            layers[name].weight.copy_(torch.from_numpy(grouped.dequantised()))
    return copied


def inputs_of_layers(
    layers: Mapping[str, nn.Linear], run: Callable[[], Any]
) -> dict[str, np.ndarray]:
    """Return what each layer is given while ``run`` runs, (rows, channels) float32."""
    import torch

    found: dict[str, np.ndarray] = {}

    def keep(name: str) -> Any:
        def hook(_layer: Any, given: tuple[Tensor, ...]) -> None:
            found[name] = given[0].detach().flatten(0, -2)[:ROWS].numpy().copy()

        return hook

    handles = [layer.register_forward_pre_hook(keep(name)) for name, layer in layers.items()]
    try:
        with torch.inference_mode():
            run()
    finally:
        for handle in handles:
            handle.remove()
    return found


def write_weight_bits(
    result: WeightBits, folder: Path, *, about: Mapping[str, Any] | None = None
) -> Path:
    """Write ``bits.json`` and ``layers.safetensors``: fields and scales of every layer.

    The metadata ``layers`` of the second holds the entries that
    :func:`search_spaces.model_files.grouped.load_grouped` reads the layers by.

    Returns:
        path of the JSON.
    """
    from safetensors.numpy import save

    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, np.ndarray] = {}
    entries = {
        name: {"shape": list(grouped.shape), **store_grouped(tensors, name, grouped)}
        for name, grouped in result.weights.items()
    }
    data = save(tensors, metadata={"layers": json.dumps(entries)})
    write_bytes_atomic(folder / "layers.safetensors", data)

    def told(allocation: Allocation) -> dict[str, Any]:
        return {
            "method": allocation.method,
            "divergence": allocation.sensitivity,
            "proven_optimal": allocation.optimal,
            "costs": allocation.costs,
            result.metric: result.judged[allocation.method],
            "layers": {
                name: option.weight_bits
                for name, option in zip(result.table.layers, allocation.options, strict=True)
            },
        }

    path = folder / "bits.json"
    write_json_atomic(
        path,
        {
            **(about or {}),
            "budgets": result.budgets,
            f"float_{result.metric}": result.judged["float"],
            "best": told(result.best),
            "others": [told(other) for other in result.others],
        },
    )
    return path


def _table(
    model: nn.Module,
    layers: Mapping[str, nn.Linear],
    made: Mapping[str, Mapping[int, GroupedWeights]],
    hurt: Sequence[Sequence[float]],
) -> BitTable:
    counts = {name: layer.weight.numel() for name, layer in layers.items()}
    total = sum(counts.values())
    inside = {id(p) for layer in layers.values() for p in layer.parameters()}
    beside = sum(4 * p.numel() for p in model.parameters() if id(p) not in inside)
    return BitTable.of(
        list(layers),
        [[Bits(bits, FLOAT_BITS) for bits in made[name]] for name in layers],
        hurt,
        {
            "weights_kib": [[g.nbytes / 1024 for g in made[name].values()] for name in layers],
            "weight_bits_mean": [[bits * counts[n] / total for bits in made[n]] for n in layers],
        },
        {"weights_kib": beside / 1024},
    )
