"""A space for any table: white-space-separated categorical tokens, one per position.

``k3e6 k5e3 skip`` has three positions. The options of each position, and whether the
number of positions varies, are read off the table's own column, so a latency table of
a space this project has never heard of needs no code.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

from search_spaces.errors import InputError
from search_spaces.space import Arch, Choice, Condition, SearchSpace, Value
from search_spaces.spaces.registry import SPACES, refuse_parameters

_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_NUMERIC = re.compile(r"^[+-]?\d+(?:\.\d+)?$")


@SPACES.register("tokens")
class TokensSpace(SearchSpace):
    """Positions ``t0, t1, ...``, each a categorical choice of tokens.

    Where rows differ in length there is a choice ``length`` first, and the positions
    beyond it are inactive.

    Args:
        positions: the tokens allowed at each position, in the order of the ordinal code.
        lengths: allowed numbers of tokens; default: all positions are always there.

    Raises:
        InputError: no position, or lengths outside 1..len(positions).
    """

    def __init__(
        self, positions: Sequence[Sequence[str]], *, lengths: Iterable[int] | None = None
    ) -> None:
        if not positions:
            raise InputError("a token space needs at least one position")
        allowed = sorted({len(positions)} if lengths is None else set(lengths))
        if allowed[0] < 1 or allowed[-1] != len(positions):
            raise InputError(f"lengths {allowed} do not end at the {len(positions)} positions")
        self.lengths = tuple(allowed)
        choices = [Choice("length", self.lengths)] if len(allowed) > 1 else []
        for i, options in enumerate(positions):
            longer = frozenset(n for n in allowed if n > i)
            when = () if len(longer) == len(allowed) else (Condition("length", longer),)
            choices.append(Choice(f"t{i}", tuple(options), when=when))
        super().__init__("tokens", choices)

    @classmethod
    def from_config(
        cls, *, input_channels: int = 3, outputs: int = 10, **parameters: Any
    ) -> TokensSpace:
        """Return the space of the parameters ``positions`` (a list of lists) and ``lengths``.

        Raises:
            InputError: another parameter, or ``positions`` missing or no list of lists.
        """
        refuse_parameters("tokens", parameters, allowed=("positions", "lengths"))
        positions = parameters.get("positions")
        if not isinstance(positions, (list, tuple)) or not all(
            isinstance(options, (list, tuple)) for options in positions
        ):
            raise InputError(
                f"positions={positions!r} must list the tokens of each position, as in "
                "[[k3e3, k5e6, skip], [k3e3, skip]]"
            )
        lengths = parameters.get("lengths")
        if lengths is not None and not (
            isinstance(lengths, (list, tuple)) and all(isinstance(n, int) for n in lengths)
        ):
            raise InputError(f"lengths={lengths!r} must be a list of whole numbers")
        return cls([[str(o) for o in options] for options in positions], lengths=lengths)

    @classmethod
    def infer(cls, texts: Iterable[str]) -> TokensSpace:
        """Return the smallest token space that holds every text.

        Raises:
            InputError: no text at all, or an empty one.
        """
        seen: list[set[str]] = []
        lengths = set()
        for number, text in enumerate(texts):
            tokens = split_tokens(text)
            if not tokens:
                raise InputError(f"architecture {number} is empty")
            lengths.add(len(tokens))
            while len(seen) < len(tokens):
                seen.append(set())
            for options, token in zip(seen, tokens, strict=False):
                options.add(token)
        if not seen:
            raise InputError("a token space cannot be inferred from no architectures")
        return cls([sorted(options, key=_order) for options in seen], lengths=lengths)

    def parse(self, text: str) -> Arch:
        """Return the architecture of a token string, or of ``str(arch)``.

        Raises:
            InputError: a wrong number of tokens or a token unknown at its position.
        """
        tokens = split_tokens(text)
        if tokens and self._is_canonical(tokens):
            return super().parse(text)
        if len(tokens) not in self.lengths:
            raise InputError(
                f"{text!r} has {len(tokens)} tokens; this space has "
                f"{' or '.join(map(str, self.lengths))}"
            )
        items: list[tuple[str, Value]] = []
        if len(self.lengths) > 1:
            items.append(("length", len(tokens)))
        for i, token in enumerate(tokens):
            options = self.choices[self.index[f"t{i}"]].options
            if token not in options:
                raise InputError(f"token {i} is {token!r}, not one of {list(options)}")
            items.append((f"t{i}", token))
        return Arch(self.name, tuple(items))

    def text(self, arch: Arch) -> str:
        """Return the tokens separated by single spaces, as a table holds them."""
        return " ".join(str(value) for name, value in arch.items if name != "length")

    @cached_property
    def vocabulary(self) -> tuple[str, ...]:
        """Every token that occurs at any position, sorted."""
        tokens = {str(o) for c in self.choices if c.name != "length" for o in c.options}
        return tuple(sorted(tokens, key=_order))

    def numbers(self, token: str) -> tuple[str, tuple[float, ...]]:
        """Split ``k3_e6`` into its template ``k#_e#`` and its numbers (3, 6)."""
        if _NUMERIC.match(token):
            return "#", (float(token),)
        return _NUMBER.sub("#", token), tuple(float(m) for m in _NUMBER.findall(token))

    def _is_canonical(self, tokens: Sequence[str]) -> bool:
        names = ["length"] if len(self.lengths) > 1 else []
        names += [f"t{i}" for i in range(len(tokens) - len(names))]
        return all(t.startswith(f"{n}=") for t, n in zip(tokens, names, strict=True))


def split_tokens(text: str) -> list[str]:
    """Tokens of a text; a list as Python or JSON writes it (``[0, 3, "skip"]``) is one, too."""
    text = text.strip()
    if text[:1] + text[-1:] in ("[]", "()"):
        return [part.strip("'\"") for part in text[1:-1].replace(",", " ").split()]
    return text.split()


def _order(token: str) -> tuple[int, float, str]:
    # Numbers in numeric order, then words: the ordinal code means something when it can.
    return (0, float(token), token) if _NUMERIC.match(token) else (1, 0.0, token)
