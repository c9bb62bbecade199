"""``nas study sparsity``: the largest network pruned, beside the front."""

from __future__ import annotations

from typing import Annotated

import typer

from nas.cli.study_options import (
    BatchSize,
    Images,
    LargestArch,
    Output,
    RunOrJob,
    dashed,
    studied,
    tell,
)


def sparsity(
    run: RunOrJob,
    output: Output = None,
    arch: LargestArch = None,
    patterns: Annotated[
        str, typer.Option(help="Shares of zeros, or N:M, with commas.")
    ] = "50%,75%,2:4,1:4",
    sizes: Annotated[
        int, typer.Option(min=0, help="Models of the front to stand beside, over its sizes.")
    ] = 4,
    train_steps: Annotated[
        int, typer.Option(min=0, help="Steps of training with the zeros kept.")
    ] = 0,
    learning_rate: Annotated[float, typer.Option(help="Peak rate of it.")] = 0.001,
    batch_size: BatchSize = 128,
    validation_images: Images = None,
    seed: Annotated[int, typer.Option(min=0, help="Of its images.")] = 0,
) -> None:
    """Prune the largest network by magnitude and hold it against the front at equal sizes.

    Zeros anywhere and N:M, in one shot and, with --train-steps, trained on. Sizes with zeros are
    what sparse storage would take, an estimate: files store zeros like other codes, and runtimes
    are no faster for them. Goes on where it was cut off.
    """
    from nas.report import write_report
    from nas.studies.source import find_source
    from nas.studies.sparsity import SparsityStudy
    from search_spaces.sparsity import parse_sparsity

    source = find_source(run)
    study = SparsityStudy(
        arch=arch,
        patterns=tuple(str(parse_sparsity(part)) for part in patterns.split(",")),
        sizes=sizes,
        train_steps=train_steps,
        learning_rate=learning_rate,
        batch_size=batch_size,
        images=validation_images,
        seed=seed,
    )
    result, folder = studied(study, source, output, "sparsity", on_record=tell)
    print(f"{result['metric']} of {result['arch']}, dense {result['dense_kib']:.2f} KiB")
    print(
        f"{'zeros':>8}{'one shot':>10}{'trained on':>12}{'KiB, estimated':>16}{'dense layers':>14}"
    )
    for row in result["rows"]:
        print(
            f"{row['pattern']:>8}{row['one_shot']:>10.4f}"
            f"{dashed(row.get('trained'), '.4f'):>12}{row['sparse_kib']:>16.2f}"
            f"{len(row['dense_layers']):>14}"
        )
    for row in result["front"]:
        model = row["model"]
        told = row.get("error")
        if told is None:
            reached = row.get("trained", row["one_shot"])
            told = f"{row['pattern']} pruned {reached:.4f}"
        print(f"{model['id']}: {model['validation']:.4f} in {model['weights_kib']:.2f} KiB; {told}")
    if (source.folder / "results.json").is_file():
        write_report(source.folder)
    print(f"written: {folder / 'sparsity.json'}")
