"""What ``nas bits`` chooses beside bits: the accelerator, ranks, or sparsity, of each layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from nas.cli.bits.told import tell_judged, write_judged
from nas.cli.device_options import whole_numbers
from search_spaces.atomic import write_json_atomic
from search_spaces.errors import InputError


def with_design(
    source: Any,
    budgets: dict[str, str],
    design: Path,
    widths: list[int | str],
    inputs: list[int | str],
    output: Path,
    **options: Any,
) -> None:
    """Choose the accelerator together with the bits, within budgets given as numbers."""
    from devices.simulators.design import all_designs, read_design
    from nas.bits.joint import allocate_joint

    limits = {}
    for name, text in budgets.items():
        if name not in ("latency_ms", "energy_mj"):
            raise InputError(f"--budget {name}: with --design, latency_ms and energy_mj alone")
        try:
            limits[name] = float(text)
        except ValueError:
            raise InputError(
                f"--budget {name}={text}: with --design a number, for shares have no whole there"
            ) from None
    found, result = allocate_joint(
        source.module, source.calibration, limits, all_designs(read_design(design)),
        weight_bits=widths, activation_bits=inputs, **options,
    )  # fmt: skip
    about: dict[str, Any] = {
        **source.about,
        "seed": options["seed"],
        "hardware": f"{found.best.hardware.name}, estimated",
        "area_mm2": found.best.area_mm2,
        "designs": found.designs,
        "designs_within_budgets": found.feasible,
        "front": [point.to_json() for point in found.front],
    }
    path = write_judged(source, result, output, about)
    write_json_atomic(output / "hardware.json", found.best.hardware.model_dump(mode="json"))
    typer.echo(f"{found.feasible} of {found.designs} designs keep the budgets; estimates:")
    typer.echo(f"{'area mm2':>10}{'latency ms':>12}{'energy mJ':>12}{result.metric:>12}  design")
    for point in found.front:
        one = point.allocation
        typer.echo(
            f"{point.area_mm2:10.4f}{one.costs['latency_ms']:12.4g}{one.costs['energy_mj']:12.4g}"
            f"{one.sensitivity:12.4g}  {point.hardware.name}"
        )
    typer.echo(f"chosen: {found.best.hardware.name}")
    tell_judged(source, result, about)
    typer.echo(f"wrote {path}, {output / 'model.onnx'} and {output / 'hardware.json'}")


def with_ranks(
    source: Any,
    budgets: dict[str, str],
    ranks: str,
    weight_bits: str,
    activation_bits: str,
    edge_bits: int,
    metric: str,
    output: Path,
    seed: int,
) -> None:
    """Choose rank and bits of each layer, write the network, and tell what was found."""
    from nas.bits.ranks import allocate_ranks

    try:
        shares = [float(part) for part in ranks.split(",")]
    except ValueError:
        raise InputError(f"--ranks {ranks!r} is no list of shares such as 0.25,0.5") from None
    result = allocate_ranks(
        source.module, source.calibration, budgets, shares=shares, edge_bits=edge_bits or None,
        metric=metric, seed=seed, **_bits(weight_bits, activation_bits, "--ranks"),
    )  # fmt: skip
    typer.echo(_written(source, result, output, seed, list(result.budgets)))


def with_sparsity(
    source: Any,
    budgets: dict[str, str],
    sparsity: str,
    weight_bits: str,
    activation_bits: str,
    edge_bits: int,
    metric: str,
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
    result = allocate_sparsity(
        source.module, source.calibration, budgets, patterns=patterns, edge_bits=edge_bits or None,
        metric=metric, seed=seed, **_bits(weight_bits, activation_bits, "--sparsity"),
    )  # fmt: skip
    names = list(result.best.costs)
    heading = "method".ljust(20) + metric.rjust(12) + "".join(name.rjust(14) for name in names)
    wrote = _written(source, result, output, seed, names, heading)
    for name, why in result.refused.items():
        typer.echo(f"  {name} cannot have {why}")
    typer.echo(
        "sparse_kib is an estimate: the file stores zeros like other codes, and runtimes are no "
        "faster for them"
    )
    typer.echo(wrote)


def _bits(weight_bits: str, activation_bits: str, option: str) -> dict[str, Any]:
    """Return the arguments of bits of ``option``, which takes one number of bits for inputs."""
    widths = whole_numbers(weight_bits, "--weight-bits")
    inputs = whole_numbers(activation_bits, "--activation-bits")
    if len(inputs) != 1:
        raise InputError(f"--activation-bits {activation_bits}: with {option} give one")
    return {"weight_bits": widths, "activation_bits": inputs[0]}


def _written(
    source: Any, result: Any, output: Path, seed: int, names: list[str], heading: str = ""
) -> str:
    """Write a result, print its methods with the costs ``names``, and say where it lies."""
    about: dict[str, Any] = {**source.about, "seed": seed}
    path = write_judged(source, result, output, about)
    if heading:
        typer.echo(heading)
    for one in [result.best, *result.others]:
        costs = "".join(f"{one.costs[name]:14.6g}" for name in names)
        typer.echo(f"{one.method:20}{one.sensitivity:12.5g}{costs}")
    tell_judged(source, result, about)
    return f"wrote {path} and {output / 'model.onnx'}"
