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

from predictors.declared import DeclaredCosts, gene_keys
from predictors.registry import (
    LATENCY_PREDICTORS,
    SavedPredictor,
    check_measurements,
    check_pool,
    part_of,
)
from predictors.transfer_gp.adapted import AdaptedGP, Fit
from predictors.transfer_gp.device_functions import DeviceFunctions, clip_outliers
from predictors.transfer_gp.features import FeatureScaler, degenerate
from predictors.transfer_gp.kernels import Features, Kernels
from predictors.transfer_gp.leave_one_out import (
    MINIMUM_ROWS,
    Prior,
    Task,
    learn_prior,
    rank_correlations,
    rows_to_learn_from,
    tasks_of,
    unusable,
)
from predictors.transfer_gp.mixture import LeftOut, left_out_errors, posterior_of
from predictors.transfer_gp.sample_choice import balanced, designed
from predictors.transfer_gp.transform import step_of, transform
from search_spaces.errors import InputError
from search_spaces.seeds import derive_rng
from search_spaces.space import SearchSpace
from search_spaces.tables.table import LatencyTable

_REFERENCE_ROWS = 512
_TABLE_ROWS = 1000
_CANDIDATES = 300  # at most, of a fair sample
_COMPARED = 3  # candidates of a design, for each measurement
_DESIGN_MARGIN = 0.005  # of rank correlation: worth less than intervals that can be trusted
_LOG_MARGIN = 4.0  # evidence needed before the logarithm is preferred
_LOG_LIKELY = -2.0  # where costs are likely to multiply: ten measurements may hide it


@LATENCY_PREDICTORS.register("transfer_gp")
class TransferGP(SavedPredictor):
    """Gaussian process with a prior over devices; see the module's text."""

    name = "transfer_gp"

    def __init__(self, space: SearchSpace, *, seed: int = 0) -> None:
        super().__init__(space, seed=seed)
        self._fitted = False
        self._waiting = DeclaredCosts.none(len(space.choices))
        self.left_out: dict[str, str] = {}
        self.rows_used: dict[str, tuple[int, int]] = {}
        reference = space.sample_genes(derive_rng(seed, "reference"), _REFERENCE_ROWS)
        check_different(reference)
        self._start(FeatureScaler(space, reference), reference, None, self._waiting)

    def _start(
        self,
        scaler: FeatureScaler,
        reference: np.ndarray,
        functions: DeviceFunctions | None,
        declared: DeclaredCosts,
    ) -> None:
        self._scaler, self._declared = scaler, declared
        self._reference = reference
        self._functions = functions
        self._place = {key: i for i, key in enumerate(gene_keys(reference))}
        self._references = self.features(reference)
        columns = np.arange(len(functions.devices) if functions else 0)
        self._kernels = Kernels(self._references, columns)
        self._without: dict[str, Kernels] = {}
        self._prior = Prior.flat(self._kernels)
        self._by_design = True

    # ---------------------------------------------------------------- learning

    @property
    def devices(self) -> tuple[str, ...]:
        """Known devices that are learned from."""
        return self._functions.devices if self._functions else ()

    def features(self, genes: np.ndarray) -> Features:
        """Everything the kernels need to know of gene rows."""
        blocks = self._blocks(genes)
        if self._functions is not None:
            blocks["devices"] = self._functions(blocks)
            blocks["log_devices"] = self._functions.logarithms(blocks["devices"])
        return blocks

    def features_to_learn_from(self, genes: np.ndarray) -> Features:
        """As :meth:`features`; what known devices say of rows they taught is predicted without.

        So a measurement shows how far the known devices can be trusted on any architecture.
        """
        blocks = self.features(genes)
        if self._functions is None or self._functions.left_out is None:
            return blocks
        at = np.array([self._place.get(key, -1) for key in gene_keys(genes)], dtype=np.int64)
        blocks["devices"][at >= 0] = self._functions.left_out[at[at >= 0]]
        blocks["log_devices"] = self._functions.logarithms(blocks["devices"])
        return blocks

    def _blocks(self, genes: np.ndarray) -> Features:
        """What is known of gene rows without any device."""
        blocks = self._scaler(genes)
        if self._declared:
            costs, logs = self._declared.features(genes, blocks)
            # The first (MACs) is most of what costs say, more only adds to it.
            blocks |= {"declared": costs[:, :1], "log_declared": logs[:, :1]}
            if logs.shape[1] > 1:
                blocks["more_costs"] = logs[:, 1:] / np.sqrt(logs.shape[1] - 1)
        return blocks

    def declare(self, table: LatencyTable) -> None:
        """Learn the declared costs of further architectures, for predictions of them.

        Before :meth:`meta_fit` they only wait for it; a predictor that was fitted without any
        declared cost goes on without.
        """
        if self._fitted:
            found = DeclaredCosts.of(table, self._declared.names)
            self._declared = self._declared.and_those_of(found)
        else:
            self._waiting = DeclaredCosts.of(table)

    def meta_fit(self, table: LatencyTable, *, valid: LatencyTable | None = None) -> TransferGP:
        """Learn the device functions and the prior of the weights.

        Devices with fewer than five measurements, or all of them equal, teach nothing and are
        left out (``left_out`` says why); with no device left the predictor stands on the
        features of the architectures alone. Of a large table at most 1,000 measured rows are
        used, each device having its share (``rows_used``). Devices of ``valid`` only weigh the
        prior. Costs that the table declares (MACs) are exact
        features, of these architectures and those of :meth:`declare`.

        Raises:
            InputError: every row is the same architecture.
        """
        rng = derive_rng(self.seed, "meta fit")
        declared = DeclaredCosts.of(table)
        declared = declared.and_those_of(self._waiting) if declared else self._waiting
        reasons = {d: unusable(table.column(d)) for d in table.devices}
        self.left_out = {d: reason for d, reason in reasons.items() if reason is not None}
        whole = table
        table = table.select([d for d in table.devices if reasons[d] is None])
        table = table.rows(rows_to_learn_from(table, _TABLE_ROWS, rng))
        self.rows_used = {
            d: (int(np.isfinite(whole.column(d)).sum()), int(np.isfinite(table.column(d)).sum()))
            for d in table.devices
        }
        reference = table.genes if len(table) >= MINIMUM_ROWS else self._reference
        check_different(reference)
        scaler = FeatureScaler(self.space, reference)
        self._scaler, self._declared = scaler, declared
        if declared:
            declared.learn(scaler(reference), reference)
        functions = None
        if table.devices:
            blocks = self._blocks(table.genes)
            functions = DeviceFunctions.fit(blocks, table.values, table.devices, rng)
        self._start(scaler, reference, functions, declared)
        self._fitted = True
        tasks = tasks_of(table, valid)
        if len(tasks) >= 2:
            self._prior = learn_prior(
                tasks, self.features_to_learn_from, self._kernels_without, seed=self.seed
            )
            self._by_design = self._judge_designs(tasks)
        return self

    def _kernels_without(self, device: str | None) -> Kernels:
        if device is None:
            return self._kernels
        if device not in self._without:
            columns = self._kernels.columns
            rest = columns[columns != self.devices.index(device)]
            self._without[device] = Kernels(self._references, rest)
        return self._without[device]

    def _judge_designs(self, tasks: list[Task]) -> bool:
        """Whether a design ranks left-out devices better than a fair sample."""
        means = []
        for by_design in (False, True):
            self._by_design = by_design
            found = rank_correlations(tasks, self._choose, self._predict_left_out, self.seed)
            means.append(np.mean(found) if found else 0.0)
        return bool(means[1] > means[0] + _DESIGN_MARGIN)

    def _predict_left_out(self, task: Task, chosen: np.ndarray, held: np.ndarray) -> np.ndarray:
        kernels = self._kernels_without(task.device)
        fit = self._fit(task.genes[chosen], task.values[chosen], kernels, judged=False)
        return fit.location_scale(task.genes[held], self.features_to_learn_from)[0]

    def _choose(
        self, task: Task, rows: np.ndarray, count: int, rng: np.random.Generator
    ) -> np.ndarray:
        return self._design(task.genes[rows], count, rng, self._kernels_without(task.device))

    # --------------------------------------------------------------- adaptation

    def adapt_genes(self, genes: np.ndarray, latencies_ms: np.ndarray) -> AdaptedGP:
        """Adapt in closed form; the same architecture may be measured several times."""
        latencies = check_measurements(len(genes), latencies_ms)
        fit = self._fit(np.asarray(genes), latencies, self._kernels)
        return AdaptedGP(self, fit)

    def _fit(
        self, genes: np.ndarray, latencies: np.ndarray, kernels: Kernels, *, judged: bool = True
    ) -> Fit:
        """Fit measurements; ``judged``: with their errors, which only intervals need."""
        features = self.features_to_learn_from(genes)
        thetas = kernels.weights
        step = step_of(latencies)
        positive_ms = latencies[latencies > 0]
        # In a unit of the device's own: no power or product overflows, whatever was measured.
        unit = float(np.median(positive_ms)) if positive_ms.size else 1.0
        latencies, step = latencies / unit, step / unit
        latencies = clip_outliers(latencies, reach=5.0)
        prior, found, posteriors, evidence = self._prior, [], [], []
        for log in (False, True):
            target, jacobian = transform(latencies, log)
            grams = kernels.between(features, features, log=log)
            found.append((grams, target, thetas, prior.log_weights, prior.spread_of(target, log)))
            posterior = posterior_of(*found[-1])
            evidence.append(posterior.evidence + jacobian)
            posteriors.append(posterior)
        # One measurement says nothing about the transform.
        gain = evidence[1] - evidence[0] if len(genes) > 2 else 0.0
        log = bool(gain + prior.log_odds > self._log_margin)
        left_out = left_out_errors(*found[int(log)]) if judged else LeftOut.none()
        least = float(latencies.min())
        return Fit(kernels, features, posteriors[int(log)], left_out, log, step, least, unit)

    @property
    def _log_margin(self) -> float:
        """Evidence needed before the logarithm is preferred.

        Costs add over the operations of a chain; numbers such as a resolution multiply. Known
        devices have shown which.
        """
        if self._functions is not None:
            return 0.0 if self._functions.log.mean() > 0.5 else _LOG_MARGIN
        blocks = self._kernels.blocks
        return _LOG_LIKELY if {"log_values", "declared"} & set(blocks) else _LOG_MARGIN

    def suggest_genes(self, genes: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
        """Choose measurements by design, or fairly where that did as well on known devices.

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
        most = _COMPARED * n if self._by_design else max(_CANDIDATES, n)
        candidates = candidates[: min(enough, most)]
        features = self.features(genes[candidates])
        log_weights = self._prior.log_weights
        top = np.argsort(-log_weights, kind="stable")[:: max(1, len(kernels.weights) // 64)][:24]
        thetas = kernels.weights[top]
        belief = np.exp(log_weights[top] - log_weights[top].max())
        belief = 0.5 * belief / belief.sum() + 0.5 / len(top)
        grams = kernels.between(features, features, log=self._prior.log_odds > self._log_margin)
        choose = designed if self._by_design else balanced
        return candidates[choose(grams, thetas, belief, n, rng)]

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
        if self._declared:
            arrays |= {f"declared.{k}": v for k, v in self._declared.arrays().items()}
        return arrays, {
            "devices": list(self.devices),
            "declared": list(self._declared.names) if self._declared else [],
            "by_design": self._by_design,
            "seed": self.seed,
        }

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
        left_out = functions.left_out if functions else None
        if left_out is not None and left_out.shape != (len(reference), len(settings["devices"])):
            raise ValueError(f"known devices at their own rows of shape {left_out.shape}")
        declared = self._waiting
        if settings["declared"]:
            part = part_of(arrays, "declared.")
            declared = DeclaredCosts.from_arrays(settings["declared"], part)
        self._start(scaler, reference, functions, declared)
        self._fitted = True
        self._by_design = bool(settings["by_design"])
        log_odds, *spreads = (float(v) for v in arrays["prior_scalars"])
        self._prior = Prior(arrays["prior"], log_odds, (spreads[0], spreads[1]))


def check_different(genes: np.ndarray) -> None:
    """Raise InputError if all gene rows (n, choices) are the same architecture."""
    if len(genes) and (genes == genes[0]).all():
        raise InputError(
            "every row is the same architecture: a predictor tells architectures apart and needs "
            "at least two; add rows of others"
        )
