"""Examples that are there twice: in the test set and in the training set, or in two classes.

A picture that was copied to make a rare class larger, frames of a film, or a set that was joined
from others: where the sets are drawn by chance, copies of training examples are in the test set,
and its figures are those of learning by heart. What is the same in two classes is told rightly in
one of them at most.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from nas.data.images import FileImages, MemoryImages
from nas.data.sources import OF_TEXT

if TYPE_CHECKING:
    from nas.data.batches import Subset

_SHARE = 0.01
"""Of a set's examples, from which on twins are worth a word; a few are in every large set."""

_READ = 2**20
"""Bytes of either end of a file that are compared; files of another size are never opened."""


def twins(parts: Mapping[str, Subset], targets: str, names: Sequence[str]) -> list[str]:
    """Return a sentence for each kind of twins that makes figures unsure.

    Args:
        parts: the ``training``, ``validation`` and ``test`` set.
        targets: their kind, as of :class:`nas.data.sources.RawData`.
        names: of the classes.
    """
    if targets in OF_TEXT:
        return []
    keys = _keys(parts)
    if keys is None:
        return []
    found, learnt = [], set(keys["training"])
    for part in ("test", "validation"):
        known = sum(key in learnt for key in keys[part])
        if known > _SHARE * len(keys[part]):
            found.append(
                f"{known} of the {len(keys[part])} {part} examples are in the training set too, "
                "with the very same content: figures are too good by what is learnt by heart. "
                "Remove copies, or keep them together by groups or a test set of its own"
            )
    if targets == "classes":
        found += _in_two_classes(keys["training"], parts["training"], names)
    return found


def _in_two_classes(keys: Sequence[Hashable], subset: Subset, names: Sequence[str]) -> list[str]:
    labels = subset.labels[subset.indices].tolist()
    classes: dict[Hashable, Counter[int]] = {}
    for key, label in zip(keys, labels, strict=True):
        classes.setdefault(key, Counter())[label] += 1
    several = [counts for counts in classes.values() if len(counts) > 1]
    examples = sum(map(Counter.total, several))
    if examples <= _SHARE * len(keys):
        return []
    pairs = Counter(tuple(sorted(counts)[:2]) for counts in several)
    first, second = pairs.most_common(1)[0][0]
    best = 1 - sum(counts.total() - max(counts.values()) for counts in several) / len(keys)
    return [
        f"{examples} of the {len(keys)} training examples have the very same content as one of "
        f"another class (such as {names[first]} and {names[second]}): nothing can tell more than "
        f"{best:.2f} of them rightly; look at what such files hold"
    ]


def _keys(parts: Mapping[str, Subset]) -> dict[str, list[Hashable]] | None:
    """Return for each example what is equal where contents are; None if that would take long."""
    images = {part: subset.images for part, subset in parts.items()}
    if all(isinstance(one, MemoryImages) for one in images.values()):
        return {part: _of_arrays(subset) for part, subset in parts.items()}
    paths: dict[str, list[Path]] = {}
    for part, subset in parts.items():
        if not isinstance(subset.images, FileImages):
            return None
        paths[part] = [subset.images.paths[i] for i in subset.indices.tolist()]
    of_files = _of_files(path for some in paths.values() for path in some)
    return {part: [of_files[path] for path in some] for part, some in paths.items()}


def _of_arrays(subset: Subset) -> list[Hashable]:
    found: list[Hashable] = []
    for indices in torch.arange(len(subset)).split(4096):
        rows = np.ascontiguousarray(subset.at(indices)[0].numpy())
        found += [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in rows]
    return found


def _of_files(paths: Iterable[Path]) -> dict[Path, Hashable]:
    sizes = {path: path.stat().st_size for path in paths}
    several = Counter(sizes.values())
    return {
        path: (size, _ends(path, size)) if several[size] > 1 else (size, b"")
        for path, size in sizes.items()
    }


def _ends(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        digest = hashlib.blake2b(file.read(_READ), digest_size=16)
        file.seek(max(_READ, size - _READ))
        digest.update(file.read(_READ))
    return digest.digest()
