"""What a network is trained for: its data, its loss and the numbers that say how good it is.

A task is registered under the name that a job's ``task`` holds; other packages add
theirs through the entry point ``nas.tasks``. A task object belongs to one run.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from nas.fronts.metrics import METRICS, NOT_OF_TASKS, MetricKind
from search_spaces.errors import InputError
from search_spaces.registry import Registry

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from nas.data.splits import DataSplits
    from nas.job.sections.data import DataConfig
    from nas.tasks.overlays import Drawing
    from nas.tasks.scores import Score

TASKS: Registry[type[Task]] = Registry(
    "task",
    group="nas.tasks",
    modules=(
        "nas.tasks.anomaly",
        "nas.tasks.classification",
        "nas.tasks.detection",
        "nas.tasks.embedding",
        "nas.tasks.language",
        "nas.tasks.multi_label",
        "nas.tasks.regression",
        "nas.tasks.segmentation",
        "nas.tasks.sequences",
    ),
)


class Task(ABC):
    """The base of every task.

    The search makes the metric as large, or as small, as ``higher_is_better`` says. Objectives,
    bounds, ``front.csv``, report and cards call it by its name.

    Attributes:
        metric_name: a word of lower-case letters, digits and ``_``.
        metric_unit: of the metric; empty for a dimensionless one.
        higher_is_better: which way the search goes.
        metric_is_share: whether the metric is a share of 0 to 1, shown in per cent.
        further_metrics: others that are reported beside it, by name.
        from_data: whether the metric needs what :meth:`load` learns of the data (scales, tokens).
        from_normal: whether it learns from the classes that ``data.normal`` names alone.
        agrees_on: what :meth:`agreement` is a share of, in words.
        answers: what networks answer for: ``one`` (batch, units), ``cells`` (batch, cells, units)
            ``grid`` (batch, units, height, width), ``tokens`` (batch, tokens, units) or
            ``sequences`` (batch, symbols of the target, units); spaces say which they have.

    Args:
        label_smoothing: of the job; a task without classes ignores it.

    Raises:
        TypeError: a subclass whose metric is known with another unit or direction.
    """

    metric_name: ClassVar[str] = "accuracy"
    metric_unit: ClassVar[str] = ""
    higher_is_better: ClassVar[bool] = True
    metric_is_share: ClassVar[bool | None] = None
    further_metrics: ClassVar[Mapping[str, MetricKind]] = {}
    answers: ClassVar[str] = "one"
    from_data: ClassVar[bool] = False
    from_normal: ClassVar[bool] = False
    agrees_on: ClassVar[str] = "predictions"

    def __init_subclass__(cls, **options: object) -> None:
        super().__init_subclass__(**options)
        kind, name = cls.metric_kind(), cls.metric_name
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise TypeError(
                f"{cls.__name__}: metric_name is {name!r}; objectives and columns are called so, "
                "and it must be a word of lower-case letters, digits and _"
            )
        if name in NOT_OF_TASKS:
            raise TypeError(
                f"{cls.__name__}: a run has {name} of its own; give the metric another name"
            )
        if cls.metric_name not in METRICS:
            METRICS.register(cls.metric_name)(kind)
        elif METRICS.get(cls.metric_name).maximise != kind.maximise:
            raise TypeError(
                f"{cls.__name__}: the metric {cls.metric_name!r} is known as one that is better "
                f"when {'smaller' if kind.maximise else 'larger'}; give it another name"
            )

    def __init__(self, *, label_smoothing: float = 0.0) -> None:
        self.label_smoothing = label_smoothing

    @classmethod
    def metric_kind(cls) -> MetricKind:
        """Return unit and direction of the metric."""
        share = cls.metric_is_share
        return MetricKind(
            cls.metric_unit,
            maximise=cls.higher_is_better,
            share="accuracy" in cls.metric_name if share is None else share,
        )

    @classmethod
    def compares_classes(cls) -> bool:
        """Whether targets are numbers of classes: whether :meth:`per_class` is there."""
        return cls.per_class is not Task.per_class

    @property
    def has_classes(self) -> bool:
        """See :meth:`compares_classes`."""
        return self.compares_classes()

    @classmethod
    def can_stop_early(cls) -> bool:
        """Whether a part of the examples bounds the metric, so that an evaluation may stop."""
        return cls.compares_classes() or cls.terms is not Task.terms

    # ------------------------------------------------------------------------- to implement

    @abstractmethod
    def load(self, config: DataConfig, seed: int) -> DataSplits:
        """Return the data, divided by ``seed``.

        Raises:
            InputError: the data is not what the task expects.
            EnvironmentProblem: the data is not on this machine.
        """

    @abstractmethod
    def outputs(self, splits: DataSplits) -> int:
        """Return how many units the last layer has."""

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss, a scalar. outputs: (batch, units); targets: (batch, ...).

        Networks of some spaces have further axes, (batch, cells, units) for instance.
        """

    @abstractmethod
    def distillation_loss(self, outputs: Tensor, teacher_outputs: Tensor) -> Tensor:
        """Return the mean loss against a teacher, a scalar; both (batch, units).

        The teacher's outputs are treated as constants.
        """

    def space_options(self, splits: DataSplits) -> dict[str, Any]:
        """Return what a space must know of the data beside channels, size and outputs, by name."""
        return {}

    # --------------------------------------------------------------------------- how good

    def answer(self, network: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
        """Return what the network answers as it is used, for :meth:`score`: (batch, ...).

        By default its outputs. A search judges candidates by the outputs alone, so the metric must
        be the same by both; further metrics need not be.

        Args:
            network: what gives outputs for inputs: a module, or an exported file.
            inputs: (batch, channels, height, width).
        """
        return network(inputs)

    def terms(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return what each example adds to the metric: (batch, ...) -> (batch,).

        The metric is :meth:`finish` of their mean. A task whose metric is no such mean (a rank
        statistic, say) overrides :meth:`score` instead.
        """
        raise NotImplementedError(
            f"{type(self).__name__} needs terms(), metric() or a score() of its own"
        )

    def finish(self, mean: float) -> float:
        """Return the metric for the mean of the terms; monotone. By default the mean itself."""
        return mean

    def metric(self, outputs: Tensor, targets: Tensor) -> tuple[float, float]:
        """Return (sum, weight) of the terms of a batch.

        Sums and weights of all batches are added; the metric is :meth:`finish` of their quotient.

        Raises:
            InputError: :meth:`terms` gave something else than a number an example.
        """
        terms = self.terms(outputs, targets)
        if tuple(terms.shape) != (len(targets),):
            # Sums of (batch, batch), as of outputs (batch, 1) minus targets (batch,), look well.
            raise InputError(
                f"task {self.registered_name()!r}: terms() gave {tuple(terms.shape)} for a batch "
                f"of {len(targets)}; it must be one number an example, ({len(targets)},)"
            )
        return float(terms.sum()), float(len(targets))

    def per_class(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return (right answers, images) of each class: two (classes,) float64 tensors.

        A task with classes overrides it; then results tell the metric of each class, training
        is guarded against collapse and studies may ask how sure a network is of its answer.
        """
        raise NotImplementedError(f"{type(self).__name__} has no classes")

    def score(self) -> Score:
        """Return a fresh accumulator of the metric, the further metrics and the view by class."""
        from nas.tasks.scores import MeanScore

        return MeanScore(self)

    def evaluate(
        self, network: Callable[[Tensor], Tensor], batches: Iterable[tuple[Tensor, Tensor]]
    ) -> float:
        """Return the metric over ``batches`` of (inputs, targets).

        Raises:
            ValueError: there are none.
        """
        import torch

        score = self.score()
        with torch.inference_mode():
            for inputs, targets in batches:
                score.add(network(inputs), targets)
        return score.values()[self.metric_name]

    def constant(self, splits: DataSplits) -> float | None:
        """Return the metric of whoever answers alike for every validation example.

        Where no network of the shared weights is better, their metrics choose nothing. By default
        the share of the most frequent class, of tasks whose metric is accuracy; None where a
        constant answer says nothing.
        """
        import torch

        if self.metric_name != "accuracy" or splits.targets != "classes":
            return None
        subset = splits.validation
        counts = torch.bincount(subset.labels[subset.indices])
        return float(counts.max() / counts.sum())

    # ------------------------------------------------------------------------ what users see

    def decide(self, outputs: Tensor) -> Tensor | None:
        """Return the decisions that a user acts on, (batch, ...), or None for plain values.

        Exported files are held against their networks by the share of equal decisions.
        """
        return None

    def agreement(self, outputs: Tensor, reference: Tensor) -> float | None:
        """Return the share of decisions that two executions make alike; None for plain values.

        outputs, reference: (batch, ...), of one network in two runtimes, say. By default the share
        of equal :meth:`decide`.
        """
        one, other = self.decide(outputs), self.decide(reference)
        return None if one is None or other is None else float((one == other).double().mean())

    @classmethod
    def registered_name(cls) -> str:
        """Return the name that jobs call the task by; its class's where it is not registered."""
        return next((name for name in TASKS if TASKS.get(name) is cls), cls.__name__)

    def drawing(self, output: np.ndarray, target: np.ndarray, classes: tuple[str, ...]) -> Drawing:
        """Return what the report draws over an example, and the line under it.

        Args:
            output: of the network for one example, without the batch.
            target: of the example.
            classes: names of the classes, labels or values.
        """
        from nas.tasks.overlays import Drawing

        return Drawing()

    def output_text(self, splits: DataSplits) -> str:
        """Return what the file's output means and how to decode it, for the model card."""
        return "One value a unit, as the task's loss defines them."
