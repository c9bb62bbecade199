from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from predictors.files import load_adapted, load_predictor, save_adapted, save_predictor
from predictors.help import HelpPredictor
from predictors.registry import SavedPredictor
from predictors.transfer_gp.predictor import TransferGP
from search_spaces.errors import EnvironmentProblem, InputError
from search_spaces.spaces.nasbench201 import NasBench201
from search_spaces.tables.synthetic import synthetic_table


@lru_cache
def _predictor(name: str) -> SavedPredictor:
    table = synthetic_table(architectures=80, devices=3, positions=4)
    if name == "help":
        return HelpPredictor(table.space, episodes=2, width=8, query=20).meta_fit(table)
    predictor = TransferGP(table.space)
    return predictor.meta_fit(table) if name == "transfer_gp" else predictor


@pytest.mark.parametrize("name", ["transfer_gp", "without known devices", "help"])
def test_a_file_predicts_what_was_saved(tmp_path: Path, name: str) -> None:
    predictor = _predictor(name)
    pool = synthetic_table(architectures=80, devices=3, positions=4)
    chosen = predictor.suggest_genes(pool.genes, 14, np.random.default_rng(0))
    values = pool.column("device0")[chosen]
    path = tmp_path / "device.safetensors"
    save_adapted(predictor, pool.genes[chosen], values, path, device="board")
    adapted, device = load_adapted(path)
    assert device == "board"
    expected = predictor.adapt_genes(pool.genes[chosen], values).predict_genes(pool.genes)
    np.testing.assert_allclose(adapted.predict_genes(pool.genes)[0], expected[0], rtol=1e-6)


def test_a_predictor_alone_is_not_adapted(tmp_path: Path) -> None:
    path = tmp_path / "known.safetensors"
    save_predictor(_predictor("transfer_gp"), path)
    assert load_predictor(path).devices == ("device0", "device1", "device2")
    with pytest.raises(InputError, match="not adapted"):
        load_adapted(path)


def test_files_of_something_else_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with pytest.raises(InputError, match="no file"):
        load_predictor(path)
    path.write_bytes(b"not a predictor")
    with pytest.raises(InputError, match="not a predictor file"):
        load_predictor(path)
    save_predictor(_predictor("transfer_gp"), path)
    with pytest.raises(InputError, match="other choices"):
        load_predictor(path, space=NasBench201())


def _rewritten(path: Path, change: Callable[[dict, dict], None]) -> Path:
    """A copy of a predictor file with its arrays or metadata changed."""
    with safe_open(path, framework="numpy") as file:
        metadata = dict(file.metadata())
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(arrays, metadata)
    out = path.with_name("changed.safetensors")
    save_file(arrays, out, metadata)
    return out


def _spoil(name: str) -> Callable[[dict, dict], None]:
    def change(arrays: dict, metadata: dict) -> None:
        if name == "nan":
            arrays["reference"] = arrays["reference"].astype(float)
            arrays["reference"][0, 0] = np.nan
        elif name == "version":
            metadata["format"] = "latency-predictor-0"
        elif name == "predictor":
            metadata["predictor"] = "os.system"
        elif name == "no space":
            del metadata["space"]
        elif name == "json":
            metadata["settings"] = "{"
        elif name == "missing array":
            del arrays["prior"]
        elif name == "shape":
            arrays["reference"] = arrays["reference"][:, :-1].copy()
        elif name == "genes":
            arrays["measured.genes"] = arrays["measured.genes"] + 1000
        else:
            arrays["measured.latencies_ms"] = -arrays["measured.latencies_ms"]

    return change


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nan", "not finite"),
        ("version", "another version"),
        ("predictor", "unknown latency predictor"),
        ("no space", "damaged"),
        ("json", "damaged"),
        ("missing array", "damaged"),
        ("shape", "damaged"),
        ("genes", "not of its space"),
        ("negative", "not a latency"),
    ],
)
def test_changed_files_are_refused_with_the_reason(tmp_path: Path, name: str, message: str) -> None:
    predictor = _predictor("transfer_gp")
    genes = synthetic_table(architectures=80, devices=3, positions=4).genes[:12]
    path = tmp_path / "board.safetensors"
    save_adapted(predictor, genes, np.linspace(1, 2, 12), path, device="board")
    with pytest.raises(InputError, match=message):
        load_adapted(_rewritten(path, _spoil(name)))


def test_a_folder_is_no_predictor_file(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match=str(tmp_path)):
        load_predictor(tmp_path)


def test_a_file_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "known.safetensors"
    save_predictor(_predictor("transfer_gp"), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="cut short"):
        load_predictor(path)


def test_weights_of_another_width_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "help.safetensors"
    save_predictor(_predictor("help"), path)

    def change(arrays: dict, metadata: dict) -> None:
        arrays["fc5.bias"] = np.zeros(3, dtype=np.float32)

    with pytest.raises(InputError, match="weights are not those"):
        load_predictor(_rewritten(path, change))
