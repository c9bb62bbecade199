import torch

from nas.data.doubts import doubts


def test_values_of_a_reconstruction_have_no_names_to_doubt():
    targets = torch.tensor([[0.0, 1.0], [0.0, 500.0], [0.1, -500.0]])
    assert doubts("values", {"training": targets}, ("area", "price"))
    assert doubts("values", {"training": targets}, ("normal",)) == []
