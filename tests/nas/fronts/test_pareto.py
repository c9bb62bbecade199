import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.fronts import pareto
from search_spaces.errors import InputError


def dominated_by_any(points, i):
    return any(
        (points[j] <= points[i]).all() and (points[j] < points[i]).any() for j in range(len(points))
    )


def draw(seed, n=25, m=2):
    return np.random.default_rng(seed).integers(0, 8, size=(n, m)).astype(float)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4))
def test_front_is_what_nobody_dominates(seed, m):
    points = draw(seed, m=m)
    mask = pareto.nondominated(points)
    assert mask.tolist() == [not dominated_by_any(points, i) for i in range(len(points))]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_infeasible_and_undefined_points_neither_are_on_the_front_nor_shadow_it(seed):
    points = draw(seed)
    constraints = np.random.default_rng(seed + 1).normal(size=(25, 2))
    points[3] = [np.nan, -1.0]
    ok = (constraints <= 0).all(axis=1)
    ok[3] = False
    mask = pareto.nondominated(points, constraints)
    assert not mask[~ok].any()
    assert (mask[ok] == pareto.nondominated(points[ok])).all()


def test_no_feasible_point_is_an_empty_front():
    assert not pareto.nondominated(np.zeros((3, 2)), np.ones((3, 1))).any()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 3))
def test_hypervolume_is_the_share_of_the_box_that_is_dominated(seed, m):
    points = draw(seed, n=6, m=m) / 8
    reference = np.full(m, 0.9)
    # Volume by counting cells: coordinates are multiples of 1/8 up to 7/8.
    edges = np.append(np.arange(8) / 8, 0.9)
    volume = 0.0
    for cell in np.ndindex(*(8,) * m):
        low = edges[list(cell)]
        if (points <= low + 1e-12).all(axis=1).any():
            volume += np.prod(edges[np.array(cell) + 1] - low)
    assert pareto.hypervolume(points, reference) == pytest.approx(volume)


def test_points_beyond_the_reference_add_nothing():
    assert pareto.hypervolume(np.array([[2.0, 0.0]]), (1.0, 1.0)) == 0
    assert pareto.hypervolume(np.empty((0, 2)), (1.0, 1.0)) == 0
    with pytest.raises(InputError, match="2 finite numbers"):
        pareto.hypervolume(np.zeros((1, 2)), (1.0,))


def test_reference_point_is_beyond_every_point():
    a, b = np.array([[0.0, 5.0], [4.0, 5.0]]), np.array([[2.0, 5.0]])
    assert pareto.reference_point(a, b).tolist() == pytest.approx([4.4, 5.5])
    assert pareto.hypervolume(b, pareto.reference_point(a, b)) > 0


def test_knee_does_not_depend_on_units():
    front = np.array([[0.0, 10.0], [1.0, 3.0], [2.0, 2.0], [9.0, 1.0], [10.0, 0.0]])
    assert pareto.knee(front) == 1
    assert pareto.knee(front * [1e-3, 1e6] + [5, -7]) == 1
    assert pareto.knee(front[:1]) == 0
    with pytest.raises(InputError):
        pareto.knee(front[:0])


def test_a_cost_that_hardly_differs_does_not_decide_a_knee():
    # Minus accuracy, KiB, and a latency in which three per cent lie between all of them.
    front = np.array([[-0.38, 3.5, 1.00], [-0.71, 4.0, 1.03], [-0.75, 40.0, 1.02]])
    assert pareto.knee(front) == 0
    assert pareto.knee(front, costs=[1, 2]) == 1


def test_difference_of_a_front_with_itself_and_with_a_worse_one():
    front = np.array([[0.0, 3.0], [1.0, 1.0], [3.0, 0.0], [3.0, 3.0]])
    same = pareto.difference(front, front)
    assert (same.hypervolume_ratio, same.coverage_a, same.coverage_b) == (1, 1, 1)
    assert same.common == same.size_a == same.size_b == 3
    worse = pareto.difference(front, front + 0.5)
    assert worse.coverage_a == 1
    assert worse.coverage_b == 0
    assert worse.common == 0
    assert worse.hypervolume_ratio < 1
    assert worse.hypervolume_b == pytest.approx(pareto.hypervolume(front + 0.5, worse.reference))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_difference_is_symmetric(seed):
    a, b = draw(seed), draw(seed + 1)
    there, back = pareto.difference(a, b), pareto.difference(b, a)
    assert there.reference == back.reference
    assert (there.coverage_a, there.hypervolume_a) == (back.coverage_b, back.hypervolume_b)
    assert there.common == back.common


def test_difference_needs_points():
    with pytest.raises(InputError, match="without points"):
        pareto.difference(np.empty((0, 2)), np.ones((1, 2)))
    with pytest.raises(InputError, match="1 and 2 objectives"):
        pareto.difference(np.ones((1, 1)), np.ones((1, 2)))
