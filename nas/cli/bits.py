"""``nas bits``: the best mixed-precision allocation for a trained network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas.cli.bits_beside import judged, tell_judged, with_ranks, with_sparsity, write_judged
from nas.cli.bits_modes import check_mode, given
from nas.cli.device_options import (
    Authority,
    Hub,
    Options,
    TokenFile,
    chosen_device,
    key_values,
)
from search_spaces.atomic import write_json_atomic
from search_spaces.errors import InputError
from search_spaces.number_formats import parse_number

if TYPE_CHECKING:
    from nas.bits.device import DeviceCosts, Measure

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

Budget = Annotated[
    list[str] | None,
    typer.Option(
        "--budget",
        metavar="COST=MAX",
        help="weights_kib, bops, weight_bits_mean, latency_ms or energy_mj: a number, or a share "
        "such as bops=40% of what the largest bits cost. May be given several times.",
    ),
]


@app.command()
def bits(
    context: typer.Context,
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="module:callable or file.py:callable that returns a torch network, timm:NAME, an "
            "ONNX file, a run folder (with --pick), a model file in a run's models folder, or a "
            "folder with config.json and safetensors of a language model (with --text).",
        ),
    ],
    budget: Budget = None,
    output: Annotated[
        Path, typer.Option(metavar="DIR", help="Where bits.json and model.onnx are written.")
    ] = Path("bits"),
    weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="State of the network, .safetensors.")
    ] = None,
    pick: Annotated[
        str, typer.Option(metavar="knee|ID", help="Which architecture of a run.")
    ] = "knee",
    data: Annotated[
        str | None, typer.Option(help="Data set with calibration and validation images.")
    ] = None,
    data_path: Annotated[Path | None, typer.Option(help="Folder of the data set.")] = None,
    image_size: Annotated[int | None, typer.Option(min=1, help="Side of its images.")] = None,
    text: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Text to calibrate and judge a language model with."),
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            help="Of a language model's weights: nearest, gptq, awq, awq_gptq, planes or onebit."
        ),
    ] = "nearest",
    images: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Calibration images, .npy, instead of a data set."),
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Calibration images.")] = 512,
    weight_bits: Annotated[
        str,
        typer.Option(
            help="Allowed, with commas: bits, 32 being float, or number formats such as nf4."
        ),
    ] = "2,3,4,8",
    activation_bits: Annotated[
        str, typer.Option(help="Allowed, with commas: bits, or formats such as fp8_e4m3.")
    ] = "8",
    group: Annotated[
        int,
        typer.Option(
            min=0,
            help="Weights of a channel that share a scale, in number formats; 0 for all of them.",
        ),
    ] = 0,
    edge_bits: Annotated[
        int, typer.Option(min=0, help="Bits of the first and last layer; 0 lets them vary.")
    ] = 8,
    metric: Annotated[
        str, typer.Option(help="What a layer's bits cost: kl, logits_mse or output.")
    ] = "kl",
    layer_latencies: Annotated[
        Path | None,
        typer.Option(
            metavar="CSV", help="layer,weight_bits,activation_bits,latency_ms, for latency_ms."
        ),
    ] = None,
    ranks: Annotated[
        str | None,
        typer.Option(
            metavar="SHARES",
            help="Let layers become two of a smaller rank: shares of the ranks at which that is "
            "smaller, such as 0.125,0.25,0.5. Budgets: weights_kib, bops, macs.",
        ),
    ] = None,
    sparsity: Annotated[
        str | None,
        typer.Option(
            metavar="PATTERNS",
            help="Let layers have zeros among their weights: shares anywhere or N:M, such as "
            "50%,2:4. Budgets: sparse_kib (what sparse storage would take, an estimate), "
            "weights_kib, bops.",
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            metavar="D",
            help="Measure the layers on it, for latency_ms: a runtime of this machine "
            "(onnxruntime, lowbit, ...) or, with --hub, a board.",
        ),
    ] = None,
    runtime: Annotated[
        str, typer.Option(help="With --hub: registered name of the board's runtime.")
    ] = "onnxruntime",
    option: Options = None,
    hub: Hub = None,
    token_file: TokenFile = None,
    ca: Authority = None,
    protocol: Annotated[
        list[str] | None,
        typer.Option("--protocol", metavar="KEY=VALUE", help="Of the protocol; repeatable."),
    ] = None,
    hardware: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|JSON",
            help="Accelerator whose estimates are latency_ms and energy_mj, such as "
            "systolic-16x16, or a description of your own.",
        ),
    ] = None,
    design: Annotated[
        Path | None,
        typer.Option(
            metavar="JSON",
            help="Choose the accelerator, too: what may be built, within limits of area and "
            "bandwidth; budgets on latency_ms or energy_mj as numbers.",
        ),
    ] = None,
    adaround: Annotated[bool, typer.Option(help="Learn the rounding of the weights.")] = True,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
) -> None:
    """Find the bits of each layer that cost least accuracy within budgets, and export them.

    The allocation is the proven optimum of an integer programme over measured sensitivities.
    """
    from nas.bits.device import verify
    from nas.bits.hardware import hardware_costs
    from nas.bits.onnx_source import is_run_model
    from nas.bits.search import allocate_bits, write_bits
    from nas.bits.source import module_source, read_layer_latencies, run_source

    budgets = dict(_budget(text) for text in budget or ())
    if not budgets:
        raise InputError("give at least one budget, such as --budget weights_kib=60%")
    place = Path(model)
    language = (place / "config.json").is_file() or text is not None
    if language and text is None:
        raise InputError("give the text to calibrate the language model with: --text FILE")
    check_mode(context, language=language)
    if text is not None:
        # 8 bits and float are of layers with quantised inputs.
        weight_bits = weight_bits if given(context, "weight_bits") else "2,3,4"
        _language(place, text, budgets, output, weight_bits, group, method)
        return
    if place.is_dir() or is_run_model(place):
        source = run_source(Path(model), pick, images=count)
    else:
        source = module_source(
            model,
            weights=weights,
            data=data,
            data_path=data_path,
            image_size=image_size,
            array=images,
            images=count,
            seed=seed,
        )
    widths = _bits("--weight-bits", weight_bits)
    inputs = _bits("--activation-bits", activation_bits)
    latency_ms = energy_mj = costs = None
    if layer_latencies is not None:
        latency_ms = read_layer_latencies(layer_latencies)
    elif device is not None:
        measure = _measured_on(device, runtime, option, hub, token_file, ca, protocol)
        costs = _layers_on(source, widths, inputs, edge_bits or None, measure)
        latency_ms = costs.latency_ms
    elif hardware is not None:
        latency_ms, energy_mj = hardware_costs(source.module, source.calibration[0], hardware)
    output.mkdir(parents=True, exist_ok=True)
    if design is not None:
        _with_design(
            source, budgets, design, widths, inputs, output,
            metric=metric, edge_bits=edge_bits or None, adaround=adaround, seed=seed,
        )  # fmt: skip
        return
    if ranks is not None:
        with_ranks(source, budgets, ranks, weight_bits, activation_bits, edge_bits, output, seed)
        return
    if sparsity is not None:
        with_sparsity(
            source, budgets, sparsity, weight_bits, activation_bits, edge_bits, output, seed
        )
        return
    result = allocate_bits(
        source.module,
        source.calibration,
        budgets,
        metric=metric,
        weight_bits=widths,
        activation_bits=inputs,
        edge_bits=edge_bits or None,
        latency_ms=latency_ms,
        fixed_ms=0.0 if costs is None else costs.base_ms,
        energy_mj=energy_mj,
        group=group,
        adaround=adaround,
        work=output,
        seed=seed,
    )
    about: dict[str, Any] = {**source.about, "seed": seed}
    if hardware is not None:
        about["hardware"] = f"{hardware}, estimated"
    checked = source.calibration[0]
    if source.unmeasured:
        typer.echo(source.unmeasured, err=True)
    if source.validation is not None and source.evaluate is not None:
        about[source.metric_name] = _accuracies(
            source, result, adaround=adaround, seed=seed, group=group
        )
        checked = source.validation[0][0]
    if costs is not None:
        about["device"] = {"name": device, **costs.to_json()}
    path = write_bits(result, output, checked, about=about)
    for line in _told(result, about.get(source.metric_name, {}), source.metric_name):
        typer.echo(line)
    if costs is not None:
        found = verify(
            source.module,
            source.calibration,
            costs,
            dict(zip(result.table.layers, result.best.options, strict=True)),
            output / "model.onnx",
            measure,
            edge_bits=edge_bits or None,
        )
        written = json.loads(path.read_text(encoding="utf-8"))
        written["device"]["verified"] = found.to_json()
        write_json_atomic(path, written)
        typer.echo(
            f"on {device}: predicted {found.predicted_ms:.4g} ms, measured "
            f"{found.measured_ms:.4g} ms ({100 * found.error:.1f} % off); all layers at "
            f"{costs.base}: {found.base_ms:.4g} ms"
        )
    typer.echo(f"wrote {path} and {output / 'model.onnx'}")


def _measured_on(
    device: str,
    runtime: str,
    option: list[str] | None,
    hub: str | None,
    token_file: Path | None,
    ca: Path | None,
    protocol: list[str] | None,
) -> Measure:
    from devices.measuring.protocol import Protocol
    from nas.bits.device import on_device

    options = key_values(option, "--option")
    board = None if hub is None else device
    found = chosen_device(
        device if hub is None else runtime, 1, 1, options, hub, token_file, board, ca, False,
        None, None,
    )  # fmt: skip
    return on_device(found, Protocol.from_json(key_values(protocol, "--protocol")))


def _layers_on(
    source: Any,
    widths: list[int | str],
    inputs: list[int | str],
    edge_bits: int | None,
    measure: Measure,
) -> DeviceCosts:
    from nas.bits.allocation import Bits
    from nas.bits.device import measure_layers

    pairs = [Bits(w, a) for w in widths for a in inputs]
    # From the most bits down: the others are told against those.
    pairs.sort(key=lambda bits: (-bits.weight_bits, -bits.activation_bits))
    return measure_layers(source.module, source.calibration, pairs, measure, edge_bits=edge_bits)


def _with_design(
    source: Any,
    budgets: dict[str, str],
    design: Path,
    widths: list[int | str],
    inputs: list[int | str],
    output: Path,
    **options: Any,
) -> None:
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


def _language(
    folder: Path,
    text: Path,
    budgets: dict[str, str],
    output: Path,
    weight_bits: str,
    group: int,
    method: str,
) -> None:
    """Bits for a checkpoint's linear layers, by weights alone."""
    from nas.bits.language import language_bits, read_windows, write_language_bits
    from supernet.checkpoints.weights import load_decoder

    options = [b for b in _bits("--weight-bits", weight_bits) if b in (2, 3, 4)]
    if len(options) != len(weight_bits.split(",")):
        raise InputError(f"--weight-bits {weight_bits}: of a language model give some of 2, 3, 4")
    model = load_decoder(folder)
    config = model.config
    windows = read_windows(text, folder, vocabulary=config.vocabulary, most=config.length)
    result = language_bits(model, windows, budgets, weight_bits=options, group=group, method=method)
    about = {"source": str(folder), "text": str(text), "group": group, "quantiser": method}
    path = write_language_bits(result, output, about=about)
    for one in (result.best, *result.others):
        costs = ", ".join(f"{name} {one.costs[name]:.6g}" for name in result.budgets)
        bits = result.bits_per_byte[one.method]
        typer.echo(f"{one.method}: {bits:.4f} bits per byte, {costs}")
    typer.echo(f"float: {result.bits_per_byte['float']:.4f} bits per byte")
    typer.echo(f"wrote {path} and {output / 'layers.safetensors'}")


def _accuracies(
    source: Any, result: Any, *, adaround: bool, seed: int, group: int
) -> dict[str, float]:
    """Validation metric of the float network, the optimum and the baselines, by method."""
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


def _told(result: Any, accuracies: dict[str, float], measured: str) -> list[str]:
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


def _budget(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator:
        raise InputError(f"--budget {text!r} is not of the form COST=MAX, e.g. weights_kib=60%")
    return name.strip(), value


def _bits(option: str, text: str) -> list[int | str]:
    found = [parse_number(part) for part in text.split(",")]
    if any(isinstance(b, int) and not (2 <= b <= 8 or b == 32) for b in found):
        raise InputError(f"{option} {text}: bits are 2 to 8, or 32 for float")
    return found
