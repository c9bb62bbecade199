"""What an encoder-decoder reads and writes: characters, symbols between spaces, bytes, byte pairs.

Each side has a vocabulary of its own. Number 0 is nothing in a source and the end of a target,
which begins a target, too; what stands in a text has numbers from 1.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from nas.data.text.tokens import BYTES, BytePairs, ByteTokens, Tokens, decoded, printable
from search_spaces.errors import InputError

CHARACTERS, SYMBOLS, PAIRS = "characters", "symbols", "bpe"
KINDS = (CHARACTERS, SYMBOLS, BYTES, PAIRS)
"""What a side may be made of."""


class UnknownSymbolError(InputError):
    """A text holds what no line of the training set does."""


class SideTokens(ABC):
    """The vocabulary of one side.

    Attributes:
        kind: one of :data:`KINDS`.
        names: of each number as it can be shown, from 0.
    """

    kind: str
    names: tuple[str, ...]

    @property
    def count(self) -> int:
        """How many numbers there are, 0 among them."""
        return len(self.names)

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Return the numbers of a text, from 1.

        Raises:
            UnknownSymbolError: it holds what training never saw.
        """

    @abstractmethod
    def decode(self, numbers: Iterable[int]) -> str:
        """Return the text of numbers, up to the first 0."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Return what :func:`side_from_json` makes the same vocabulary of."""


class SpeltTokens(SideTokens):
    """Characters, or symbols that spaces divide, as phonemes are written.

    Args:
        kind: ``characters`` or ``symbols``.
        symbols: in the order of their numbers, from 1.
    """

    def __init__(self, kind: str, symbols: Sequence[str]) -> None:
        self.kind, self._symbols = kind, tuple(symbols)
        self._numbers = {symbol: i for i, symbol in enumerate(self._symbols, start=1)}
        self.names = ("", *self._symbols)

    @classmethod
    def of(cls, kind: str, texts: Iterable[str]) -> SpeltTokens:
        """Return the vocabulary of texts, its symbols in order."""
        return cls(kind, sorted({symbol for text in texts for symbol in _parts(kind, text)}))

    def encode(self, text: str) -> list[int]:
        """See :class:`SideTokens`."""
        found = []
        for symbol in _parts(self.kind, text):
            if symbol not in self._numbers:
                raise UnknownSymbolError(f"{symbol!r} is in no line of the training set")
            found.append(self._numbers[symbol])
        return found

    def decode(self, numbers: Iterable[int]) -> str:
        """See :class:`SideTokens`."""
        joint = " " if self.kind == SYMBOLS else ""
        return joint.join(self.names[n] for n in until_end(numbers))

    def to_json(self) -> dict[str, Any]:
        """See :class:`SideTokens`."""
        return {"kind": self.kind, "symbols": list(self._symbols)}


class SideOfBytes(SideTokens):
    """Bytes, or byte pairs; see :mod:`nas.data.text.tokens`.

    Args:
        kind: ``bytes`` or ``bpe``.
        tokens: that stand for fixed bytes.
    """

    def __init__(self, kind: str, tokens: Tokens) -> None:
        self.kind, self._tokens = kind, tokens
        self.names = ("", *(printable(spelling) for spelling in tokens.spellings))

    def encode(self, text: str) -> list[int]:
        """See :class:`SideTokens`."""
        return [int(n) + 1 for n in self._tokens.encode(text)]

    def decode(self, numbers: Iterable[int]) -> str:
        """See :class:`SideTokens`."""
        return decoded(self._tokens, (n - 1 for n in until_end(numbers)))

    def to_json(self) -> dict[str, Any]:
        """See :class:`SideTokens`."""
        return {"kind": self.kind, "tokenizer": self._tokens.to_text()}


def side_of(kind: str, texts: Sequence[str], *, vocabulary: int, option: str) -> SideTokens:
    """Return the vocabulary of one side, learnt from the texts of the training set.

    Args:
        kind: one of :data:`KINDS`.
        texts: of the training set alone.
        vocabulary: tokens to learn with ``bpe``.
        option: of the job, for messages.

    Raises:
        InputError: another kind.
        MissingExtraError: byte pairs, and the library is not installed.
    """
    if kind not in KINDS:
        raise InputError(f"data.options.{option}: {kind!r} is none of {', '.join(KINDS)}")
    if kind == BYTES:
        return SideOfBytes(kind, ByteTokens())
    if kind == PAIRS:
        return SideOfBytes(kind, BytePairs.trained(texts, vocabulary))
    return SpeltTokens.of(kind, texts)


def side_from_json(value: Any) -> SideTokens:
    """Return the vocabulary that :meth:`SideTokens.to_json` described.

    Raises:
        InputError: it describes none.
    """
    kind = value.get("kind") if isinstance(value, dict) else None
    if kind in (CHARACTERS, SYMBOLS):
        symbols = value.get("symbols")
        if isinstance(symbols, list) and all(isinstance(one, str) for one in symbols):
            return SpeltTokens(str(kind), symbols)
    elif kind == BYTES:
        return SideOfBytes(BYTES, ByteTokens())
    elif kind == PAIRS and isinstance(value.get("tokenizer"), str):
        return SideOfBytes(PAIRS, BytePairs.from_text(value["tokenizer"], "the file's tokenizer"))
    raise InputError(f"{str(value)[:80]!r} describes no vocabulary of a sequence")


@dataclass(frozen=True)
class PairTokens:
    """The vocabularies and lengths of pairs of sequences.

    Attributes:
        source, target: vocabularies.
        source_length: symbols of the longest source.
        target_length: symbols of the longest target, its end among them.
    """

    source: SideTokens
    target: SideTokens
    source_length: int
    target_length: int

    def to_text(self) -> str:
        """Return what :func:`pairs_from_text` makes the same of."""
        return json.dumps(
            {
                "source": self.source.to_json(),
                "target": self.target.to_json(),
                "source_length": self.source_length,
                "target_length": self.target_length,
            }
        )


def pairs_from_text(text: str) -> PairTokens:
    """Return what :meth:`PairTokens.to_text` described.

    Raises:
        InputError: it describes none.
    """
    try:
        value = json.loads(text)
        lengths = int(value["source_length"]), int(value["target_length"])
        source, target = value["source"], value["target"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"the file's note of its sequences cannot be read: {error!r}") from error
    return PairTokens(side_from_json(source), side_from_json(target), *lengths)


def until_end(numbers: Iterable[int]) -> list[int]:
    """Return numbers up to the first 0."""
    found = []
    for number in numbers:
        if int(number) == 0:
            break
        found.append(int(number))
    return found


def _parts(kind: str, text: str) -> Sequence[str]:
    return text.split() if kind == SYMBOLS else text
