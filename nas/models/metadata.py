"""What a model file says of its data."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from nas.data.sources import OF_TEXT
from nas.models.language.notes import notes_of

if TYPE_CHECKING:
    from nas.data.splits import DataSplits


def metadata_of(splits: DataSplits) -> dict[str, str]:
    """Return what a file says of its data: how inputs are made, and what tokens are."""
    if splits.targets in OF_TEXT:
        return notes_of(splits.tokens, splits.pairs)
    return {"preprocessing": json.dumps(preprocessing_of(splits))}


def preprocessing_of(splits: DataSplits) -> dict[str, Any]:
    """Return how pixels become inputs, for a file: ``(pixels * pixel_scale - mean) / std``."""
    normalisation = splits.normalisation
    return {
        "pixel_scale": 1.0 / normalisation.scale,
        "mean": list(normalisation.mean),
        "std": list(normalisation.std),
        "layout": "NCHW",
        "channel_order": "bgr" if normalisation.reversed else "rgb",
        **({"sound": dict(splits.sound)} if splits.sound else {}),
    }
