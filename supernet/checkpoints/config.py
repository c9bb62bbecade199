"""What ``config.json`` says of a language model, in one form for GPT-2's and Llama's shapes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search_spaces.errors import InputError

ACTIVATIONS = {
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu": "gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes and forms of a decoder.

    Attributes:
        family: ``gpt2`` or ``llama``.
        vocabulary, width, layers, heads: sizes.
        key_heads: heads of keys and values, which groups of queries share.
        head_width: of each.
        inner: width of the MLP.
        length: most tokens.
        epsilon: of the norms.
        activation: ``gelu_tanh``, ``gelu``, ``relu`` or ``silu``.
        theta: base of rotary positions; 0 for learned positions.
        tied: the layer to the vocabulary is the embedding.
        attention_bias, mlp_bias: whether those layers have biases.
    """

    family: str
    vocabulary: int
    width: int
    layers: int
    heads: int
    key_heads: int
    head_width: int
    inner: int
    length: int
    epsilon: float
    activation: str
    theta: float
    tied: bool
    attention_bias: bool
    mlp_bias: bool


def read_config(folder: Path) -> DecoderConfig:
    """Read ``config.json`` of a checkpoint's folder.

    Raises:
        InputError: no such file, no JSON, a model of another shape, or a value that is missing or
            cannot be; the message names the key.
    """
    settings = read_settings(folder)
    path = settings.path
    family = settings.text("model_type")
    if family not in ("gpt2", "llama"):
        raise InputError(
            f"{path}: model_type is {family!r}; gpt2 and llama can be read, and bert as an encoder"
        )
    found = _gpt2(settings) if family == "gpt2" else _llama(settings)
    if found.heads % found.key_heads:
        raise InputError(
            f"{path}: {found.heads} heads cannot share {found.key_heads} heads of keys and values"
        )
    return found


def read_settings(folder: Path) -> Settings:
    """Return what ``config.json`` of a checkpoint's folder holds.

    Raises:
        InputError: no such file, no JSON, or no mapping.
    """
    path = Path(folder) / "config.json"
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{path} is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} holds no mapping of settings")
    return Settings(path, value)


def _gpt2(settings: Settings) -> DecoderConfig:
    width, heads = settings.size("n_embd"), settings.size("n_head")
    if width % heads:
        raise InputError(f"{settings.path}: n_embd {width} is not divided by n_head {heads}")
    settings.only("scale_attn_weights", True)
    settings.only("scale_attn_by_inverse_layer_idx", False)
    settings.only("add_cross_attention", False)
    return DecoderConfig(
        family="gpt2",
        vocabulary=settings.size("vocab_size"),
        width=width,
        layers=settings.size("n_layer"),
        heads=heads,
        key_heads=heads,
        head_width=width // heads,
        inner=settings.size("n_inner", 4 * width),
        length=settings.size("n_positions"),
        epsilon=settings.number("layer_norm_epsilon", 1e-5),
        activation=settings.activation("activation_function", "gelu_new"),
        theta=0.0,
        tied=bool(settings.value.get("tie_word_embeddings", True)),
        attention_bias=True,
        mlp_bias=True,
    )


def _llama(settings: Settings) -> DecoderConfig:
    width, heads = settings.size("hidden_size"), settings.size("num_attention_heads")
    if "head_dim" not in settings.value and width % heads:
        raise InputError(
            f"{settings.path}: hidden_size {width} is not divided by num_attention_heads {heads}"
        )
    rope = settings.value.get("rope_parameters") or settings.value.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default")) if isinstance(rope, dict) else rope
    if kind != "default":
        raise InputError(
            f"{settings.path}: rotary positions of type {kind!r} cannot be read; plain ones can"
        )
    theta = rope.get("rope_theta", settings.value.get("rope_theta", 10000.0))
    return DecoderConfig(
        family="llama",
        vocabulary=settings.size("vocab_size"),
        width=width,
        layers=settings.size("num_hidden_layers"),
        heads=heads,
        key_heads=settings.size("num_key_value_heads", heads),
        head_width=settings.size("head_dim", width // heads),
        inner=settings.size("intermediate_size"),
        length=settings.size("max_position_embeddings"),
        epsilon=settings.number("rms_norm_eps", 1e-6),
        activation=settings.activation("hidden_act", "silu"),
        theta=_positive(settings.path, "rope_theta", theta),
        tied=bool(settings.value.get("tie_word_embeddings", False)),
        attention_bias=bool(settings.value.get("attention_bias", False)),
        mlp_bias=bool(settings.value.get("mlp_bias", False)),
    )


@dataclass(frozen=True)
class Settings:
    """The settings of a checkpoint, each checked as it is read.

    Attributes:
        path: of the file, for messages.
        value: what it holds.
    """

    path: Path
    value: Mapping[str, Any]

    def text(self, key: str) -> str:
        """Return a text that must be there."""
        if not isinstance(self.value.get(key), str):
            raise InputError(f"{self.path}: {key} is missing, or no text")
        return str(self.value[key])

    def size(self, key: str, default: int | None = None) -> int:
        """Return a whole number from 1."""
        found = self.value.get(key)
        if found is None and default is not None:
            return default
        if not isinstance(found, int) or isinstance(found, bool) or found < 1:
            what = "is missing" if found is None else f"is {found!r}"
            raise InputError(f"{self.path}: {key} {what}; it must be a whole number from 1")
        return found

    def number(self, key: str, default: float) -> float:
        """Return a number above 0."""
        return _positive(self.path, key, self.value.get(key, default))

    def activation(self, key: str, default: str) -> str:
        """Return an activation, one of the values of :data:`ACTIVATIONS`."""
        found = self.value.get(key, default)
        if found not in ACTIVATIONS:
            raise InputError(
                f"{self.path}: {key} is {found!r}; these can be read: {', '.join(ACTIVATIONS)}"
            )
        return ACTIVATIONS[found]

    def only(self, key: str, allowed: bool | str) -> None:
        """Refuse another value than the one that can be read."""
        if self.value.get(key, allowed) != allowed:
            raise InputError(f"{self.path}: {key} is {self.value[key]!r}, which cannot be read")


def _positive(path: Path, key: str, value: Any) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not value > 0:
        raise InputError(f"{path}: {key} is {value!r}; it must be a number above 0")
    return float(value)
