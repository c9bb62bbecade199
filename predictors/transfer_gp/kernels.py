"""Kernels between architectures, and the weight vectors a posterior averages over.

Each kernel has mean diagonal 1 over reference architectures, so that a weight means the same
in every space: linear kernels on feature blocks, linear and radial ones on the predicted
latencies of known devices, radial ones on the architecture itself.
"""

from __future__ import annotations

import numpy as np

from predictors.transfer_gp.device_functions import detail_matrix
from predictors.transfer_gp.features import role, squared_distances

Features = dict[str, np.ndarray]

_THETAS = 64  # of each of the two halves of the prior

# Largest weights of the kernels, by role; weights are log-uniform over three decades below.
# "Sparse" believes in counts and devices; "broad" lets every kernel matter.
_SPARSE = {
    "counts": 1.0,
    "onehot": 0.01,
    "detail": 0.01,
    "costs": 0.03,
    "radial_counts": 0.05,
    "radial_detail": 0.03,
    "radial_devices": 0.03,
    "common": 1.0,
    "devices": 1.0,
}
_BROAD = {
    "counts": 3.0,
    "onehot": 0.5,
    "detail": 0.2,
    "costs": 1.0,
    "radial_counts": 0.5,
    "radial_detail": 0.5,
    "radial_devices": 0.5,
    "common": 1.0,
    "devices": 1.0,
}
_NOISE = 0.3


class Kernels:
    """The kernels of one choice of known devices, over scaled feature blocks.

    Args:
        reference: features of the architectures distances are measured against.
        columns: which known devices are features; empty for none.
    """

    def __init__(self, reference: Features, columns: np.ndarray) -> None:
        self.columns = columns
        self.blocks = [name for name in reference if name not in ("devices", "log_devices")]
        self.names = [*self.blocks, "radial_detail"]
        rng = np.random.default_rng(0)
        rows = rng.permutation(len(next(iter(reference.values()))))[:200]
        sample = {name: block[rows] for name, block in reference.items()}
        self._rates = {"radial_detail": 0.75 / _mean_distance(detail_matrix(sample))}
        if any(role(name) == "counts" for name in self.blocks):
            self.names.append("radial_counts")
            self._rates["radial_counts"] = 1.0 / _mean_distance(_counts(sample))
        if columns.size:
            self.names += ["devices", "radial_devices"]
            self._rates["radial_devices"] = 1.0 / _mean_distance(sample["devices"][:, columns])
        if columns.size > 1:
            self.names.append("common")
            common = reference["devices"][:, columns].mean(axis=1)
            self._common = 1.0 / max(common.std(), 1e-9)

    def bounds(self, limits: dict[str, float]) -> np.ndarray:
        """Largest weight of each kernel, then of the noise: (kernels + 1,)."""
        largest = [limits[n if n in limits else role(n)] for n in self.names]
        return np.array([*largest, _NOISE])

    def between(self, a: Features, b: Features, *, log: bool) -> np.ndarray:
        """Kernel matrices: (kernels, n, m). ``log``: device features as logarithms."""
        out = []
        for name in self.names:
            if name == "radial_detail":
                d = squared_distances(detail_matrix(a), detail_matrix(b))
                out.append(np.exp(-self._rates[name] * d))
            elif name == "radial_counts":
                d = squared_distances(_counts(a), _counts(b))
                out.append(np.exp(-self._rates[name] * d))
            elif name in ("devices", "radial_devices", "common"):
                fa, fb = self._devices(a, log), self._devices(b, log)
                if name == "devices":
                    out.append(fa @ fb.T / self.columns.size)
                elif name == "radial_devices":
                    out.append(np.exp(-self._rates[name] * squared_distances(fa, fb)))
                else:
                    common = self._common**2
                    out.append(common * np.outer(fa.mean(axis=1), fb.mean(axis=1)))
            else:
                out.append(a[name] @ b[name].T)
        return np.stack(out)

    def diagonal(self, a: Features, *, log: bool) -> np.ndarray:
        """Prior variances: (kernels, n)."""
        out = []
        for name in self.names:
            if name.startswith("radial"):
                out.append(np.ones(len(a["onehot"])))
            elif name == "devices":
                out.append((self._devices(a, log) ** 2).mean(axis=1))
            elif name == "common":
                out.append((self._common * self._devices(a, log).mean(axis=1)) ** 2)
            else:
                out.append((a[name] ** 2).sum(axis=1))
        return np.stack(out)

    def _devices(self, a: Features, log: bool) -> np.ndarray:
        return a["log_devices" if log else "devices"][:, self.columns]


def _counts(features: Features) -> np.ndarray:
    return np.concatenate(
        [block for name, block in sorted(features.items()) if role(name) == "counts"], axis=1
    )


def _mean_distance(points: np.ndarray) -> float:
    return max(float(squared_distances(points, points).mean()), 1e-9)


def prior_weights(kernels: Kernels) -> np.ndarray:
    """Weight vectors the posterior averages over: (2 * 64, kernels + 1), noise last.

    Scrambled Sobol points, so that the set is fixed and fills the box evenly.
    """
    from scipy.stats import qmc

    out = []
    for seed, limits in enumerate((_SPARSE, _BROAD)):
        high = np.log(kernels.bounds(limits))
        # With one known device left there is no "common" kernel, the last one. Its coordinate
        # is drawn all the same, so that the others of every vector stay as they were.
        drawn = len(high) + int(kernels.columns.size == 1)
        unit = qmc.Sobol(drawn, seed=seed).random(_THETAS)[:, : len(high)]
        unit = np.roll(unit, -1, axis=1)  # the noise takes the first coordinate
        # Some runtimes are exact to a thousandth and some glitch: the noise spans the most.
        span = np.append(np.full(len(high) - 1, 3.0), 5.0)
        out.append(np.exp(high - np.log(10) * span * (1 - unit)))
    return np.concatenate(out)
