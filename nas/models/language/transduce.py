"""Sources answered by an exported encoder-decoder, symbol by symbol."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from devices.runtime import existing_file
from nas.data.text.pair_tokens import PairTokens, UnknownSymbolError, pairs_from_text
from nas.models.language.notes import PAIRS, open_named
from nas.models.language.parts import DECODE, ENCODE, part_path
from nas.models.language.step_file import keep
from search_spaces.errors import InputError


class Transducer:
    """Answers sources with the files of a model, greedily: the likeliest symbol each time.

    Args:
        model: ``ID.onnx``, of a run of the task ``sequence_to_sequence``; ``ID-encode.onnx`` and
            ``ID-decode.onnx`` lie beside it.
        threads: of the runtime.

    Attributes:
        pairs: vocabularies and lengths.

    Raises:
        InputError: the file is no encoder-decoder, the files beside it are not there, or one says
            of its symbols what does not fit it.
        EnvironmentProblem: the runtime is not installed.
    """

    def __init__(self, model: Path, *, threads: int = 1) -> None:
        model = Path(model)
        existing_file(model)
        paths = {part: part_path(model, part) for part in (ENCODE, DECODE)}
        for path in paths.values():
            if not path.is_file():
                raise InputError(f"{path} is not there; it is written beside {model.name} by a run")
        self._encoder, self._decoder = (
            open_named(path, threads=threads) for path in paths.values()
        )
        notes = self._decoder.get_modelmeta().custom_metadata_map
        if PAIRS not in notes:
            raise InputError(f"{paths[DECODE]} does not say what its symbols are ({PAIRS!r})")
        self.pairs: PairTokens = pairs_from_text(notes[PAIRS])
        inputs, outputs = self._decoder.get_inputs(), self._decoder.get_outputs()
        count, length = int(outputs[0].shape[-1]), int(self._encoder.get_inputs()[0].shape[-1])
        if count != self.pairs.target.count or length != self.pairs.source_length:
            raise InputError(
                f"{paths[DECODE]}: its vocabulary has {self.pairs.target.count} symbols for "
                f"sources of {self.pairs.source_length}, and the files are of {count} and "
                f"{length}; they were changed"
            )
        self._names = [one.name for one in inputs]
        self._read = [one.name for one in self._encoder.get_outputs()]
        self._caches = {
            one.name: (1, *one.shape[1:])
            for one in inputs
            if one.name.startswith(("keys_", "values_"))
        }

    def answer(self, source: str) -> str:
        """Return what becomes of a source.

        Raises:
            InputError: it is empty, too long, or holds a symbol that training never saw.
        """
        return self.pairs.target.decode(self.numbers(source))

    def numbers(self, source: str) -> list[int]:
        """Return the numbers of the symbols of the answer, without its end; see :meth:`answer`."""
        try:
            given = self.pairs.source.encode(source)
        except UnknownSymbolError as error:
            raise InputError(f"the source {source[:40]!r}: {error}") from error
        if not given:
            raise InputError("the source is empty; there is nothing to answer")
        most = self.pairs.source_length
        if len(given) > most:
            raise InputError(
                f"the source {source[:40]!r} has {len(given)} symbols, and the model reads {most}"
            )
        window = np.zeros((1, 1, 1, most), np.float32)
        window[0, 0, 0, : len(given)] = given
        (entry,) = self._encoder.get_inputs()
        feed = dict(zip(self._read, self._encoder.run(None, {entry.name: window}), strict=True))
        caches = {n: np.zeros(shape, np.float32) for n, shape in self._caches.items()}
        token, found = 0, []
        for place in range(self.pairs.target_length):
            free = self.pairs.target_length - 1 - place
            feed |= {self._names[0]: np.array([[token]], np.float32)}
            feed |= {self._names[1]: np.array([[free]], np.float32)}
            logits, *new = self._decoder.run(None, {**feed, **caches})
            keep(list(caches.values()), new, place)
            token = int(logits[0].argmax())
            if token == 0:
                break
            found.append(token)
        return found
