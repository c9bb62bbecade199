"""The files of a finished front in its run folder: models, cards, other formats."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence

from nas.models.language.parts import PARTS, part_path
from nas.record.result_types import Results
from nas.record.results import Verified
from nas.record.run_folder import RunStore
from search_spaces.errors import NasError


def keep_models(store: RunStore, front: Sequence[Verified]) -> None:
    """Copy the verified files of a front to the run's ``models``."""
    store.models.mkdir(exist_ok=True)
    for item in front:
        kept = store.models / f"{item.arch.id}.onnx"
        shutil.copy2(item.path, kept)
        for part in PARTS:
            if part_path(item.path, part).is_file():
                shutil.copy2(part_path(item.path, part), part_path(kept, part))


def write_cards(store: RunStore, results: Results) -> None:
    """Write the card of each model of the front beside it."""
    from nas.models.card import ModelCard

    for entry in results["front"]:
        model = store.folder / entry["model"]
        ModelCard.from_results(results, entry, model).write(store.models)


def export_front(
    store: RunStore, results: Results, formats: Sequence[str], tell: Callable[[str], None]
) -> None:
    """Write the front in other formats than ONNX; a model that one cannot hold is told."""
    from nas.models.export_formats import export_formats

    if list(formats) == ["onnx"]:
        return
    for entry in results["front"]:

        def failed(name: str, error: NasError, model: str = entry["id"]) -> None:
            tell(f"{model} is not exported as {name}: {error}")

        export_formats(store.folder, entry["id"], formats=list(formats), failed=failed)
