"""A small space inside a large one: few choices, each of which sets many of the large space's.

A comparison of search strategies against the true front needs a space that can be evaluated
as a whole. Tying choices together keeps it a space with conditional categorical choices whose
architectures are architectures of the large one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from search_spaces.errors import InputError
from search_spaces.space import Choice, Condition, SearchSpace, Value


@dataclass(frozen=True)
class Tied:
    """One choice of the family.

    Attributes:
        name: of the choice.
        options: its values, options of every choice it sets.
        sets: regular expression for the whole names of the large space's choices it sets.
        when: as in :class:`Choice`, on choices of the family.
    """

    name: str
    options: tuple[Value, ...]
    sets: str
    when: tuple[Condition, ...] = ()


class FamilySpace(SearchSpace):
    """The architectures of ``full`` that follow from ``tied``; all else is at its last option.

    Raises:
        InputError: an option that a choice does not have, or a choice that is set twice.
    """

    def __init__(self, name: str, full: SearchSpace, tied: Sequence[Tied]) -> None:
        super().__init__(name, [Choice(t.name, t.options, t.when) for t in tied])
        self.full = full
        self._tables: list[list[tuple[int, np.ndarray]]] = []
        taken: dict[str, str] = {}
        for item in tied:
            tables = []
            for j, choice in enumerate(full.choices):
                if not re.fullmatch(item.sets, choice.name):
                    continue
                if choice.name in taken:
                    raise InputError(
                        f"{choice.name} is set by {taken[choice.name]} and by {item.name}"
                    )
                missing = [o for o in item.options if o not in choice.options]
                if missing:
                    raise InputError(f"{choice.name} has no option {missing[0]!r} of {item.name}")
                taken[choice.name] = item.name
                tables.append((j, np.array([choice.options.index(o) for o in item.options])))
            if not tables:
                raise InputError(f"{item.name} sets nothing: no choice matches {item.sets!r}")
            self._tables.append(tables)

    def full_genes(self, genes: np.ndarray) -> np.ndarray:
        """Return rows of the large space for rows of this one: (n, choices) -> (n, full)."""
        genes = np.asarray(genes)
        out = np.tile(self.full.option_counts - 1, (len(genes), 1))
        for k, tables in enumerate(self._tables):
            for j, table in tables:
                out[:, j] = table[genes[:, k]]
        return self.full.canonical(out)


def mobilenet_family(full: SearchSpace) -> FamilySpace:
    """Return 2,304 architectures of the three-stage ``mobilenet`` preset for 28x28 images."""
    deep = (Condition("s3.depth", frozenset({2})),)
    return FamilySpace(
        "fashion_mnist_family",
        full,
        [
            Tied("resolution", (20,), "resolution"),
            Tied("width", (0.5, 1.0), "width"),
            Tied("expand", (2, 3), r"s\d\.b\d\.expand"),
            Tied("s2.depth", (1, 2, 3), r"s2\.depth"),
            Tied("s3.depth", (1, 2), r"s3\.depth"),
            Tied("s3.b1.kernel", (3, 5), r"s3\.b1\.kernel"),
            Tied("s3.b2.kernel", (3, 5), r"s3\.b2\.kernel", deep),
            Tied("early.weight_bits", (2, 3, 4, 8), r"s[12]\.b\d\.w\.\w+"),
            Tied("late.weight_bits", (2, 3, 4, 8), r"s3\.b\d\.w\.\w+"),
            Tied("activation_bits", (4, 8), r"s\d\.b\d\.a\.\w+"),
        ],
    )
