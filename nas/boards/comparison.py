"""Outputs of one execution against another's, by what the task makes of them, class by class."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from search_spaces.errors import InputError

if TYPE_CHECKING:
    from nas.tasks import Task
    from nas.tasks.scores import Score

BATCH = 256
"""Images that are scored at once."""


@dataclass(frozen=True)
class Images:
    """What outputs are compared on.

    Attributes:
        pixels: (images, channels, height, width) float32, as the model takes them.
        labels: (images,) class numbers, or ``None``.
        source: where they are from, in words.
        targets: what is right, batch by batch, as the task's score takes it; by default the labels.
        task: says what is decided and how good it is; ``None`` for one class an image.
        classes: names of classes, labels or outputs; numbers where there are none.
        each: what ``classes`` are names of, in words.
        doubt: why they may be no inputs of the model, in words; empty where nothing says so.
    """

    pixels: np.ndarray
    labels: np.ndarray | None
    source: str
    targets: tuple[np.ndarray, ...] = ()
    task: Task | None = None
    classes: tuple[str, ...] = ()
    each: str = "class"
    doubt: str = ""


@dataclass(frozen=True)
class ClassFigures:
    """The task's metric for one class.

    Attributes:
        value, reference: of the outputs, and of those that they are held against.
        loss: how much worse the first is; below 0 where it is better.
    """

    value: float
    reference: float
    loss: float


@dataclass(frozen=True)
class Comparison:
    """Outputs of one execution against another's, on the same images.

    Attributes:
        agreement: share of what is decided alike, of what ``agreement_of`` says; ``None`` where a
            task decides nothing.
        max_logit_error: largest absolute difference of an output.
        relative_error: norm of the difference over the norm of the reference.
        accuracy, reference_accuracy: ``None`` without labels, and for tasks with another metric.
        agreement_of: what is compared, in words.
        metric: name of the task's metric; empty without targets.
        value, reference_value: of the metric, likewise.
        by_class: of each class that occurs; empty for a task without classes or without targets.
        largest_loss: the class that loses most, and how much; ``None`` without classes.
        each: what they are, in words: ``class``, ``label`` or ``output``.
    """

    agreement: float | None
    max_logit_error: float
    relative_error: float
    accuracy: float | None
    reference_accuracy: float | None
    agreement_of: str = "predictions"
    metric: str = ""
    value: float | None = None
    reference_value: float | None = None
    by_class: Mapping[str, ClassFigures] = field(default_factory=dict)
    largest_loss: tuple[str, float] | None = None
    each: str = "class"

    @classmethod
    def of(cls, output: np.ndarray, reference: np.ndarray, images: Images) -> Comparison:
        """Compare outputs of (images, ...) with others of the same shape.

        Raises:
            InputError: outputs that the task, or one class an image, says nothing of.
        """
        norm = float(np.linalg.norm(reference))
        error = float(np.linalg.norm(output - reference))
        values = _Figures.of(output, reference, images)
        named = values.metric == "accuracy"
        return cls(
            agreement=_agreement(output, reference, images.task),
            max_logit_error=float(np.abs(output - reference).max()),
            relative_error=error / norm if norm else float(error > 0),
            accuracy=values.value if named else None,
            reference_accuracy=values.reference if named else None,
            agreement_of="predictions" if images.task is None else images.task.agrees_on,
            metric=values.metric,
            value=values.value,
            reference_value=values.reference,
            by_class=values.by_class,
            largest_loss=max(
                ((name, one.loss) for name, one in values.by_class.items()),
                key=lambda pair: pair[1],
                default=None,
            ),
            each=images.each,
        )

    @property
    def loss(self) -> float | None:
        """How much worse the metric is than the reference's, in its unit; ``None`` without one."""
        if self.value is None or self.reference_value is None:
            return None
        return _sign(self.metric) * (self.reference_value - self.value)


@dataclass(frozen=True)
class _Figures:
    """Metrics of outputs and of a reference."""

    metric: str = ""
    value: float | None = None
    reference: float | None = None
    by_class: Mapping[str, ClassFigures] = field(default_factory=dict)

    @classmethod
    def of(cls, output: np.ndarray, reference: np.ndarray, images: Images) -> _Figures:
        """Return the metrics of outputs and of a reference, where right answers are known."""
        if images.task is None:
            return cls._of_classes(output, reference, images)
        if not images.targets:
            return cls()
        one, other = (_scored(images.task, each, images.targets) for each in (output, reference))
        name = images.task.metric_name
        sign = 1.0 if images.task.higher_is_better else -1.0
        return cls(
            name,
            _known(one.values()[name]),
            _known(other.values()[name]),
            _classes(one.by_class(), other.by_class(), images.classes, sign),
        )

    @classmethod
    def _of_classes(cls, output: np.ndarray, reference: np.ndarray, images: Images) -> _Figures:
        """One class an image, without torch: boards may have none."""
        if output.ndim != 2:
            raise InputError(
                f"the model's outputs have shape {list(output.shape[1:])}, which are not one class "
                "an image; give its run or job with --data, which says what the outputs mean"
            )
        truth = images.labels
        if truth is None:
            return cls()
        if truth.ndim != 1:
            raise InputError(
                f"the labels have shape {list(truth.shape)}, which are not one class an image; the "
                "model has no card beside it that names its task, so give its run with --data"
            )
        rights = [each.argmax(1) == truth for each in (output, reference)]
        count = int(max(output.shape[1], truth.max(initial=-1) + 1))
        totals = np.bincount(truth, minlength=count)
        shares = [
            [r / n if n else math.nan
             for r, n in zip(np.bincount(truth[right], minlength=count), totals, strict=True)]
            for right in rights
        ]  # fmt: skip
        return cls(
            "accuracy",
            float(rights[0].mean()),
            float(rights[1].mean()),
            _classes(shares[0], shares[1], images.classes, 1.0),
        )


def _known(value: float) -> float | None:
    # There is no precision of boxes where none is to be found.
    return value if math.isfinite(value) else None


def _sign(metric: str) -> float:
    from nas.fronts.metrics import METRICS

    return 1.0 if METRICS.get(metric).maximise else -1.0


def _scored(task: Task, outputs: np.ndarray, targets: Sequence[np.ndarray]) -> Score:
    import torch

    score = task.score()
    start = 0
    for part in targets:
        score.add(
            torch.from_numpy(outputs[start : start + len(part)]), torch.from_numpy(np.asarray(part))
        )
        start += len(part)
    return score


def _classes(
    values: Sequence[float] | None,
    reference: Sequence[float] | None,
    names: Sequence[str],
    sign: float,
) -> dict[str, ClassFigures]:
    if values is None or reference is None:
        return {}
    return {
        name: ClassFigures(float(one), float(other), sign * (float(other) - float(one)))
        for name, one, other in zip(_named(names, len(values)), values, reference, strict=True)
        if math.isfinite(one) and math.isfinite(other)
    }


def _named(names: Sequence[str], count: int) -> Iterator[str]:
    yield from names if len(names) == count else map(str, range(count))


def _agreement(output: np.ndarray, reference: np.ndarray, task: Task | None) -> float | None:
    if task is None:
        return float((output.argmax(1) == reference.argmax(1)).mean())
    import torch

    total: float = 0.0
    for start in range(0, len(output), BATCH):
        parts: list[Any] = [
            torch.from_numpy(np.ascontiguousarray(each[start : start + BATCH]))
            for each in (output, reference)
        ]
        share = task.agreement(*parts)
        if share is None:
            return None
        total += share * len(parts[0])
    return total / len(output)
