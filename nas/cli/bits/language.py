"""``nas bits --text``: bits for the linear layers of a language model, by weights alone."""

from __future__ import annotations

from pathlib import Path

import typer

from search_spaces.errors import InputError
from search_spaces.number_formats import parse_number


def language_model(
    folder: Path,
    text: Path,
    budgets: dict[str, str],
    output: Path,
    weight_bits: str,
    group: int,
    method: str,
) -> None:
    """Find bits for a checkpoint's linear layers, by weights alone."""
    from nas.bits.language import language_bits, read_windows, write_language_bits
    from supernet.checkpoints.weights import load_decoder

    options = [b for b in numbers_of("--weight-bits", weight_bits) if b in (2, 3, 4)]
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


def numbers_of(option: str, text: str) -> list[int | str]:
    """Return the bits and formats that an option lists with commas."""
    found = [parse_number(part) for part in text.split(",")]
    if any(isinstance(b, int) and not (2 <= b <= 8 or b == 32) for b in found):
        raise InputError(f"{option} {text}: bits are 2 to 8, or 32 for float")
    return found
