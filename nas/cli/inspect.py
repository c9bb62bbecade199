"""``nas inspect``: what a network consists of, and what may vary in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from nas.cli.device_options import Arguments, key_values
from search_spaces.errors import InputError

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def inspect(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="module:callable or file.py:callable that returns a torch network, timm:NAME, or "
            "an ONNX file.",
        ),
    ],
    input_shape: Annotated[
        str | None,
        typer.Option(
            "--input",
            metavar="CxHxW",
            help="Shape of one input; CxL of a signal, F of a vector. By default that of the ONNX "
            "file, of timm's network or of one of vectors, or 3x224x224.",
        ),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="State of the network, .safetensors.")
    ] = None,
    argument: Arguments = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """List a network's layers, which choices each may have, and what stands in the way.

    The network is read as every command reads it, and compared with itself on data.
    """
    from nas.bits.named_network import load_source
    from nas.models.inspection import inspect_network, inspection_lines

    shape = None if input_shape is None else _shape(input_shape)
    network = load_source(model, weights, arguments=key_values(argument, "--argument"))
    found = inspect_network(network, shape)
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=1))
        return
    for line in inspection_lines(found):
        typer.echo(line)


def _shape(text: str) -> tuple[int, ...]:
    try:
        sizes = tuple(int(part) for part in text.lower().split("x"))
    except ValueError:
        sizes = ()
    if len(sizes) > 3 or min(sizes, default=0) < 1:
        raise InputError(f"--input {text!r} is not of the form CxHxW, such as 3x224x224, CxL or F")
    return sizes
