"""Tensors alive at the same time do not overlap, and little is lost."""

from __future__ import annotations

import numpy as np
import pytest

from nas.models.c_project.arena import place


def peak(sizes, lives):
    times = range(min(a for a, _ in lives), max(b for _, b in lives) + 1)
    return max(sum(s for s, (a, b) in zip(sizes, lives, strict=True) if a <= t <= b) for t in times)


@pytest.mark.parametrize("seed", range(20))
def test_no_two_live_tensors_overlap(seed):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 25))
    sizes = rng.integers(1, 500, count).tolist()
    lives = [(int(a), int(a + rng.integers(1, 6))) for a in rng.integers(0, 20, count)]
    bound = peak(sizes, lives)
    offsets, arena = place(sizes, lives, bound, tries=200)
    assert bound <= arena <= sum(sizes)
    for i in range(count):
        assert 0 <= offsets[i] <= arena - sizes[i]
        for j in range(i):
            together = lives[i][0] <= lives[j][1] and lives[j][0] <= lives[i][1]
            apart = offsets[i] + sizes[i] <= offsets[j] or offsets[j] + sizes[j] <= offsets[i]
            assert apart or not together


@pytest.mark.parametrize("seed", range(10))
def test_a_chain_with_shortcuts_loses_nothing(seed):
    rng = np.random.default_rng(seed)
    sizes, lives = [], []
    for time in range(20):
        sizes.append(int(rng.integers(1, 1000)))
        lives.append((time, time + 1 + 2 * (time % 4 == 0)))
    bound = peak(sizes, lives)
    assert place(sizes, lives, bound)[1] == bound


def test_the_result_is_always_the_same():
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 500, 20).tolist()
    lives = [(int(a), int(a) + 3) for a in rng.integers(0, 12, 20)]
    assert place(sizes, lives, 1, tries=50) == place(sizes, lives, 1, tries=50)
