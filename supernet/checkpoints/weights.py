"""The tensors of a checkpoint's folder, by the names that their makers gave them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from search_spaces.errors import InputError
from supernet.checkpoints.config import DecoderConfig, read_config
from supernet.checkpoints.decoder import CheckpointDecoder

_INDEX = "model.safetensors.index.json"
_ONE = "model.safetensors"
# Masks that older files of GPT-2 hold, frequencies of older files of Llama, places of BERT's.
_NOT_WEIGHTS = re.compile(
    r"(\.attn\.(bias|masked_bias)|\.rotary_emb\.inv_freq|embeddings\.position_ids)$"
)


def load_decoder(folder: Path) -> CheckpointDecoder:
    """Return the language model of a folder with ``config.json`` and ``*.safetensors``.

    Nothing is downloaded, and nothing of the folder is run.

    Raises:
        InputError: a file that is missing or damaged; a model of another shape; tensors that are
            missing, too many, of another shape or not finite. Messages name the tensor.
    """
    folder = Path(folder)
    config = read_config(folder)
    given = read_tensors(folder)
    # Heads of classifiers and the like are no part of a decoder, but must not be dropped unsaid.
    wanted = Wanted(folder, given)
    state = dict(_gpt2(config, wanted) if config.family == "gpt2" else _llama(config, wanted))
    wanted.refuse_rest()
    model = CheckpointDecoder(config)
    fill(model, state, folder)
    return model.eval()


def fill(model: nn.Module, state: Mapping[str, Tensor], folder: Path) -> None:
    """Give a model its weights.

    Raises:
        InputError: a tensor of another shape than the configuration makes it, or not finite.
    """
    expected = model.state_dict()
    for name, tensor in state.items():
        if tensor.shape != expected[name].shape:
            raise InputError(
                f"{folder}: {name} has shape {list(tensor.shape)}, and config.json makes it "
                f"{list(expected[name].shape)}"
            )
        if not bool(tensor.isfinite().all()):
            raise InputError(f"{folder}: {name} holds values that are not finite")
    model.load_state_dict(dict(state))


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Return every tensor of a folder, of one file or of those that an index names, as float32.

    Raises:
        InputError: no file, a damaged one, or tensors that are no floats.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    index = folder / _INDEX
    names = [_ONE]
    if index.is_file():
        try:
            names = sorted(
                set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
            )
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise InputError(f"{index} is no index of a checkpoint: {error!r}") from error
    found: dict[str, Tensor] = {}
    for name in names:
        if Path(name).name != name:
            raise InputError(f"{index} names the file {name!r}, which lies elsewhere")
        path = folder / name
        if not path.is_file():
            raise InputError(
                f"{path} is not there; a checkpoint holds {_ONE}, or {_INDEX} and parts"
            )
        try:
            found.update(load_file(path))
        except (SafetensorError, OSError, ValueError) as error:
            raise InputError(f"{path} is damaged or no safetensors file: {error}") from error
    for name, tensor in found.items():
        if not tensor.is_floating_point() and not _NOT_WEIGHTS.search(name):
            raise InputError(f"{folder}: {name} is {tensor.dtype}; weights must be floats")
    return {n: t.float() for n, t in found.items() if not _NOT_WEIGHTS.search(n)}


class Wanted:
    """Gives each tensor of a checkpoint once, by the name of its maker."""

    def __init__(self, folder: Path, given: dict[str, Tensor]) -> None:
        self._folder, self._left = folder, dict(given)

    def __call__(self, *names: str) -> Tensor:
        """Return the tensor of the first of several names that is there."""
        for name in names:
            if name in self._left:
                return self._left.pop(name)
        raise InputError(f"{self._folder}: the checkpoint has no tensor {names[0]}")

    def has(self, name: str) -> bool:
        """Whether a tensor is there and was not given yet."""
        return name in self._left

    def refuse_rest(self) -> None:
        """Refuse tensors that nobody asked for."""
        if self._left:
            told = ", ".join(sorted(self._left)[:3])
            raise InputError(
                f"{self._folder}: {len(self._left)} tensors are no part of this model, among them "
                f"{told}; the checkpoint has another shape than config.json says"
            )


def _gpt2(config: DecoderConfig, wanted: Wanted) -> Iterator[tuple[str, Tensor]]:
    at = "transformer." if wanted.has("transformer.wte.weight") else ""
    embedding = wanted(f"{at}wte.weight")
    yield "embedding.weight", embedding
    yield "positions.weight", wanted(f"{at}wpe.weight")
    for i in range(config.layers):
        here, there = f"{at}h.{i}", f"blocks.{i}"
        for ours, theirs in (("norm1", "ln_1"), ("norm2", "ln_2")):
            yield from _both(f"{there}.{ours}", f"{here}.{theirs}", wanted)
        # One matrix for all three, and matrices lie (inputs, outputs).
        joint, bias = wanted(f"{here}.attn.c_attn.weight"), wanted(f"{here}.attn.c_attn.bias")
        if joint.ndim != 2 or joint.shape[1] != 3 * config.width or bias.shape != joint.shape[1:]:
            raise InputError(
                f"{here}.attn.c_attn has shape {list(joint.shape)}, not {config.width} x "
                f"{3 * config.width}"
            )
        weights, biases = joint.chunk(3, 1), bias.chunk(3)
        for name, weight, own in zip(("query", "key", "value"), weights, biases, strict=True):
            yield f"{there}.{name}.weight", weight.T.contiguous()
            yield f"{there}.{name}.bias", own
        for ours, theirs in (("output", "attn.c_proj"), ("up", "mlp.c_fc"), ("down", "mlp.c_proj")):
            yield from _both(
                f"{there}.{ours}", f"{here}.{theirs}", wanted, lambda w: w.T.contiguous()
            )
    yield from _both("norm", f"{at}ln_f", wanted)
    yield "head.weight", _head(config, wanted, embedding)


def _llama(config: DecoderConfig, wanted: Wanted) -> Iterator[tuple[str, Tensor]]:
    at = "model." if wanted.has("model.embed_tokens.weight") else ""
    embedding = wanted(f"{at}embed_tokens.weight")
    yield "embedding.weight", embedding
    parts = (
        ("query", "self_attn.q_proj", config.attention_bias),
        ("key", "self_attn.k_proj", config.attention_bias),
        ("value", "self_attn.v_proj", config.attention_bias),
        ("output", "self_attn.o_proj", config.attention_bias),
        ("gate", "mlp.gate_proj", config.mlp_bias),
        ("up", "mlp.up_proj", config.mlp_bias),
        ("down", "mlp.down_proj", config.mlp_bias),
    )
    for i in range(config.layers):
        here, there = f"{at}layers.{i}", f"blocks.{i}"
        yield f"{there}.norm1.weight", wanted(f"{here}.input_layernorm.weight")
        yield f"{there}.norm2.weight", wanted(f"{here}.post_attention_layernorm.weight")
        for ours, theirs, bias in parts:
            yield f"{there}.{ours}.weight", wanted(f"{here}.{theirs}.weight")
            if bias:
                yield f"{there}.{ours}.bias", wanted(f"{here}.{theirs}.bias")
    yield "norm.weight", wanted(f"{at}norm.weight")
    yield "head.weight", _head(config, wanted, embedding)


def _head(config: DecoderConfig, wanted: Wanted, embedding: Tensor) -> Tensor:
    if wanted.has("lm_head.weight") or not config.tied:
        return wanted("lm_head.weight")
    return embedding.clone()


def _both(
    ours: str,
    theirs: str,
    wanted: Wanted,
    turn: Callable[[Tensor], Tensor] = torch.clone,
) -> Iterator[tuple[str, Tensor]]:
    yield f"{ours}.weight", turn(wanted(f"{theirs}.weight"))
    yield f"{ours}.bias", wanted(f"{theirs}.bias")
