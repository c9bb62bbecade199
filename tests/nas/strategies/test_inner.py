import numpy as np

from nas.strategies.genes import unique_rows
from nas.strategies.inner import evolve


def test_the_population_keeps_its_size_and_loses_nothing_of_the_front(build):
    problem, _ = build(stages=3, depth=4)
    genes = problem.space.sample_genes(np.random.default_rng(0), 30)
    problem.surrogates["accuracy"].fit(genes, np.linspace(0.1, 0.9, 30))
    start = problem.judge(genes[unique_rows(genes)])
    rng = np.random.default_rng(1)
    sizes = []

    def judge(rows):
        sizes.append(len(rows))
        return problem.judge(rows)

    current, ranks = evolve(problem.space, judge, start, rng, population=30, generations=6)
    assert len(current.genes) == len(unique_rows(current.genes)) == len(ranks) == 30
    # A few children repeat a parent; the others are all judged.
    assert len(sizes) == 6
    assert min(sizes) > 20
    assert (current.objectives.min(axis=0) <= start.objectives.min(axis=0)).all()
