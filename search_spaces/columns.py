"""Layers, operators and blocks over many architectures: what a space says of its networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from search_spaces.layers import LayerPlan, Numbers, OperatorPlan


@dataclass(frozen=True)
class LayerColumn:
    """A layer over ``n`` architectures: each numeric field is a scalar or an array (n,)."""

    layer: LayerPlan[Numbers]
    active: np.ndarray  # (n,) bool


@dataclass(frozen=True)
class OperatorColumn:
    """An operator over ``n`` architectures: each numeric field is a scalar or an array (n,)."""

    operator: OperatorPlan[Numbers]
    active: np.ndarray  # (n,) bool


@dataclass(frozen=True)
class BlockColumn:
    """A block over ``n`` architectures. ``active``, ``residual``: (n,) bool.

    Attributes:
        points_active: by the name of a point, the rows (n,) bool that have it; a point that is
            not named here is in every row of the block, ``sum`` in those with a residual.
    """

    name: str
    kind: str
    layers: tuple[LayerColumn, ...]
    active: np.ndarray
    residual: np.ndarray
    points: tuple[tuple[str, str], ...] = ()
    operators: tuple[OperatorColumn, ...] = ()
    points_active: Mapping[str, np.ndarray] = field(default_factory=dict)

    def point_rows(self, name: str) -> np.ndarray:
        """Return which rows have the point ``name``: (n,) bool."""
        default = self.residual if name == "sum" else self.active
        return self.points_active.get(name, default)
