"""Handing over one model of a finished run."""

from __future__ import annotations

import difflib
import hashlib
import shutil
from functools import partial
from pathlib import Path
from typing import Any

from nas.models.card import ModelCard
from nas.models.language.parts import PARTS, part_path
from nas.record.result_types import Results
from nas.report.results import is_file_name, load_results
from search_spaces.atomic import write_atomic
from search_spaces.errors import EnvironmentProblem, InputError


def export_model(run: Path, pick: str = "knee", output: Path | None = None) -> Path:
    """Copy one model of a run's front and write its model card beside it.

    Args:
        run: folder of a run that has ended.
        pick: ``knee``, or the id of an entry of the front.
        output: folder to write to; by default ``RUN/export/ID``.

    Returns:
        Path of the copied model; ``ID.json`` and ``ID.md`` lie beside it.

    Raises:
        InputError: the run has no results or an empty front, the id is unknown, or the model
            file is missing or is not the one its card tells of.
        EnvironmentProblem: the copy differs from the original.
    """
    run = Path(run)
    results = load_results(run)
    entry = picked(results, pick, run)
    source = _model_file(run, entry)
    card = ModelCard.from_results(results, entry, source)
    _compare_with_recorded(run, card)
    folder = Path(output) if output is not None else run / "export" / card.id
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; give a folder with --output")
    target = folder / card.file
    if target.resolve() != source.resolve():
        write_atomic(target, lambda temporary: _copy(source, temporary))
        for part in PARTS:
            beside = part_path(source, part)
            if beside.is_file():
                write_atomic(part_path(target, part), partial(_copy, beside))
    if _sha256(target) != card.sha256:
        raise EnvironmentProblem(f"{target} differs from {source} after copying; check the disk")
    card.write(folder)
    return target


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)


def picked(results: Results, pick: str, run: Path) -> dict[str, Any]:
    """Return the entry of the front that ``pick`` names: ``knee`` or an id.

    Raises:
        InputError: there is none, or one in the front has an id that is no name of a file: what
            is exported is named by it.
    """
    for entry in results["front"]:
        if not is_file_name(str(entry["id"])):
            raise InputError(
                f"{run}: the front has the id {str(entry['id'])[:80]!r}; an id names files, so it "
                "may hold only letters, digits and . _ + - and begins with one of the first two"
            )
    front = results["front"]
    if not front:
        raise InputError(
            f"{run} has an empty front: no architecture satisfied the constraints, so there is "
            "no model to export"
        )
    if pick == "knee":
        for entry in front:
            if entry.get("knee"):
                return entry
        raise InputError(f"{run} records no knee; pick an id: {_listed(front)}")
    for entry in front:
        if str(entry["id"]) == pick:
            return entry
    ids = [str(entry["id"]) for entry in front]
    near = difflib.get_close_matches(pick, ["knee", *ids], n=3)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    rejected = [e for e in results["rejected"] if str(e.get("id")) == pick]
    if rejected:
        why = rejected[0].get("why") or "it did not make the front"
        raise InputError(f"{pick!r} was verified and rejected: {why}; pick from {_listed(front)}")
    raise InputError(f"no model {pick!r} in the front of {run}{hint} (knee, {_listed(front)})")


def _listed(front: list[dict[str, Any]], limit: int = 20) -> str:
    ids = [str(entry["id"]) for entry in front]
    more = f" and {len(ids) - limit} more, see front.csv" if len(ids) > limit else ""
    return ", ".join(ids[:limit]) + more


def _model_file(run: Path, entry: dict[str, Any]) -> Path:
    recorded = entry.get("model")
    if not recorded:
        raise InputError(f"{run} records no model file of {entry['id']!r}")
    path = run / str(recorded)
    # A results file from elsewhere must not name files outside its run.
    if run.resolve() not in path.resolve().parents:
        raise InputError(f"the model of {entry['id']!r} lies outside {run}: {recorded}")
    if not path.is_file():
        raise InputError(
            f"{path} is missing: the run wrote it and it was moved or deleted since; restore it, "
            "or run the job again into another folder"
        )
    return path


def _compare_with_recorded(run: Path, card: ModelCard) -> None:
    """Refuse a model that changed since the run wrote its card."""
    import json

    path = run / "models" / f"{card.id}.json"
    if not path.is_file():
        return
    try:
        recorded = json.loads(path.read_text(encoding="utf-8")).get("sha256")
    except (json.JSONDecodeError, AttributeError) as error:
        raise InputError(f"{path} is no model card: {error}") from error
    if recorded is not None and recorded != card.sha256:
        raise InputError(
            f"{run / 'models' / card.file} has SHA-256 {card.sha256}, its card {path} says "
            f"{recorded}: the file was changed or damaged after the run"
        )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
