"""How pixels become inputs: as a job says, or as the training data have it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from nas.data.augment import Normalisation
from nas.data.batches import Subset
from nas.data.images import MemoryImages
from nas.job.sections.data import IMAGENET, AugmentConfig, DataConfig
from search_spaces.errors import InputError

STATISTICS_IMAGES = 4096
"""Mean and deviation of images on disk are taken over so many of them; in memory, over all."""


def normalisation_of(
    config: DataConfig, train: Subset, channels: int, *, names: bool = False
) -> Normalisation:
    """Return what the job says of mean and deviation, or those of the training inputs.

    Args:
        config: the job's section.
        train: the training set.
        channels: of its inputs.
        names: the inputs are numbers of tokens, which nothing changes.

    Raises:
        InputError: it speaks of other channels, or of pixels where the data are values or tokens.
    """
    if names:
        for key, unsaid in (("normalisation", None), ("augment", AugmentConfig())):
            if getattr(config, key) != unsaid:
                raise InputError(
                    f"data.{key}: {config.name} gives tokens, which are not changed; leave it out"
                )
        return Normalisation((0.0,), (1.0,), scale=1.0)
    given = config.normalisation
    if given is None:
        return _statistics(train, channels)
    if train.at(torch.tensor([0]))[0].is_floating_point():
        raise InputError(
            "data.normalisation: the data are values, no pixels of 8 bits; normalise them in their "
            "source, or leave it out"
        )
    if given == "imagenet":
        given = IMAGENET
    counts = {len(given.mean), len(given.deviation)}
    if counts - {1, channels}:
        raise InputError(
            f"data.normalisation: mean and deviation have {len(given.mean)} and "
            f"{len(given.deviation)} entries, and the data have {channels} channels; give as many, "
            "or say data.channels"
        )
    if given.order == "bgr" and channels != 3:
        raise InputError(f"data.normalisation.order: bgr is for 3 channels, not for {channels}")
    whole = [v * (channels if len(v) == 1 else 1) for v in (given.mean, given.deviation)]
    return Normalisation(
        tuple(map(float, whole[0])),
        tuple(map(float, whole[1])),
        scale=255.0 if given.range == "unit" else 1.0,
        reversed=given.order == "bgr",
    )


def _statistics(train: Subset, channels: int) -> Normalisation:
    """Return the mean and deviation of each channel over the training inputs."""
    subset = train if isinstance(train.images, MemoryImages) else train.first(STATISTICS_IMAGES)
    if subset.at(torch.tensor([0]))[0].is_floating_point():
        return _float_statistics(subset)
    # Sums of integers are exact, so the result does not depend on threads or chunks.
    histogram = torch.zeros(channels, 256, dtype=torch.int64)
    for positions in torch.arange(len(subset)).split(1024):
        pixels, _ = subset.at(positions)
        for channel in range(channels):
            histogram[channel] += torch.bincount(pixels[:, channel].flatten(), minlength=256)
    weights = histogram.double() / histogram.sum(1, keepdim=True)
    values = torch.arange(256, dtype=torch.float64) / 255.0
    mean = (weights * values).sum(1)
    variance = (weights * (values - mean[:, None]) ** 2).sum(1)
    _refuse_flat(
        (variance == 0).tolist(), "give pictures that differ in it, or say data.normalisation"
    )
    return Normalisation(tuple(mean.tolist()), tuple(variance.sqrt().tolist()))


def _float_statistics(subset: Subset) -> Normalisation:
    """Return the mean and deviation of each channel of inputs of floats, as they are."""
    values = subset.at(torch.arange(len(subset)))[0].double().numpy()
    # By NumPy, whose sums do not depend on the number of threads.
    mean, std = values.mean(axis=(0, 2, 3)), values.std(axis=(0, 2, 3))
    _refuse_flat(
        (std <= 1e-9 * np.abs(mean)).tolist(),  # sums of equal numbers are rounded
        "leave it out of the data; columns of a table by data.options.leave_out: [NAME]",
    )
    return Normalisation(tuple(mean.tolist()), tuple(std.tolist()), scale=1.0)


def _refuse_flat(flat: Sequence[bool], fix: str) -> None:
    """Refuse inputs with channels whose value never changes, which have no deviation."""
    places = [str(i) for i, never in enumerate(flat) if never]
    if places:
        which = f"channel {places[0]}" if len(places) == 1 else f"channels {', '.join(places)}"
        raise InputError(
            f"{which} of {len(flat)}, counted from 0, {'has' if len(places) == 1 else 'have'} the "
            f"same value in every place of all training examples; {fix}"
        )
