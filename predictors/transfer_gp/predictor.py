"""The default latency predictor: a Gaussian process with a prior learned from known devices.

Latency is close to additive over the operations of a network, and devices resemble each
other. So the latency of a new device is modelled, in ms, as a constant plus a Gaussian
process whose kernel is a weighted sum of

* linear kernels on feature blocks (how often each operation occurs, where, analytic costs),
* linear and radial kernels on the predicted latencies of the known devices
  (:mod:`predictors.transfer_gp.device_functions`), which carry what the devices have in common,
* radial kernels on the architecture itself, for what is left.

The weights are not optimised on the few measurements of the new device: a fixed set of
weight vectors is averaged by its marginal likelihood, times a prior that says how well each
explained known devices when they were left out. A scale is integrated out in closed form
(Student's t), and each single measurement may be a glitch. Adaptation is a handful of
Cholesky factors. Where latency is better described as multiplicative, the logarithm is
modelled instead; marginal likelihood decides.

Without known devices the feature kernels stand alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from predictors.registry import (
    LATENCY_PREDICTORS,
    SavedPredictor,
    check_measurements,
    check_pool,
    part_of,
)
from predictors.transfer_gp.adapted import AdaptedGP, Fit, held_out_errors
from predictors.transfer_gp.device_functions import DeviceFunctions, clip_outliers
from predictors.transfer_gp.error_scale import ErrorScale, Run, usual
from predictors.transfer_gp.features import FeatureScaler, degenerate
from predictors.transfer_gp.kernels import Features, Kernels, prior_weights
from predictors.transfer_gp.leave_one_out import (
    CALIBRATED_AT,
    MINIMUM_ROWS,
    Prior,
    Task,
    learn_prior,
    learn_scales,
    tasks_of,
    usable,
    without_noise,
)
from predictors.transfer_gp.mixture import posterior_of
from predictors.transfer_gp.sample_choice import balanced
from predictors.transfer_gp.transform import step_of, transform
from search_spaces.errors import InputError
from search_spaces.seeds import derive_rng
from search_spaces.space import SearchSpace
from search_spaces.tables.table import LatencyTable

_REFERENCE_ROWS = 512
_TABLE_ROWS = 1000
_CANDIDATES = 300
_LOG_MARGIN = 4.0  # evidence needed before the logarithm is preferred


@LATENCY_PREDICTORS.register("transfer_gp")
class TransferGP(SavedPredictor):
    """Gaussian process with a prior over devices; see the module's text."""

    name = "transfer_gp"

    def __init__(self, space: SearchSpace, *, seed: int = 0) -> None:
        super().__init__(space, seed=seed)
        reference = space.sample_genes(derive_rng(seed, "reference"), _REFERENCE_ROWS)
        self._start(FeatureScaler(space, reference), reference, None)

    def _start(
        self, scaler: FeatureScaler, reference: np.ndarray, functions: DeviceFunctions | None
    ) -> None:
        self._scaler = scaler
        self._reference = reference
        self._functions = functions
        self._references = self.features(reference)
        columns = np.arange(len(functions.devices) if functions else 0)
        self._kernels = Kernels(self._references, columns)
        self._thetas = prior_weights(self._kernels)
        self._prior = Prior.flat(len(self._thetas))
        self._scales: dict[int, ErrorScale] = {}

    # ---------------------------------------------------------------- learning

    @property
    def devices(self) -> tuple[str, ...]:
        """Known devices, then the costs declared for the architectures themselves."""
        return self._functions.devices if self._functions else ()

    def features(self, genes: np.ndarray) -> Features:
        """Everything the kernels need to know of gene rows."""
        blocks = self._scaler(genes)
        if self._functions is not None:
            functions = self._functions
            standard = functions(blocks)
            blocks["devices"] = standard
            floor = 0.05 * functions.mean
            ms = np.maximum(functions.mean + functions.spread * standard, floor)
            relative = functions.spread / functions.mean
            blocks["log_devices"] = np.log(ms / functions.mean) / relative
        return blocks

    def meta_fit(self, table: LatencyTable, *, valid: LatencyTable | None = None) -> TransferGP:
        """Learn the device functions, the prior of the weights and the interval widths.

        Devices with fewer than five measurements teach nothing and are left out; with no
        device left the predictor stands on the features of the architectures alone.
        Devices of ``valid`` only weigh the prior and calibrate the intervals. Costs that the
        table declares (MACs) are features as known devices are, but no practice.
        """
        rng = derive_rng(self.seed, "meta fit")
        rows = np.sort(rng.permutation(len(table))[:_TABLE_ROWS])
        table = table.rows(rows)
        table = table.select([d for d in table.devices if usable(table.column(d))])
        known = _with_costs(table)
        reference = table.genes if len(table) >= MINIMUM_ROWS else self._reference
        scaler = FeatureScaler(self.space, reference)
        functions = None
        if known.devices:
            functions = DeviceFunctions.fit(scaler(known.genes), known.values, known.devices, rng)
        self._start(scaler, reference, functions)
        tasks = tasks_of(table, valid)
        if len(tasks) >= 2:
            self._prior = learn_prior(tasks, self.features, self._kernels_without, seed=self.seed)
            practice = [*tasks, *(without_noise(task, self.features) for task in tasks)]
            self._scales = learn_scales(
                practice, self._practise, self._choose, devices=len(tasks), seed=self.seed
            )
        return self

    def _kernels_without(self, device: str | None) -> Kernels:
        columns = self._kernels.columns
        if device is None:
            return self._kernels
        return Kernels(self._references, columns[columns != self.devices.index(device)])

    def _practise(self, task: Task, chosen: np.ndarray, held: np.ndarray) -> Run:
        kernels = self._kernels_without(task.device)
        fit = self._fit(task.genes[chosen], task.values[chosen], kernels)
        errors = held_out_errors(fit, task.genes[held], task.values[held], self.features)
        return Run(fit.posterior.left_out(), errors)

    def _choose(
        self, task: Task, rows: np.ndarray, count: int, rng: np.random.Generator
    ) -> np.ndarray:
        return self._design(task.genes[rows], count, rng, self._kernels_without(task.device))

    # --------------------------------------------------------------- adaptation

    def adapt_genes(self, genes: np.ndarray, latencies_ms: np.ndarray) -> AdaptedGP:
        """Adapt in closed form; the same architecture may be measured several times."""
        latencies = check_measurements(len(genes), latencies_ms)
        fit = self._fit(np.asarray(genes), latencies, self._kernels)
        return AdaptedGP(self, fit, self._scale_at(len(genes)))

    def _fit(self, genes: np.ndarray, latencies: np.ndarray, kernels: Kernels) -> Fit:
        features = self.features(genes)
        own = kernels is self._kernels
        thetas = self._thetas if own else prior_weights(kernels)
        step = step_of(latencies)
        latencies = clip_outliers(latencies, reach=5.0)
        fits = []
        for log in (False, True):
            target, jacobian = transform(latencies, log)
            grams = kernels.between(features, features, log=log)
            spread = self._prior.spread_of(target, log)
            posterior = posterior_of(grams, target, thetas, self._prior.log_weights, spread)
            fits.append((posterior, posterior.evidence + jacobian))
        # One measurement says nothing about the transform.
        gain = fits[1][1] - fits[0][1] if len(genes) > 2 else 0.0
        log = bool(gain + self._prior.log_odds > _LOG_MARGIN)
        return Fit(kernels, features, fits[int(log)][0], log, step, float(latencies.min()))

    def _scale_at(self, count: int) -> ErrorScale:
        if not self._scales:
            return usual(count)
        nearest = min(self._scales, key=lambda n: abs(np.log(n / count)))
        return self._scales[nearest]

    def suggest_genes(self, genes: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
        """Choose measurements that are informative and nearly a fair sample of the pool.

        See :mod:`predictors.transfer_gp.sample_choice`. Architectures that pass no signal are
        measured only when there are not enough others.
        """
        genes = np.asarray(genes)
        check_pool(len(genes), n)
        return self._design(genes, n, rng, self._kernels)

    def _design(
        self, genes: np.ndarray, n: int, rng: np.random.Generator, kernels: Kernels
    ) -> np.ndarray:
        candidates = rng.permutation(len(genes))
        bad = degenerate(self.space, genes[candidates])
        candidates = candidates[np.argsort(bad, kind="stable")]
        enough = max(int((~bad).sum()), n)
        candidates = candidates[: min(enough, max(_CANDIDATES, 3 * n))]
        features = self.features(genes[candidates])
        log_weights = self._prior.log_weights
        top = np.argsort(-log_weights, kind="stable")[:: max(1, len(self._thetas) // 64)][:24]
        thetas = (self._thetas if kernels is self._kernels else prior_weights(kernels))[top]
        belief = np.exp(log_weights[top] - log_weights[top].max())
        belief = 0.5 * belief / belief.sum() + 0.5 / len(top)
        grams = kernels.between(features, features, log=False)
        return candidates[balanced(grams, thetas, belief, n, rng)]

    # ---------------------------------------------------------------- embedding

    def resemblance(self, adapted: AdaptedGP, genes: np.ndarray | None = None) -> dict[str, float]:
        """Correlation of an adapted device's predictions with each known device.

        Args:
            genes: where to compare; default: the architectures of the meta-training table.
        """
        genes = self._reference if genes is None else genes
        features = self.features(genes)
        mean, _ = adapted.predict_genes(genes)
        known = {d: features["devices"][:, j] for j, d in enumerate(self.devices)}
        # A constant device resembles nothing.
        return {
            device: float(np.corrcoef(mean, values)[0, 1])
            if np.ptp(mean) > 0 and np.ptp(values) > 0
            else 0.0
            for device, values in known.items()
        }

    def embedding(self, adapted: dict[str, AdaptedGP]) -> tuple[list[str], np.ndarray]:
        """Two coordinates a device: known ones first, then those of ``adapted``.

        Principal components of standardised predictions over the reference architectures;
        devices that rank architectures alike lie close together.

        Returns:
            names, and coordinates (devices, 2).
        """
        rows = [column for column in self._references.get("devices", np.zeros((0, 0))).T]
        for device in adapted.values():
            mean, _ = device.predict_genes(self._reference)
            rows.append(mean)
        if not rows:
            raise InputError("no device to embed: meta-train on a table or adapt to a device first")
        matrix = np.array([(r - r.mean()) / max(r.std(), 1e-12) for r in rows])
        left, sizes, _ = np.linalg.svd(matrix - matrix.mean(axis=0), full_matrices=False)
        points = np.zeros((len(rows), 2))
        wide = min(2, len(sizes))
        points[:, :wide] = left[:, :wide] * sizes[:wide] / np.sqrt(matrix.shape[1])
        return [*self.devices, *adapted], points

    # -------------------------------------------------------------------- files

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Everything learned."""
        arrays = {f"scaler.{k}": v for k, v in self._scaler.arrays().items()}
        arrays["reference"] = self._reference
        arrays["prior"] = self._prior.log_weights
        arrays["prior_scalars"] = np.array([self._prior.log_odds, *self._prior.spreads])
        if self._functions is not None:
            arrays |= {f"functions.{k}": v for k, v in self._functions.arrays().items()}
        for count, scale in self._scales.items():
            arrays |= scale.arrays(f"scale.{count}.")
        return arrays, {"devices": list(self.devices), "seed": self.seed}

    def restore(self, arrays: dict[str, np.ndarray], settings: dict[str, Any]) -> None:
        """Take over what :meth:`state` returned."""
        self.seed = settings["seed"]
        functions = None
        if settings["devices"]:
            functions = DeviceFunctions(tuple(settings["devices"]), part_of(arrays, "functions."))
        scaler = FeatureScaler.from_arrays(self.space, part_of(arrays, "scaler."))
        reference = arrays["reference"]
        if reference.shape[1:] != (len(self.space.choices),):
            raise ValueError(f"reference architectures of shape {reference.shape}")
        self._start(scaler, reference, functions)
        log_odds, *spreads = (float(v) for v in arrays["prior_scalars"])
        self._prior = Prior(arrays["prior"], log_odds, (spreads[0], spreads[1]))
        for count in CALIBRATED_AT:
            found = part_of(arrays, f"scale.{count}.")
            if found:
                self._scales[count] = ErrorScale.from_arrays(found)


def _with_costs(table: LatencyTable) -> LatencyTable:
    """The table with its known costs as further columns."""
    costs = {n: v for n, v in table.costs.items() if n not in table.devices and usable(v)}
    values = np.column_stack([table.values, *costs.values()])
    return LatencyTable(table.space, table.genes, (*table.devices, *costs), values)
