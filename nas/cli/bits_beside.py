"""What ``nas bits`` chooses beside bits: ranks, or sparsity, of each layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from nas.cli.device_options import whole_numbers
from search_spaces.errors import InputError


def with_ranks(
    source: Any,
    budgets: dict[str, str],
    ranks: str,
    weight_bits: str,
    activation_bits: str,
    edge_bits: int,
    output: Path,
    seed: int,
) -> None:
    """Choose rank and bits of each layer, write the network, and tell what was found."""
    from nas.bits.ranks import allocate_ranks

    try:
        shares = [float(part) for part in ranks.split(",")]
    except ValueError:
        raise InputError(f"--ranks {ranks!r} is no list of shares such as 0.25,0.5") from None
    widths = whole_numbers(weight_bits, "--weight-bits")
    inputs = whole_numbers(activation_bits, "--activation-bits")
    if len(inputs) != 1:
        raise InputError(f"--activation-bits {activation_bits}: with --ranks give one")
    result = allocate_ranks(
        source.module, source.calibration, budgets, shares=shares, weight_bits=widths,
        activation_bits=inputs[0], edge_bits=edge_bits or None, seed=seed,
    )  # fmt: skip
    about: dict[str, Any] = {**source.about, "seed": seed}
    path = write_judged(source, result, output, about)
    for one in [result.best, *result.others]:
        costs = "".join(f"{one.costs[name]:14.6g}" for name in result.budgets)
        typer.echo(f"{one.method:20}{one.sensitivity:12.5g}{costs}")
    tell_judged(source, result, about)
    typer.echo(f"wrote {path} and {output / 'model.onnx'}")


def write_judged(source: Any, result: Any, output: Path, about: dict[str, Any]) -> Path:
    """Write a result; ``about`` gets its validation metric and the float network's, if known."""
    from nas.bits.search import write_bits

    checked = source.calibration[0]
    if source.validation is not None and source.evaluate is not None:
        about[source.metric_name] = judged(source, result)
        checked = source.validation[0][0]
    return write_bits(result, output, checked, about=about)


def tell_judged(source: Any, result: Any, about: dict[str, Any]) -> None:
    """Print the metrics of both networks, and what each layer was given."""
    for name, value in about.get(source.metric_name, {}).items():
        typer.echo(f"{source.metric_name} of {name}: {value:.4f}")
    for name, option in zip(result.table.layers, result.best.options, strict=True):
        typer.echo(f"  {name}: {option}")


def with_sparsity(
    source: Any,
    budgets: dict[str, str],
    sparsity: str,
    weight_bits: str,
    activation_bits: str,
    edge_bits: int,
    output: Path,
    seed: int,
) -> None:
    """Choose zeros and bits of each layer, write the network, and tell what was found."""
    from nas.bits.sparsity import allocate_sparsity
    from search_spaces.sparsity import parse_sparsity

    try:
        patterns = [parse_sparsity(part) for part in sparsity.split(",")]
    except InputError as error:
        raise InputError(f"--sparsity {sparsity}: {error}") from None
    widths = whole_numbers(weight_bits, "--weight-bits")
    inputs = whole_numbers(activation_bits, "--activation-bits")
    if len(inputs) != 1:
        raise InputError(f"--activation-bits {activation_bits}: with --sparsity give one")
    result = allocate_sparsity(
        source.module, source.calibration, budgets, patterns=patterns, weight_bits=widths,
        activation_bits=inputs[0], edge_bits=edge_bits or None, seed=seed,
    )  # fmt: skip
    about: dict[str, Any] = {**source.about, "seed": seed}
    path = write_judged(source, result, output, about)
    typer.echo(
        "method".ljust(20) + "kl".rjust(12) + "".join(n.rjust(14) for n in result.best.costs)
    )
    for one in [result.best, *result.others]:
        costs = "".join(f"{value:14.6g}" for value in one.costs.values())
        typer.echo(f"{one.method:20}{one.sensitivity:12.5g}{costs}")
    tell_judged(source, result, about)
    for name, why in result.refused.items():
        typer.echo(f"  {name} cannot have {why}")
    typer.echo(
        "sparse_kib is an estimate: the file stores zeros like other codes, and runtimes are no "
        "faster for them"
    )
    typer.echo(f"wrote {path} and {output / 'model.onnx'}")


def judged(source: Any, result: Any) -> dict[str, float]:
    """Validation metric of the float network and of the optimum."""
    return {
        "float": source.evaluate(source.module, source.validation),
        "integer programme": source.evaluate(result.network, source.validation),
    }
