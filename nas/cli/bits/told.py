"""What ``nas bits`` says of a result: the metric of every allocation, and its layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer


def write_judged(source: Any, result: Any, output: Path, about: dict[str, Any]) -> Path:
    """Write a result; ``about`` gets its validation metric and the float network's, if known."""
    from nas.bits.search import write_bits

    checked = source.calibration[0]
    if source.validation is not None and source.evaluate is not None:
        about[source.metric_name] = judged(source, result)
        checked = source.validation[0][0]
    return write_bits(result, output, checked, about=about)


def tell_judged(source: Any, result: Any, about: dict[str, Any]) -> None:
    """Print the metric of each network and the options of each layer."""
    for name, value in about.get(source.metric_name, {}).items():
        typer.echo(f"{source.metric_name} of {name}: {value:.4f}")
    for name, option in zip(result.table.layers, result.best.options, strict=True):
        typer.echo(f"  {name}: {option}")


def judged(source: Any, result: Any) -> dict[str, float]:
    """Return the validation metric of the float network and of the optimum."""
    return {
        "float": source.evaluate(source.module, source.validation),
        "integer programme": source.evaluate(result.network, source.validation),
    }


def accuracies(
    source: Any, result: Any, *, adaround: bool, seed: int, group: int
) -> dict[str, float]:
    """Return the validation metric of the float network, the optimum and baselines, by method."""
    from nas.bits.search import STEPS, assignment
    from supernet.ptq.quantize import quantize_post_training

    found = judged(source, result)
    steps = (*STEPS, "adaround") if adaround else STEPS
    for other in result.others:
        network = quantize_post_training(
            source.module,
            source.calibration,
            assignment(result.table, other),
            steps=steps,
            seed=seed,
            group=group,
        )
        found[other.method] = source.evaluate(network, source.validation)
    return found


def told(result: Any, accuracies: dict[str, float], measured: str) -> list[str]:
    """Return the table of methods, the budgets, the proof and the bits of each layer, as lines."""
    names = list(result.budgets)
    width = max(len(a.method) for a in [result.best, *result.others]) + 2
    head = "method".ljust(width) + result.metric.rjust(12) + "".join(n.rjust(18) for n in names)
    lines = [head + (f"  {measured:>8}" if accuracies else "")]
    for one in [result.best, *result.others]:
        line = one.method.ljust(width) + f"{one.sensitivity:12.5g}"
        line += "".join(f"{one.costs[n]:18.6g}" for n in names)
        if accuracies:
            line += f"  {accuracies[one.method]:{max(8, len(measured))}.4f}"
        lines.append(line)
    lines.append("budget".ljust(width + 12) + "".join(f"{result.budgets[n]:18.6g}" for n in names))
    if accuracies:
        lines.append(f"float network: {accuracies['float']:.4f}")
    gap = result.best.proven_gap
    state = "proven optimum" if result.best.optimal else "not proven: time limit"
    lines.append(f"{state}, gap {gap:.3g} of {result.best.sensitivity:.5g}, "
                 f"{result.best.seconds:.2f} s")  # fmt: skip
    for name, option in zip(result.table.layers, result.best.options, strict=True):
        lines.append(f"  {name}: {option}")
    return lines
