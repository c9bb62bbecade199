"""Accelerator and bits chosen together: against enumeration, and against one after the other.

Small networks with drawn sensitivities are enumerated, every design with every assignment of bits.
On a whole network with drawn sensitivities the pair is held against what comes of choosing first
the smallest design that nearly keeps the budget at 8 bits, and then its bits::

    python -m experiments.choices.joint [--cases 30]
"""

from __future__ import annotations

import argparse
import itertools
import time
from typing import Any

import numpy as np
import torch

from devices.simulators.design import Design, all_designs, area_mm2
from devices.simulators.roofline import estimate_layer
from experiments.choices.material import convolutions, keep
from experiments.results_index import record_claim
from nas.bits.allocation import Bits, allocate
from nas.bits.hardware import network_plans
from nas.bits.joint import design_table, joint_optimum
from search_spaces.errors import InfeasibleError, InputError

COMMAND = "python -m experiments.choices.joint"
OPTIONS = [Bits(8, 8), Bits(4, 8), Bits(4, 4), Bits(2, 8), Bits("fp8_e4m3", "fp8_e4m3")]
DESIGN: dict[str, Any] = {
    "version": 1,
    "bases": ["systolic-16x16", "bitfusion-16x32", "loom-16x16"],
    "rows": [4, 8, 16],
    "columns": [4, 8, 16],
    "activation_buffer_kib": [16, 64],
    "weight_buffer_kib": [16, 64],
    "bandwidth_gb_s": [0.5, 1.5],
    "limits": {"area_mm2": 0.6, "bandwidth_gb_s": 2.0},
}


def enumerated(
    plans: Any, hurt: list[list[float]], designs: list[Any], budget: float
) -> tuple[float, float] | None:
    """Return the least sensitivity within the budget, and the smallest area that has it."""
    best = None
    for hardware in designs:
        known: list[list[float | None]] = []
        for plan in plans.values():
            row: list[float | None] = []
            for bits in OPTIONS:
                try:
                    row.append(estimate_layer(plan, hardware, bits.weight, bits.activation)[0])
                except InputError:  # no units for the format
                    row.append(None)
            known.append(row)
        for chosen in itertools.product(range(len(OPTIONS)), repeat=len(plans)):
            times = [row[k] for row, k in zip(known, chosen, strict=True)]
            if any(t is None for t in times) or sum(times) > budget:  # type: ignore[arg-type]
                continue
            value = sum(row[k] for row, k in zip(hurt, chosen, strict=True))
            key = (round(value, 12), area_mm2(hardware))
            best = key if best is None or key < best else best
    return best


def main() -> None:
    """Compare, write and record."""
    parser = argparse.ArgumentParser(description=__doc__, prog=COMMAND)
    parser.add_argument("--cases", type=int, default=30)
    cases = parser.parse_args().cases
    torch.set_num_threads(1)
    started = time.process_time()
    torch.manual_seed(0)
    plans = network_plans(convolutions(), torch.randn(2, 1, 14, 14))
    every = list(all_designs(Design.model_validate(DESIGN)))
    rng = np.random.default_rng(0)
    equal, apart = 0, []
    for _ in range(cases):
        names = rng.choice(list(plans), 3, replace=False)
        some = {str(name): plans[str(name)] for name in names}
        designs = [every[k] for k in rng.choice(len(every), 8, replace=False)]
        hurt = _drawn(rng, len(some))
        least = min(_fastest(some, hurt, h) for h in designs)
        budget = float(least * rng.uniform(1.05, 2.5))
        wanted = enumerated(some, hurt, designs, budget)
        found = joint_optimum(some, [OPTIONS] * 3, hurt, designs, {"latency_ms": budget})
        got = (round(found.best.allocation.sensitivity, 12), found.best.area_mm2)
        close = wanted is not None and np.allclose(got, wanted, rtol=1e-9, atol=1e-9)
        equal += int(close)
        if not close:
            apart.append({"joint": got, "enumerated": wanted})
    ahead = [_against_one_after_the_other(plans, every, rng) for _ in range(10)]
    file = keep(
        "joint",
        {
            "designs": len(every),
            "cases": cases,
            "equal_to_enumeration": equal,
            "apart": apart,
            "one_after_the_other": ahead,
            "design": DESIGN,
            "latencies": "estimated by the roofline; sensitivities drawn, not measured",
        },
        COMMAND,
        started,
    )
    record_claim("hardware.joint_optimum", equal / cases, "1.0 of cases equal to enumeration",
                 equal == cases, file, COMMAND)  # fmt: skip


def _drawn(rng: np.random.Generator, layers: int) -> list[list[float]]:
    """Return sensitivities that grow as bits fall, by layer; of the float little."""
    scale = rng.lognormal(0, 1, layers)
    return [
        [0.01 * s, *(np.sort(rng.random(3)) * s).tolist(), 0.02 * s * rng.random()] for s in scale
    ]


def _fastest(plans: Any, hurt: list[list[float]], hardware: Any) -> float:
    table = design_table(plans, [OPTIONS] * len(plans), hurt, hardware)
    assert table is not None
    return table.range("latency_ms")[0]


def _against_one_after_the_other(
    plans: Any, designs: list[Any], rng: np.random.Generator
) -> dict[str, Any]:
    hurt = _drawn(rng, len(plans))
    options = [OPTIONS] * len(plans)
    at_eight = []
    for hardware in designs:
        ms = sum(estimate_layer(plan, hardware, 8, 8)[0] for plan in plans.values())
        at_eight.append((area_mm2(hardware), ms, hardware))
    budget = float(np.quantile([ms for _, ms, _ in at_eight], 0.3))
    # The engineer's way: the smallest array that runs int8 in 1.5 times the budget, then its bits.
    _, _, first = min((a, ms, h) for a, ms, h in at_eight if ms <= 1.5 * budget)
    joint = joint_optimum(plans, options, hurt, designs, {"latency_ms": budget})
    table = design_table(plans, options, hurt, first)
    assert table is not None
    try:
        then: float | None = allocate(table, {"latency_ms": budget}).sensitivity
    except InfeasibleError:
        then = None
    return {
        "budget_ms": budget,
        "one_after_the_other": {"design": first.name, "area_mm2": area_mm2(first),
                                "sensitivity": then},
        "joint": joint.best.to_json(),
    }  # fmt: skip


if __name__ == "__main__":
    main()
