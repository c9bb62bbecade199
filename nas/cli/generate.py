"""``nas generate``: text made, or answered, by a model of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nas.cli.bits.modes import given


def generate(
    context: typer.Context,
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="ID.onnx of a run's models.", show_default=False)
    ],
    prompt: Annotated[
        str, typer.Option(help="What the text begins with; of an encoder-decoder the source.")
    ] = "\n",
    lines: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Sources for an encoder-decoder, one a line, not one."),
    ] = None,
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
    """Go on with a text, by a model of language_modelling; or answer, by sequence_to_sequence.

    With ID-decode.onnx beside a language model keys and values are kept, otherwise each token runs
    the whole window. An encoder-decoder answers with the likeliest symbol each time, up to its end.

    \b
    nas generate runs/book/models/66ee79e702.onnx --prompt "In the beginning"
    nas generate runs/words/models/0b1d1c9f3e.onnx --prompt "neural"
    """
    from nas.models.language.notes import PAIRS, read_notes
    from search_spaces.errors import InputError

    if PAIRS in read_notes(model):
        unused = ("tokens", "temperature", "most_likely", "seed", "runtime")
        told = [f"--{name.replace('_', '-')}" for name in unused if given(context, name)]
        if told:
            raise InputError(
                f"{', '.join(told)}: {model.name} answers a source with the likeliest symbols, up "
                "to its end; leave it out"
            )
        _answer(model, prompt, lines, threads, asked=given(context, "prompt"))
        return
    if lines is not None:
        raise InputError(f"--lines is for encoder-decoders, and {model.name} goes on with a text")
    from nas.models.language.generate import TextGenerator

    generator = TextGenerator(model, threads=threads, runtime=runtime)
    pieces = generator.generate(
        prompt, tokens, temperature=temperature, most_likely=most_likely, seed=seed
    )
    typer.echo(prompt, nl=False)
    for piece in pieces:
        typer.echo(piece, nl=False)
    typer.echo()


def _answer(model: Path, prompt: str, lines: Path | None, threads: int, *, asked: bool) -> None:
    """Print what becomes of a source, or of each line of a file."""
    from nas.data.text.decoding import read_plain
    from nas.models.language.transduce import Transducer
    from search_spaces.errors import InputError

    if asked == (lines is not None):
        raise InputError("give one source with --prompt, or a file of sources with --lines")
    transducer = Transducer(model, threads=threads)
    if lines is None:
        typer.echo(transducer.answer(prompt))
        return
    for number, line in enumerate(read_plain(lines, option=None).splitlines(), start=1):
        try:
            typer.echo(f"{line}\t{transducer.answer(line)}")
        except InputError as error:
            raise InputError(f"{lines}:{number}: {error}") from error
