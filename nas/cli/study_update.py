"""``nas study update``: which layers a device trains within its memory."""

from __future__ import annotations

from typing import Annotated

import typer

from nas.cli.study_options import Images, KneeArch, Output, RunOrJob, listed, studied, tell


def update(
    run: RunOrJob,
    memory_kib: Annotated[
        float, typer.Option(min=0.001, help="KiB that a step of training may need at once.")
    ],
    output: Output = None,
    arch: KneeArch = None,
    shares: Annotated[
        str, typer.Option(help="Shares of a layer's input channels that may be trained.")
    ] = "0.125,0.25,0.5,1",
    optimizer: Annotated[str, typer.Option(help="sgd or momentum.")] = "sgd",
    batch: Annotated[int, typer.Option(min=1, help="Examples of a step.")] = 1,
    gradient_bits: Annotated[int, typer.Option(help="Of gradients: 8, 16 or 32.")] = 32,
    steps: Annotated[
        int, typer.Option(min=0, help="Steps of training in integers, of each row.")
    ] = 0,
    learning_rate: Annotated[float, typer.Option(help="Of it.")] = 0.01,
    gain: Annotated[float, typer.Option(help="Images on the device are GAIN times x")] = 0.6,
    offset: Annotated[float, typer.Option(help="plus OFFSET, after normalisation.")] = 0.4,
    validation_images: Images = None,
    seed: Annotated[int, typer.Option(min=0, help="Of images and rounding.")] = 0,
) -> None:
    """Choose the layers and channels to train on a device within a budget of memory.

    By what they contribute, squared gradients on images of a sensor that has drifted, and what a
    step needs at once: kept activations, masks, gradients, the optimiser's numbers. With --steps
    the update is done in integers with quantisation-aware scaling, beside the last layers that fit
    and beside training everything.
    """
    from nas.studies.source import find_source
    from nas.studies.update import UpdateStudy

    refusal = f"--shares {shares!r} is no list of shares above 0, to 1, such as 0.25,1"
    parts = tuple(sorted(set(listed(shares, refusal, lambda part: 0 < part <= 1))))
    source = find_source(run)
    study = UpdateStudy(
        memory_kib=memory_kib, arch=arch, shares=parts, optimizer=optimizer, batch=batch,
        gradient_bits=gradient_bits, steps=steps, learning_rate=learning_rate, gain=gain,
        offset=offset, images=validation_images, seed=seed,
    )  # fmt: skip
    result, folder = studied(study, source, output, "update", on_record=tell)
    print(f"{result['arch']}, weights {result['weights']}")
    print(
        f"{result['metric']}: {result['without_shift']:.4f}, on drifted images "
        f"{result['untrained']:.4f}; inference needs {result['inference_kib']:.2f} KiB"
    )
    for name, row in result["updates"].items():
        metric = f", {result['metric']} {row['metric']:.4f}" if "metric" in row else ""
        parts_kib = ", ".join(
            f"{part.replace('_', ' ')} {row['bytes'][part] / 1024:.2f}"
            for part in ("kept", "masks", "gradients", "weight_gradients", "optimizer", "weights")
        )
        print(f"{name}: {row['peak_kib']:.2f} KiB ({parts_kib}){metric}")
    for layer, share in result["updates"]["chosen"]["layers"].items():
        print(f"  {layer}: {'bias' if share == 0 else f'{share:g} of its inputs'}")
    print(f"written: {folder / 'update.json'}")
