import pytest

from search_spaces.errors import InputError
from search_spaces.spaces.registry import build_space
from search_spaces.testing import PlannedSpaceContract


class TestAutoencoder(PlannedSpaceContract):
    @pytest.fixture
    def space(self):
        return build_space("signal_autoencoder", input_channels=2, outputs=16, input_size=(1, 64))


def test_each_place_gives_eight_values_back():
    space = build_space("signal_autoencoder", input_channels=2, outputs=16, input_size=(1, 64))
    last = list(space.plan(space.largest()).layers())[-1]
    assert (last.out_channels, last.out_size, last.out_height) == (16, 8, 1)
    assert last.out_channels * last.out_size == 2 * 64


@pytest.mark.parametrize(
    "parameters, message",
    [
        ({"input_size": (1, 100)}, "multiple of 8"),
        ({"input_size": (8, 8)}, "images"),
        ({"stem_stride": 1}, "multiply to 4, not to 8"),
        ({"resolutions": [0.5, 1.0]}, "windows keep their length"),
        ({"head_channels": 32}, "leave them out of autoencoders"),
        ({"end_kernel": 2}, "even"),
        ({"codes": [2, 1]}, "ascending"),
    ],
)
def test_values_that_no_such_space_has_are_refused(parameters, message):
    with pytest.raises(InputError, match=message):
        build_space("signal_autoencoder", **parameters)
