"""The simple predictors that any other must not be worse than, whatever the table.

One known device taken as it is, ridge regression on all of them, ridge on operation counts, and
ridge on logarithms of numbers and declared costs. They are shown beside every benchmark: ridge
on a one-hot encoding alone is too weak to reveal a bad predictor.
"""

from __future__ import annotations

import numpy as np

from predictors.baselines import AdaptedBaseline, Baseline, Mean
from predictors.declared import DeclaredCosts
from predictors.registry import LATENCY_PREDICTORS, Adapted
from predictors.ridge import fit_ridge
from predictors.transfer_gp.device_functions import DeviceFunctions
from predictors.transfer_gp.features import FeatureScaler, role
from predictors.transfer_gp.leave_one_out import MINIMUM_ROWS, rows_to_learn_from, unusable
from search_spaces.errors import InputError
from search_spaces.seeds import derive_rng
from search_spaces.space import SearchSpace
from search_spaces.tables.table import LatencyTable

_ROWS = 1000


class _KnownDevices(Baseline):
    """Learns each known device as the default predictor does, to ask about any architecture."""

    def __init__(self, space: SearchSpace, *, seed: int = 0) -> None:
        super().__init__(space, seed=seed)
        self._scaler: FeatureScaler | None = None
        self._functions: DeviceFunctions | None = None

    def meta_fit(self, table: LatencyTable, *, valid: LatencyTable | None = None) -> Baseline:
        """Fit a function of the architecture to each known device.

        Raises:
            InputError: no device is known, or none has enough measurements.
        """
        table = table.select([d for d in table.devices if unusable(table.column(d)) is None])
        if not table.devices:
            raise InputError(
                f"the baseline {self.name!r} needs a known device with at least {MINIMUM_ROWS} "
                "different measurements; name some, or leave it out of --method"
            )
        rng = derive_rng(self.seed, "meta fit")
        table = table.rows(rows_to_learn_from(table, _ROWS, rng))
        self._scaler = FeatureScaler(self.space, table.genes)
        blocks = self._scaler(table.genes)
        self._functions = DeviceFunctions.fit(blocks, table.values, table.devices, rng)
        return self

    def known(self, genes: np.ndarray) -> np.ndarray:
        """Standardised latencies on the known devices: (n, devices)."""
        if self._scaler is None or self._functions is None:
            raise InputError(f"the baseline {self.name!r} has no known devices; call meta_fit")
        return self._functions(self._scaler(np.asarray(genes)))


@LATENCY_PREDICTORS.register("one_known_device")
class OneKnownDevice(_KnownDevices):
    """The known device that fits the measurements best, scaled and shifted."""

    name = "one_known_device"

    def fit_mean(self, genes: np.ndarray, latencies_ms: np.ndarray) -> Mean:
        """Least squares with a slope of at least zero on each device; the smallest error wins."""
        columns = self.known(genes)
        best, chosen = np.inf, (0, 0.0, float(latencies_ms.mean()))
        for j, column in enumerate(columns.T):
            centred = column - column.mean()
            norm = float(centred @ centred)
            slope = max(float(centred @ latencies_ms) / norm, 0.0) if norm > 0 else 0.0
            # A slope of zero would leave architectures unranked: its order stays.
            slope = max(slope, 1e-9 * max(float(latencies_ms.mean()), 1e-12))
            offset = float(latencies_ms.mean() - slope * column.mean())
            error = latencies_ms - offset - slope * column
            score = float(error @ error)
            if score < best:
                best, chosen = score, (j, slope, offset)
        j, slope, offset = chosen
        return lambda g: offset + slope * self.known(g)[:, j]


@LATENCY_PREDICTORS.register("known_devices_ridge")
class KnownDevicesRidge(_KnownDevices):
    """Ridge regression on the known devices' latencies, around their mean."""

    name = "known_devices_ridge"

    def fit_mean(self, genes: np.ndarray, latencies_ms: np.ndarray) -> Mean:
        """The penalty by leave-one-out."""

        def columns(g: np.ndarray) -> np.ndarray:
            known = self.known(g)
            # What they have in common costs less to use than what tells them apart.
            return np.column_stack([known, 3 * known.mean(axis=1)])

        fit = fit_ridge(columns(genes), latencies_ms)
        return lambda g: fit(columns(g))


class _Features(Baseline):
    """Ridge regression on features of the architecture, scaled over a table's architectures."""

    def __init__(self, space: SearchSpace, *, seed: int = 0) -> None:
        super().__init__(space, seed=seed)
        reference = space.sample_genes(derive_rng(seed, "reference"), 256)
        self._scaler = FeatureScaler(space, reference)
        self._declared = DeclaredCosts.none(len(space.choices))

    def declare(self, table: LatencyTable) -> None:
        """Take the architectures and the declared costs of a table."""
        if len(table) >= MINIMUM_ROWS:
            rows = rows_to_learn_from(table.select([]), _ROWS, derive_rng(self.seed, "rows"))
            self._scaler = FeatureScaler(self.space, table.genes[rows])
        self._declared = DeclaredCosts.of(table)
        if self._declared:
            self._declared.learn(self._scaler(table.genes), table.genes)

    def meta_fit(self, table: LatencyTable, *, valid: LatencyTable | None = None) -> Baseline:
        """Take the architectures and declared costs, unless :meth:`declare` was told them."""
        if not self._declared:
            self.declare(table)
        return self


@LATENCY_PREDICTORS.register("counts_ridge")
class CountsRidge(_Features):
    """Ridge regression on how often each operation occurs, and on sums of its numbers.

    A space without operations that repeat falls back on its numbers, then on the encoding.
    """

    name = "counts_ridge"

    def columns(self, genes: np.ndarray) -> np.ndarray:
        """Scaled counts of gene rows: (n, k)."""
        blocks = self._scaler(np.asarray(genes))
        for kind in ("counts", "numeric", "onehot"):
            names = [name for name in sorted(blocks) if role(name) == kind]
            if names:
                break
        return np.concatenate([blocks[name] for name in names], axis=1)

    def fit_mean(self, genes: np.ndarray, latencies_ms: np.ndarray) -> Mean:
        """The penalty by leave-one-out."""
        fit = fit_ridge(self.columns(genes), latencies_ms)
        return lambda g: fit(self.columns(g))


@LATENCY_PREDICTORS.register("log_ridge")
class LogRidge(_Features):
    """Ridge regression of log latency on log numbers, log declared costs and the encoding.

    The form of costs that multiply: a depth times a width squared times a resolution squared.
    """

    name = "log_ridge"

    def columns(self, genes: np.ndarray) -> np.ndarray:
        """Scaled logarithms of gene rows: (n, k)."""
        genes = np.asarray(genes)
        blocks = self._scaler(genes)
        parts = [0.3 * blocks["onehot"]] if "onehot" in blocks else []
        parts += [blocks[name] for name in ("log_values", "costs") if name in blocks]
        if self._declared:
            logs = self._declared.logarithms(genes, blocks)
            parts.append(3 * (logs - self._declared.centre) / self._declared.spread)
        return np.concatenate(parts, axis=1)

    def fit_mean(self, genes: np.ndarray, latencies_ms: np.ndarray) -> Mean:
        """The median of a log-normal; the penalty by leave-one-out."""
        floor = 1e-3 * max(float(np.median(latencies_ms)), 1e-300)
        fit = fit_ridge(self.columns(genes), np.log(np.maximum(latencies_ms, floor)))
        most = float(np.log(max(float(latencies_ms.max()), floor))) + 3.0
        return lambda g: np.exp(np.minimum(fit(self.columns(g)), most))

    def adapt_genes(self, genes: np.ndarray, latencies_ms: np.ndarray) -> Adapted:
        """Fit once; errors are relative, from leave-one-out in logarithms."""
        mean = self.fit_mean(genes, latencies_ms)
        floor = 1e-3 * max(float(np.median(latencies_ms)), 1e-300)
        logs = np.log(np.maximum(latencies_ms, floor))
        left_out = fit_ridge(self.columns(genes), logs).left_out
        spread = float(np.sqrt(np.mean((logs - left_out) ** 2)))
        return AdaptedBaseline(
            self.space,
            mean,
            lambda g: mean(g) * min(max(spread, 1e-9), 2.0),
            len(genes) - 1,
            least_ms=float(latencies_ms.min()),
        )
