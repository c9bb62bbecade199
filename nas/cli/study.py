"""``nas study``: can the figures of a search be trusted?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas.cli.study_options import (
    BatchSize,
    FloatShare,
    Images,
    KneeArch,
    LargestArch,
    Output,
    Rate,
    RunOrJob,
    Seeds,
    Steps,
    Workers,
    dashed,
    listed,
    studied,
    tell,
)
from nas.cli.study_sparsity import sparsity
from nas.cli.study_update import update
from search_spaces.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nas.studies.source import Source
    from nas.studies.workers import AloneRecipe

app = typer.Typer(
    name="study",
    help="Studies of a trained supernet: does inherited accuracy rank as training alone does, "
    "what do shared bit-widths cost, what do early exits save, and what do faults in memory or "
    "zeros among weights cost, and what can be trained on a device? "
    "And of latency alone, on a table of your own.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback()
def _study() -> None:
    # Keeps the command names even while a group has a single command.
    pass


@app.command()
def ranking(
    run: RunOrJob,
    output: Output = None,
    subnets: Annotated[int, typer.Option(min=4, help="Architectures to compare.")] = 30,
    seeds: Seeds = 2,
    bits: Annotated[
        str, typer.Option(help="'mixed', or bits of all layers: 4, or W,A such as 4,8.")
    ] = "mixed",
    steps: Steps = None,
    batch_size: BatchSize = 128,
    learning_rate: Rate = None,
    float_share: FloatShare = 0.4,
    workers: Workers = 1,
    validation_images: Images = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the draw of architectures.")] = 0,
    proxies: Annotated[bool, typer.Option(help="Score the zero-cost proxies too.")] = True,
) -> None:
    """Compare inherited accuracy with training each of N stratified subnets alone.

    Every training is recorded as it ends; the same command goes on where it was cut off.
    """
    from nas.studies.ranking import RankingStudy
    from nas.studies.source import find_source

    source = find_source(run)
    pair = _bits(bits)
    study = RankingStudy(
        recipe=_recipe(source, steps, batch_size, learning_rate, float_share),
        subnets=subnets,
        seeds=seeds,
        bits=pair,
        seed=seed,
        images=validation_images,
        proxies=proxies,
    )
    name = "mixed" if pair is None else f"w{pair[0]}a{pair[1]}"
    result, folder = studied(
        study, source, output, f"ranking-{name}", workers=workers, on_record=_tell
    )
    print(f"{result['subnets_compared']} subnets, trainings of each: {result['seeds']}.")
    print("Kendall's tau with the accuracy of")
    print("training alone (95 % interval), over all pairs and over pairs of similar MACs:")
    print(f"{'':18}{'all':>24}{'similar MACs':>24}")
    for name, value in result["tau"].items():
        print(f"{name:18}{_shown(value):>24}{_shown(result['within_bins'][name]):>24}")
    if result["seeds"] > 1:
        cells = (result["ceiling"], result["ceiling_within_bins"])
        shown = [dashed(value, ".3f") for value in cells]
        print(f"{'seed to seed':18}{shown[0]:>24}{shown[1]:>24}")
    print(f"written: {folder / 'ranking.json'}")


@app.command(name="bits")
def bits_command(
    run: RunOrJob,
    output: Output = None,
    subnets: Annotated[int, typer.Option(min=1, help="Architectures to train on.")] = 4,
    arch: Annotated[
        list[str] | None, typer.Option(help="An architecture, as front.csv writes it; repeatable.")
    ] = None,
    bits: Annotated[
        str | None,
        typer.Option(help="Bit-widths, of weights and activations; by default the space's."),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps of each training.")] = 200,
    batch_size: BatchSize = 128,
    learning_rate: Annotated[float, typer.Option(help="Peak rate of each training.")] = 0.001,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each kind.")] = 1,
    workers: Workers = 1,
    validation_images: Images = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the draw of architectures.")] = 0,
) -> None:
    """Train architectures on with bit-widths sharing weights, and with each to itself.

    Both begin with the supernet's weights and take the same steps on the same images.
    """
    from nas.studies.bits import BitsStudy
    from nas.studies.source import find_source

    source = find_source(run)
    study = BitsStudy(
        bits=() if bits is None else _bit_list(bits),
        steps=steps,
        learning_rate=learning_rate,
        batch_size=batch_size,
        subnets=subnets,
        archs=tuple(arch or ()),
        seeds=seeds,
        seed=seed,
        images=validation_images,
    )
    result, folder = studied(study, source, output, "bits", workers=workers, on_record=_tell)
    print("percentage points that weights of their own gain over")
    print(f"{'bits':6}{'shared weights':>16}{'inherited ones':>16}")
    for width, row in result["differences"].items():
        print(
            f"{width:6}{row['dedicated_minus_shared']:>16.2f}"
            f"{row['dedicated_minus_inherited']:>16.2f}"
        )
    print(f"written: {folder / 'bits.json'}")


@app.command()
def exits(
    run: RunOrJob,
    output: Output = None,
    arch: LargestArch = None,
    device: Annotated[
        str | None, typer.Option(help="A device of the job, to measure the exits on.")
    ] = None,
    thresholds: Annotated[
        str | None, typer.Option(help="Confidences at which an image leaves, such as 0.8,0.9.")
    ] = None,
    gates: Annotated[
        str, typer.Option(help="Kinds of gates of the network that shares its trunk.")
    ] = "confidence,energy,learned",
    loss: Annotated[
        float, typer.Option(min=0, max=1, help="Accuracy that it may lose, as a share.")
    ] = 0.003,
    validation_images: Images = None,
) -> None:
    """Compare the early exits of an architecture: alone, as a cascade of files, and as one file.

    The one file shares its trunk, and a gate after each exit decides whether the rest runs; kinds
    of gates and thresholds are chosen on half of the validation images and told on the other.
    """
    from nas.studies.exits import THRESHOLDS, ExitsStudy
    from nas.studies.shared_exits import told_lines
    from nas.studies.source import find_source

    source = find_source(run)
    study = ExitsStudy(
        arch=arch,
        device=device,
        thresholds=THRESHOLDS if thresholds is None else _shares(thresholds),
        images=validation_images,
        gates=tuple(kind.strip() for kind in gates.split(",")),
        loss=loss,
    )
    result, folder = studied(study, source, output, "exits")
    print(f"{'exit':>10}{'accuracy':>10}{'MMACs':>10}{'KiB':>10}{'ms':>10}")
    for entry in result["exits"]:
        ms = dashed(entry.get("latency", {}).get("latency_ms"), ".3f")
        print(
            f"{entry['exit']:>10}{entry['accuracy']:>10.4f}{entry['macs'] / 1e6:>10.2f}"
            f"{entry['weights_kib']:>10.1f}{ms:>10}"
        )
    print("cascades: an image leaves once its class is at least so probable")
    print(f"{'exits':>10}{'from':>10}{'accuracy':>10}{'MMACs':>10}{'left early':>12}{'ms':>10}")
    for row in result["cascades"]:
        print(
            f"{','.join(map(str, row['exits'])):>10}{row['threshold']:>10.2f}"
            f"{row['accuracy']:>10.4f}{row['macs'] / 1e6:>10.2f}"
            f"{1 - row['left_at'][-1]:>12.3f}{dashed(row.get('latency_ms'), '.3f'):>10}"
        )
    for line in told_lines(result["shared"]):
        print(line)
    print(f"written: {folder / 'exits.json'}")


@app.command()
def faults(
    run: RunOrJob,
    output: Output = None,
    arch: KneeArch = None,
    rates: Annotated[
        str | None, typer.Option(help="Probabilities that a bit is faulty, such as 0.001,0.01.")
    ] = None,
    rate: Annotated[
        float, typer.Option(min=0, max=1, help="The one of layers, protection and training.")
    ] = 0.01,
    draws: Annotated[int, typer.Option(min=1, help="Faults drawn for each figure.")] = 5,
    protect: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the weights' bits that may be protected.")
    ] = 0.3,
    train_steps: Annotated[
        int, typer.Option(min=0, help="Steps of training with faults, and of as many without.")
    ] = 0,
    learning_rate: Annotated[float, typer.Option(help="Peak rate of both.")] = 0.001,
    batch_size: BatchSize = 128,
    validation_images: Images = None,
    seed: Annotated[int, typer.Option(min=0, help="Of every draw.")] = 0,
) -> None:
    """Flip bits of an architecture's weights and inputs, by rate and by layer.

    Tells what flipped bits, stuck cells and varying weights cost, which layers they hurt, which of
    them to protect within a share of the memory (an integer programme, beside simple rules), and
    how much training with faults wins back.
    """
    from nas.studies.faults import RATES, FaultsStudy
    from nas.studies.source import find_source

    source = find_source(run)
    study = FaultsStudy(
        arch=arch,
        rates=RATES if rates is None else _shares(rates, "--rates"),
        rate=rate,
        draws=draws,
        protect=protect,
        train_steps=train_steps,
        learning_rate=learning_rate,
        batch_size=batch_size,
        images=validation_images,
        seed=seed,
    )
    result, folder = studied(study, source, output, "faults", on_record=tell)
    print(f"{result['arch']}, weights {result['weights']}")
    print(f"{result['metric']} without faults: {result['clean']:.4f}")
    shown = [f"{value:g}" for value in study.rates]
    print(f"{'faults at rate':14}" + "".join(f"{value:>10}" for value in shown))
    for kind, row in result["kinds"].items():
        print(f"{kind:14}" + "".join(f"{row[value]['mean']:>10.4f}" for value in shown))
    print(f"lost with faults in one layer alone, at {rate:g}:")
    for name, layer in sorted(result["layers"].items(), key=lambda item: -item[1]["loss"])[:8]:
        print(f"  {name}: {layer['loss']:.4f}, {layer['bits']} bits")
    print(f"{'protected':18}{'layers':>8}{'share':>8}  {result['metric']:>12}")
    for method, row in result["protection"].items():
        print(f"{method:18}{len(row['layers']):>8}{row['share']:>8.3f}  {row['mean']:>12.4f}")
    if training := result.get("training"):
        for name in ("without", "with"):
            pair = training[name]
            print(f"trained {name} faults: {pair['clean']:.4f}, faulty {pair['faulty']:.4f}")
        if training["recovered_share"] is not None:
            print(f"of what faults cost, won back: {training['recovered_share']:.2f}")
    print(f"written: {folder / 'faults.json'}")


@app.command()
def value(
    run: RunOrJob,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of the study; by default RUN/studies/value. DIR.json is the result.",
        ),
    ] = None,
    family: Annotated[
        str | None,
        typer.Option(metavar="MODULE:FUNCTION", help="A family of your own; see the docs."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each member.")] = 1,
    sizes: Annotated[
        str | None,
        typer.Option(
            help="KiB of packed weights to compare at, such as 6,12,33; default: the "
            "members' own, which span the front's."
        ),
    ] = None,
    cpu_seconds: Annotated[
        float | None,
        typer.Option(min=0.001, help="For all members together; default: what the run spent."),
    ] = None,
    qat: Annotated[bool, typer.Option(help="Train each member by 8-bit QAT, too.")] = True,
    threads: Annotated[int, typer.Option(min=1, help="Of torch, in each process.")] = 1,
    workers: Annotated[int, typer.Option(min=1, help="Processes that train at a time.")] = 1,
    learning_rate: Annotated[float, typer.Option(help="Peak rate of the members.")] = 0.01,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Of the members; default: 128, or the winners' if that is less."),
    ] = None,
) -> None:
    """Train networks by hand-made design in the time of a run, and hold its front against them.

    The family gets the processor seconds that the whole run spent (on a GPU: the seconds that it
    held it), in equal shares. Each member is quantised to 8 bits after training and, in a training
    of its own of the same length, quantisation-aware; all are exported and measured among the
    front's models on the run's devices. Says how many points the front is ahead at equal size and
    at equal latency. Trainings are recorded as they end; the same command goes on.
    """
    from nas.report import write_report
    from nas.studies.source import find_source
    from nas.studies.value.study import ValueStudy
    from nas.studies.value.text import lines
    from nas.studies.value.training import TimedRecipe

    source = find_source(run)
    study = ValueStudy(
        family=family,
        sizes=None if sizes is None else _sizes(sizes),
        seeds=seeds,
        cpu_seconds=cpu_seconds,
        qat=qat,
        threads=threads,
        recipe=TimedRecipe(
            learning_rate=learning_rate,
            batch_size=batch_size or min(TimedRecipe.batch_size, source.job.finetune.batch_size),
        ),
    )
    result, folder = studied(
        study, source, output, "value", workers=workers, on_record=_tell_member, tell=tell
    )
    for line in lines(result):
        print(line)
    write_report(source.folder)
    print(f"written: {folder.parent / f'{folder.name}.json'}")


def _tell_member(done: int, total: int, record: Mapping[str, Any]) -> None:
    accuracies = "".join(
        f" {kind} {file['accuracy']:.4f}" for kind, file in record["files"].items()
    )
    tell(
        f"{done}/{total} {record['member']} seed {record['seed']}: "
        f"{record['training']['steps']} steps,{accuracies} ({record['seconds']:.0f} s)"
    )


def _sizes(text: str) -> tuple[float, ...]:
    refusal = f"--sizes {text!r} is no list of KiB such as 6,11.5,17,33,75"
    return tuple(sorted(set(listed(text, refusal, lambda size: 0 < size < float("inf")))))


def _shares(text: str, option: str = "--thresholds") -> tuple[float, ...]:
    refusal = f"{option} {text!r} is no list of probabilities such as 0.8,0.9"
    return listed(text, refusal, lambda value: 0 <= value <= 1)


def _bit_list(text: str) -> tuple[int, ...]:
    refusal = f"--bits {text!r} is no list of bit-widths such as 8,4,2"
    return listed(text, refusal, lambda bits: True, int)


def _bits(text: str) -> tuple[int, int] | None:
    if text == "mixed":
        return None
    try:
        parts = [int(part) for part in text.split(",")]
    except ValueError:
        parts = []
    if len(parts) not in (1, 2):
        raise InputError(f"--bits {text!r} is neither 'mixed' nor bits such as 4 or 4,8")
    return parts[0], parts[-1]


def _recipe(
    source: Source,
    steps: int | None,
    batch_size: int,
    learning_rate: float | None,
    float_share: float,
) -> AloneRecipe:
    from nas.models.own_network import learning_rate as shared_rate
    from nas.studies.source import default_steps
    from nas.studies.workers import AloneRecipe

    config = source.job.supernet
    return AloneRecipe(
        steps=default_steps(source, batch_size) if steps is None else steps,
        batch_size=batch_size,
        learning_rate=shared_rate(config.learning_rate, trained=False)
        if learning_rate is None
        else learning_rate,
        weight_decay=config.weight_decay,
        float_share=float_share,
    )


def _tell(done: int, total: int, record: Mapping[str, Any]) -> None:
    seed = f" seed {record['seed']}" if record["kind"] == "alone" else ""
    values = record.get("accuracy", {})
    values = values if isinstance(values, dict) else {"accuracy": values}
    accuracy = "".join(f" {name} {value:.4f}" for name, value in values.items())
    tell(f"{done}/{total} {record['kind']}{seed}{accuracy} ({record['seconds']:.0f} s)")


def _shown(value: Mapping[str, float | None]) -> str:
    if value["tau"] is None:
        return "-"
    return f"{value['tau']:.3f} ({value['low']:.3f} {value['high']:.3f})"


@app.command()
def latency(
    study: Annotated[Path, typer.Argument(metavar="STUDY", help="The study, a YAML file.")],
    output: Annotated[Path, typer.Option(metavar="DIR", help="Where results are written.")] = Path(
        "latency-study"
    ),
) -> None:
    """Predict a new device from a few measurements, on a latency table of your own.

    No data set and no training. Where the device's column has too few cells, it says which
    architectures to measure; fill them in and call it again. The file names the table, the known
    devices and the new one; see experiments/latency_study/study.yaml.
    """
    from nas.studies.latency import run_study

    found = run_study(study, output)
    if found.wanted:
        typer.echo("measure these, write them into the table, and call this again:")
        for text in found.wanted:
            typer.echo(f"  {text}")
    for name, value in (found.scores or {}).items():
        if value is not None:
            typer.echo(f"{name.replace('_', ' '):<20}{value:.4g}")
    for file in found.files:
        typer.echo(f"wrote {file}")


app.command()(sparsity)
app.command()(update)
