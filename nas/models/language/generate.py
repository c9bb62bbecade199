"""Text made by an exported language model, a token at a time."""

from __future__ import annotations

import codecs
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nas.data.text.tokens import Tokens, tokens_from_text
from nas.models.language.notes import PAIRS, TOKENIZER, open_named
from nas.models.language.step_file import keep, step_path
from search_spaces.errors import InputError

if TYPE_CHECKING:
    import onnxruntime

    from devices.runtime import Session


class TextGenerator:
    """Makes text with an exported file.

    With the file of a step beside it (``ID-decode.onnx``) keys and values are kept; otherwise
    each token runs the whole window.

    Args:
        model: ``ID.onnx``, of a run of the task ``language_modelling``.
        threads: of the runtime.
        runtime: ``onnxruntime``, or ``lowbit``, which needs the file of a step.

    Attributes:
        tokens: that the model reads and writes.
        length: tokens it sees at once.

    Raises:
        InputError: the file is no language model, or says of its tokens what does not fit it.
        EnvironmentProblem: the runtime is not installed.
    """

    def __init__(self, model: Path, *, threads: int = 1, runtime: str = "onnxruntime") -> None:
        if runtime not in ("onnxruntime", "lowbit"):
            raise InputError(f"text is made in onnxruntime or lowbit, not in {runtime!r}")
        session = open_named(model, threads=threads)
        notes = session.get_modelmeta().custom_metadata_map
        if PAIRS in notes:
            raise InputError(
                f"{model} turns one sequence into another and goes on with no text; a Transducer "
                "of nas.models.language.transduce answers with it"
            )
        if TOKENIZER not in notes:
            raise InputError(
                f"{model} does not say what its tokens are (metadata {TOKENIZER!r}); only models "
                "of the task language_modelling make text"
            )
        if len(session.get_inputs()) != 1:
            raise InputError(
                f"{model} adds one token to those before it; give the model beside it that reads a "
                "window, ID.onnx without -decode"
            )
        self.tokens: Tokens = tokens_from_text(notes[TOKENIZER])
        self.length = int(session.get_inputs()[0].shape[-1])
        count = session.get_outputs()[0].shape[-1]
        if count != len(self.tokens.spellings):
            raise InputError(
                f"{model}: its tokenizer has {len(self.tokens.spellings)} tokens, and the network "
                f"gives {count} values; the file was changed"
            )
        step = step_path(Path(model))
        self._reader: _Windows | _ByToken
        if runtime == "lowbit":
            from devices.runtime import make_runtime

            loaded = make_runtime("lowbit", {"threads": threads}).load(step)
            self._reader = _Kept(loaded, self.length)
        elif step.is_file():
            self._reader = _Steps(open_named(step, threads=threads), self.length)
        else:
            self._reader = _Windows(session, self.length)

    @property
    def keeps(self) -> bool:
        """Whether keys and values are kept."""
        return isinstance(self._reader, _ByToken)

    def generate(
        self,
        prompt: str,
        count: int = 200,
        *,
        temperature: float = 0.8,
        most_likely: int = 40,
        seed: int = 0,
    ) -> Iterator[str]:
        """Return what follows ``prompt``, piece by piece.

        Args:
            prompt: at least one letter.
            count: of tokens.
            temperature: divides the values before softmax; 0 takes the likeliest token each time.
            most_likely: only so many of the likeliest tokens are drawn from.
            seed: of the draws.

        Raises:
            InputError: an empty prompt, one that is no UTF-8, or numbers that cannot be.
        """
        known = self.tokens.encode(prompt).tolist()
        if not known:
            raise InputError("the prompt is empty; a model goes on with what is there")
        for name, value, least in (("count", count, 1), ("most_likely", most_likely, 1)):
            if value < least:
                raise InputError(f"{name} is {value}; it must be at least {least}")
        if not 0 <= temperature < float("inf"):
            raise InputError(f"temperature is {temperature}; it must be 0 or more")
        return self._pieces(known, count, temperature, most_likely, seed)

    def _pieces(
        self, known: list[int], count: int, temperature: float, most_likely: int, seed: int
    ) -> Iterator[str]:
        random = np.random.default_rng(seed)
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        # Half of what a model sees at once stays when it has seen all of it.
        known = known[-(self.length - 1) :]
        values = self._reader.begin(known)
        for _ in range(count):
            number = _drawn(values, temperature, most_likely, random)
            piece = decoder.decode(self.tokens.spellings[number])
            if piece:
                yield piece
            known.append(number)
            if len(known) > self.length:
                known = known[-(self.length // 2 + 1) :]
                values = self._reader.begin(known)
            else:
                values = self._reader.next(number)
        rest = decoder.decode(b"", final=True)
        if rest:
            yield rest


def _drawn(
    values: np.ndarray, temperature: float, most_likely: int, random: np.random.Generator
) -> int:
    """Return the number of a token drawn by its values (vocabulary,)."""
    if temperature == 0:
        return int(values.argmax())
    best = np.argsort(-values, kind="stable")[:most_likely]
    scaled = (values[best] - values[best[0]]).astype(np.float64) / temperature
    shares = np.exp(scaled)
    return int(random.choice(best, p=shares / shares.sum()))


class _Windows:
    """Runs the whole window for each token."""

    def __init__(self, session: onnxruntime.InferenceSession, length: int) -> None:
        self._session, self._length = session, length
        self._known: list[int] = []

    def begin(self, known: Sequence[int]) -> np.ndarray:
        """Return the values after tokens: (vocabulary,)."""
        self._known = list(known)
        window = np.zeros((1, 1, 1, self._length), np.float32)
        window[0, 0, 0, : len(known)] = known
        name = self._session.get_inputs()[0].name
        (values,) = self._session.run(None, {name: window})
        last: np.ndarray = values[0, len(known) - 1]
        return last

    def next(self, number: int) -> np.ndarray:
        """Return the values after one token more."""
        return self.begin([*self._known, number])


class _ByToken(ABC):
    """Runs one token, with the keys and values of those before it."""

    def __init__(self, length: int) -> None:
        self._length, self._place = length, 0

    def begin(self, known: Sequence[int]) -> np.ndarray:
        """Return the values after tokens: (vocabulary,)."""
        self._place = 0
        for number in known:
            values = self.next(number)
        return values

    def next(self, number: int) -> np.ndarray:
        """Return the values after one token more."""
        token = np.array([[number]], np.float32)
        free = np.array([[self._length - 1 - self._place]], np.float32)
        values = self._step(token, free)
        self._place += 1
        return values

    @abstractmethod
    def _step(self, token: np.ndarray, free: np.ndarray) -> np.ndarray:
        """Return the values (vocabulary,) after a token; both (1, 1)."""


class _Steps(_ByToken):
    """Holds the keys and values for a file that takes them."""

    def __init__(self, session: onnxruntime.InferenceSession, length: int) -> None:
        super().__init__(length)
        self._session = session
        inputs = session.get_inputs()
        self._names = [one.name for one in inputs]
        self._shapes = [(1, *one.shape[1:]) for one in inputs[2:]]
        self._caches: list[np.ndarray] = []

    def begin(self, known: Sequence[int]) -> np.ndarray:
        """Return the values after tokens: (vocabulary,)."""
        self._caches = [np.zeros(shape, np.float32) for shape in self._shapes]
        return super().begin(known)

    def _step(self, token: np.ndarray, free: np.ndarray) -> np.ndarray:
        feed = dict(zip(self._names, [token, free, *self._caches], strict=True))
        logits, *new = self._session.run(None, feed)
        keep(self._caches, new, self._place)
        values: np.ndarray = logits[0]
        return values


class _Kept(_ByToken):
    """Runs in a runtime that holds keys and values itself."""

    def __init__(self, session: Session, length: int) -> None:
        super().__init__(length)
        self._session = session

    def _step(self, token: np.ndarray, free: np.ndarray) -> np.ndarray:
        (logits,) = self._session(token, free)
        values: np.ndarray = logits.reshape(-1)
        return values
