"""Running a file that gives one more token, from the keys and values kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Union

import numpy as np

from nas.models.language.parts import DECODE, part_path

if TYPE_CHECKING:
    from supernet.decoding import DecodingStep
    from supernet.transducing import TransducingStep

    Step = Union[DecodingStep, TransducingStep]

Run = Callable[[Sequence[np.ndarray]], Sequence[np.ndarray]]


def step_path(model: Path) -> Path:
    """Return where the file of a step lies beside the file ``model`` of the whole window."""
    return part_path(model, DECODE)


def decoded(
    run: Run, step: Step, tokens: np.ndarray, *, beside: Sequence[np.ndarray] = ()
) -> np.ndarray:
    """Return the values after each of tokens (batch, n): (batch, n, vocabulary).

    ``beside``: what the step is given between the free places and the caches.
    """
    caches = [cache.numpy() for cache in step.empty(len(tokens))]
    found = []
    for place in range(tokens.shape[1]):
        free = np.full((len(tokens), 1), step.length - 1 - place, np.float32)
        token = tokens[:, place : place + 1].astype(np.float32)
        logits, *new = run([token, free, *beside, *caches])
        keep(caches, new, place)
        found.append(logits)
    return np.stack(found, 1)


def keep(caches: Sequence[np.ndarray], new: Sequence[np.ndarray], place: int) -> None:
    """Put a token's keys and values into their place of the caches, by turns of either."""
    for i, (cache, one) in enumerate(zip(caches, new, strict=True)):
        if i % 2 == 0:
            cache[..., place] = one[..., 0]
        else:
            cache[..., place, :] = one[..., 0, :]
