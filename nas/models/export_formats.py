"""Handing over models of a finished run in several formats."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from nas.data.sources import OF_TEXT
from nas.models.card import ModelCard, input_output_text
from nas.models.formats.base import FORMATS, Format, Source, Written
from nas.models.hand_over import export_model, picked
from nas.report.results import load_results
from search_spaces.atomic import write_json_atomic, write_text_atomic
from search_spaces.errors import InputError, NasError

RECORD = "formats.json"
"""Beside the files: what was written, and how far it computes what the ONNX computes."""


def export_formats(
    run: Path,
    pick: str = "knee",
    output: Path | None = None,
    *,
    formats: Sequence[str] = ("onnx",),
    embed_preprocessing: bool = False,
    failed: Callable[[str, NasError], None] | None = None,
) -> list[Written]:
    """Write one model of a run's front in several formats, with card and labels.

    Args:
        run: folder of a run that has ended.
        pick: ``knee``, or the id of an entry of the front.
        output: folder to write to; by default ``RUN/export/ID``.
        formats: registered names.
        embed_preprocessing: uint8 pixels in and a class out, for the formats that can; the
            others are refused.
        failed: called with a format and its error where it cannot hold the model; the others are
            still written. By default the first error is raised.

    Returns:
        What was written, in the order of ``formats``; ``formats.json`` in the folder records it.

    Raises:
        InputError: an unknown format or id, or a model that a format cannot hold.
        MissingExtraError: a format needs a package that is not installed; no file is written.
    """
    chosen = checked(formats, embed_preprocessing=embed_preprocessing)
    run = Path(run)
    results = load_results(run)
    if embed_preprocessing and (results.get("task") or {}).get("targets") in OF_TEXT:
        raise InputError(
            "a model of texts takes numbers of tokens, which are no pixels to be scaled; export it "
            "without --embed-preprocessing"
        )
    entry = picked(results, pick, run)
    target = export_model(run, str(entry["id"]), output)
    card = ModelCard.from_results(results, entry, target)
    labels = tuple(str(name) for name in card.preprocessing.get("classes") or [])
    source = Source(
        target,
        card.id,
        labels=labels,
        costs={k: float(v) for k, v in card.costs.items()},
        preprocessing={
            key: card.preprocessing[key]
            for key in (
                "pixel_scale",
                "mean",
                "std",
                "layout",
                "channel_order",
                "one_class",
                "sound",
            )
            if key in card.preprocessing
        }
        # Data that say in words how they are made are values; the others are pixels.
        | {"bytes": not card.preprocessing["input"]},
        embed=embed_preprocessing,
        meaning=input_output_text(card.preprocessing),
        targets=str((results.get("task") or {}).get("targets") or "classes"),
    )
    written, errors = [], {}
    for part in chosen:
        if part.name == "onnx" and not embed_preprocessing:
            # The run's own file, byte for byte, as its card describes it.
            written.append(Written("onnx", (target.name,), 0.0, "the run's ONNX file"))
            continue
        try:
            written.append(part.write(source, target.parent))
        except NasError as error:
            if failed is None:
                raise
            errors[part.name] = str(error)
            failed(part.name, error)
    if labels:
        write_text_atomic(target.parent / f"{card.id}-labels.txt", "\n".join(labels) + "\n")
    record = {"model": card.id, "formats": [w.to_json() for w in written], "failed": errors}
    write_json_atomic(target.parent / RECORD, record)
    return written


def checked(formats: Sequence[str], *, embed_preprocessing: bool = False) -> list[type[Format]]:
    """Return the parts behind names, after checking that this machine can write them.

    Raises:
        InputError: an unknown or repeated name, or one that cannot embed pre-processing.
        MissingExtraError: a format needs a package that is not installed.
    """
    if not formats or len(set(formats)) != len(formats):
        raise InputError(f"formats are {', '.join(formats) or 'none'}; give each once")
    parts = [FORMATS.get(name) for name in formats]
    for part in parts:
        if embed_preprocessing and not part.embeds:
            able = ", ".join(name for name in FORMATS if FORMATS.get(name).embeds)
            raise InputError(
                f"the format {part.name!r} cannot hold the pre-processing (these can: {able}); "
                "export it without --embed-preprocessing, its scale and zero point stand in the "
                "model card"
            )
        part.require()
    return parts
