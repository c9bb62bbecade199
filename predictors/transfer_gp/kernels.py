"""Kernels between architectures, and the weight vectors a posterior averages over.

Each kernel has mean diagonal 1 over reference architectures, so that a weight means the same
in every space: linear kernels on feature blocks, linear and radial ones on the predicted
latencies of known devices, radial ones on the architecture itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from predictors.transfer_gp.device_functions import detail_matrix
from predictors.transfer_gp.features import role, squared_distances

Features = dict[str, np.ndarray]


@dataclass(frozen=True)
class Group:
    """Weight vectors of one belief about what latency depends on.

    Attributes:
        limits: largest weight by role or kernel; a kernel without any has weight 0. Weights are
            log-uniform over three decades below.
        count: how many vectors.
        share: of the prior, relative to other groups.
    """

    limits: dict[str, float]
    count: int
    share: float = 1.0


# "Sparse" believes in counts and devices; "broad" lets every kernel matter.
_SPARSE = {
    "counts": 1.0,
    "onehot": 0.01,
    "detail": 0.01,
    "numeric": 0.01,
    "costs": 0.03,
    "declared": 0.1,
    "radial_counts": 0.05,
    "radial_detail": 0.03,
    "radial_numeric": 0.03,
    "radial_devices": 0.03,
    "common": 1.0,
    "devices": 1.0,
}
_BROAD = {
    "counts": 3.0,
    "onehot": 0.5,
    "detail": 0.2,
    "numeric": 0.5,
    "costs": 1.0,
    "declared": 1.0,
    "bent": 0.1,
    "radial_counts": 0.5,
    "radial_detail": 0.5,
    "radial_numeric": 0.5,
    "radial_devices": 0.5,
    "common": 1.0,
    "devices": 1.0,
}
_OF_DEVICES = ("radial_devices", "common", "devices")

# Known devices may do harm: none of them.
_ALONE = {name: limit for name, limit in _BROAD.items() if name not in _OF_DEVICES}
# They may be all there is to say, or one of them.
_KNOWN = {"devices": 1.0, "common": 1.0, "radial_devices": 0.1, "radial_detail": 0.03}
_ONE = {"radial_detail": 0.03, "counts": 0.03, "onehot": 0.03, "declared": 0.03}
# Ordered numbers (a resolution, a depth), or a declared cost, may be.
_NUMBERS = {
    "numeric": 3.0,
    "radial_numeric": 0.3,
    "counts": 0.03,
    "onehot": 0.3,
    "declared": 0.1,
    "devices": 0.3,
    "common": 0.3,
    "radial_detail": 0.03,
}
_DECLARED = {
    "declared": 3.0,
    "bent": 0.1,
    "costs": 0.3,
    "counts": 0.1,
    "onehot": 0.1,
    "numeric": 0.1,
    "devices": 0.3,
    "common": 0.3,
    "radial_detail": 0.1,
    "radial_numeric": 0.1,
}
_NUMBERS_ALONE = {"log_values": 1.0, "onehot": 0.1}
_DECLARED_ALONE = {"declared": 1.0}
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
        if "declared" in self.blocks:
            # A declared cost on the scale that is modelled keeps its order; the other scale
            # bends it.
            self.blocks = [name for name in self.blocks if role(name) != "declared"]
            self.blocks += ["declared", "bent"]
        self.names = [*self.blocks, "radial_detail"]
        rng = np.random.default_rng(0)
        rows = rng.permutation(len(next(iter(reference.values()))))[:200]
        sample = {name: block[rows] for name, block in reference.items()}
        self._rates = {"radial_detail": 0.75 / _mean_distance(detail_matrix(sample))}
        if any(role(name) == "counts" for name in self.blocks):
            self.names.append("radial_counts")
            self._rates["radial_counts"] = 1.0 / _mean_distance(_counts(sample))
        if any(role(name) == "numeric" for name in self.blocks):
            self.names.append("radial_numeric")
            self._rates["radial_numeric"] = 1.0 / _mean_distance(sample["log_values"])
        if columns.size:
            self.names += ["devices", "radial_devices"]
            self._rates["radial_devices"] = 1.0 / _mean_distance(sample["devices"][:, columns])
        if columns.size > 1:
            self.names.append("common")
            common = reference["devices"][:, columns].mean(axis=1)
            self._common = 1.0 / max(common.std(), 1e-9)
        # "one3" is the known device 3 alone; a device that is left out has its place all the same.
        total = reference["devices"].shape[1] if "devices" in reference else 0
        self.singles = [f"one{j}" for j in range(total)]
        self._first_single = len(self.names)
        self.names += self.singles

    @cached_property
    def weights(self) -> np.ndarray:
        """See :func:`prior_weights`."""
        return prior_weights(self)

    def bounds(self, limits: dict[str, float]) -> np.ndarray:
        """Largest weight of each kernel, 0 where it has none, then of the noise: (kernels + 1,)."""
        largest = [
            limits.get(name, limits.get(role(name), 0.0) if name in self.blocks else 0.0)
            for name in self.names
        ]
        return np.array([*largest, _NOISE])

    def between(
        self, a: Features, b: Features, *, log: bool, only: np.ndarray | None = None
    ) -> np.ndarray:
        """Kernel matrices: (kernels, n, m).

        Args:
            a, b: features of n and of m architectures.
            log: device features as logarithms.
            only: which kernels are wanted, in order; default: all.
        """
        wanted = range(len(self.names)) if only is None else only
        out = np.empty((len(wanted), len(next(iter(a.values()))), len(next(iter(b.values())))))
        for at, k in enumerate(wanted):
            name = self.names[k]
            if name == "radial_detail":
                d = squared_distances(detail_matrix(a), detail_matrix(b))
                out[at] = np.exp(-self._rates[name] * d)
            elif name == "radial_counts":
                d = squared_distances(_counts(a), _counts(b))
                out[at] = np.exp(-self._rates[name] * d)
            elif name == "radial_numeric":
                d = squared_distances(a["log_values"], b["log_values"])
                out[at] = np.exp(-self._rates[name] * d)
            elif name in _OF_DEVICES:
                fa, fb = self._devices(a, log), self._devices(b, log)
                if name == "devices":
                    out[at] = fa @ fb.T / self.columns.size
                elif name == "radial_devices":
                    out[at] = np.exp(-self._rates[name] * squared_distances(fa, fb))
                else:
                    common = self._common**2
                    out[at] = common * np.outer(fa.mean(axis=1), fb.mean(axis=1))
            elif k >= self._first_single:
                fa, fb = self._single(a, k, log), self._single(b, k, log)
                out[at] = np.outer(fa, fb)
            else:
                out[at] = _block(a, name, log) @ _block(b, name, log).T
        return out

    def diagonal(self, a: Features, *, log: bool) -> np.ndarray:
        """Prior variances: (kernels, n)."""
        out = []
        for k, name in enumerate(self.names):
            if name.startswith("radial"):
                out.append(
                    np.ones(len(a["onehot"]) if "onehot" in a else len(next(iter(a.values()))))
                )
            elif name == "devices":
                out.append((self._devices(a, log) ** 2).mean(axis=1))
            elif name == "common":
                out.append((self._common * self._devices(a, log).mean(axis=1)) ** 2)
            elif k >= self._first_single:
                out.append(self._single(a, k, log) ** 2)
            else:
                out.append((_block(a, name, log) ** 2).sum(axis=1))
        return np.stack(out)

    def _devices(self, a: Features, log: bool) -> np.ndarray:
        return a["log_devices" if log else "devices"][:, self.columns]

    def _single(self, a: Features, k: int, log: bool) -> np.ndarray:
        return a["log_devices" if log else "devices"][:, k - self._first_single]


def _block(features: Features, name: str, log: bool) -> np.ndarray:
    if name in ("declared", "bent"):
        name = "log_declared" if (name == "declared") == log else "declared"
    return features[name]


def _counts(features: Features) -> np.ndarray:
    return np.concatenate(
        [block for name, block in sorted(features.items()) if role(name) == "counts"], axis=1
    )


def _mean_distance(points: np.ndarray) -> float:
    return max(float(squared_distances(points, points).mean()), 1e-9)


def groups(kernels: Kernels) -> list[Group]:
    """The beliefs that apply to the kernels, in an order that leaving a device out keeps."""
    found = [Group(_SPARSE, 64), Group(_BROAD, 64)]
    if kernels.singles:
        found += [Group(_ALONE, 32, 0.3), Group(_KNOWN, 16, 0.3)]
        share = 0.3 / len(kernels.singles)
        for j, name in enumerate(kernels.singles):
            # The device that is left out: nothing is known of it.
            limit = {name: 1.0} if j in kernels.columns else {}
            found.append(Group(_ONE | limit, 4, share))
    # Beside known devices, which have seen the numbers act, they are one belief among others.
    share = 0.3 if kernels.singles else 1.0
    if "log_values" in kernels.blocks:
        found.append(Group(_NUMBERS, 64, share))
        found.append(Group(_NUMBERS_ALONE, 16, share))
    if "declared" in kernels.blocks:
        found.append(Group(_DECLARED, 32, share))
        # Where tokens say nothing more, faint beliefs in them fit noise and disturb the order.
        found.append(Group(_DECLARED_ALONE, 16, 4 * share))
    return found


def prior_weights(kernels: Kernels) -> np.ndarray:
    """Weight vectors the posterior averages over: (vectors, kernels + 1), noise last.

    Scrambled Sobol points for each of :func:`groups`, so that the set is fixed and fills each
    box evenly.
    """
    out = []
    shared = kernels.names[: len(kernels.names) - len(kernels.singles)]
    for seed, group in enumerate(groups(kernels)):
        limits = kernels.bounds(group.limits)
        # With one known device left there is no "common" kernel, the last one. Its coordinate
        # is drawn all the same, so that the others of every vector stay as they were.
        drawn = len(shared) + 1 + int(kernels.columns.size == 1)
        unit = _even_points(drawn, seed, group.count)[:, : len(shared) + 1]
        unit = np.roll(unit, -1, axis=1)  # the noise takes the first coordinate
        middle = np.full((group.count, len(kernels.singles)), 0.9)
        unit = np.concatenate([unit[:, :-1], middle, unit[:, -1:]], axis=1)
        # Some runtimes are exact to a thousandth and some glitch: the noise spans the most.
        span = np.append(np.full(len(limits) - 1, 3.0), 5.0)
        out.append(limits * np.exp(-np.log(10) * span * (1 - unit)))
    return np.concatenate(out)


@lru_cache(maxsize=256)
def _even_points(dimensions: int, seed: int, count: int) -> np.ndarray:
    """Scrambled Sobol points, each coordinate in [0, 1): (count, dimensions), read only."""
    from scipy.stats import qmc

    points: np.ndarray = qmc.Sobol(dimensions, seed=seed).random(count)
    points.flags.writeable = False
    return points


def prior_shares(kernels: Kernels) -> np.ndarray:
    """Logarithms of the prior shares of :func:`prior_weights`: (vectors,), summing to 1."""
    found = groups(kernels)
    shares = np.concatenate([np.full(g.count, g.share / g.count) for g in found])
    return np.log(shares / shares.sum())


def single_vectors(kernels: Kernels) -> np.ndarray:
    """Which vectors of :func:`prior_weights` believe in one known device: (vectors,) bool."""
    found = groups(kernels)
    singles = [
        bool(kernels.singles) and 4 <= i < 4 + len(kernels.singles) for i in range(len(found))
    ]
    return np.repeat(singles, [g.count for g in found])
