"""The command ``nas bits``: which kind of allocation a call asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from nas.cli.bits.beside import with_design, with_ranks, with_sparsity
from nas.cli.bits.language import bits_of_texts, numbers_of, whole_bits
from nas.cli.bits.measured import layers_on, measured_on, tell_verified
from nas.cli.bits.modes import check_mode, given
from nas.cli.bits.told import LayersTold, accuracies, told
from nas.cli.device_options import (
    Arguments,
    Authority,
    BoardRuntime,
    Hub,
    NormalisationOption,
    Options,
    ProtocolOptions,
    TokenFile,
    key_values,
)
from search_spaces.errors import InputError

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
            "folder with config.json and safetensors of a language model or encoder (with --text).",
        ),
    ],
    budget: Budget = None,
    output: Annotated[
        Path, typer.Option(metavar="DIR", help="Where bits.json and model.onnx are written.")
    ] = Path("bits"),
    weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="State of the network, .safetensors.")
    ] = None,
    argument: Arguments = None,
    pick: Annotated[
        str, typer.Option(metavar="knee|ID", help="Which architecture of a run.")
    ] = "knee",
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|NAME",
            help="Folder of pictures by class, or a data set, with calibration and validation "
            "images.",
        ),
    ] = None,
    data_path: Annotated[Path | None, typer.Option(help="Folder of the data set.")] = None,
    image_size: Annotated[int | None, typer.Option(min=1, help="Side of its images.")] = None,
    normalisation: NormalisationOption = None,
    text: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Text to calibrate and judge a language model with."),
    ] = None,
    labelled: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Texts and labels (TSV), the same of a classifier."),
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            help="Of a language model's weights: nearest, gptq, awq, awq_gptq, planes or onebit."
        ),
    ] = "nearest",
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Calibration images instead of a data set, .npy: floats as the network takes "
            "them, or uint8 pixels with --normalisation.",
        ),
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
        str | None,
        typer.Option(
            help="What a layer's bits cost: kl, logits_mse or output. By default kl, or logits_mse "
            "of a run whose outputs are no classes."
        ),
    ] = None,
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
    runtime: BoardRuntime = "onnxruntime",
    option: Options = None,
    hub: Hub = None,
    token_file: TokenFile = None,
    ca: Authority = None,
    protocol: ProtocolOptions = None,
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
    from nas.bits.hardware import hardware_costs
    from nas.bits.onnx_source import is_run_model
    from nas.bits.search import allocate_bits, write_bits
    from nas.bits.source import module_source, read_layer_latencies, run_source
    from nas.job.compress import INPUTS_OF_DATA

    budgets = dict(_budget(text) for text in budget or ())
    if not budgets:
        raise InputError("give at least one budget, such as --budget weights_kib=60%")
    place = Path(model)
    language = (place / "config.json").is_file() or text is not None or labelled is not None
    check_mode(context, language=language)
    if language:
        # 8 bits and float are of layers with quantised inputs.
        weight_bits = weight_bits if given(context, "weight_bits") else "2,3,4"
        form: dict[str, Any] = {"weight_bits": whole_bits(weight_bits)}
        form |= {"group": group, "method": method}
        bits_of_texts(place, text, labelled, budgets, output, **form)
        return
    if place.is_dir() or is_run_model(place):
        source = run_source(Path(model), pick, images=count)
    else:
        source = module_source(
            model,
            weights=weights,
            arguments=key_values(argument, "--argument"),
            data=data,
            data_path=data_path,
            image_size=image_size,
            normalisation=_asked(normalisation),
            array=images,
            images=count,
            seed=seed,
        )
    if data is not None and normalisation is None and source.from_data:
        typer.echo(INPUTS_OF_DATA)
    for line in source.told:
        typer.echo(line)
    metric = metric or source.change
    widths = numbers_of("--weight-bits", weight_bits)
    inputs = numbers_of("--activation-bits", activation_bits)
    latency_ms = energy_mj = costs = None
    if layer_latencies is not None:
        latency_ms = read_layer_latencies(layer_latencies)
    elif device is not None:
        measure = measured_on(device, runtime, option, hub, token_file, ca, protocol)
        costs = layers_on(source, widths, inputs, edge_bits or None, measure)
        latency_ms = costs.latency_ms
    elif hardware is not None:
        latency_ms, energy_mj = hardware_costs(source.module, source.calibration[0], hardware)
    output.mkdir(parents=True, exist_ok=True)
    if design is not None:
        with_design(
            source, budgets, design, widths, inputs, output,
            metric=metric, edge_bits=edge_bits or None, adaround=adaround, seed=seed,
        )  # fmt: skip
        return
    for beside, values in ((with_ranks, ranks), (with_sparsity, sparsity)):
        if values is not None:
            beside(
                source, budgets, values, weight_bits, activation_bits, edge_bits, metric, output,
                seed,
            )  # fmt: skip
            return
    layers = LayersTold()
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
        told=layers,
    )
    about: dict[str, Any] = {**source.about, "seed": seed}
    if hardware is not None:
        about["hardware"] = f"{hardware}, estimated"
    checked = source.calibration[0]
    if source.unmeasured:
        typer.echo(source.unmeasured, err=True)
    if source.validation is not None and source.evaluate is not None:
        about[source.metric_name] = accuracies(
            source, result, adaround=adaround, seed=seed, group=group, layers=layers
        )
        checked = source.validation[0][0]
    if costs is not None:
        about["device"] = {"name": device, **costs.to_json()}
    path = write_bits(result, output, checked, about=about)
    for line in told(result, about.get(source.metric_name, {}), source.metric_name):
        typer.echo(line)
    if costs is not None:
        assert device is not None
        tell_verified(source, result, costs, measure, device, path, edge_bits=edge_bits or None)
    typer.echo(f"wrote {path} and {output / 'model.onnx'}")


def _asked(normalisation: str | None) -> Any:
    """Return what ``--normalisation`` says; ``data`` stays, so that nothing is looked up."""
    from nas.job.compress import read_normalisation

    if normalisation in (None, "data"):
        return normalisation
    return read_normalisation(str(normalisation))


def _budget(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator:
        raise InputError(f"--budget {text!r} is not of the form COST=MAX, e.g. weights_kib=60%")
    return name.strip(), value
