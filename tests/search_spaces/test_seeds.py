"""Random streams depend on their labels and on nothing else."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.seeds import derive_rng, derive_seed, seeded

labels = st.lists(st.one_of(st.integers(), st.text(st.characters(codec="ascii"))), max_size=3)


@given(st.integers(0, 2**64), labels)
def test_the_same_labels_give_the_same_stream(seed, names):
    assert 0 <= derive_seed(seed, *names) < 2**63
    assert derive_seed(seed, *names) == derive_seed(seed, *names)
    first, second = derive_rng(seed, *names), derive_rng(seed, *names)
    assert first.random(4).tolist() == second.random(4).tolist()


def test_every_label_and_its_place_matter():
    made = [
        derive_seed(0),
        derive_seed(1),
        derive_seed(0, "a"),
        derive_seed(0, "b"),
        derive_seed(0, "a", "b"),
        derive_seed(0, "b", "a"),
        derive_seed(0, "ab"),
        derive_seed(0, "a", 1),
        derive_seed(0, "a", 11),
        derive_seed(0, "a", 1, 1),
        derive_seed(0, ""),
    ]
    assert len(set(made)) == len(made)


def test_neighbouring_seeds_are_independent():
    draws = [derive_rng(seed, "x").random() for seed in range(400)]
    assert 0.45 < sum(draws) / 400 < 0.55
    pairs = [(a - 0.5) * (b - 0.5) for a, b in itertools.pairwise(draws)]
    assert abs(sum(pairs) / 399) < 0.02


def test_another_process_draws_the_same():
    code = "from search_spaces.seeds import derive_seed; print(derive_seed(7, 'order', 3))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(other.stdout) == derive_seed(7, "order", 3)


def test_code_that_takes_no_seed_draws_by_the_one_around_it_and_disturbs_nobody():
    torch = pytest.importorskip("torch")

    def draw():
        return random.random(), np.random.rand(2).tolist(), torch.rand(2).tolist()

    before = draw()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = draw()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    with seeded(5, "module"):
        inside = draw()
    assert draw() == expected
    with seeded(5, "module"):
        assert draw() == inside
    with seeded(5, "other"):
        assert draw() != inside
    assert before != inside
