"""What is odd about a table that reads well: worth a warning, no reason to refuse it."""

from __future__ import annotations

import numpy as np

from search_spaces.tables.table import LatencyTable

_UNIQUE = 0.95
_LEAST = 10


def table_warnings(table: LatencyTable) -> list[str]:
    """Return sentences about what a predictor cannot make use of; none for most tables."""
    out = []
    if names_without_meaning(table):
        told = "declared costs are all that is known of them"
        if not table.costs:
            told = (
                "nothing about one can be learned from another, and rank correlations will be near "
                "0; declare a cost (# metric of COLUMN: macs), or describe each by tokens that it "
                "shares with others"
            )
        out.append(f"the architectures are names without anything in common: {told}")
    for device in table.devices:
        values = table.column(device)
        finite = values[np.isfinite(values)]
        if len(finite) >= _LEAST and float(np.ptp(finite)) == 0:
            out.append(f"{device!r} is constant ({finite[0]:g}): nothing can be learned from it")
    return out


def names_without_meaning(table: LatencyTable) -> bool:
    """Whether no architecture shares an option that says something with another.

    Numbers are ordered, so they may all differ; words that all differ say nothing.
    """
    genes = np.unique(table.genes, axis=0)
    if len(genes) < _LEAST:
        return False
    for i, choice in enumerate(table.space.choices):
        column = genes[:, i]
        active = column[column >= 0]
        different = len(np.unique(active))
        if different < 2:
            continue
        if all(_is_number(str(choice.options[g])) for g in np.unique(active)):
            return False
        if different < _UNIQUE * len(active):
            return False
    return True


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
