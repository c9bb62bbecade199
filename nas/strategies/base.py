"""The one interface of every search strategy: ask for architectures, tell what they are worth."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np

from nas.strategies.genes import GeneSet
from nas.strategies.problem import Problem
from search_spaces.errors import InputError
from search_spaces.registry import Registry
from search_spaces.seeds import derive_rng
from search_spaces.space import Arch


class Strategy(ABC):
    """Proposes architectures to evaluate.

    What ``ask`` returns depends on the seed, the number of earlier asks and what was told,
    and on nothing else. So a search is resumed by running it again from the start and
    answering from the record whatever was evaluated before.

    Not safe for use by several threads at once.

    Args:
        problem: space, objectives, constraints and surrogates.
        seed: of every random draw.
    """

    def __init__(self, problem: Problem, *, seed: int = 0) -> None:
        self.problem = problem
        self.seed = seed
        space = problem.space
        self._seen = GeneSet()
        self._asks = 0
        self._row_of: dict[Arch, int] = {}
        self._genes = np.empty((0, len(space.choices)), dtype=np.int64)
        self._objectives = np.empty((0, len(problem.goals)))
        self._constraints = np.empty((0, len(problem.constraints)))

    def ask(self, n: int) -> list[Arch]:
        """Return up to ``n`` different architectures that were neither asked nor told before.

        Every one satisfies the constraints whose surrogate is exact. Fewer than ``n`` come
        back when the (feasible part of the) space is used up; an empty list ends a search.

        Raises:
            InfeasibleError: no architecture was found that satisfies the constraints known
                in advance; it carries the closest one.
            InputError: ``n`` is not positive.
        """
        if n < 1:
            raise InputError(f"ask({n}): at least one architecture must be asked for")
        rng = derive_rng(self.seed, type(self).__name__, self._asks)
        self._asks += 1
        rows = self._propose(n, rng)
        self._seen.add(rows)
        return self.problem.space.decode(rows)

    def tell(
        self,
        archs: Sequence[Arch],
        objectives: np.ndarray,
        constraints: np.ndarray | None = None,
    ) -> None:
        """Record real evaluations, of asked architectures or of any others (a warm start).

        Args:
            archs: n of them; telling one again replaces what was told before.
            objectives: (n, m) in the order of ``problem.goals``, minimised.
            constraints: (n, k) violations in the order of ``problem.constraints``, ``<= 0``
                feasible; may be left out where the problem has none.

        A row with a value that is not finite is a failed evaluation: it is never proposed
        again and never a parent.

        Raises:
            InputError: shapes that do not match the problem.
        """
        n = len(archs)
        objectives = np.asarray(objectives, dtype=float)
        empty = np.empty((n, 0))
        constraints = empty if constraints is None else np.asarray(constraints, dtype=float)
        for name, array, width in (
            ("objectives", objectives, len(self.problem.goals)),
            ("constraints", constraints, len(self.problem.constraints)),
        ):
            if array.shape != (n, width):
                raise InputError(
                    f"{name} have shape {array.shape}; {n} architectures of this problem "
                    f"need ({n}, {width})"
                )
        for arch, row, f, g in zip(
            archs, self.problem.space.genes(archs), objectives, constraints, strict=True
        ):
            at = self._row_of.setdefault(arch, len(self._row_of))
            if at == len(self._genes):
                self._genes = np.vstack([self._genes, row])
                self._objectives = np.vstack([self._objectives, f])
                self._constraints = np.vstack([self._constraints, g])
            else:
                self._objectives[at], self._constraints[at] = f, g
        if n:
            self._seen.add(self.problem.space.genes(archs))

    @property
    def told(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Genes (n, choices), objectives (n, m) and constraints (n, k) of valid evaluations."""
        valid = np.isfinite(self._objectives).all(axis=1) & np.isfinite(self._constraints).all(
            axis=1
        )
        return self._genes[valid], self._objectives[valid], self._constraints[valid]

    @abstractmethod
    def _propose(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Return up to n distinct canonical rows (k, choices) that are not in ``self._seen``."""


STRATEGIES: Registry[Callable[..., Strategy]] = Registry("strategy", group="nas.strategies")
"""Factories called as ``factory(problem, seed=..., **options)``."""
