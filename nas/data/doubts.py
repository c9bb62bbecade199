"""What of targets makes figures unsure: classes that are rare, values that hardly count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from nas.data.placed import presence
from nas.data.sources import OF_TEXT


def doubts(
    targets: str, told: Mapping[str, Tensor], names: Sequence[str], *, told_by_class: bool = False
) -> list[str]:
    """Return what of the targets makes figures unsure.

    Args:
        targets: their kind.
        told: targets of the training, validation and test set.
        names: of the classes, labels or values.
        told_by_class: whether the metric is the share of examples whose class is told rightly.
    """
    if targets == "values":
        return unlike_values(told["training"], names)
    if targets in OF_TEXT:
        return []
    counts = {name: class_counts(targets, each, len(names)) for name, each in told.items()}
    return [
        *absent_classes(counts, names),
        *(uneven_classes(counts, names) if told_by_class else []),
    ]


def class_counts(targets: str, labels: Tensor, classes: int) -> Tensor:
    """Return the number of examples that hold each class, (classes,)."""
    if targets == "labels":
        return labels.sum(0)
    if targets in ("boxes", "masks"):
        return presence(targets, labels, classes).sum(0)
    return torch.bincount(labels, minlength=classes)


def absent_classes(counts: Mapping[str, Tensor], classes: Sequence[str]) -> list[str]:
    """Return a sentence for each set that has no example of some class."""
    found = []
    for name, each in counts.items():
        missing = [classes[i] for i in torch.nonzero(each == 0).flatten().tolist()]
        if missing:
            more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            found.append(
                f"the {name} set has no image of {', '.join(missing[:5])}{more}: accuracies "
                "say nothing of it"
            )
    return found


_UNEVEN = 3
"""How many times as many examples as the rarest class the most frequent one has, to be told."""


def uneven(counts: Sequence[int]) -> tuple[int, int] | None:
    """Return the rarest class that has examples and the most frequent, where they are far apart.

    Args:
        counts: training examples of each class.
    """
    there = [i for i, count in enumerate(counts) if count > 0]
    if not there:
        return None
    few, many = min(there, key=counts.__getitem__), max(there, key=counts.__getitem__)
    return (few, many) if counts[many] >= _UNEVEN * counts[few] else None


def uneven_classes(counts: Mapping[str, Tensor], classes: Sequence[str]) -> list[str]:
    """Return what whoever always names the most frequent class is right in, of uneven classes."""
    whole, test = counts["training"].int().tolist(), counts["test"]
    found = uneven(whole)
    if found is None:
        return []
    few, many = found
    share = float(test[many] / max(1, int(test.sum())))
    return [
        f"classes are uneven, {whole[few]} examples of {classes[few]} to {whole[many]} of "
        f"{classes[many]}: who always says {classes[many]} has an accuracy of {share:.2f} on "
        "the test set; look at the accuracy of each class, ask for that of the worst with "
        "search.objectives: [worst_class_accuracy, latency_ms], and show rare ones more often in "
        "training with data.balance: 0.5"
    ]


_UNLIKE = 10.0
"""Ratio of deviations from which on the error of the smaller value is lost in that of the other."""


def unlike_values(targets: Tensor, names: Sequence[str]) -> list[str]:
    """Return which values hardly count in a mean of squared errors beside others.

    Args:
        targets: (n, outputs).
        names: of the outputs.
    """
    if len(targets) < 2 or targets.shape[1] != len(names):
        # What a reconstruction is to give are its inputs, which no names are of.
        return []
    spread = targets.double().std(0)
    largest = int(spread.argmax())
    small = [names[i] for i in torch.nonzero(spread * _UNLIKE < spread[largest]).flatten().tolist()]
    if not small:
        return []
    return [
        f"rmse and mae are those of {names[largest]} nearly alone: it varies by about "
        f"{spread[largest]:.3g}, and {', '.join(small)} by a tenth of that or less; give values "
        "units in which they vary alike, so that the search cares for each"
    ]
