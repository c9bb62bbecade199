"""Optuna's samplers as strategies, with constraints through Optuna's own interface.

They are there to compare with and for users who know them; the record of real evaluations
is :mod:`nas.record.evaluations`, which needs none of them.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.record.quiet_optuna import quiet_optuna
from nas.strategies.base import STRATEGIES, Strategy
from nas.strategies.feasible import find_feasible
from nas.strategies.genes import unique_rows
from nas.strategies.problem import Problem
from search_spaces.errors import MissingExtraError
from search_spaces.space import Arch

if TYPE_CHECKING:
    import optuna

_FRUITLESS = 20
"""Trials in a row without a new feasible architecture after which sampled ones fill up."""


class OptunaStrategy(Strategy):
    """A sampler of Optuna, asked trial by trial on a study in memory.

    A trial that repeats an architecture is answered from what was told. One that misses a
    bound known in advance is answered with its violation, so that the sampler learns the
    bound, and is never proposed; where too few others come, sampled feasible ones fill up.

    The sampler is made anew for every ask, with a seed from (seed, number of the ask): a
    search that is resumed with the seed of its first run would otherwise repeat its points.

    Args:
        problem, seed: as in :class:`Strategy`.
        options: arguments of the sampler.

    Raises:
        MissingExtraError: Optuna is not installed.
    """

    conditional = False
    """Whether the sampler is shown only the active choices of each architecture. Samplers
    that model one joint space get all of them, and inactive ones decide nothing."""

    invents_objectives = True
    """Whether a trial that is known to be infeasible may stand with made-up objectives."""

    def __init__(self, problem: Problem, *, seed: int = 0, **options: Any) -> None:
        super().__init__(problem, seed=seed)
        try:
            import optuna
        except ModuleNotFoundError as error:
            raise MissingExtraError("optuna", "search") from error
        self.options = options
        self._running: dict[Arch, optuna.trial.Trial] = {}
        with quiet_optuna():
            self._sampler(0)  # wrong options are an error now, not at the first ask
            self._study = optuna.create_study(directions=["minimize"] * len(problem.goals))
        self._distributions = {
            c.name: optuna.distributions.CategoricalDistribution(c.options)
            for c in problem.space.choices
        }

    @abstractmethod
    def _sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        """Return the sampler with a seed of its own."""

    def tell(
        self,
        archs: Sequence[Arch],
        objectives: np.ndarray,
        constraints: np.ndarray | None = None,
    ) -> None:
        """See :meth:`Strategy.tell`."""
        known = set(self._row_of)
        super().tell(archs, objectives, constraints)
        with quiet_optuna():
            for arch in archs:
                trial = self._running.pop(arch, None)
                if trial is None:
                    if arch in known:
                        continue  # told before: Optuna keeps what it was told first
                    trial = self._trial_of(arch)
                self._answer(trial, arch)

    def _propose(self, n: int, rng: np.random.Generator) -> np.ndarray:
        space = self.problem.space
        which = self.problem.screened()
        rows: list[np.ndarray] = []
        with quiet_optuna():
            self._study.sampler = self._sampler(int(rng.integers(2**31)))
            fruitless = 0
            while len(rows) < n and fruitless < _FRUITLESS:
                fruitless += 1
                trial = self._study.ask()
                row = self._suggest(trial)
                arch = space.decode(row[None])[0]
                if self._seen.contains(row[None])[0] or arch in self._running:
                    self._answer(trial, arch)
                    continue
                if which:
                    missed = self.problem.screen(row[None], which)[0]
                    if not (missed <= 0).all():
                        self._reject(trial, which, missed)
                        continue
                self._running[arch] = trial
                rows.append(row)
                fruitless = 0
        found = np.array(rows, dtype=np.int64).reshape(len(rows), len(space.choices))
        if len(found) < n:
            spare = find_feasible(self.problem, n, rng, which=which, exclude=self._seen)
            found = np.vstack([found, spare])
            found = found[unique_rows(found)]
        return found[:n]

    def _suggest(self, trial: optuna.trial.Trial) -> np.ndarray:
        """Let the trial decide every choice: a canonical row (choices,)."""
        space = self.problem.space
        row = np.zeros((1, len(space.choices)), dtype=np.int64)
        for j, choice in enumerate(space.choices):
            # Parents come first, so whether a choice is active is settled by now.
            if self.conditional and not space.active(row)[0, j]:
                continue
            value = trial.suggest_categorical(choice.name, choice.options)
            row[0, j] = choice.options.index(value)
        return space.canonical(row)[0]

    def _trial_of(self, arch: Arch) -> optuna.trial.Trial:
        """Return a running trial of an architecture that the sampler did not propose."""
        values = dict(arch.items)
        if not self.conditional:
            values = {c.name: values.get(c.name, c.options[0]) for c in self.problem.space.choices}
        self._study.enqueue_trial(values)
        trial = self._study.ask()
        self._suggest(trial)
        return trial

    def _answer(self, trial: optuna.trial.Trial, arch: Arch) -> None:
        """Finish a trial with what was told about ``arch``; failed where nothing valid was."""
        from optuna.trial import TrialState

        row = self._row_of.get(arch)
        values = [] if row is None else [*self._objectives[row], *self._constraints[row]]
        if row is None or not np.isfinite(values).all():
            self._study.tell(trial, state=TrialState.FAIL)
            return
        for constraint, value in zip(self.problem.constraints, self._constraints[row], strict=True):
            trial.set_constraint(constraint.name, float(value))
        self._study.tell(trial, [float(v) for v in self._objectives[row]])

    def _reject(self, trial: optuna.trial.Trial, which: Sequence[int], missed: np.ndarray) -> None:
        from optuna.trial import TrialState

        _, objectives, _ = self.told
        if not self.invents_objectives or not len(objectives):
            self._study.tell(trial, state=TrialState.FAIL)
            return
        violations = dict(zip(which, missed, strict=True))
        for j, constraint in enumerate(self.problem.constraints):
            trial.set_constraint(constraint.name, float(violations.get(j, 0.0)))
        # Infeasible trials are ordered by violation; objectives as bad as any so far cannot help.
        self._study.tell(trial, [float(v) for v in objectives.max(axis=0)])


@STRATEGIES.register("optuna_tpe")
class TPEStrategy(OptunaStrategy):
    """Tree-structured Parzen estimators (Ozaki et al. 2022 for several objectives)."""

    conditional = True

    def _sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        import optuna

        return optuna.samplers.TPESampler(seed=seed, **self.options)


@STRATEGIES.register("optuna_nsga2")
class OptunaNSGA2Strategy(OptunaStrategy):
    """Optuna's NSGA-II (Deb et al. 2002)."""

    def _sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        import optuna

        return optuna.samplers.NSGAIISampler(seed=seed, **self.options)


@STRATEGIES.register("optuna_nsga3")
class OptunaNSGA3Strategy(OptunaStrategy):
    """Optuna's NSGA-III (Deb and Jain 2014), for three and more objectives."""

    def _sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        import optuna

        return optuna.samplers.NSGAIIISampler(seed=seed, **self.options)


@STRATEGIES.register("optuna_gp")
class OptunaGPStrategy(OptunaStrategy):
    """Optuna's Gaussian-process sampler; a second or more for each proposal."""

    invents_objectives = False

    def _sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        import optuna

        return optuna.samplers.GPSampler(seed=seed, **self.options)
