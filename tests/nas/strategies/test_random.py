import numpy as np

from nas.strategies import RandomStrategy


def test_choices_are_uniform_where_nothing_is_bounded(build):
    problem, _ = build(stages=3, depth=4)
    archs = RandomStrategy(problem).ask(2000)
    for name in ("s0.depth", "s1.0.kernel", "s2.0.weight_bits"):
        options = problem.space.choices[problem.space.index[name]].options
        counts = np.array([sum(a[name] == o for a in archs) for o in options])
        assert (np.abs(counts / 2000 - 1 / len(options)) < 0.05).all()


def test_a_narrow_region_is_used_up_to_its_last_architecture(build):
    problem, evaluate = build(stages=3, depth=4, budget=7.0)
    strategy = RandomStrategy(problem)
    archs = strategy.ask(100)
    # Counted by hand: the smallest network and what fits into 2.9 of its 3-bit steps more.
    assert len(set(archs)) == len(archs) == 28
    assert (evaluate(archs)[1] <= 0).all()
    assert strategy.ask(5) == []
