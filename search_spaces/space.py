"""What an architecture is: named categorical choices, some of them conditional.

A :class:`SearchSpace` is an ordered tuple of :class:`Choice`. A choice may depend
on earlier ones (the kernel size of a layer beyond the chosen depth decides
nothing); such a choice is *inactive* and has no value in the :class:`Arch`, so two
architectures are equal exactly when they build the same network.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Union

import numpy as np

from search_spaces.errors import InputError

Value = Union[int, float, str]


@dataclass(frozen=True)
class Condition:
    """True when the choice ``parent`` is active and its value is one of ``values``."""

    parent: str
    values: frozenset[Value]


@dataclass(frozen=True)
class Choice:
    """One categorical decision.

    Attributes:
        name: unique in its space, without white space or ``=``.
        options: the allowed values, in the order used for ordinal encodings.
        when: every condition must hold for the choice to be active.
    """

    name: str
    options: tuple[Value, ...]
    when: tuple[Condition, ...] = ()

    def __post_init__(self) -> None:
        if not self.options:
            raise InputError(f"choice {self.name!r} has no options")
        if len(set(map(_format, self.options))) != len(self.options):
            raise InputError(f"choice {self.name!r} lists an option twice: {list(self.options)}")
        if len(set(self.options)) != len(self.options):
            raise InputError(f"choice {self.name!r} has equal options: {list(self.options)}")
        for option in self.options:
            if any(c.isspace() for c in _format(option)):
                raise InputError(
                    f"option {option!r} of choice {self.name!r} must not contain white space"
                )
        if "=" in self.name or any(c.isspace() for c in self.name):
            raise InputError(f"choice name {self.name!r} must not contain '=' or white space")


@dataclass(frozen=True)
class Arch:
    """One architecture of a space; immutable, hashable, equal iff it builds the same network.

    Attributes:
        space: name of the space.
        items: ``(choice name, value)`` of every active choice, in the space's order.
    """

    space: str
    items: tuple[tuple[str, Value], ...]
    _values: dict[str, Value] = field(init=False, repr=False, compare=False, hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_values", dict(self.items))

    def __getitem__(self, name: str) -> Value:
        return self._values[name]

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def get(self, name: str, default: Value | None = None) -> Value | None:
        """Return the value of choice ``name``, or ``default`` where it is inactive."""
        return self._values.get(name, default)

    def __str__(self) -> str:
        return " ".join(f"{name}={_format(value)}" for name, value in self.items)

    @cached_property
    def id(self) -> str:
        """Ten hexadecimal digits of the SHA-256 of the canonical string."""
        return hashlib.sha256(f"{self.space}:{self}".encode()).hexdigest()[:10]


class SearchSpace:
    """An ordered tuple of choices with activity conditions.

    Subclasses add what the choices mean (``plan``); everything about sampling,
    validity, mutation and encoding follows from the choices alone.

    Args:
        name: registered name of the space.
        choices: parents before children.

    Raises:
        InputError: a name twice, or a condition on a choice that does not come earlier.
    """

    def __init__(self, name: str, choices: Sequence[Choice]) -> None:
        self.name = name
        self.choices = tuple(choices)
        self.index = {choice.name: i for i, choice in enumerate(self.choices)}
        if len(self.index) != len(self.choices):
            names = [choice.name for choice in self.choices]
            twice = sorted({n for n in names if names.count(n) > 1})
            raise InputError(f"space {name!r} defines {', '.join(twice)} more than once")
        for i, choice in enumerate(self.choices):
            for condition in choice.when:
                if self.index.get(condition.parent, i) >= i:
                    raise InputError(
                        f"choice {choice.name!r} depends on {condition.parent!r}, "
                        "which does not come before it"
                    )

    def __deepcopy__(self, memo: object) -> SearchSpace:
        return self  # it never changes, and what it remembers of its networks is large

    # ------------------------------------------------------------------ building

    def arch(self, values: Mapping[str, Value]) -> Arch:
        """Build an architecture from values by name; values of inactive choices are dropped.

        Raises:
            InputError: an active choice has no value, a value is not an option, or a
                name does not exist in the space.
        """
        unknown = [name for name in values if name not in self.index]
        if unknown:
            raise InputError(f"{unknown[0]!r} is not a choice of the space {self.name!r}")
        chosen: dict[str, Value] = {}
        for choice in self.choices:
            if not _active(choice, chosen):
                continue
            if choice.name not in values:
                raise InputError(f"{choice.name!r} is active and has no value")
            value = values[choice.name]
            if value not in choice.options:
                raise InputError(f"{choice.name}={value!r} is not one of {list(choice.options)}")
            # Take the option itself, so that 1 and 1.0 have one canonical form.
            chosen[choice.name] = choice.options[choice.options.index(value)]
        return Arch(self.name, tuple(chosen.items()))

    def parse(self, text: str) -> Arch:
        """Return the architecture written as ``str(arch)`` writes it.

        Raises:
            InputError: a malformed token, a value that is no option, or a value for a
                choice that is inactive (the text would not be canonical).
        """
        values: dict[str, Value] = {}
        for token in text.split():
            name, separator, written = token.partition("=")
            if not separator:
                raise InputError(f"{token!r} is not of the form name=value")
            if name not in self.index:
                raise InputError(f"{name!r} is not a choice of the space {self.name!r}")
            if name in values:
                raise InputError(f"{name!r} is given twice")
            options = self.choices[self.index[name]].options
            match = [option for option in options if _format(option) == written]
            if not match:
                raise InputError(f"{name}={written} is not one of {[_format(o) for o in options]}")
            values[name] = match[0]
        arch = self.arch(values)
        inactive = [name for name in values if name not in arch]
        if inactive:
            raise InputError(f"{inactive[0]!r} is given but inactive in this architecture")
        return arch

    def sample(self, rng: np.random.Generator) -> Arch:
        """Draw every active choice uniformly and independently."""
        return self.decode(self.sample_genes(rng, 1))[0]

    def largest(self) -> Arch:
        """Return the architecture with the last option of every choice."""
        return self.decode(np.array([[len(c.options) - 1 for c in self.choices]]))[0]

    def smallest(self) -> Arch:
        """Return the architecture with the first option of every choice."""
        return self.decode(np.zeros((1, len(self.choices)), dtype=np.int64))[0]

    def mutate(self, arch: Arch, rng: np.random.Generator, *, rate: float | None = None) -> Arch:
        """Redraw each choice with probability ``rate`` (default: one active choice on average).

        At least one active choice with more than one option changes its value, if there is one.
        """
        genes = self.genes([arch])
        active = self.active(genes)[0]
        free = np.array([len(c.options) > 1 for c in self.choices])
        candidates = np.flatnonzero(active & free)
        if candidates.size == 0:
            return arch
        rate = 1.0 / candidates.size if rate is None else rate
        flips = rng.random(len(self.choices)) < rate
        flips[rng.choice(candidates)] = True
        for j in np.flatnonzero(flips & free):
            n = len(self.choices[j].options)
            genes[0, j] = (genes[0, j] + rng.integers(1, n)) % n
        # Genes that the mutation switched on had the value 0; give them a random one.
        switched_on = self.active(genes)[0] & ~active & ~flips
        for j in np.flatnonzero(switched_on):
            genes[0, j] = rng.integers(len(self.choices[j].options))
        return self.decode(genes)[0]

    # ------------------------------------------------------------ gene matrices

    @cached_property
    def option_counts(self) -> np.ndarray:
        """Number of options of each choice: (choices,) int64."""
        return np.array([len(choice.options) for choice in self.choices], dtype=np.int64)

    def sample_genes(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Return ``n`` canonical gene rows drawn uniformly per choice: (n, choices) int64."""
        genes = rng.integers(0, self.option_counts, size=(n, len(self.choices)))
        return self.canonical(genes)

    def active(self, genes: np.ndarray) -> np.ndarray:
        """Return which genes matter. ``genes``: (n, choices) int -> (n, choices) bool."""
        genes = np.asarray(genes)
        active = np.ones(genes.shape, dtype=bool)
        for j, conditions in self._condition_tables:
            for parent, allowed in conditions:
                active[:, j] &= active[:, parent] & allowed[genes[:, parent]]
        return active

    def canonical(self, genes: np.ndarray) -> np.ndarray:
        """Return a copy with every inactive gene 0: equal rows are equal architectures."""
        return np.where(self.active(genes), genes, 0)

    def genes(self, archs: Iterable[Arch]) -> np.ndarray:
        """Return option indices, 0 where inactive: (n, choices) int64."""
        tables = self._option_index
        rows = []
        for arch in archs:
            row = [0] * len(self.choices)
            for name, value in arch.items:
                j = self.index[name]
                row[j] = tables[j][value]
            rows.append(row)
        return np.array(rows, dtype=np.int64).reshape(len(rows), len(self.choices))

    def decode(self, genes: np.ndarray) -> list[Arch]:
        """Return the architectures of gene rows (n, choices); inactive genes are ignored."""
        genes = np.asarray(genes)
        active = self.active(genes)
        return [
            Arch(
                self.name,
                tuple(
                    (self.choices[j].name, self.choices[j].options[row[j]])
                    for j in np.flatnonzero(mask)
                ),
            )
            for row, mask in zip(genes, active, strict=True)
        ]

    @cached_property
    def encoding_columns(self) -> tuple[str, ...]:
        """Names of the columns of :meth:`encode`: ``choice=option``."""
        return tuple(f"{c.name}={_format(o)}" for c in self.choices for o in c.options)

    def encode(self, archs: Iterable[Arch]) -> np.ndarray:
        """One-hot encoding with inactive choices all zero: (n, sum of option counts) float32.

        Every active choice, bit-widths included, changes the encoding; an inactive one never does.
        """
        return self.encode_genes(self.genes(list(archs)))

    def encode_genes(self, genes: np.ndarray) -> np.ndarray:
        """The encoding of :meth:`encode` from gene rows (n, choices)."""
        genes = np.asarray(genes)
        offsets = np.concatenate([[0], np.cumsum(self.option_counts)[:-1]])
        out = np.zeros((len(genes), int(self.option_counts.sum())), dtype=np.float32)
        rows, columns = np.nonzero(self.active(genes))
        out[rows, offsets[columns] + genes[rows, columns]] = 1.0
        return out

    # --------------------------------------------------------------- cardinality

    def cardinality(self) -> int:
        """Return the exact number of distinct architectures.

        Choices linked by conditions form components that are counted apart and
        multiplied; inside one, only the values of the parents are enumerated.
        """
        component = list(range(len(self.choices)))

        def root(i: int) -> int:
            while component[i] != i:
                i = component[i]
            return i

        for i, choice in enumerate(self.choices):
            for condition in choice.when:
                component[root(i)] = root(self.index[condition.parent])
        groups: dict[int, list[int]] = {}
        for i in range(len(self.choices)):
            groups.setdefault(root(i), []).append(i)
        return math.prod(self._count(members) for members in groups.values())

    def _count(self, members: list[int]) -> int:
        parents = {
            self.index[condition.parent] for i in members for condition in self.choices[i].when
        }
        ordered = sorted(members)

        def count(position: int, chosen: dict[str, Value]) -> int:
            total = 1
            for at in range(position, len(ordered)):
                choice = self.choices[ordered[at]]
                if not _active(choice, chosen):
                    continue
                if ordered[at] in parents:
                    return total * sum(
                        count(at + 1, {**chosen, choice.name: option}) for option in choice.options
                    )
                total *= len(choice.options)
            return total

        return count(0, {})

    @cached_property
    def _option_index(self) -> list[dict[Value, int]]:
        return [{o: k for k, o in enumerate(c.options)} for c in self.choices]

    @cached_property
    def _condition_tables(self) -> list[tuple[int, list[tuple[int, np.ndarray]]]]:
        tables = []
        for j, choice in enumerate(self.choices):
            if choice.when:
                conditions = []
                for condition in choice.when:
                    parent = self.index[condition.parent]
                    options = self.choices[parent].options
                    conditions.append((parent, np.array([o in condition.values for o in options])))
                tables.append((j, conditions))
        return tables


def _active(choice: Choice, chosen: Mapping[str, Value]) -> bool:
    return all(
        condition.parent in chosen and chosen[condition.parent] in condition.values
        for condition in choice.when
    )


def _format(value: Value) -> str:
    if isinstance(value, float):
        return repr(value)
    return str(value)
