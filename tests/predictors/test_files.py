from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from predictors.files import load_adapted, load_predictor, save_adapted, save_predictor
from predictors.help import HelpPredictor
from predictors.latency import TransferGP
from predictors.registry import SavedPredictor
from search_spaces.errors import InputError
from search_spaces.nasbench201 import NasBench201
from search_spaces.synthetic import synthetic_table


def _predictors() -> list[SavedPredictor]:
    table = synthetic_table(architectures=80, devices=3, positions=4)
    return [
        TransferGP(table.space).meta_fit(table),
        TransferGP(table.space),
        HelpPredictor(table.space, episodes=2, width=8, query=20).meta_fit(table),
    ]


@pytest.mark.parametrize("number", range(3))
def test_a_file_predicts_what_was_saved(tmp_path: Path, number: int) -> None:
    predictor = _predictors()[number]
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
    save_predictor(_predictors()[0], path)
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
    save_predictor(_predictors()[0], path)
    with pytest.raises(InputError, match="other choices"):
        load_predictor(path, space=NasBench201())
