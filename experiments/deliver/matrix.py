"""Every export format of several networks: by how much its outputs differ from the ONNX file's.

    python -m experiments.deliver.matrix [--merge] [--only FORMAT ...]

Formats whose packages are not installed are named with the reason; ``--merge`` keeps the cells that
an earlier call, in another environment, has filled, and ``--only`` fills those of some formats and
keeps the others.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from experiments.deliver.c_images import NETWORKS, network
from experiments.results_index import record_claim
from nas.models.formats.base import FORMATS, Source
from search_spaces.atomic import write_json_atomic
from search_spaces.errors import InputError, MissingExtraError

RESULT = Path(__file__).parents[1] / "results" / "deliver" / "matrix.json"
COMMAND = "python -m experiments.deliver.matrix"
BITS = ((8, 8), (4, 8), (1, 4))
LARGEST_ERROR = 0.05
"""Relative error of the outputs beyond which a file is wrong, not rounded."""

PACKAGES = ("onnxruntime", "ai-edge-litert", "openvino", "ncnn", "pnnx", "MNN", "executorch")


def cell(name: str, source: Source, folder: Path) -> dict[str, Any]:
    """Return what writing one format gives: an error figure, or the reason why there is none."""
    try:
        written = FORMATS.get(name).write(source, folder)
    except MissingExtraError as error:
        return {"missing": str(error)}
    except InputError as error:
        # Without the folders of this call, some of which a format makes itself.
        return {"refused": re.sub(r"\S*/(?=[^/\s]+\.onnx)", "", str(error))}
    size = sum((folder / file).stat().st_size for file in written.files)
    return {
        "relative_error": written.relative_error,
        "range_error": written.range_error,
        "same_largest": written.same_largest,
        "reference": written.reference,
        "note": written.note,
        "bytes": size,
    }


def main() -> None:
    """Fill the matrix and record the claim."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--merge", action="store_true", help="keep cells that are filled already")
    parser.add_argument("--only", nargs="+", choices=list(FORMATS), help="formats to fill")
    options = parser.parse_args()
    keep = (options.merge or options.only) and RESULT.exists()
    known = json.loads(RESULT.read_text()) if keep else {"cells": {}, "versions": {}}
    before = known["cells"]
    cells: dict[str, dict[str, Any]] = {}
    for name, config in NETWORKS.items():
        for bits in BITS:
            label = f"{name} W{bits[0]}A{bits[1]}"
            with tempfile.TemporaryDirectory() as folder:
                network(config, bits, Path(folder), 0)
                source = Source(Path(folder) / "model.onnx", "m")
                row = {}
                for form in FORMATS:
                    if options.only and form not in options.only:
                        if form in before.get(label, {}):
                            row[form] = before[label][form]
                        continue
                    target = Path(folder) / form
                    target.mkdir()
                    found = cell(form, source, target)
                    if "missing" in found and "missing" not in before.get(label, {}).get(
                        form, found
                    ):
                        found = before[label][form]
                    row[form] = found
                cells[label] = row
                print(label, json.dumps(row), flush=True)
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            # Of the call that filled the cells which are kept.
            versions[package] = known["versions"].get(package, "not installed")
    write_json_atomic(RESULT, {"command": COMMAND, "versions": versions, "cells": cells})
    record(cells)


def record(cells: dict[str, dict[str, Any]]) -> None:
    """Enter the claim: cells with a figure, with a reason, and the largest error of a format."""
    every = [(form, found) for row in cells.values() for form, found in row.items()]
    figures: dict[str, dict[str, float]] = {}
    for key, worst in (("relative_error", max), ("range_error", max), ("same_largest", min)):
        known = [(form, found[key]) for form, found in every if found.get(key) is not None]
        forms = sorted({form for form, _ in known})
        figures[key] = {f: round(worst(x for form, x in known if form == f), 5) for f in forms}
    errors = figures["relative_error"]
    value = {
        "networks": len(cells),
        "cells with a figure": sum(f.get("relative_error") is not None for _, f in every),
        "cells with a reason": sum("missing" in f or "refused" in f for _, f in every),
        "largest relative error": errors,
        "largest error of the outputs' range": figures["range_error"],
        "least share of inputs with the same largest output": figures["same_largest"],
    }
    met = max(errors.values()) <= LARGEST_ERROR
    target = f"every cell filled or explained, errors <= {LARGEST_ERROR}"
    record_claim(
        "deliver.matrix", value, target, met, "experiments/results/deliver/matrix.json", COMMAND
    )


if __name__ == "__main__":
    main()
