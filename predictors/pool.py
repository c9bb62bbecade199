"""The latency tables in the package: what a predictor knows before anyone brings a table.

Two presets of the ``mobilenet`` space on runtimes of one x86 machine and on models of
accelerators. A job's space that differs from a preset in its options only (fewer kernels,
other bits) takes the rows that it can express.
"""

from __future__ import annotations

from dataclasses import fields, replace
from functools import partial
from importlib import resources

import numpy as np

from search_spaces.space import Arch, SearchSpace, Value
from search_spaces.spaces.mobilenet import PRESETS, MobileNetSpace
from search_spaces.tables.table import LatencyTable, read_table

PACKAGED = ("28x28", "96x96")
"""Presets of ``mobilenet`` that have a table."""

LEAST_ROWS = 30
"""A space that fewer rows can be expressed in is left without a pool."""


def packaged_table(preset: str) -> LatencyTable:
    """Return the packaged table of a preset.

    Raises:
        InputError: the file is malformed.
    """
    space = MobileNetSpace.from_config(preset=preset)
    name = resources.files("predictors").joinpath("data", f"mobilenet-{preset}.csv")
    with resources.as_file(name) as path:
        return read_table(path, space)


def default_pool(space: SearchSpace) -> LatencyTable | None:
    """Return the packaged rows that ``space`` can express, as a table of that space.

    Bits that the space does not have are rounded to the nearest it has. None where the
    space is another, or has fewer than :data:`LEAST_ROWS` of the rows.
    """
    if not isinstance(space, MobileNetSpace):
        return None
    for preset in PACKAGED:
        if not _same_network(space, preset):
            continue
        table = packaged_table(preset)
        pairs = [(i, _express(arch, space)) for i, arch in enumerate(table.archs)]
        kept = [(i, arch) for i, arch in pairs if arch is not None]
        if len(kept) < LEAST_ROWS:
            return None
        rows = table.values[[i for i, _ in kept]]
        genes = space.genes([arch for _, arch in kept])
        return LatencyTable(space, genes, table.devices, rows, table.metrics)
    return None


def _same_network(space: MobileNetSpace, preset: str) -> bool:
    """Whether stages, widths of layers and strides are the preset's; options may differ."""
    free = {"resolutions", "widths", "kernels", "expands", "weight_bits", "activation_bits"}
    free |= {"edge_bits", "granularity"}
    mine, theirs = space.parameters, PRESETS[preset]
    for item in fields(mine):
        if item.name in free:
            continue
        a, b = getattr(mine, item.name), getattr(theirs, item.name)
        if item.name == "stages":
            a, b = (tuple(_bare(stage) for stage in stages) for stages in (a, b))
        if a != b:
            return False
    return True


def _bare(stage: object) -> object:
    return replace(stage, depths=(1,), kernels=None, expands=None)  # type: ignore[type-var]


def _express(arch: Arch, space: MobileNetSpace) -> Arch | None:
    """Return ``arch`` in ``space``, or None where an option other than bits is missing."""
    chosen: dict[str, Value] = {}
    for choice in space.choices:
        if any(chosen.get(c.parent) not in c.values for c in choice.when):
            continue
        value = arch.get(choice.name)
        if value is None:
            value = _shared_bits(arch, choice.name)
        if value is None:
            return None
        if value not in choice.options:
            if not _is_bits(choice.name):
                return None
            value = min(choice.options, key=partial(_bit_distance, value))
        chosen[choice.name] = value
    return space.arch(chosen)


def _bit_distance(a: Value, b: Value) -> float:
    """How many times one bit-width goes into the other, as a logarithm."""
    return float(abs(np.log2(float(a) / float(b))))


def _is_bits(name: str) -> bool:
    return bool({"w", "a"} & set(name.split(".")))


def _shared_bits(arch: Arch, name: str) -> int | None:
    """Bits of a whole block from those of its layers: the median, rounded up to one of them."""
    values = [v for n, v in arch.items if n.startswith(f"{name}.") and _is_bits(name)]
    return sorted(values)[len(values) // 2] if values else None  # type: ignore[return-value]
