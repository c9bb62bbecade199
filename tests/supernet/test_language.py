"""Causal attention and the embedding of tokens."""

import pytest
import torch
from torch.nn import functional as F

from search_spaces.spaces.registry import build_space
from supernet.language import CausalAttention, TokenEmbedding, split_heads
from supernet.network import Supernet


def test_attention_is_torchs_causal_one():
    torch.manual_seed(0)
    joint = torch.randn(2, 9, 3 * 24)
    query, key, value = split_heads(joint, 3)
    expected = F.scaled_dot_product_attention(query, key, value, is_causal=True)
    found = CausalAttention(3, 9)(joint)
    torch.testing.assert_close(found, expected.transpose(1, 2).flatten(2))


def test_numbers_are_rounded_and_kept_within_the_vocabulary():
    table, positions = torch.randn(5, 3), torch.randn(4, 3)
    embedding = TokenEmbedding(table, positions)
    given = torch.tensor([2.4, -1.0, 9.0, 1.6]).reshape(1, 1, 1, 4)
    expected = table[[2, 0, 4, 2]] + positions
    torch.testing.assert_close(embedding(given)[0], expected)


@pytest.mark.parametrize("end", ["largest", "smallest"])
def test_what_comes_later_changes_nothing(end):
    torch.manual_seed(0)
    space = build_space("decoder", outputs=11, weight_bits=[4], input_size=(1, 12))
    supernet = Supernet(space)
    plan = space.plan(getattr(space, end)())
    tokens = torch.randint(0, 11, (3, 1, 1, 12)).float()
    # Steps of quantisers are set by the first data.
    supernet(tokens, plan)
    network = supernet.extract(plan, {})
    changed = tokens.clone()
    changed[..., 7:] = (changed[..., 7:] + 3) % 11
    with torch.no_grad():
        first, second = network(tokens), network(changed)
    assert first.shape == (3, 12, 11)
    assert torch.equal(first[:, :7], second[:, :7])
    assert not torch.equal(first[:, 7:], second[:, 7:])
