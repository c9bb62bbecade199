"""``nas latency``: latency tables and the predictors learned from them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search_spaces.errors import InputError

if TYPE_CHECKING:
    from predictors.benchmark import Record
    from predictors.registry import Adapted, LatencyPredictor
    from search_spaces.tables.table import LatencyTable

app = typer.Typer(
    name="latency",
    help="Latency tables, and predictors that learn a new device from a few measurements.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

TablePath = Annotated[Path, typer.Argument(help="CSV or Parquet, one column a device.")]
SpaceName = Annotated[
    str | None,
    typer.Option(
        "--space",
        help="nasbench201, tokens (inferred from the column), or a registered space; "
        "default: what the table declares.",
    ),
]
Preset = Annotated[
    str | None, typer.Option("--preset", help="Of a registered space that has presets.")
]
ArchColumn = Annotated[
    str | None,
    typer.Option(
        "--arch-column",
        help="Header of the architecture column; several, with commas, are a token each.",
    ),
]
Missing = Annotated[
    str | None,
    typer.Option(
        "--missing",
        help="Values that stand for no measurement, comma-separated, as in --missing=-1.",
    ),
]
Seed = Annotated[int, typer.Option(help="Of everything random.")]


def read(
    path: Path,
    space: str | None,
    arch_column: str | None,
    preset: str | None = None,
    *,
    devices: bool = True,
    missing: str | None = None,
    only: Sequence[str | None] = (),
) -> LatencyTable:
    """Read a table in the space named, or in the one it declares; warn of what is odd.

    Args:
        devices: whether a table without any column of a device is an error.
        missing: values that stand for no measurement, comma-separated.
        only: options that name the columns to read, comma-separated; all are where none is given.
    """
    from search_spaces.spaces.registry import SPACES
    from search_spaces.tables.checks import table_warnings
    from search_spaces.tables.spaces import table_space
    from search_spaces.tables.table import declared_space, read_table

    name = space or declared_space(path)
    if name is None:
        raise InputError(
            f"{path} declares no search space; give one with --space (tokens serves any table)"
        )
    if space is None and ":" in name:
        # A file may not decide what code runs.
        raise InputError(f"{path} declares the space {name}; say so with --space {name}, too")
    found = table_space(name, preset=preset)
    asked = [text for text in only if text]

    def columns(header: Sequence[str]) -> list[str]:
        return [name for text in asked for name in names(text, header)]

    try:
        data = read_table(path, found, arch_column=arch_column, need_devices=devices,
                          missing=names(missing), only=columns if asked else None)  # fmt: skip
    except InputError as error:
        presets = getattr(SPACES.get(name), "PRESETS", ()) if name in SPACES else ()
        other = any(words in str(error) for words in ("is not a choice", "is not one of"))
        if preset is not None or not presets or not other:
            raise
        raise InputError(
            f"{error}\narchitectures of {name} with another preset are read with --preset "
            f"({', '.join(presets)}), and any of them with --space tokens"
        ) from error
    for line in table_warnings(data):
        print(f"{path}: warning: {line}", file=sys.stderr)
    return data


def names(text: str | None, known: Sequence[str] = ()) -> tuple[str, ...]:
    """Split a comma-separated option.

    Args:
        text: of the option.
        known: names that may hold commas themselves, as headers of columns do.
    """
    parts = (text or "").split(",")
    found: list[str] = []
    while parts:
        several = range(len(parts), 1, -1)
        length = next((n for n in several if ",".join(parts[:n]).strip() in known), 1)
        found.append(",".join(parts[:length]).strip())
        parts = parts[length:]
    return tuple(name for name in found if name)


def numbers(text: str | None, option: str) -> tuple[int, ...]:
    """Split a comma-separated option of row numbers."""
    try:
        return tuple(int(part) for part in names(text))
    except ValueError as error:
        raise InputError(f"{option} {text!r} is not a list of row numbers such as 3,14") from error


@app.command()
def benchmark(
    table: TablePath,
    space: SpaceName = None,
    arch_column: ArchColumn = None,
    preset: Preset = None,
    meta_train: Annotated[str, typer.Option(help="Known devices, comma-separated.")] = "",
    meta_valid: Annotated[
        str, typer.Option(help="Devices to choose hyperparameters by, never learned from.")
    ] = "",
    test: Annotated[str, typer.Option(help="Devices nobody has seen.")] = "",
    measurements: Annotated[int, typer.Option(help="Budget on each test device.")] = 10,
    pool: Annotated[int, typer.Option(help="Rows 0..P-1 to learn and measure from.")] = 900,
    holdout: Annotated[int, typer.Option(help="Rows after the pool that are scored.")] = 1000,
    references: Annotated[
        str | None, typer.Option(help="Further rows that may be measured; they count too.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Runs with other samples to measure.")] = 10,
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            "--methods",
            help="Comma-separated: transfer_gp (the default), help, one_known_device, "
            "known_devices_ridge, counts_ridge, log_ridge, macs, lookup, ridge, trees, target_gp, "
            "or of a plug-in.",
        ),
    ] = None,
    baselines: Annotated[
        bool, typer.Option(help="Print the baselines, too, where no --method is given.")
    ] = True,
    json: Annotated[Path | None, typer.Option("--json", help="Write the records here.")] = None,
    missing: Missing = None,
) -> None:
    """Score predictors on the test devices of a table; every measurement is counted.

    Without --method the file of --json holds the default predictor; the baselines are printed
    beside it.
    """
    from predictors.benchmark import (
        DEFAULT_METHOD,
        Split,
        baselines_for,
        run_benchmark,
        summary,
    )
    from search_spaces.atomic import write_json_atomic

    methods = names(method) or (DEFAULT_METHOD,)
    only = [meta_train, meta_valid, test] if meta_train and test else []
    data = read(table, space, arch_column, preset, missing=missing, only=only)
    split = Split(
        meta_train=names(meta_train, data.devices),
        meta_valid=names(meta_valid, data.devices),
        test=names(test, data.devices),
        measurements=measurements,
        pool=pool,
        holdout=holdout,
        references=numbers(references, "--references"),
    )

    def run(chosen: tuple[str, ...]) -> list[Record]:
        return run_benchmark(
            data,
            split,
            methods=chosen,
            seeds=seeds,
            progress=lambda line: print(line, file=sys.stderr),
        )

    records = run(methods)
    if json is not None:
        write_json_atomic(json, [record.as_dict() for record in records])
    if method is None and baselines:
        for baseline in baselines_for(data, split.meta_train):
            try:
                records += run((baseline,))
            except InputError as error:
                print(f"{baseline} is left out: {error}", file=sys.stderr)
    columns = (
        ("spearman", 9),
        ("spearman_trimmed", 17),
        ("kendall", 8),
        ("rmse_ms", 9),
        ("mape", 7),
        ("within_10_percent", 18),
        ("coverage_90", 12),
        ("adapt_ms", 9),
    )
    print(f"{'method':19} {'device':18}" + "".join(f"{n:>{w}}" for n, w in columns))
    for row in summary(records):
        # A space before each, however long the figure.
        figures = ["-" if row[n] is None else _figure(row[n]) for n, _ in columns]
        cells = "".join(f" {f:>{w - 1}}" for f, (_, w) in zip(figures, columns, strict=True))
        print(f"{row['method']:19} {row['device']:18}{cells}")


@app.command()
def fit(
    table: TablePath,
    output: Annotated[Path, typer.Option("--output", "-o", help="Predictor file to write.")],
    space: SpaceName = None,
    arch_column: ArchColumn = None,
    preset: Preset = None,
    devices: Annotated[
        str | None,
        typer.Option(
            help="Columns to learn from, comma-separated; default: all latencies but those of "
            "--valid; none: the architectures alone, for when no device is known."
        ),
    ] = None,
    valid: Annotated[
        str, typer.Option(help="Columns to choose hyperparameters by, never learned from.")
    ] = "",
    method: Annotated[str, typer.Option(help="transfer_gp or help.")] = "transfer_gp",
    seed: Seed = 0,
    missing: Missing = None,
) -> None:
    """Learn from the devices of a table."""
    from predictors.files import save_predictor
    from predictors.registry import LATENCY_PREDICTORS, SavedPredictor

    only = [devices, valid] if devices and devices != "none" else []
    data = read(table, space, arch_column, preset, devices=devices != "none", missing=missing,
                only=only)  # fmt: skip
    checks = names(valid, data.devices)
    latencies = (d for d in data.devices if data.metric(d) == "latency_ms" and d not in checks)
    chosen = () if devices == "none" else names(devices, data.devices) or tuple(latencies)
    both = sorted(set(chosen) & set(checks))
    if both:
        raise InputError(f"{both[0]!r} is given in --devices and --valid; take it out of one")
    if not chosen and devices != "none":
        raise InputError(
            f"{table} has no column of latencies; name the columns to learn from with "
            f"--devices (it has {', '.join(data.devices)})"
        )
    cls = LATENCY_PREDICTORS.get(method)
    if not issubclass(cls, SavedPredictor):
        raise InputError(f"the predictor {method!r} learns nothing from a table")
    predictor = cls(data.space, seed=seed)
    predictor.meta_fit(data.select(chosen), valid=data.select(checks) if checks else None)
    save_predictor(predictor, output)
    left_out: dict[str, str] = getattr(predictor, "left_out", {})
    for device, reason in left_out.items():
        print(f"{device} is left out: {reason}")
    for device, (given, used) in getattr(predictor, "rows_used", {}).items():
        if used < given:
            print(f"{device}: learned from {used} of {given} measurements")
    count = len(chosen) - len(left_out)
    print(f"{output}: {method} of {count} devices and {len(data)} architectures")


@app.command()
def suggest(
    predictor: Annotated[Path, typer.Argument(help="File of nas latency fit.")],
    table: TablePath,
    n: Annotated[int, typer.Option("--measurements", "-n", help="How many.")] = 10,
    arch_column: ArchColumn = None,
    seed: Seed = 0,
) -> None:
    """Print which architectures of a table to measure on a new device."""
    import numpy as np

    from predictors.files import load_predictor

    loaded = load_predictor(predictor)
    data = _read_archs(table, loaded, arch_column)
    text = getattr(loaded.space, "text", str)
    picked = loaded.suggest_genes(data, n, np.random.default_rng(seed))
    for arch in loaded.space.decode(data[picked]):
        print(text(arch))


@app.command()
def adapt(
    predictor: Annotated[Path, typer.Argument(help="File of nas latency fit.")],
    measured: TablePath,
    output: Annotated[Path, typer.Option("--output", "-o", help="Adapted file to write.")],
    device: Annotated[
        str | None, typer.Option(help="Column of the new device; default: the only one.")
    ] = None,
    arch_column: ArchColumn = None,
    missing: Missing = None,
) -> None:
    """Adapt to a device from a table of its measurements."""
    import numpy as np

    from predictors.files import load_predictor, save_adapted
    from search_spaces.tables.table import read_table

    loaded = load_predictor(predictor)
    asked = None if device is None else [device]
    data = read_table(measured, loaded.space, arch_column=arch_column, missing=names(missing),
                      only=None if asked is None else lambda header: asked)  # fmt: skip
    loaded.declare(data)
    if device is None and len(data.devices) > 1:
        raise InputError(f"{measured} has several devices; name one with --device")
    device = device or data.devices[0]
    values = data.column(device)
    rows = np.flatnonzero(np.isfinite(values))
    loaded.adapt_genes(data.genes[rows], _some(values[rows], measured, device))
    save_adapted(
        loaded,
        data.genes[rows],
        values[rows],
        output,
        device=device,
        metric=data.metric(device),
    )
    if len(rows) and np.ptp(values[rows]) == 0:
        told = f"the one measurement is {values[rows[0]]:g}"
        if len(rows) > 1:
            told = f"all {len(rows)} measurements are {values[rows[0]]:g}"
        print(
            f"{measured}: warning: {told}, which tells no architecture from another; measure more "
            "(nas latency suggest says which)",
            file=sys.stderr,
        )
    print(f"{output}: {loaded.name} adapted to {device} from {len(rows)} measurements")


@app.command()
def predict(
    adapted: Annotated[Path, typer.Argument(help="File of nas latency adapt.")],
    table: TablePath,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="CSV to write; default: print.")
    ] = None,
    arch_column: ArchColumn = None,
    coverage: Annotated[float, typer.Option(help="Of the interval, 0..1.")] = 0.9,
    budget: Annotated[
        float | None,
        typer.Option(help="Add P(latency <= BUDGET) as a column; in the device's unit."),
    ] = None,
) -> None:
    """Predict the latency of every architecture in a table."""
    import csv
    import io

    from predictors.files import load_adapted, read_metric
    from predictors.registry import check_budget
    from search_spaces.atomic import write_text_atomic

    if budget is not None:
        check_budget(budget)
    loaded, _ = load_adapted(adapted)
    metric = read_metric(adapted)
    unit = metric.rpartition("_")[2]
    genes = _read_archs(table, loaded, arch_column)
    mean, std = loaded.predict_genes(genes)
    low, high = loaded.interval_genes(genes, coverage)
    columns = {metric: mean, f"std_{unit}": std, f"low_{unit}": low, f"high_{unit}": high}
    if budget is not None:
        columns["probability_within"] = loaded.probability_within_genes(genes, budget)
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["arch", *columns])
    text = getattr(loaded.space, "text", str)
    for arch, *cells in zip(loaded.space.decode(genes), *columns.values(), strict=True):
        writer.writerow([text(arch), *(f"{cell:.6g}" for cell in cells)])
    if output is None:
        print(buffer.getvalue(), end="")
    else:
        write_text_atomic(output, buffer.getvalue())
        print(f"{output}: {len(genes)} predictions")


@app.command()
def neighbours(
    adapted: Annotated[Path, typer.Argument(help="File of nas latency adapt.")],
    plot: Annotated[
        Path | None, typer.Option(help="Write the device map here: .svg, or .html with plotly.")
    ] = None,
) -> None:
    """Show which known devices an adapted one resembles."""
    from nas.plots.board import write_resemblance_map
    from predictors.files import load_adapted
    from predictors.transfer_gp.adapted import AdaptedGP

    loaded, device = load_adapted(adapted)
    if not isinstance(loaded, AdaptedGP):
        raise InputError(f"{adapted} is not of the predictor transfer_gp")
    known = loaded.predictor.resemblance(loaded)
    for name, value in sorted(known.items(), key=lambda item: -item[1]):
        print(f"{name:24} {value:6.3f}")
    if plot is not None:
        count = write_resemblance_map(loaded, plot, device=device)
        print(f"{plot}: map of {count} devices")


@app.command()
def validate(
    table: TablePath,
    space: SpaceName = None,
    arch_column: ArchColumn = None,
    preset: Preset = None,
    missing: Missing = None,
) -> None:
    """Check a table; every bad cell is named with its line."""
    import numpy as np

    from search_spaces.tables.table import duplicate_rows

    data = read(table, space, arch_column, preset, missing=missing)
    print(f"{table}: {len(data)} architectures of {data.space.name}, {len(data.devices)} columns")
    for device in data.devices:
        values = data.column(device)
        finite = values[np.isfinite(values)]
        if finite.size == 0:
            print(f"  {device:24} {data.metric(device):12} no measurement")
            continue
        whole = " (whole numbers)" if np.all(finite == np.round(finite)) else ""
        print(
            f"  {device:24} {data.metric(device):12} {finite.size} measured, "
            f"{finite.min():.4g} to {finite.max():.4g}, median {np.median(finite):.4g}{whole}"
        )
    for name, values in data.costs.items():
        print(f"  {name:24} known cost   {int(np.isfinite(values).sum())} architectures")
    for first, again in duplicate_rows(data)[:10]:
        print(f"  row {again + 1} repeats the architecture of row {first + 1}")


@app.command()
def convert(
    table: TablePath,
    output: Annotated[Path, typer.Argument(help="CSV or Parquet file to write.")],
    space: SpaceName = None,
    arch_column: ArchColumn = None,
    preset: Preset = None,
    devices: Annotated[str | None, typer.Option(help="Columns to keep; default: all.")] = None,
    missing: Missing = None,
) -> None:
    """Import a foreign table: validate it and write it in this project's format."""
    from search_spaces.tables.table import write_table

    data = read(table, space, arch_column, preset, missing=missing, only=[devices])
    chosen = names(devices, data.devices)
    data = data.select(chosen) if chosen else data
    write_table(data, output)
    print(f"{output}: {len(data)} architectures, {len(data.devices)} columns")


def _figure(value: float) -> str:
    """Three decimals; large values, such as errors in bytes, in four digits."""
    return f"{value:.3f}" if abs(value) < 10000 else f"{value:.3g}"


def _read_archs(path: Path, loaded: LatencyPredictor | Adapted, arch_column: str | None):
    """Gene rows of the architecture column; the predictor is told the declared costs."""
    from search_spaces.tables.table import read_declarations

    table = read_declarations(path, loaded.space, arch_column=arch_column)
    loaded.declare(table)
    return table.genes


def _some(values, path: Path, device: str):
    if values.size == 0:
        raise InputError(f"{path} has no measurement of {device!r}")
    return values


if __name__ == "__main__":
    app()
