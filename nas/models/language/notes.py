"""What the file of a model of texts says of its symbols, in its metadata."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nas.models.parity import open_session
from search_spaces.errors import InputError

if TYPE_CHECKING:
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


def read_notes(model: Path) -> dict[str, str]:
    """Return what a model file notes in its metadata.

    Raises:
        InputError: there is no such file.
        EnvironmentProblem: it does not load.
    """
    if not Path(model).is_file():
        raise InputError(f"no model file at {model}")
    session = open_session(model, optimise=False)
    return dict(session.get_modelmeta().custom_metadata_map)
