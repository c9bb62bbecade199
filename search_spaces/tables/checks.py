"""What is odd about a table that reads well: worth a warning, no reason to refuse it."""

from __future__ import annotations

import re

import numpy as np

from search_spaces.tables.table import LatencyTable

_UNIQUE = 0.95
_LEAST = 10
_UNIT = re.compile(
    r"(?:[ _(\[])(ms|us|\u00b5s|ns|s|sec|seconds|mj|uj|\u00b5j|j)[)\]]?$", re.IGNORECASE
)
"""At the end of a header; of times and energies."""
_SETTINGS = 8
"""Most options of what is set and not measured."""


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
        unit = _unit_in(device)
        if unit is not None and table.metric(device) == "latency_ms" and unit != "ms":
            told = (
                "declare what it holds (# metric of COLUMN: energy_mj)"
                if "j" in unit
                else ("write it in milliseconds, or take its figures, and budgets, as that unit")
            )
            out.append(f"{device!r} names the unit {unit} and is read as latency_ms, unchanged: "
                       f"{told}")  # fmt: skip
        values = table.column(device)
        finite = values[np.isfinite(values)]
        if len(finite) >= _LEAST and float(np.ptp(finite)) == 0:
            out.append(f"{device!r} is constant ({finite[0]:g}): nothing can be learned from it")
        elif len(finite) >= _LEAST and _is_a_setting(finite):
            out.append(
                f"{device!r} holds {len(np.unique(finite))} different whole numbers; if it is a "
                "part of the architecture and no device, name it among --arch-column, with commas"
            )
    return out


def _unit_in(name: str) -> str | None:
    """Return the unit that a header names at its end, in small letters: ``time_us``, ``t (s)``."""
    found = _UNIT.search(name)
    return None if found is None else found.group(1).lower().replace("\u00b5", "u")


def _is_a_setting(values: np.ndarray) -> bool:
    """Whether values are rather what was chosen (a kernel, a depth) than what was measured."""
    different = len(np.unique(values))
    return not (values % 1).any() and different <= min(_SETTINGS, len(values) // 4)


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
