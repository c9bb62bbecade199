"""What ``nas bits`` says of a result: the metric of every allocation, and its layers."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import typer

from nas.stages.progress import LOG_EVERY_S, Progress


class LayersTold:
    """Says now and then how many layers are done, for works of minutes.

    Args:
        progress: where it is said.
        clock: seconds, monotonic; for tests.
    """

    def __init__(
        self, progress: Progress | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._progress = progress or Progress()
        self._clock = clock
        self._last = clock()

    def __call__(self, work: str, done: int, of: int) -> None:
        """Take how many of all layers are done; a line follows every 15 seconds at most."""
        now = self._clock()
        if now - self._last >= LOG_EVERY_S:
            self._last = now
            self._progress.log(f"{work}: {done} of {of} layers")


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
    source: Any, result: Any, *, adaround: bool, seed: int, group: int, layers: LayersTold
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
            on_layer=partial(layers, f"quantisation as {other.method}"),
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
