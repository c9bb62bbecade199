import pytest
import torch

from nas.data.doubts import doubts, uneven


def test_values_of_a_reconstruction_have_no_names_to_doubt():
    targets = torch.tensor([[0.0, 1.0], [0.0, 500.0], [0.1, -500.0]])
    assert doubts("values", {"training": targets}, ("area", "price"))
    assert doubts("values", {"training": targets}, ("normal",)) == []


@pytest.mark.parametrize(
    ("counts", "told"),
    [([10, 30], (0, 1)), ([10, 29], None), ([0, 10, 29], None), ([0, 40, 5], (2, 1)), ([], None)],
)
def test_classes_are_uneven_from_three_times_the_rarest_that_is_there(counts, told):
    assert uneven(counts) == told
