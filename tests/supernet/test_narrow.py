import copy

import torch

from search_spaces.spaces.registry import build_space
from supernet.narrow import narrowed
from supernet.network import Supernet


def test_steps_that_training_never_met_follow_from_the_shared_weights():
    """Depthwise layers have a step a channel, as many as the widest network has channels."""
    space = build_space("mobilenet", preset="8x8", input_channels=1)
    supernet = Supernet(space)
    plan = space.plan(space.smallest())
    images = torch.randn(8, *plan.input_shape)
    copied = narrowed(supernet, plan)
    with torch.no_grad():
        assert torch.equal(copied(images, plan), supernet(images, plan))


def test_the_shared_weights_stay_as_they_are():
    space = build_space("mobilenet", preset="8x8", input_channels=1)
    supernet = Supernet(space)
    before = {name: value.clone() for name, value in supernet.state_dict().items()}
    narrowed(supernet, space.plan(space.smallest()))
    assert all(torch.equal(value, before[n]) for n, value in supernet.state_dict().items())


def test_a_copy_has_weights_of_its_own_and_the_same_space():
    """What a space remembers of thousands of networks would take seconds to copy."""
    supernet = Supernet(build_space("mobilenet", preset="8x8", input_channels=1))
    copied = copy.deepcopy(supernet)
    assert copied.space is supernet.space
    pairs = zip(copied.parameters(), supernet.parameters(), strict=True)
    assert all(own is not shared for own, shared in pairs)
