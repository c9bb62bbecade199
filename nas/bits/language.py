"""Bits for the linear layers of a language model that others trained, by weights alone.

Each layer in turn is quantised at each bit-width, and what that does to the model's probabilities
on calibration text is what the bits cost (the divergence of ZeroQ, Cai et al., CVPR 2020, section
3.2). The integer programme of :mod:`nas.bits.allocation` finds the bits within the budgets.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.bits.allocation import Allocation, Bits, BitTable, allocate, allocate_greedily
from nas.bits.search import resolve_budgets, uniform_bits
from nas.data.text.source import read_text
from nas.data.text.tokens import BytePairs, ByteTokens, Tokens
from search_spaces.atomic import write_bytes_atomic, write_json_atomic
from search_spaces.errors import InfeasibleError, InputError
from search_spaces.model_files.grouped import GroupedWeights, check_form, store_grouped
from search_spaces.plan import FLOAT_BITS

if TYPE_CHECKING:
    from torch import Tensor, nn

    from supernet.checkpoints.decoder import CheckpointDecoder

ROWS = 1024
"""Inputs of a layer that quantisers calibrate with."""


@dataclass(frozen=True)
class LanguageBits:
    """What :func:`language_bits` found.

    Attributes:
        table: divergences in nats and costs of every layer's bits.
        budgets: in units.
        best: the proven optimum.
        others: greedy descent and the best uniform bits, where they meet the budgets.
        weights: of each layer at its bits.
        bits_per_byte: on held-out text, by method; ``float`` is the model as it came.
    """

    table: BitTable
    budgets: dict[str, float]
    best: Allocation
    others: list[Allocation]
    weights: dict[str, GroupedWeights]
    bits_per_byte: dict[str, float]


@dataclass(frozen=True)
class Text:
    """Windows of a text, and what its tokens are.

    Attributes:
        tokens: of the vocabulary.
        calibration: (windows, length) int64.
        held_out: (windows, length + 1) int64: a window and the token after it.
    """

    tokens: Tokens
    calibration: Tensor
    held_out: Tensor


def read_windows(
    path: Path, folder: Path, *, vocabulary: int, most: int, windows: int = 16
) -> Text:
    """Return windows of a text for a checkpoint.

    Args:
        path: a file, or a folder of ``*.txt``.
        folder: of the checkpoint; its ``tokenizer.json`` is used, and without one bytes are.
        vocabulary: of the model.
        most: tokens that it sees at once.
        windows: for calibration; as many others are held out.

    Raises:
        InputError: a tokenizer that does not fit the model, or too little text.
    """
    import torch

    file = folder / "tokenizer.json"
    tokens: Tokens = BytePairs.read(file) if file.is_file() else ByteTokens()
    count = len(tokens.spellings)
    if count > vocabulary:
        what = file if file.is_file() else f"{folder} has no tokenizer.json, and bytes"
        raise InputError(
            f"{what}: {count} tokens do not fit a model of {vocabulary}; give the tokenizer that "
            "it was trained with"
        )
    length = min(most, 128)
    text = read_text(path)
    # Twice what is needed, of letters of which a token has four at most on average.
    numbers = tokens.encode(text[: 16 * length * windows])
    cut = (len(numbers) - 1) // length
    if cut < 2:
        raise InputError(
            f"{path}: {len(numbers)} tokens are no two windows of {length} (for calibration, and "
            "to be held out); give more text"
        )
    rows = torch.from_numpy(
        np.stack([numbers[i * length : (i + 1) * length + 1] for i in range(cut)])
    )
    half = min(windows, cut // 2)
    return Text(tokens, rows[:half, :-1], rows[half : 2 * half])


def language_bits(
    model: CheckpointDecoder,
    text: Text,
    budgets: Mapping[str, float | str],
    *,
    weight_bits: Sequence[int] = (2, 3, 4),
    group: int = 32,
    method: str = "nearest",
) -> LanguageBits:
    """Find the bits of every linear layer, and quantise the layers to them.

    Args:
        model: of :func:`supernet.checkpoints.weights.load_decoder`; left as it is.
        text: for calibration and judgement.
        budgets: on ``weights_kib`` or ``weight_bits_mean``: a number or a share such as "60%".
        weight_bits: options, 1 to 4.
        group: channels of a scale, see ``GroupedWeights``.
        method: of :data:`supernet.weight_only.model.METHODS`.

    Raises:
        InputError: bits, a method or a group that cannot be, told before any work.
        InfeasibleError: the budgets cannot be met.
    """
    import torch

    from supernet.weight_only.model import WeightOnly

    layers = linear_layers(model)
    ways = {bits: WeightOnly(bits=bits, group=group, method=method) for bits in weight_bits}
    for name, layer in layers.items():
        shape = (layer.weight.shape[0], layer.weight.shape[1])
        for bits in weight_bits:
            check_form(shape, bits, 1, group, f"layer {name}")
    inputs = layer_inputs(model, layers, text.calibration)
    made: dict[str, dict[int, GroupedWeights]] = {}
    hurt = []
    with torch.inference_mode():
        expected = model(text.calibration).log_softmax(-1)
        for name, layer in layers.items():
            own = layer.weight.detach().numpy().copy()
            bias = None if layer.bias is None else layer.bias.detach().numpy()
            made[name] = {b: way.quantise(own, inputs[name], bias) for b, way in ways.items()}
            row = []
            for grouped in made[name].values():
                layer.weight.copy_(torch.from_numpy(grouped.dequantised()))
                found = model(text.calibration).log_softmax(-1)
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

    judged = {"float": bits_per_byte(model, text)}
    for allocation in (best, *others):
        judged[allocation.method] = bits_per_byte(with_weights(model, chosen(allocation)), text)
    return LanguageBits(table, limits, best, others, chosen(best), judged)


def linear_layers(model: nn.Module) -> dict[str, nn.Linear]:
    """Return the linear layers of a model by their paths, in order."""
    from torch import nn

    return {name: part for name, part in model.named_modules() if isinstance(part, nn.Linear)}


def with_weights(
    model: CheckpointDecoder, weights: Mapping[str, GroupedWeights]
) -> CheckpointDecoder:
    """Return a copy of a model whose layers have the values of quantised weights."""
    import torch

    copied = copy.deepcopy(model)
    layers = linear_layers(copied)
    with torch.no_grad():
        for name, grouped in weights.items():
            layers[name].weight.copy_(torch.from_numpy(grouped.dequantised()))
    return copied


def bits_per_byte(model: CheckpointDecoder, text: Text) -> float:
    """Return the bits that the model takes for a byte of the held-out windows."""
    import torch

    from nas.tasks.language import LanguageModelling

    task = LanguageModelling()
    task.tokens = text.tokens
    score = task.score()
    with torch.inference_mode():
        for rows in text.held_out.split(8):
            score.add(model(rows[:, :-1]), rows[:, 1:])
    return score.values()["bits_per_byte"]


def write_language_bits(
    result: LanguageBits, folder: Path, *, about: Mapping[str, Any] | None = None
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
            "bits_per_byte": result.bits_per_byte[allocation.method],
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
            "float_bits_per_byte": result.bits_per_byte["float"],
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


def layer_inputs(
    model: nn.Module, layers: Mapping[str, nn.Linear], windows: Tensor
) -> dict[str, np.ndarray]:
    """Return what each layer is given, (rows, channels) float32."""
    import torch

    found: dict[str, np.ndarray] = {}

    def keep(name: str) -> Any:
        def hook(_layer: Any, given: tuple[Tensor, ...]) -> None:
            found[name] = given[0].detach().flatten(0, -2)[:ROWS].numpy().copy()

        return hook

    handles = [layer.register_forward_pre_hook(keep(name)) for name, layer in layers.items()]
    try:
        with torch.inference_mode():
            model(windows)
    finally:
        for handle in handles:
            handle.remove()
    return found
