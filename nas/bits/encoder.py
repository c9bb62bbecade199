"""Bits for the linear layers of an encoder that others trained, by weights alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nas.bits.encoder_text import Texts, batches
from nas.bits.weights_alone import WeightBits, bits_by_weights, inputs_of_layers, linear_layers
from search_spaces.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from supernet.checkpoints.encoder import CheckpointEncoder

METRICS = {"masked": "masked_loss", "classes": "accuracy"}
"""What an encoder is judged by, by its head: nats for a masked word, or right classes."""


def encoder_bits(
    model: CheckpointEncoder,
    calibration: Texts,
    held_out: Texts,
    budgets: Mapping[str, float | str],
    **form: Any,
) -> WeightBits:
    """Find the bits of every linear layer that the head's answer follows from.

    Args:
        model: of :func:`supernet.checkpoints.encoder_weights.load_encoder`; left as it is.
        calibration, held_out: of :mod:`nas.bits.encoder_text`, masked or labelled as the head is.
        budgets, form: of :func:`nas.bits.weights_alone.bits_by_weights`, whose errors are raised.

    Raises:
        InputError: an encoder without a head.
    """
    require_head(model)

    def outputs() -> Tensor:
        return answers(model, calibration)

    # A layer that the answer does not follow from (the pooler beside masked words) stays float.
    used = inputs_of_layers(linear_layers(model), outputs)
    return bits_by_weights(
        model,
        {name: layer for name, layer in linear_layers(model).items() if name in used},
        budgets,
        outputs=outputs,
        judge=lambda judged: quality(judged, held_out),
        metric=METRICS[model.head],
        **form,
    )


def require_head(model: CheckpointEncoder) -> None:
    """Raise :class:`InputError` for an encoder that says nothing bits could be judged by."""
    if model.head not in METRICS:
        raise InputError(
            "the checkpoint has neither a head for masked words nor a classifier, so nothing says "
            "what bits cost it; give one with cls.predictions or classifier"
        )


def answers(model: CheckpointEncoder, texts: Texts) -> Tensor:
    """Return the values for each masked word, or for each text, (n, words or classes)."""
    import torch

    found = []
    for part in batches(texts):
        hidden = model.hidden(part.tokens, part.there)
        if part.wanted.ndim == 2:
            hidden = hidden[part.wanted >= 0]
        found.append(model.told(hidden))
    return torch.cat(found)


def quality(model: CheckpointEncoder, texts: Texts) -> float:
    """Return the loss of a masked word in nats, or the share of texts with the right class."""
    import torch
    from torch.nn import functional as F

    with torch.inference_mode():
        found = answers(model, texts)
        wanted = texts.wanted[texts.wanted >= 0]
        if model.head == "classes":
            return float((found.argmax(-1) == wanted).double().mean())
        return float(F.cross_entropy(found, wanted))
