"""Bits of a network and the accelerator that runs it, chosen together.

For each design within its bounds the integer programme finds the bits of least sensitivity within
the budgets; the best design is the one whose bits hurt least, and of equals the smallest. As the
bits of each design are proven, so is the pair (HAO, Dong et al., FCCM 2021, searches both by the
same kind of programme for each size of an array).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.bits.allocation import Allocation, Bits, BitTable, allocate
from search_spaces.errors import InfeasibleError, InputError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from devices.simulators.hardware import Hardware
    from nas.bits.search import BitsResult
    from search_spaces.plan import LayerPlan
    from supernet.ptq.sensitivity import SensitivityTable


@dataclass(frozen=True)
class JointPoint:
    """One design with its best bits.

    Attributes:
        hardware: the description.
        area_mm2: of array and buffers.
        allocation: bits of each layer, proven; its costs are ``latency_ms`` and ``energy_mj``.
    """

    hardware: Hardware
    area_mm2: float
    allocation: Allocation

    def to_json(self) -> dict[str, Any]:
        """Return the point as JSON-compatible data."""
        return {
            "hardware": self.hardware.name,
            "area_mm2": self.area_mm2,
            "sensitivity": self.allocation.sensitivity,
            "costs": self.allocation.costs,
            "proven_optimal": self.allocation.optimal,
        }


@dataclass(frozen=True)
class JointResult:
    """What :func:`joint_optimum` found.

    Attributes:
        best: least sensitivity; of equals the smallest area, then the shortest time.
        front: of all designs those that none other betters in area, latency and sensitivity.
        designs, feasible: how many there were, and how many could keep the budgets.
    """

    best: JointPoint
    front: list[JointPoint]
    designs: int
    feasible: int


def joint_optimum(
    plans: Mapping[str, LayerPlan[int]],
    options: Sequence[Sequence[Bits]],
    sensitivity: Sequence[Sequence[float]],
    designs: Iterable[Hardware],
    budgets: Mapping[str, float],
) -> JointResult:
    """Find the design and the bits that hurt least within budgets.

    Args:
        plans: sizes of the layers by name, in order.
        options: of each layer.
        sensitivity: of each layer's options.
        designs: descriptions that keep the bounds on area and bandwidth.
        budgets: ``latency_ms``, ``energy_mj`` or both -> the largest total.

    Raises:
        InfeasibleError: no design keeps the budgets; the message says what the nearest needs.
        InputError: no designs, or no budget.
    """
    from devices.simulators.design import area_mm2

    if not budgets:
        raise InputError("give a budget on latency_ms or energy_mj: without one, no design is best")
    points, nearest, count = [], None, 0
    for hardware in designs:
        count += 1
        table = design_table(plans, options, sensitivity, hardware)
        if table is None:
            continue
        try:
            best = allocate(table, budgets)
        except InfeasibleError as error:
            misses = [table.range(name)[0] / budget for name, budget in budgets.items()]
            if nearest is None or max(misses) < nearest[0]:
                nearest = (max(misses), hardware.name, str(error))
            continue
        points.append(JointPoint(hardware, area_mm2(hardware), best))
    if not count:
        raise InputError("no design keeps the limits on area and bandwidth; loosen one")
    if not points:
        told = "no design has units for the options" if nearest is None else (
            f"the nearest is {nearest[1]}: {nearest[2]}"
        )  # fmt: skip
        raise InfeasibleError(f"infeasible: none of {count} designs keeps the budgets; {told}")
    best_point = min(
        points,
        key=lambda p: (
            round(p.allocation.sensitivity, 12),
            p.area_mm2,
            p.allocation.costs["latency_ms"],
        ),
    )
    return JointResult(best_point, _front(points), count, len(points))


def allocate_joint(
    module: nn.Module,
    calibration: Iterable[Tensor],
    budgets: Mapping[str, float],
    designs: Iterable[Hardware],
    *,
    metric: str = "kl",
    weight_bits: Sequence[int | str] = (2, 4, 8),
    activation_bits: Sequence[int | str] = (8,),
    edge_bits: int | None = 8,
    adaround: bool = True,
    sensitivity: SensitivityTable | None = None,
    seed: int = 0,
) -> tuple[JointResult, BitsResult]:
    """Choose an accelerator and the bits of a trained network together, and quantise to them.

    Args:
        module, calibration, metric, weight_bits, activation_bits, edge_bits, adaround, sensitivity,
            seed: as of :func:`nas.bits.search.allocate_bits`.
        budgets, designs: as of :func:`joint_optimum`.

    Raises:
        InfeasibleError, InputError: as those do.
    """
    from nas.bits.hardware import network_plans
    from nas.bits.search import STEPS, BitsResult, assignment, beside_layers, bit_table, layer_sizes
    from supernet.ptq.quantize import quantize_post_training
    from supernet.ptq.sensitivity import layer_sensitivity

    images = list(calibration)
    edge = () if edge_bits is None else (edge_bits,)
    if sensitivity is None:
        sensitivity = layer_sensitivity(
            module,
            images,
            weight_bits=list(dict.fromkeys([*weight_bits, *edge])),
            activation_bits=list(dict.fromkeys([*activation_bits, *edge])),
        )
    table = bit_table(
        layer_sizes(module, images[0]),
        sensitivity,
        metric=metric,
        weight_bits=weight_bits,
        activation_bits=activation_bits,
        edge_bits=edge_bits,
        beside=beside_layers(module, images[0]),
    )
    hurt = [column.tolist() for column in table.sensitivity]
    plans = network_plans(module, images[0])
    found = joint_optimum(plans, table.options, hurt, designs, budgets)
    own = design_table(plans, table.options, hurt, found.best.hardware)
    assert own is not None
    steps = (*STEPS, "adaround") if adaround else STEPS
    network = quantize_post_training(
        module, images, assignment(own, found.best.allocation), steps=steps, seed=seed
    )
    return found, BitsResult(own, dict(budgets), found.best.allocation, [], network, metric)


def design_table(
    plans: Mapping[str, LayerPlan[int]],
    options: Sequence[Sequence[Bits]],
    sensitivity: Sequence[Sequence[float]],
    hardware: Hardware,
) -> BitTable | None:
    """Return sensitivities, latencies and energies of the options that a design can run.

    None where a layer has no such option.
    """
    from devices.simulators.roofline import estimate_layer

    kept: list[list[Bits]] = []
    hurt: list[list[float]] = []
    costs: dict[str, list[list[float]]] = {"latency_ms": [], "energy_mj": []}
    for (_, plan), own, values in zip(plans.items(), options, sensitivity, strict=True):
        rows = []
        for bits, value in zip(own, values, strict=True):
            try:
                found = estimate_layer(plan, hardware, bits.weight, bits.activation)
            except InputError:
                # The design has no units for this number format.
                continue
            rows.append((bits, value, *found))
        if not rows:
            return None
        kept.append([row[0] for row in rows])
        hurt.append([row[1] for row in rows])
        costs["latency_ms"].append([row[2] for row in rows])
        costs["energy_mj"].append([row[3] for row in rows])
    return BitTable.of(list(plans), kept, hurt, costs)


def _front(points: Sequence[JointPoint]) -> list[JointPoint]:
    from nas.fronts.pareto import nondominated

    values = np.array(
        [[p.area_mm2, p.allocation.costs["latency_ms"], p.allocation.sensitivity] for p in points]
    )
    chosen = [p for p, inside in zip(points, nondominated(values), strict=True) if inside]
    return sorted(chosen, key=lambda p: (p.area_mm2, p.allocation.sensitivity))
