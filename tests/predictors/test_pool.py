import numpy as np
import pytest

from predictors.pool import PACKAGED, default_pool, packaged_table
from search_spaces.spaces.mobilenet import MobileNetSpace
from search_spaces.spaces.tokens import TokensSpace


@pytest.mark.parametrize("preset", PACKAGED)
def test_the_preset_itself_takes_every_row(preset):
    table = packaged_table(preset)
    pool = default_pool(MobileNetSpace.from_config(preset=preset))
    np.testing.assert_array_equal(pool.genes, table.genes)
    assert len(pool) >= 100 and len(pool.devices) >= 6


def test_fewer_kernels_take_fewer_rows_and_other_bits_all():
    everything = len(packaged_table("28x28"))
    other_bits = default_pool(MobileNetSpace.from_config(preset="28x28", weight_bits=(4, 8)))
    assert len(other_bits) == everything
    narrower = default_pool(MobileNetSpace.from_config(preset="28x28", widths=(0.5, 1.0)))
    assert narrower is None or len(narrower) < everything


def test_bits_of_whole_blocks():
    pool = default_pool(MobileNetSpace.from_config(preset="28x28", granularity="block"))
    assert len(pool) == len(packaged_table("28x28"))


def test_another_network_has_no_pool():
    assert default_pool(MobileNetSpace.from_config(preset="28x28", head_channels=64)) is None
    assert default_pool(TokensSpace([("a", "b")] * 3)) is None
