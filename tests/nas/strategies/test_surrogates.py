import numpy as np

from nas.strategies import Learned, cost_surrogates


def test_costs_are_worked_out_once_for_each_matrix():
    calls = []

    def costs(genes):
        calls.append(len(genes))
        return {"macs": genes.sum(axis=1), "bops": genes.sum(axis=1) * 2}

    surrogates = cost_surrogates(costs, ["macs", "bops"])
    a, b = np.ones((3, 2), dtype=int), np.zeros((2, 2), dtype=int)
    for genes in (a, b, a):
        macs, std = surrogates["macs"].predict(genes)
        assert macs.tolist() == genes.sum(axis=1).tolist()
        assert (surrogates["bops"].predict(genes)[0] == 2 * macs).all()
        assert not std.any()
    assert calls == [3, 2, 3]


def test_learned_leaves_undefined_values_out():
    class Model:
        def fit(self, genes, values):
            self.seen = genes, values

        def predict(self, genes):
            raise AssertionError

    model = Model()
    Learned(model, warp=False).fit(np.arange(6).reshape(3, 2), np.array([1.0, np.nan, 3.0]))
    assert model.seen[0].tolist() == [[0, 1], [4, 5]]
    assert model.seen[1].tolist() == [1.0, 3.0]
