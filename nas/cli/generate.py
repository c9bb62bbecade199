"""``nas generate``: text made by a language model of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def generate(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="ID.onnx of a run's models.", show_default=False)
    ],
    prompt: Annotated[str, typer.Option(help="What the text begins with.")] = "\n",
    tokens: Annotated[int, typer.Option(min=1, help="How many tokens to make.")] = 200,
    temperature: Annotated[
        float, typer.Option(min=0, help="Of the draws; 0 takes the likeliest token each time.")
    ] = 0.8,
    most_likely: Annotated[
        int, typer.Option("--most-likely", min=1, help="Draw from so many of the likeliest.")
    ] = 40,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws.")] = 0,
    runtime: Annotated[str, typer.Option(help="onnxruntime or lowbit.")] = "onnxruntime",
    threads: Annotated[int, typer.Option(min=1, help="Of the runtime.")] = 1,
) -> None:
    """Go on with a text, by a model of the task language_modelling.

    With ID-decode.onnx beside the model keys and values are kept, otherwise each token runs the
    whole window.

    \b
    nas generate runs/book/models/66ee79e702.onnx --prompt "In the beginning"
    """
    from nas.models.language.generate import TextGenerator

    generator = TextGenerator(model, threads=threads, runtime=runtime)
    typer.echo(prompt, nl=False)
    pieces = generator.generate(
        prompt, tokens, temperature=temperature, most_likely=most_likely, seed=seed
    )
    for piece in pieces:
        typer.echo(piece, nl=False)
    typer.echo()
