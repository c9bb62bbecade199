from __future__ import annotations

import numpy as np
import pytest

from predictors.transfer_gp.device_functions import DeviceFunctions
from predictors.transfer_gp.features import FeatureScaler
from search_spaces.tables.synthetic import synthetic_table


def test_rows_left_out_are_predicted_as_well_as_rows_elsewhere() -> None:
    table = synthetic_table(architectures=300, devices=2, positions=6)
    values = table.values[:150].copy()
    values[7, 1] = np.nan
    scaler = FeatureScaler(table.space, table.genes[:150])
    blocks = scaler(table.genes[:150])
    functions = DeviceFunctions.fit(blocks, values, table.devices, np.random.default_rng(0))
    assert functions.left_out is not None and np.isfinite(functions.left_out).all()
    # A cell that is missing is what the function says.
    assert functions.left_out[7, 1] == pytest.approx(functions(blocks)[7, 1])
    standard = (table.values / np.nanmedian(values, axis=0) - functions.mean) / functions.spread

    def error(guess: np.ndarray, rows: slice) -> float:
        return float(np.sqrt(np.nanmean((guess - standard[rows]) ** 2)))

    elsewhere = error(functions(scaler(table.genes[150:])), slice(150, 300))
    own, left_out = error(functions(blocks), slice(150)), error(functions.left_out, slice(150))
    assert own < left_out
    assert 0.75 < left_out / elsewhere < 1.3
