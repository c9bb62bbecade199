"""What the file of a model of texts says of its symbols, in its metadata."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from devices.runtime import existing_file
from nas.models.parity import UnusableModel, open_session
from search_spaces.errors import InputError

if TYPE_CHECKING:
    import onnxruntime

    from nas.data.text.pair_tokens import PairTokens
    from nas.data.text.tokens import Tokens

TOKENIZER = "tokenizer"
"""Key of a language model's metadata: ``bytes``, or the JSON of its byte pairs."""

PAIRS = "pairs"
"""Key of an encoder-decoder's metadata: the JSON of both vocabularies and lengths."""


def notes_of(tokens: Tokens | None, pairs: PairTokens | None) -> dict[str, str]:
    """Return what a file notes of its data: of a text its tokens, of pairs both vocabularies."""
    found = {} if tokens is None else {TOKENIZER: tokens.to_text()}
    return found if pairs is None else {**found, PAIRS: pairs.to_text()}


def open_named(
    model: Path, *, optimise: bool = True, threads: int = 1
) -> onnxruntime.InferenceSession:
    """Return a session on a model file that the user names.

    Raises:
        InputError: there is no such file, or it is no model.
        EnvironmentProblem: ONNX Runtime is not installed.
    """
    try:
        return open_session(existing_file(model), optimise=optimise, threads=threads)
    except UnusableModel as error:
        raise InputError(f"{error}; give ID.onnx of a run's models") from error


def read_notes(model: Path) -> dict[str, str]:
    """Return what a model file notes in its metadata.

    Raises:
        InputError: there is no such file, or it is no model.
        EnvironmentProblem: ONNX Runtime is not installed.
    """
    session = open_named(model, optimise=False)
    return dict(session.get_modelmeta().custom_metadata_map)
