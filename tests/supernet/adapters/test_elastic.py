"""Adapters begin as nothing, leave the base alone, and merge into what they compute."""

import copy

import numpy as np
import pytest
import torch

from search_spaces.errors import InputError
from search_spaces.spaces.adapters import AdapterSpace
from supernet.adapters.elastic import AdaptedDecoder, AdaptedLinear, adapted_sizes
from supernet.adapters.training import sandwich, single_path, train_adapters
from supernet.checkpoints.config import DecoderConfig
from supernet.checkpoints.decoder import CheckpointDecoder


def decoder(family="llama"):
    torch.manual_seed(0)
    return CheckpointDecoder(
        DecoderConfig(
            family=family, vocabulary=29, width=16, layers=2, heads=4,
            key_heads=2 if family == "llama" else 4, head_width=4, inner=24, length=12,
            epsilon=1e-5, activation="silu", theta=1e4 if family == "llama" else 0.0, tied=False,
            attention_bias=family == "gpt2", mlp_bias=family == "gpt2",
        )
    )  # fmt: skip


def adapted(family="llama", **options):
    model = decoder(family)
    options = {"ranks": (2, 4), "shares": (0.5, 1.0), **options}
    return model, AdaptedDecoder(model, AdapterSpace(adapted_sizes(model), **options))


TOKENS = torch.arange(24).reshape(2, 12) % 29


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_fresh_adapters_change_nothing(family):
    model, whole = adapted(family)
    with torch.no_grad():
        torch.testing.assert_close(whole(TOKENS), model(TOKENS), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_merged_sub_adapter_computes_the_same_and_is_as_small_as_it_costs(family):
    _, whole = adapted(family)
    for parameter in whole.adapters():
        torch.nn.init.normal_(parameter, std=0.1)
    rng = np.random.default_rng(0)
    space = whole.space
    for arch in (space.smallest(), space.largest(), space.sample(rng)):
        whole.configure(arch)
        plain = whole.merged()
        with torch.no_grad():
            torch.testing.assert_close(plain(TOKENS), whole(TOKENS), atol=1e-5, rtol=1e-4)
        assert not any(isinstance(part, AdaptedLinear) for part in plain.modules())
        linear = [p for p in plain.modules() if isinstance(p, torch.nn.Linear)]
        layers = [p for p in whole.modules() if isinstance(p, AdaptedLinear)]
        own = sum(p.rank * (p.inputs + p.outputs) for p in layers)
        costs = space.costs(space.genes([arch]))
        assert costs["parameters"][0] == own
        assert costs["macs"][0] == own + sum(p.weight.numel() for p in linear)


@pytest.mark.parametrize(("sampler", "steps"), [(sandwich, 40), (single_path, 120)])
def test_training_moves_the_adapters_alone_and_every_sub_adapter_learns(sampler, steps):
    model, whole = adapted()
    before = copy.deepcopy(model.state_dict())
    rows = torch.stack([(torch.arange(13) * 3 + i) % 29 for i in range(40)])

    def losses():
        found = []
        for arch in (whole.space.largest(), whole.space.smallest()):
            whole.configure(arch)
            with torch.no_grad():
                values = whole(rows[:, :-1]).flatten(0, 1)
            found.append(float(torch.nn.functional.cross_entropy(values, rows[:, 1:].flatten())))
        return np.array(found)

    first = losses()
    frozen = [p.clone() for p in whole.parameters() if not p.requires_grad]
    told = train_adapters(
        whole, rows, sampler=sampler(whole, seed=0), steps=steps, batch=8, learning_rate=1e-2
    )
    assert len(told) == steps and (losses() < 0.9 * first).all()
    after = [p for p in whole.parameters() if not p.requires_grad]
    assert all(torch.equal(a, b) for a, b in zip(frozen, after, strict=True))
    assert all(torch.equal(before[n], v) for n, v in model.state_dict().items())


def test_what_cannot_be_is_told():
    sizes = adapted_sizes(decoder())
    with pytest.raises(InputError, match="a layer of 8 channels has no more ranks"):
        AdapterSpace(sizes, ranks=(4, 16))
    with pytest.raises(InputError, match="the last must be 1"):
        AdapterSpace(sizes, ranks=(2,), shares=(0.5,))
    with pytest.raises(InputError, match="ascending"):
        AdapterSpace(sizes, ranks=(4, 2))
    _, whole = adapted()
    with pytest.raises(InputError, match="3 windows are fewer than a batch of 16"):
        train_adapters(whole, TOKENS[:1].repeat(3, 1), sampler=sandwich(whole, seed=0), steps=1)
