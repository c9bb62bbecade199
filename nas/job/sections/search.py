"""Section ``search``: what is looked for, how, and how long."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    StrictBool,
    StrictStr,
)

from nas.job.findings import Finding, unknown_name
from nas.job.option_types import wrong_options
from nas.job.paths import RelativePath
from nas.job.registries import registry_for
from nas.job.sections.constraints import (
    ConstraintsConfig,
    check_budgets,
    check_constraints,
    check_objectives,
    quantities,
)
from nas.job.sections.devices import DeviceConfig
from nas.job.values import AboveZero, Positive, Section
from search_spaces.errors import InputError
from search_spaces.training.update import Update

MOST_FIRST = 40
"""Evaluations of a first batch whose size a job leaves open."""

MOST_PLACES = 16
"""Places of a front whose size a job leaves open."""


class EarlyStoppingConfig(Section):
    """Giving up on architectures that the first validation images show to be of no use."""

    images: Positive = 1000
    """Validation images after which an evaluation may stop."""
    risk: Annotated[float, Field(strict=True, gt=0, lt=0.5)] = 0.01
    """Largest probability of giving up on an architecture that belongs on a front."""


class FaultsConfig(Section):
    """What accuracy_at_fault_rate is the accuracy with."""

    kind: Literal["flips", "stuck", "variation"] = "flips"
    """Bits of weights' codes that turn over, bits stuck at 0 or 1, or weights that vary."""
    rate: Annotated[float, Field(strict=True, gt=0, le=1)] = 0.001
    """Probability that a bit is faulty; of variation, the deviation of a weight's factor."""
    draws: Positive = 3
    """Evaluations with faults of their own, whose mean counts."""


class TrainingConfig(Section):
    """What training_memory_kib is the peak of memory of: a step of training on the device."""

    layers: Positive | None = 1
    """The last so many layers have their weights updated; null those of all."""
    share: Annotated[float, Field(strict=True, gt=0, le=1)] = 1.0
    """Of the input channels of each of them that are updated."""
    biases: StrictBool = True
    """Update their biases, too."""
    optimizer: Literal["sgd", "momentum", "adam"] = "sgd"
    """It keeps 0, 1 or 2 numbers for each weight."""
    batch: Positive = 1
    """Examples whose activations are kept at once."""
    gradient_bits: Literal[8, 16, 32] = 32
    """Of gradients and of the optimiser's numbers."""

    def update(self) -> Update:
        """Return what is trained, and how."""
        return Update(
            last=self.layers,
            share=self.share,
            biases=self.biases,
            optimizer=self.optimizer,
            batch=self.batch,
            gradient_bits=self.gradient_bits,
        )


class SearchConfig(Section):
    """How the front is looked for."""

    strategy: StrictStr = "predictor"
    """predictor, evolution, regularised_evolution, random, exhaustive, optuna_tpe, optuna_nsga2,
    optuna_nsga3, optuna_gp, or a strategy of a plug-in."""
    options: dict[StrictStr, Any] = {}
    """Settings of the strategy itself, such as {polish: 8} of predictor or {population: 60} of
    evolution; for Optuna's strategies the arguments of the sampler."""
    objectives: Annotated[list[StrictStr], Field(min_length=1)] = ["accuracy", "latency_ms"]
    """What is traded off: accuracy (of another task its metric by name, such as rmse; the default
    follows the task), worst_class_accuracy, worst_class_loss, accuracy_at_fault_rate, latency_ms
    (one objective for each device) or latency_ms[DEVICE], energy_mj, peak_memory_kib,
    training_memory_kib, flash_kib, weights_kib, size_kib, weight_bits_mean, activation_bits_mean,
    macs, bops, parameters."""
    constraints: ConstraintsConfig = ConstraintsConfig()
    budgets: dict[StrictStr, Annotated[list[AboveZero], Field(min_length=1)]] = {}
    """Budgets of several products that the front is to serve, such as {weights_kib: [8, 32, 128]}
    or {latency_ms[board]: [1, 3]}: for each the search looks for networks that use it well, and
    the best within it has a place."""
    evaluations: Positive = 200
    """Real evaluations of accuracy on the search-validation images."""
    initial: Positive | None = None
    """Evaluations before the predictor is first fitted; null is 40, or all where they are fewer."""
    batch: Positive = 20
    """Evaluations between two fits of the predictor."""
    latency_samples: Positive = 20
    """Architectures measured on each device before the search."""
    front_size: Positive | None = None
    """Architectures that are verified, measured and exported at the end. null is 16; where a
    budget trains them, as many of 16 as each can have 3500 steps of training, and at least 5."""
    validation_images: Positive | None = None
    """Validation images of one evaluation; null uses all of them."""
    confidence: Annotated[float, Field(strict=True, gt=0.5, lt=1)] | None = None
    """Probability with which a predicted latency must keep its budget; null asks the mean to."""
    fronts: Annotated[list[Literal["joint", "per_device"]], Field(min_length=1)] = [
        "joint",
        "per_device",
    ]
    """With several devices: the front on which all budgets hold, one front for each device that an
    objective, bound or budget names, or both. The fronts share every evaluation."""
    early_stopping: EarlyStoppingConfig | None = None
    """Give up early on hopeless architectures; null evaluates each on all images."""
    faults: FaultsConfig = FaultsConfig()
    """Of the metric accuracy_at_fault_rate, where it is an objective or bounded."""
    training: TrainingConfig = TrainingConfig()
    """Of the metric training_memory_kib, where it is an objective or bounded."""
    warm_start: RelativePath | None = None
    """Folder of an older run to go on from, relative to the job file. With the same training its
    supernet, evaluations and measurements are taken over; otherwise its front is evaluated
    first."""

    @property
    def first(self) -> int:
        """Evaluations of the first batch."""
        return min(MOST_FIRST, self.evaluations) if self.initial is None else self.initial

    @property
    def places(self) -> int:
        """Places of a front, at most."""
        return MOST_PLACES if self.front_size is None else self.front_size


def check_search(
    search: SearchConfig, devices: Sequence[DeviceConfig] | None, task: Any
) -> Iterator[Finding]:
    """Yield an unknown strategy, and goals, bounds and counts that do not fit each other."""
    yield from unknown_name("search.strategy", ("search", "strategy"), search.strategy)
    names = None if devices is None else [device.name for device in devices]
    known = quantities(task)
    if "objectives" in search.model_fields_set:
        yield from check_objectives(search.objectives, names, known, task)
    yield from check_constraints(search.constraints, names, known, task)
    yield from check_budgets(search.budgets, names, known, task)
    metric = None if task is None else task.metric_name
    if search.early_stopping is not None and task is not None and not task.can_stop_early():
        yield (
            ("search", "early_stopping"),
            f"search.early_stopping: a part of the images says nothing certain of {metric}; "
            "leave early_stopping out",
        )
    if search.initial is not None and search.evaluations < search.initial:
        yield (
            ("search", "evaluations"),
            f"search.evaluations: {search.evaluations} must be at least search.initial "
            f"({search.initial})",
        )
    if search.front_size is not None and search.front_size > search.evaluations:
        yield (
            ("search", "front_size"),
            f"search.front_size: {search.front_size} must be at most search.evaluations "
            f"({search.evaluations})",
        )
    for metric, bound in search.constraints.limits():
        for text in {metric.name, str(metric)} & set(search.budgets):
            largest = max(search.budgets[text])
            if bound.max is not None and largest > bound.max:
                yield (
                    ("search", "budgets", text),
                    f"search.budgets.{text}: {largest:g} is above the bound of "
                    f"search.constraints, {bound.max:g}",
                )
    served = sum(map(len, search.budgets.values()))
    if served > search.places:
        yield (
            ("search", "budgets"),
            f"search.budgets: {served} budgets need as many places; a front has {search.places} "
            "(search.front_size)",
        )


def check_warm_start(search: SearchConfig, folder: Path) -> Iterator[Finding]:
    """Yield a run to start from that is not there."""
    if search.warm_start is None:
        return
    path = folder / search.warm_start
    if not (path / "manifest.json").is_file():
        yield (
            ("search", "warm_start"),
            f"search.warm_start: {path} is no run folder: it has no manifest.json",
        )


def check_strategy_options(search: SearchConfig) -> Iterator[Finding]:
    """Yield the options that the strategy does not take, or refuses."""
    registry = registry_for("search.strategy")
    if search.strategy not in registry:
        return
    make = registry.get(search.strategy)
    at, what = ("search", "options"), f"strategy {search.strategy!r}"
    # The first batch has a key of its own, which holds for every strategy.
    own = ("problem", "seed", "initial")
    wrong = list(wrong_options(at, search.options, make, what, own=own))
    yield from wrong
    if wrong:
        return
    for key, value in search.options.items():
        message = _strategy_problem(make, {key: value})
        if message is not None:
            yield (*at, key), f"search.options.{key}: {message}"
            return
    message = _strategy_problem(make, search.options)
    if message is not None:
        yield at, f"search.options: {message}"
        return
    if "initial" in inspect.signature(make).parameters:
        message = _strategy_problem(make, {**search.options, "initial": search.first})
        if message is not None:
            yield ("search", "initial"), f"search.initial: {message}"


def _strategy_problem(make: Any, options: Mapping[str, Any]) -> str | None:
    """Return what a strategy says against options, asked about the smallest problem there is."""
    from nas.fronts.metrics import Goal, Metric
    from nas.strategies import Exact, Problem
    from search_spaces.space import Choice, SearchSpace

    space = SearchSpace("check", [Choice("a", (0, 1))])
    surrogates = {"macs": Exact(lambda genes: genes[:, 0].astype(float))}
    try:
        make(Problem(space, [Goal(Metric("macs"))], surrogates=surrogates), seed=0, **options)
    except (InputError, TypeError, ValueError) as error:
        return str(error)
    return None
