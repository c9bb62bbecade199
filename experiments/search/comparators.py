"""What the default strategy is held against: other libraries' own optimisers.

Every runner spends ``budget`` evaluations of *different* architectures and yields them in
order; an optimiser that repeats itself is answered from memory and not charged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from experiments.search.problems import TabularProblem
from nas.strategies import STRATEGIES
from search_spaces.space import SearchSpace

_IDLE = 200
"""Repeats in a row after which an optimiser is stuck for good."""

Runner = Callable[[TabularProblem, int, int], np.ndarray]
"""(problem, budget, seed) -> objectives in the order of evaluation, (<= budget, 2)."""


def ours(name: str, batch: int, first: int | None = None, **options: object) -> Runner:
    """Return a runner of one of the library's strategies, asked ``batch`` at a time."""

    def run(problem: TabularProblem, budget: int, seed: int) -> np.ndarray:
        strategy = STRATEGIES.get(name)(problem.problem(seed=seed), seed=seed, **options)
        found: list[np.ndarray] = []
        while len(found) < budget:
            wanted = batch if found or first is None else first
            archs = strategy.ask(min(wanted, budget - len(found)))
            if not archs:
                break
            objectives = problem.evaluate(archs)
            strategy.tell(archs, objectives)
            found.extend(objectives)
        return np.array(found)

    return run


def pymoo_algorithm(space: SearchSpace, population: int, seed: int) -> Any:
    """Return pymoo's NSGA-II on integers: uniform crossover, mutation to another option.

    Inactive choices are repaired to their canonical value and duplicates removed. It is asked
    and told; nothing is evaluated by pymoo itself.
    """
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.core.mutation import Mutation
    from pymoo.core.problem import Problem as PymooProblem
    from pymoo.core.repair import Repair
    from pymoo.operators.crossover.ux import UniformCrossover
    from pymoo.operators.sampling.rnd import IntegerRandomSampling

    rng = np.random.default_rng(seed)

    class Canonical(Repair):
        def _do(self, _, x, **__):  # type: ignore[no-untyped-def]
            return space.canonical(np.round(x).astype(np.int64))

    class OtherOption(Mutation):
        def _do(self, _, x, **__):  # type: ignore[no-untyped-def]
            x = np.round(x).astype(np.int64)
            flips = rng.random(x.shape) < 1 / x.shape[1]
            steps = 1 + rng.integers(0, np.maximum(space.option_counts - 1, 1), x.shape)
            return np.where(flips, (x + steps) % space.option_counts, x)

    definition = PymooProblem(
        n_var=len(space.choices), n_obj=2, xl=0, xu=space.option_counts - 1, vtype=int
    )
    algorithm = NSGA2(
        pop_size=population,
        sampling=IntegerRandomSampling(),
        crossover=UniformCrossover(),
        mutation=OtherOption(),
        repair=Canonical(),
        eliminate_duplicates=True,
    )
    algorithm.setup(definition, termination=("n_gen", 10**6), seed=seed, verbose=False)
    return algorithm


def pymoo_nsga2(population: int = 30) -> Runner:
    """Return a runner of :func:`pymoo_algorithm`."""

    def run(problem: TabularProblem, budget: int, seed: int) -> np.ndarray:
        return _count(_pymoo(pymoo_algorithm(problem.space, population, seed), problem), budget)

    return run


def _pymoo(algorithm, problem: TabularProblem) -> Iterator[tuple[bytes, np.ndarray]]:  # type: ignore[no-untyped-def]
    while algorithm.has_next():
        asked = algorithm.ask()
        genes = asked.get("X").astype(np.int64)
        objectives = problem.rows(genes)
        asked.set("F", objectives)
        yield from zip((row.tobytes() for row in genes), objectives, strict=True)
        algorithm.tell(infills=asked)


def optuna_sampler(kind: str, **options: object) -> Runner:
    """Return a runner of Optuna's ``TPESampler`` or ``NSGAIISampler``, trial by trial."""

    def run(problem: TabularProblem, budget: int, seed: int) -> np.ndarray:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        sampler = getattr(optuna.samplers, kind)(seed=seed, **options)
        study = optuna.create_study(directions=["minimize"] * 2, sampler=sampler)
        return _count(_optuna(study, problem, conditional=kind == "TPESampler"), budget)

    return run


def _optuna(
    study, problem: TabularProblem, *, conditional: bool
) -> Iterator[tuple[bytes, np.ndarray]]:  # type: ignore[no-untyped-def]
    space = problem.space
    while True:
        trial = study.ask()
        row = np.zeros((1, len(space.choices)), dtype=np.int64)
        for j, choice in enumerate(space.choices):
            if conditional and not space.active(row)[0, j]:
                continue
            value = trial.suggest_categorical(choice.name, choice.options)
            row[0, j] = choice.options.index(value)
        row = space.canonical(row)
        objectives = problem.rows(row)[0]
        study.tell(trial, objectives.tolist())
        yield row.tobytes(), objectives


def _count(evaluations: Iterator[tuple[bytes, np.ndarray]], budget: int) -> np.ndarray:
    found: dict[bytes, np.ndarray] = {}
    idle = 0
    for key, objectives in evaluations:
        idle = idle + 1 if key in found else 0
        found.setdefault(key, objectives)
        if len(found) >= budget or idle > _IDLE:
            break
    return np.array(list(found.values()))


RUNNERS: dict[str, Runner] = {
    "predictor": ours("predictor", batch=10, first=24),
    "random": ours("random", batch=10),
    "evolution": ours("evolution", batch=10, population=30),
    "pymoo-nsga2": pymoo_nsga2(),
    "optuna-nsga2": optuna_sampler("NSGAIISampler", population_size=30),
    "optuna-tpe": optuna_sampler("TPESampler"),
}
"""Name in the results -> runner; ``predictor`` is the library's default."""
