"""How long a run takes whose job says nothing of time."""

from __future__ import annotations

DEFAULT_MINUTES = (10.0, 25.0)
"""The least and the most that a job gets which says nothing of time."""

MUCH_DATA = 4e7
"""Values of training data (55,000 images of 28x28) for which the most of them is given."""


def default_minutes(values: int, *, measuring: float = 0.0) -> float:
    """Return the minutes of a run whose job says nothing of time.

    They grow with the square root of the data: a network needs more than one look at few images,
    and less than a whole one at many. Measuring comes on top, and takes half at most.

    Args:
        values: numbers in the training data, samples times the size of one.
        measuring: seconds of one round of measurements; there are two.
    """
    least, most = DEFAULT_MINUTES
    training = min(most, max(least, most * (values / MUCH_DATA) ** 0.5))
    return round(max(training + 2 * measuring / 60, 4 * measuring / 60 + 0.1), 1)
