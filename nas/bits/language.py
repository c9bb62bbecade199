"""Bits for the linear layers of a language model that others trained, by weights alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.bits.weights_alone import WeightBits, bits_by_weights, linear_layers
from nas.data.text.source import read_text
from nas.data.text.tokens import BytePairs, ByteTokens, Tokens
from search_spaces.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from supernet.checkpoints.decoder import CheckpointDecoder


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
    text = read_text(path, option=None)
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
    **form: Any,
) -> WeightBits:
    """Find the bits of every linear layer; models are judged by their bits per byte.

    Args:
        model: of :func:`supernet.checkpoints.weights.load_decoder`; left as it is.
        text: for calibration and judgement.
        budgets, form: of :func:`nas.bits.weights_alone.bits_by_weights`, whose errors are raised.
    """
    return bits_by_weights(
        model,
        linear_layers(model),
        budgets,
        outputs=lambda: model(text.calibration),
        judge=lambda judged: bits_per_byte(judged, text),
        metric="bits_per_byte",
        **form,
    )


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
