"""The linear layers of a packed float model in few bits, and the same layers in ONNX."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from search_spaces.errors import InputError
from search_spaces.model_files.grouped import GroupedWeights, check_form, store_grouped
from search_spaces.model_files.packed_model import PackedModel
from supernet.weight_only import planes, uniform

METHODS = ("nearest", "gptq", "awq", "awq_gptq", "planes", "onebit")


@dataclass(frozen=True)
class WeightOnly:
    """How linear layers get few bits.

    Attributes:
        bits: of a weight, 1 to 4.
        group: channels of a scale: 32, 64 or 128; 0 for a scale an output.
        method: ``nearest``, ``gptq``, ``awq`` (scaled by activations), ``awq_gptq``, ``planes``
            (of one bit, with scales of their own), ``onebit`` (signs and value vectors).
        ternary: the codes -1, 0 and 1 alone, of 2 bits.
        symmetric: zero is a code; otherwise a group has a minimum of its own.

    Raises:
        InputError: a method or a combination that there is not.
    """

    bits: int = 4
    group: int = 128
    method: str = "nearest"
    ternary: bool = False
    symmetric: bool = True

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"no method {self.method!r}; there are {', '.join(METHODS)}")
        check_form((1, max(self.group, 1)), self.bits, 1, self.group)
        if self.ternary and self.bits != 2:
            raise InputError(f"ternary codes have 2 bits, not {self.bits}")
        if self.method == "onebit" and (self.bits != 1 or self.group):
            raise InputError("onebit has 1 bit and a value an output: set bits: 1 and group: 0")

    @property
    def needs_inputs(self) -> bool:
        """Whether the method looks at what the layers are given."""
        return self.method in ("gptq", "awq", "awq_gptq")

    def quantise(
        self, weight: np.ndarray, inputs: np.ndarray | None, bias: np.ndarray | None
    ) -> GroupedWeights:
        """Return a weight matrix (outputs, channels) in few bits.

        Args:
            weight: float.
            inputs: (samples, channels), for methods that need them.
            bias: (outputs,), or ``None``.
        """
        if self.method == "planes":
            return planes.hierarchical_planes(weight, self.bits, self.group, bias=bias)
        if self.method == "onebit":
            return planes.signs_with_values(weight, bias=bias)
        kind: dict[str, Any] = {"ternary": self.ternary, "symmetric": self.symmetric}
        if self.method == "nearest":
            return uniform.round_to_nearest(weight, self.bits, self.group, bias=bias, **kind)
        if inputs is None:
            raise InputError(f"method {self.method!r} needs inputs of each layer to calibrate with")
        if self.method == "gptq":
            return uniform.gptq(weight, inputs, self.bits, self.group, bias=bias, **kind)
        scaled = uniform.scaled_by_activations(
            weight,
            inputs,
            lambda w, f: uniform.round_to_nearest(
                w, self.bits, self.group, bias=bias, factor=f, **kind
            ),
        )
        if self.method == "awq" or scaled.factor is None:
            return scaled
        return uniform.gptq(
            weight / scaled.factor, inputs * scaled.factor, self.bits, self.group, bias=bias,
            factor=scaled.factor, **kind,
        )  # fmt: skip


def quantise_linear(
    model: PackedModel,
    how: WeightOnly,
    *,
    inputs: Mapping[str, np.ndarray] | None = None,
    skip: frozenset[str] = frozenset(),
) -> dict[str, GroupedWeights]:
    """Quantise the float linear layers of a packed model.

    Args:
        model: from ``search_spaces.model_files.packing.pack_model`` of a float ONNX.
        how: the method, for all of them.
        inputs: of each layer, (samples, channels), for methods that need them.
        skip: layers that stay as they are.

    Returns:
        Weights by layer name, for :func:`with_grouped` and
        ``supernet.onnx.weight_only.with_nbits``.

    Raises:
        InputError: there is no such layer, or a group does not divide the channels of one; all of
            them are checked before any is quantised.
    """
    layers = float_layers(model)
    for name in sorted(skip - set(layers)):
        raise InputError(f"no float linear layer {name!r}; there are {', '.join(layers)}")
    chosen = {name: entry for name, entry in layers.items() if name not in skip}
    if not chosen:
        raise InputError("the model has no float linear layer to quantise")
    for name, (weight, _) in chosen.items():
        check_form((weight.shape[0], weight.shape[1]), how.bits, 1, how.group, f"layer {name}")
        if how.needs_inputs and name not in (inputs or {}):
            raise InputError(f"layer {name}: method {how.method!r} needs inputs to calibrate with")
    return {
        name: how.quantise(weight, (inputs or {}).get(name), bias)
        for name, (weight, bias) in chosen.items()
    }


def float_layers(model: PackedModel) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return weight (outputs, channels) and bias of each float linear layer, by name."""
    return {
        node["layer"]: (
            model.tensors[node["weights"]["weight"]],
            model.tensors[node["weights"]["bias"]],
        )
        for node in model.nodes()
        if node["op"] == "linear" and "weight" in node["weights"]
    }


def with_grouped(model: PackedModel, weights: Mapping[str, GroupedWeights]) -> PackedModel:
    """Return a packed model whose layers of ``weights`` are replaced by them."""
    tensors, nodes, used = dict(model.tensors), [], set()
    for node in model.nodes():
        name = node.get("layer", "")
        if node["op"] == "linear" and name in weights:
            old = node["weights"]
            for key in ("weight", "bias"):
                tensors.pop(old.get(key, ""), None)
            entry = store_grouped(tensors, name, weights[name])
            node = {**node, "weights": {"shape": list(weights[name].shape), **entry}}
            used.add(name)
        nodes.append(node)
    if unknown := set(weights) - used:
        raise InputError(f"the model has no linear layers {', '.join(sorted(unknown))}")
    return replace(model, graph={**model.graph, "nodes": nodes}, tensors=tensors)
