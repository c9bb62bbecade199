"""What a language model reads instead of letters: bytes, or byte pairs by the library tokenizers.

Every token stands for a fixed string of bytes, so that the quality of models with different tokens
can be compared by the byte.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from nas.data.text.decoding import utf8
from search_spaces.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BYTES = "bytes"
"""Name of the tokens that are bytes."""


class Tokens(Protocol):
    """Tokens of a vocabulary.

    Attributes:
        spellings: the bytes that each token stands for, in the order of their numbers.
    """

    spellings: tuple[bytes, ...]

    def encode(self, text: str) -> np.ndarray:
        """Return the numbers of the tokens of a text, (n,) int64; their bytes are those of it."""
        ...

    def to_text(self) -> str:
        """Return what :func:`tokens_from_text` makes the same tokens of."""
        ...


def decoded(tokens: Tokens, numbers: Iterable[int]) -> str:
    """Return the text of tokens; bytes that are no UTF-8 show as a replacement mark."""
    return b"".join(tokens.spellings[int(n)] for n in numbers).decode("utf-8", errors="replace")


class ByteTokens:
    """The 256 bytes of UTF-8."""

    def __init__(self) -> None:
        self.spellings = tuple(bytes([n]) for n in range(256))

    def encode(self, text: str) -> np.ndarray:
        """See :class:`Tokens`."""
        return np.frombuffer(utf8(text), np.uint8).astype(np.int64)

    def to_text(self) -> str:
        """See :class:`Tokens`."""
        return BYTES


class BytePairs:
    """Byte pairs (Sennrich et al., ACL 2016, section 3.2, on bytes as GPT-2 has them).

    Args:
        tokenizer: of the library ``tokenizers``, byte-level.

    Raises:
        InputError: its tokens do not stand for fixed bytes.
    """

    def __init__(self, tokenizer: Tokenizer, *, source: str = "the tokenizer") -> None:
        self._tokenizer = tokenizer
        count = tokenizer.get_vocab_size()
        letters, added = _letters(), _added(tokenizer)
        of_bytes = _has_byte_level(json.loads(tokenizer.to_str()).get("decoder"))
        spellings: list[bytes] = []
        for number in range(count):
            token = tokenizer.id_to_token(number)
            if token is None:
                raise InputError(
                    f"{source}: numbers of tokens run to {count - 1}, but {number} has no token; "
                    "renumber the vocabulary without gaps"
                )
            if token in added:
                # A special token is no text; it is never made of any.
                spellings.append(b"")
                continue
            known = [letters.get(letter) for letter in token]
            if not of_bytes or None in known:
                raise InputError(
                    f"{source}: token {token!r} is not spelt in bytes; language_modelling needs a "
                    "byte-level tokenizer (ByteLevel, as of GPT-2 or Llama 3), whose tokens stand "
                    "for fixed bytes"
                )
            spellings.append(bytes(b for b in known if b is not None))
        self.spellings = tuple(spellings)

    @classmethod
    def trained(cls, texts: Sequence[str], vocabulary: int) -> BytePairs:
        """Return byte pairs learnt from texts.

        Args:
            texts: of the training set alone.
            vocabulary: number of tokens, 256 bytes among them.

        Raises:
            MissingExtraError: the library is not installed.
        """
        library = _library()
        tokenizer = library.Tokenizer(library.models.BPE())
        level = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.pre_tokenizer = level
        tokenizer.decoder = library.decoders.ByteLevel()
        trainer = library.trainers.BpeTrainer(
            vocab_size=vocabulary,
            initial_alphabet=sorted(library.pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        return cls(tokenizer)

    @classmethod
    def read(cls, path: Path) -> BytePairs:
        """Read ``tokenizer.json``.

        Raises:
            InputError: the file is no tokenizer, or one whose tokens are not bytes.
            MissingExtraError: the library is not installed.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path} cannot be read as a tokenizer: {error}") from error
        return cls.from_text(text, str(path))

    @classmethod
    def from_text(cls, text: str, source: str) -> BytePairs:
        """Return the byte pairs of a tokenizer's JSON; ``source`` names it in messages.

        Raises:
            InputError: the text is no tokenizer, or one whose tokens are not bytes.
            MissingExtraError: the library is not installed.
        """
        library = _library()
        try:
            tokenizer = library.Tokenizer.from_str(text)
        except Exception as error:  # the library raises nothing more precise
            raise InputError(
                f"{source} is no tokenizer of the library tokenizers: {error}"
            ) from error
        return cls(tokenizer, source=source)

    def encode(self, text: str) -> np.ndarray:
        """See :class:`Tokens`.

        Raises:
            InputError: the tokenizer changes the text, so that bits per byte would be of another.
        """
        wanted = utf8(text)
        found = self._tokenizer.encode(text, add_special_tokens=False).ids
        numbers = np.array(found, np.int64)
        made = b"".join(self.spellings[n] for n in found)
        if made != wanted:
            pairs = enumerate(zip(made, wanted, strict=False))
            place = next((i for i, (a, b) in pairs if a != b), min(len(made), len(wanted)))
            raise InputError(
                f"the tokenizer does not fit the text: it changes byte {place} of "
                f"{wanted[max(0, place - 12) : place + 12]!r}; take one without normaliser and "
                "prefix space, or tokens: bytes"
            )
        return numbers

    def to_text(self) -> str:
        """See :class:`Tokens`."""
        return str(self._tokenizer.to_str())


def tokens_from_text(text: str) -> Tokens:
    """Return the tokens that :meth:`Tokens.to_text` described.

    Raises:
        InputError: it describes none.
    """
    return ByteTokens() if text == BYTES else BytePairs.from_text(text, "the tokenizer of the file")


def printable(spelling: bytes) -> str:
    """Return a token's bytes as they can be shown."""
    return json.dumps(spelling.decode("utf-8", errors="backslashreplace"), ensure_ascii=False)[1:-1]


def _library() -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise MissingExtraError("tokenizers", "language") from error
    return tokenizers


def _added(tokenizer: Tokenizer) -> set[str]:
    return {token.content for token in tokenizer.get_added_tokens_decoder().values()}


def _has_byte_level(decoder: Any) -> bool:
    """Whether a decoder, as ``tokenizer.json`` describes it, turns letters into bytes."""
    if not isinstance(decoder, dict):
        return False
    return decoder.get("type") == "ByteLevel" or any(
        map(_has_byte_level, decoder.get("decoders") or ())
    )


def _letters() -> dict[str, int]:
    """Return the letter that byte-level tokenizers write for each byte -> the byte (GPT-2's)."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in shown]
    letters = {chr(byte): byte for byte in shown}
    return letters | {chr(256 + i): byte for i, byte in enumerate(others)}
