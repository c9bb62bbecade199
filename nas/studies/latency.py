"""A study of latency alone, on a table of the user's own: no data, no training, no runtime.

The table has one column a device. The new device's column may be all but empty: the first call
then says which architectures to measure; once their cells are filled, the second call predicts
the rest of the table, with intervals, and scores what else is filled.
"""

from __future__ import annotations

import csv
import difflib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nas.job.yaml_source import Diagnostic, DiagnosticsError, YamlSource
from search_spaces.errors import InputError

if TYPE_CHECKING:
    from search_spaces.tables.table import LatencyTable


class LatencyStudy(BaseModel):
    """What a study file holds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    table: Path = Field(description="CSV or Parquet, relative to the file of the study.")
    space: str | None = Field(None, description="Search space; null: as the table declares.")
    arch_column: str | None = Field(None, description="Header of the architectures.")
    known: list[str] = Field(min_length=1, description="Devices to learn from.")
    device: str = Field(description="The new device: a column that may be nearly empty.")
    measurements: int = Field(10, ge=2, description="Of the new device, to adapt with.")
    method: str = Field("transfer_gp", description="A registered latency predictor.")
    coverage: float = Field(0.9, gt=0, lt=1, description="Of the intervals.")
    budget_ms: float | None = Field(None, gt=0, description="Asks for P(latency <= budget).")
    seed: int = Field(0, ge=0, description="Of the choice of what to measure.")


@dataclass(frozen=True)
class StudyResult:
    """What a study found.

    Attributes:
        wanted: architectures to measure before the study can go on; empty when it is done.
        files: what was written.
        scores: figures over cells that were filled and not used; None without such cells.
    """

    wanted: tuple[str, ...]
    files: tuple[Path, ...]
    scores: dict[str, Any] | None


def load_study(path: Path) -> tuple[LatencyStudy, LatencyTable]:
    """Read and check a study and its table.

    Raises:
        DiagnosticsError: every mistake of the file, with line and column.
    """
    from predictors.transfer_gp.predictor import LATENCY_PREDICTORS
    from search_spaces.tables.spaces import table_space
    from search_spaces.tables.table import declared_space, read_table

    source = YamlSource.read(path)
    try:
        study = LatencyStudy.model_validate(source.value)
    except ValidationError as error:
        raise DiagnosticsError(
            [_diagnostic(source, details) for details in error.errors(include_url=False)]
        ) from error
    where = path.parent / study.table
    if not where.is_file():
        raise source.error(("table",), f"table: there is no file {where}")
    space = study.space or declared_space(where)
    if space is None:
        raise source.error(("table",), "space: the table declares no space; name one, e.g. tokens")
    try:
        found = table_space(space)
    except InputError as error:
        raise source.error(("space",), f"space: {error}") from error
    table = read_table(where, found, arch_column=study.arch_column)
    findings = []
    for i, name in enumerate(study.known):
        if name not in table.devices:
            findings.append(source.diagnostic(("known", i), _unknown("known", name, table)))
        elif name == study.device:
            findings.append(
                source.diagnostic(("known", i), f"known: {name!r} is the new device itself")
            )
    if study.device not in table.devices:
        findings.append(source.diagnostic(("device",), _unknown("device", study.device, table)))
    if study.method not in LATENCY_PREDICTORS:
        names = ", ".join(LATENCY_PREDICTORS.names())
        findings.append(
            source.diagnostic(
                ("method",), f"method: no predictor {study.method!r} (known: {names})"
            )
        )
    if study.measurements > len(table.archs):
        findings.append(
            source.diagnostic(
                ("measurements",),
                f"measurements: {study.measurements} of {len(table.archs)} architectures",
            )
        )
    if findings:
        raise DiagnosticsError(findings)
    return study, table


def run_study(path: Path, output: Path) -> StudyResult:
    """Fit, suggest what to measure or adapt, predict and score; write it all to ``output``.

    Args:
        path: the study, YAML.
        output: folder; made if missing. ``suggested.csv`` where measurements are missing, else
            ``predictions.csv``, ``study.json`` and, with two devices or more, ``map.svg``.

    Raises:
        DiagnosticsError: a mistake in the file.
        InputError: a malformed table.
    """
    import numpy as np

    from predictors.benchmark import make_predictor
    from predictors.declared import gene_keys
    from search_spaces.atomic import write_json_atomic, write_text_atomic
    from search_spaces.seeds import derive_rng

    study, table = load_study(path)
    output.mkdir(parents=True, exist_ok=True)
    predictor = make_predictor(study.method, table, seed=study.seed)
    predictor.meta_fit(table.select(study.known))
    truth = table.column(study.device)
    filled = np.flatnonzero(np.isfinite(truth))
    rng = derive_rng(study.seed, "latency study")
    if len(filled) < study.measurements:
        rows = _suggested(predictor, table.genes, filled, study.measurements, rng)
        wanted = tuple(str(table.archs[row]) for row in rows)
        file = output / "suggested.csv"
        write_text_atomic(file, _csv(["arch", study.device], [[text, ""] for text in wanted]))
        return StudyResult(wanted, (file,), None)
    used = filled[predictor.suggest_genes(table.genes[filled], study.measurements, rng)]
    adapted = predictor.adapt_genes(table.genes[used], truth[used])
    mean, _ = adapted.predict_genes(table.genes)
    low, high = adapted.interval_genes(table.genes, study.coverage)
    columns: dict[str, Any] = {"predicted_ms": mean, "low_ms": low, "high_ms": high}
    if study.budget_ms is not None:
        columns["probability_within"] = adapted.probability_within_genes(
            table.genes, study.budget_ms
        )
    columns["measured_ms"] = truth
    measured = set(gene_keys(table.genes[used]))
    rest = np.array([i for i in filled if gene_keys(table.genes[i : i + 1])[0] not in measured])
    scores = _scores(mean, low, high, truth, rest) if len(rest) >= 3 else None
    lines = [
        [
            str(arch),
            *(_number(values[i]) for values in columns.values()),
            str(i in set(used)).lower(),
        ]
        for i, arch in enumerate(table.archs)
    ]
    files = [output / "predictions.csv", output / "study.json"]
    write_text_atomic(files[0], _csv(["arch", *columns, "adapted_with"], lines))
    write_json_atomic(
        files[1],
        {
            "study": study.model_dump(mode="json"),
            "source": "predicted",
            "architectures": len(table.archs),
            "measured_with": [str(table.archs[i]) for i in used],
            "scores": scores,
        },
    )
    if hasattr(predictor, "embedding"):
        from nas.plots.svg import xy_svg
        from nas.report.charts.latency import device_map

        names, points = predictor.embedding({study.device: adapted})
        files.append(output / "map.svg")
        chart = device_map(names, points, highlighted=[study.device])
        write_text_atomic(files[-1], xy_svg(chart))
    return StudyResult((), tuple(files), scores)


def _suggested(predictor: Any, genes: Any, filled: Any, count: int, rng: Any) -> list[int]:
    """Rows to measure so that ``count`` are filled; those that are filled stay."""
    import numpy as np

    open_rows = np.setdiff1d(np.arange(len(genes)), filled)
    return [int(r) for r in open_rows[predictor.suggest_genes(
        genes[open_rows], count - len(filled), rng)]]  # fmt: skip


def _scores(mean: Any, low: Any, high: Any, truth: Any, rest: Any) -> dict[str, Any]:
    from predictors.benchmark import score

    found: dict[str, Any] = score(truth[rest], mean[rest], low[rest], high[rest])
    # The intervals are of the coverage that the study asks for, not always 90 %.
    found["inside_interval"] = found.pop("coverage_90")
    return {"architectures": len(rest), **found}


def _diagnostic(source: YamlSource, details: Any) -> Diagnostic:
    location = details["loc"]
    name = ".".join(map(str, location))
    fields = list(LatencyStudy.model_fields)
    if details["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(location[-1]), fields, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f" (keys: {', '.join(fields)})"
        return source.diagnostic(location, f"{name}: unknown key{hint}", key=True)
    if details["type"] == "missing":
        about = LatencyStudy.model_fields[str(location[0])].description
        return source.diagnostic((), f"{name}: is missing. {about}")
    return source.diagnostic(location, f"{name}: {details['msg']}, not {details['input']!r}")


def _unknown(key: str, name: str, table: LatencyTable) -> str:
    near = difflib.get_close_matches(name, table.devices, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"{key}: the table has no column {name!r}{hint} (columns: {', '.join(table.devices)})"


def _number(value: float) -> str:
    return "" if value != value else f"{value:.6g}"


def _csv(head: list[str], rows: list[list[str]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return text.getvalue()
