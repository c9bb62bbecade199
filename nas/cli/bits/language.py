"""``nas bits`` for models of texts that others trained: decoders, and encoders of BERT's shape."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from search_spaces.errors import InputError
from search_spaces.number_formats import parse_number

if TYPE_CHECKING:
    from nas.bits.weights_alone import WeightBits

_UNITS = {
    "bits_per_byte": "bits per byte",
    "masked_loss": "nats for a masked word",
    "accuracy": "of the texts right",
}


def whole_bits(text: str) -> list[int]:
    """Return the bit-widths of ``--weight-bits`` for weights alone.

    Raises:
        InputError: others than 2, 3 and 4.
    """
    parts = [part.strip() for part in text.split(",")]
    if not set(parts) <= {"2", "3", "4"}:
        raise InputError(f"--weight-bits {text}: of a language model give some of 2, 3, 4")
    return [int(part) for part in parts]


def bits_of_texts(
    folder: Path,
    text: Path | None,
    labelled: Path | None,
    budgets: Mapping[str, str],
    output: Path,
    **form: Any,
) -> None:
    """Find the bits of a checkpoint's linear layers, write them, and tell what they cost.

    Args:
        folder: with ``config.json`` and safetensors.
        text, labelled: what calibrates and judges; one of them.
        budgets: by cost.
        output: folder for ``bits.json`` and ``layers.safetensors``.
        form: weight_bits, group and method of :func:`nas.bits.weights_alone.bits_by_weights`.

    Raises:
        InputError: neither or both of the data, or data that do not fit the model.
    """
    from nas.bits.weights_alone import write_weight_bits
    from supernet.checkpoints.encoder_config import is_encoder

    if is_encoder(folder):
        result = _of_encoder(folder, text, labelled, budgets, form)
    else:
        if labelled is not None:
            raise InputError("--labelled: a language model is judged on text; give --text FILE")
        result = _of_decoder(folder, text, budgets, form)
    data = {"text": str(text)} if labelled is None else {"labelled": str(labelled)}
    about = {"source": str(folder), **data, "group": form["group"], "quantiser": form["method"]}
    path = write_weight_bits(result, output, about=about)
    unit = _UNITS[result.metric]
    for one in (result.best, *result.others):
        costs = ", ".join(f"{name} {one.costs[name]:.6g}" for name in result.budgets)
        typer.echo(f"{one.method}: {result.judged[one.method]:.4f} {unit}, {costs}")
    typer.echo(f"float: {result.judged['float']:.4f} {unit}")
    typer.echo(f"wrote {path} and {output / 'layers.safetensors'}")


def _of_decoder(
    folder: Path, text: Path | None, budgets: Mapping[str, str], form: Mapping[str, Any]
) -> WeightBits:
    from nas.bits.language import language_bits, read_windows
    from supernet.checkpoints.weights import load_decoder

    if text is None:
        raise InputError("give the text to calibrate the language model with: --text FILE")
    model = load_decoder(folder)
    config = model.config
    windows = read_windows(text, folder, vocabulary=config.vocabulary, most=config.length)
    return language_bits(model, windows, budgets, **form)


def _of_encoder(
    folder: Path,
    text: Path | None,
    labelled: Path | None,
    budgets: Mapping[str, str],
    form: Mapping[str, Any],
) -> WeightBits:
    from nas.bits.encoder import encoder_bits, require_head
    from nas.bits.encoder_text import read_labelled, read_masked
    from supernet.checkpoints.encoder_weights import load_encoder

    if text is not None and labelled is not None:
        raise InputError("give one of --text and --labelled, as the encoder's head asks")
    model = load_encoder(folder)
    require_head(model)
    if model.head == "classes":
        if labelled is None:
            raise InputError(
                f"{folder} has a classifier; give texts and labels to calibrate it with: "
                "--labelled FILE.tsv"
            )
        data = read_labelled(labelled, folder, model.config)
    else:
        if text is None:
            raise InputError(
                f"{folder} tells masked words; give the text to calibrate it with: --text FILE"
            )
        data = read_masked(text, folder, model.config)
    return encoder_bits(model, *data, budgets, **form)


def numbers_of(option: str, text: str) -> list[int | str]:
    """Return the bits and formats that an option lists with commas."""
    found = [parse_number(part) for part in text.split(",")]
    if any(isinstance(b, int) and not (2 <= b <= 8 or b == 32) for b in found):
        raise InputError(f"{option} {text}: bits are 2 to 8, or 32 for float")
    return found
