"""What ``config.json`` says of an encoder of BERT's shape."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from search_spaces.errors import InputError
from supernet.checkpoints.config import Settings, read_settings


@dataclass(frozen=True)
class EncoderConfig:
    """Sizes and forms of an encoder.

    Attributes:
        vocabulary, width, layers, heads: sizes.
        inner: width of the MLP.
        length: most tokens.
        types: kinds of segments, which have embeddings of their own.
        epsilon: of the norms.
        activation: ``gelu_tanh``, ``gelu``, ``relu`` or ``silu``.
        labels: names of the classes of a classifier, by number; those of a checkpoint without one
            are what its maker left.
    """

    vocabulary: int
    width: int
    layers: int
    heads: int
    inner: int
    length: int
    types: int
    epsilon: float
    activation: str
    labels: tuple[str, ...]


def is_encoder(folder: Path) -> bool:
    """Whether a folder's ``config.json`` is of BERT's shape.

    Raises:
        InputError: there is none, or it holds no settings.
    """
    return read_settings(folder).text("model_type") == "bert"


def read_encoder_config(folder: Path) -> EncoderConfig:
    """Read ``config.json`` of a checkpoint's folder.

    Raises:
        InputError: no such file, no JSON, a model of another shape, or a value that is missing or
            cannot be; the message names the key.
    """
    settings = read_settings(folder)
    family = settings.text("model_type")
    if family != "bert":
        raise InputError(f"{settings.path}: model_type is {family!r}; of encoders bert can be read")
    width, heads = settings.size("hidden_size"), settings.size("num_attention_heads")
    if width % heads:
        raise InputError(
            f"{settings.path}: hidden_size {width} is not divided by num_attention_heads {heads}"
        )
    settings.only("is_decoder", False)
    settings.only("add_cross_attention", False)
    settings.only("position_embedding_type", "absolute")
    return EncoderConfig(
        vocabulary=settings.size("vocab_size"),
        width=width,
        layers=settings.size("num_hidden_layers"),
        heads=heads,
        inner=settings.size("intermediate_size"),
        length=settings.size("max_position_embeddings"),
        types=settings.size("type_vocab_size", 2),
        epsilon=settings.number("layer_norm_eps", 1e-12),
        activation=settings.activation("hidden_act", "gelu"),
        labels=_labels(settings),
    )


def _labels(settings: Settings) -> tuple[str, ...]:
    """Return the names of classes in the order of their numbers: two without a word of them."""
    found = settings.value.get("id2label")
    if found is None:
        return ("LABEL_0", "LABEL_1")
    try:
        names = {int(number): str(name) for number, name in found.items()}
    except (AttributeError, ValueError) as error:
        raise InputError(f"{settings.path}: id2label is no mapping of numbers to names") from error
    if sorted(names) != list(range(len(names))) or not names:
        raise InputError(f"{settings.path}: id2label does not number its names from 0 on")
    return tuple(names[number] for number in sorted(names))
