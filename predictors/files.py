"""Predictors as files: safetensors with JSON metadata, nothing that can run code.

A file holds the learned state of a predictor and the description of its space. An adapted
file holds the measurements of one device besides; adaptation is quick and repeatable, so it
is done again when the file is read.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from predictors import help as help_module
from predictors.registry import LATENCY_PREDICTORS, Adapted, SavedPredictor
from predictors.transfer_gp import predictor as latency
from search_spaces.atomic import write_atomic
from search_spaces.errors import EnvironmentProblem, InputError
from search_spaces.space import SearchSpace
from search_spaces.tables.spaces import space_from_json, space_to_json

BUILT_IN = (latency, help_module)
"""Modules whose import registers the predictors that have files."""

_FAMILY = "latency-predictor-"
_FORMAT = f"{_FAMILY}3"
_GENES, _LATENCIES = "measured.genes", "measured.latencies_ms"


def save_predictor(predictor: SavedPredictor, path: Path | str) -> None:
    """Write a meta-trained predictor, atomically."""
    _write(predictor, Path(path), {}, {})


def save_adapted(
    predictor: SavedPredictor,
    genes: np.ndarray,
    latencies_ms: np.ndarray,
    path: Path | str,
    *,
    device: str,
    metric: str = "latency_ms",
) -> None:
    """Write a predictor with the measurements of ``device``, atomically.

    Args:
        metric: what was measured, a key of :data:`search_spaces.tables.table.METRICS`.
    """
    arrays = {
        _GENES: np.asarray(genes, dtype=np.int64),
        _LATENCIES: np.asarray(latencies_ms, dtype=np.float64),
    }
    _write(predictor, Path(path), arrays, {"device": device, "metric": metric})


def load_predictor(path: Path | str, *, space: SearchSpace | None = None) -> SavedPredictor:
    """Read a predictor; of an adapted file, the predictor before adaptation.

    Args:
        space: see :func:`search_spaces.tables.spaces.space_from_json`.

    Raises:
        InputError: the file is no predictor, or of another space.
    """
    return _read(Path(path), space)[0]


def load_adapted(path: Path | str, *, space: SearchSpace | None = None) -> tuple[Adapted, str]:
    """Read an adapted file: the predictor of one device, and the device's name.

    Raises:
        InputError: the file holds no measurements.
    """
    predictor, arrays, device = _read(Path(path), space)
    if _GENES not in arrays:
        raise InputError(f"{path} is not adapted to a device; run: nas latency adapt {path} ...")
    return predictor.adapt_genes(arrays[_GENES], arrays[_LATENCIES]), device or ""


def read_metric(path: Path | str) -> str:
    """Return what an adapted file predicts, a key of :data:`search_spaces.tables.table.METRICS`.

    Raises:
        InputError: the file is no predictor.
    """
    return _open(Path(path))[0].get("metric", "latency_ms")


def _write(
    predictor: SavedPredictor, path: Path, extra: dict[str, np.ndarray], about: dict[str, str]
) -> None:
    from safetensors.numpy import save_file

    arrays, settings = predictor.state()
    whole = {k: np.ascontiguousarray(v) for k, v in (arrays | extra).items()}
    metadata = {
        "format": _FORMAT,
        "predictor": predictor.name,
        "space": json.dumps(space_to_json(predictor.space)),
        "settings": json.dumps(settings),
        **about,
    }
    write_atomic(path, lambda temporary: save_file(whole, temporary, metadata))


def _read(
    path: Path, space: SearchSpace | None
) -> tuple[SavedPredictor, dict[str, np.ndarray], str | None]:
    metadata, arrays = _open(path)
    state = {k: v for k, v in arrays.items() if k not in (_GENES, _LATENCIES)}
    try:
        cls = LATENCY_PREDICTORS.get(metadata["predictor"])
        described, settings = json.loads(metadata["space"]), json.loads(metadata["settings"])
        if not issubclass(cls, SavedPredictor):
            raise InputError(f"the predictor {metadata['predictor']!r} has no files")
        predictor = cls(space_from_json(described, space))
        predictor.restore(state, settings)
        if _GENES in arrays:
            _check_genes(predictor.space, arrays[_GENES], arrays[_LATENCIES])
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path} is damaged, or was written by another version "
            f"({type(error).__name__}: {error}); write it again with: nas latency fit"
        ) from error
    return predictor, arrays, metadata.get("device")


def _check_genes(space: SearchSpace, genes: np.ndarray, latencies_ms: np.ndarray) -> None:
    shape = (len(latencies_ms), len(space.choices))
    inside = genes.shape == shape and bool(((genes >= 0) & (genes < space.option_counts)).all())
    if not inside or not np.issubdtype(genes.dtype, np.integer):
        raise InputError("its measured architectures are not of its space")


def _open(path: Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise InputError(f"there is no file {path}") from error
    except OSError as error:
        raise EnvironmentProblem(f"cannot read the predictor file {path}: {error}") from error
    except SafetensorError as error:
        raise InputError(
            f"{path} is not a predictor file, or is cut short or damaged ({error})"
        ) from error
    written = metadata.get("format", "")
    if written != _FORMAT and written.startswith(_FAMILY):
        raise InputError(
            f"{path} has the format {written!r} of another version; this one reads {_FORMAT!r}: "
            "write it again with: nas latency fit"
        )
    if written != _FORMAT:
        raise InputError(f"{path} is not a predictor file of the format {_FORMAT!r}")
    for name, array in arrays.items():
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            raise InputError(f"{path} is damaged: {name} holds values that are not finite")
    return metadata, arrays
