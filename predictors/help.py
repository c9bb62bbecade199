"""HELP: meta-learned latency predictor with a hardware embedding.

Lee, Lee, Chong and Hwang, *HELP: Hardware-Adaptive Efficient Latency Prediction for NAS
via Meta-Learning*, NeurIPS 2021. A device is described by the latencies of ten reference
architectures (its hardware embedding). A graph network (an MLP for spaces without a
graph) with the embedding as a second input is trained by Meta-SGD over devices: two inner
gradient steps with a learned step size a parameter on ten samples, the loss on other
samples of the device. The embedding also modulates the last three layers through an
amortised Gaussian variable with a KL term.

Deviations from the released code, each harmless to the ranking it reports: the KL of every
task of an episode counts (theirs: eight times the last one's); the mean over Monte-Carlo
draws is scored (theirs: the last draw); and :meth:`HelpPredictor.adapt_genes` scales targets
by what was measured, since the 900-sample range the release uses is not known on a new device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from predictors.help_devices import KnownDevice, check_count, choose_references, unit
from predictors.help_network import Parameters, forward, initial_weights, inputs_of, take, width_of
from predictors.registry import (
    LATENCY_PREDICTORS,
    Adapted,
    SavedPredictor,
    check_coverage,
    check_pool,
)
from predictors.transfer_gp.transform import positive
from search_spaces.errors import InputError
from search_spaces.seeds import derive_rng, derive_seed
from search_spaces.space import SearchSpace
from search_spaces.tables.table import LatencyTable

if TYPE_CHECKING:
    import torch


_MODULATED = ("fc3", "fc4", "fc5")


@LATENCY_PREDICTORS.register("help")
class HelpPredictor(SavedPredictor):
    """HELP with the released hyperparameters as defaults.

    Args:
        space: with ``graph_genes`` a graph network is used, else an MLP on the one-hot encoding.
        references: gene rows (10, choices) of the hardware embedding; default: chosen at
            :meth:`meta_fit` as evenly spaced in mean latency rank, away from the extremes.
        episodes: meta-training steps, of ``tasks`` devices each.
        support, query: architectures a task.
        steps: inner gradient steps.
        width: hidden units a layer.
        draws: Monte-Carlo samples of the modulation at prediction.
        check_every: episodes between validations, where there are validation devices.
        progress: called with (episode, validation Spearman or NaN) at each of these.
    """

    name = "help"

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int = 0,
        references: np.ndarray | None = None,
        episodes: int = 2000,
        tasks: int = 8,
        support: int = 10,
        query: int = 200,
        steps: int = 2,
        learning_rate: float = 1e-4,
        width: int = 100,
        kl_scale: float = 0.1,
        z_scale: float = 0.01,
        draws: int = 10,
        check_every: int = 50,
        progress: Callable[[int, float], None] | None = None,
    ) -> None:
        super().__init__(space, seed=seed)
        self.references = None if references is None else np.asarray(references)
        self.episodes = episodes
        self.tasks = tasks
        self.support = support
        self.query = query
        self.steps = steps
        self.learning_rate = learning_rate
        self.width = width
        self.kl_scale = kl_scale
        self.z_scale = z_scale
        self.draws = draws
        self.check_every = check_every
        self.progress = progress
        self._parameters: Parameters = {}
        # Where the trimmed range of a pool lies within the range of the references,
        # learned from the known devices: normalised = offset + slope * embedding scale.
        self._range = (0.0, 1.0)

    # ---------------------------------------------------------------- learning

    def check_use(self, table: LatencyTable, measurements: int) -> None:
        """HELP learns from known devices, and needs more measurements than its references.

        Raises:
            InputError: as :meth:`meta_fit` and :meth:`suggest_genes`.
        """
        if not table.devices:
            raise InputError("HELP needs at least one meta-training device")
        references = self.references
        if references is None:
            references = table.genes[choose_references(table)]
        for name in table.devices:
            KnownDevice(table, name, references)
        check_count(measurements, len(references))

    def required_genes(self) -> np.ndarray:
        """The reference architectures: (10, choices)."""
        return self._need_references()

    def meta_fit(self, table: LatencyTable, *, valid: LatencyTable | None = None) -> HelpPredictor:
        """Meta-train on the devices of ``table``; keep the checkpoint best on ``valid``.

        A known device without a measurement of a reference gets a predicted one there.

        Raises:
            InputError: no device, a device with too few measurements, or fewer than ten rows.
        """
        import torch

        if not table.devices:
            raise InputError("HELP needs at least one meta-training device")
        if self.references is None:
            self.references = table.genes[choose_references(table)]
        devices = [KnownDevice(table, name, self.references) for name in table.devices]
        self._range = tuple(np.mean([device.reference_range() for device in devices], axis=0))
        checks = [KnownDevice(valid, n, self.references) for n in valid.devices] if valid else []
        inputs = inputs_of(self.space, table.genes)
        valid_inputs = inputs_of(self.space, valid.genes) if valid else None
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "help") % 2**62)
        rng = derive_rng(self.seed, "help episodes")
        parameters = initial_weights(self.space, self.width, generator, width_of(inputs))
        optimiser = torch.optim.Adam(parameters.values(), lr=self.learning_rate)
        best, best_score = parameters, -np.inf
        for episode in range(1, self.episodes + 1):
            chosen = rng.permutation(len(devices))[: self.tasks]
            loss = self._episode_loss(
                parameters, [devices[i] for i in chosen], inputs, rng, generator
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            if episode % self.check_every == 0 or episode == self.episodes:
                score = np.nan
                if valid_inputs is not None and checks:
                    score = self._validate(parameters, checks, valid_inputs)
                if not checks or score > best_score:
                    best_score = score
                    best = {name: p.detach().clone() for name, p in parameters.items()}
                if self.progress is not None:
                    self.progress(episode, float(score))
        self._parameters = best
        return self

    def _episode_loss(
        self,
        parameters: Parameters,
        devices: list[KnownDevice],
        inputs: tuple[torch.Tensor, ...],
        rng: np.random.Generator,
        generator: torch.Generator,
    ) -> torch.Tensor:
        import torch

        support, query, ys, yq = [], [], [], []
        for device in devices:
            order = rng.permutation(device.trimmed)[: self.support + self.query]
            support.append(order[: self.support])
            # Devices with few rows repeat queries, so that tasks stack into one tensor.
            query.append(np.resize(order[self.support :], self.query))
            ys.append(device.scaled[support[-1]])
            yq.append(device.scaled[query[-1]])
        embedding = torch.stack([torch.from_numpy(d.embedding).float() for d in devices])
        xs = take(inputs, np.stack(support))
        xq = take(inputs, np.stack(query))
        ys_t = torch.from_numpy(np.stack(ys)).float()
        yq_t = torch.from_numpy(np.stack(yq)).float()
        adapted, kl = self._adapt(parameters, xs, ys_t, embedding, generator, train=True)
        predicted = forward(adapted, xq, embedding)
        losses = ((predicted - yq_t) ** 2).mean(dim=1)
        return losses.mean() + self.kl_scale * kl.sum()

    def _adapt(
        self,
        parameters: Parameters,
        xs: tuple[torch.Tensor, ...],
        ys: torch.Tensor,
        embedding: torch.Tensor,
        generator: torch.Generator,
        *,
        train: bool,
    ) -> tuple[Parameters, torch.Tensor]:
        """Modulate by the embedding and take the inner steps, for T tasks at once.

        ``ys``: (T, support); ``embedding``: (T, 10). Returned parameters have a leading T.
        """
        import torch

        tasks = len(ys)
        model = {
            name: p.expand(tasks, *p.shape)
            for name, p in parameters.items()
            if not name.startswith(("z.", "rate."))
        }
        hidden = torch.relu(embedding @ parameters["z.0.weight"].T + parameters["z.0.bias"])
        stats = hidden @ parameters["z.1.weight"].T + parameters["z.1.bias"]
        mean, raw = stats.chunk(2, dim=1)
        sigma = torch.nn.functional.softplus(raw)
        kl = 0.5 * (sigma**2 + mean**2 - 1).sum(1) - torch.log(sigma).sum(1)
        z = mean + sigma * torch.randn(mean.shape, generator=generator)
        wide = 2 * self.width
        for i, layer in enumerate(_MODULATED):
            scale = 1 + self.z_scale * z[:, i * wide : (i + 1) * wide]
            model[f"{layer}.weight"] = model[f"{layer}.weight"] * scale[:, None, :]
            shift = self.z_scale * z[:, 3 * wide + i]
            model[f"{layer}.bias"] = model[f"{layer}.bias"] + shift[:, None]
        if not train:
            model = {name: p.detach().requires_grad_() for name, p in model.items()}
        for _ in range(self.steps):
            loss = ((forward(model, xs, embedding) - ys) ** 2).mean(dim=1).sum()
            gradients = torch.autograd.grad(loss, list(model.values()), create_graph=train)
            model = {
                name: p - parameters[f"rate.{name}"] * g
                for (name, p), g in zip(model.items(), gradients, strict=True)
            }
        return model, kl

    def _validate(
        self,
        parameters: Parameters,
        devices: list[KnownDevice],
        inputs: tuple[torch.Tensor, ...],
    ) -> float:
        from scipy.stats import spearmanr

        frozen = {name: p.detach() for name, p in parameters.items()}
        scores = []
        for device in devices:
            rng = derive_rng(self.seed, "help validation", device.name)
            order = rng.permutation(device.trimmed)
            support, query = order[: self.support], order[self.support :]
            predicted = self._predict_mean(
                frozen, take(inputs, support), device.scaled[support], device.embedding
            )(take(inputs, query))[0]
            scores.append(spearmanr(predicted, device.scaled[query])[0])
        return float(np.mean(scores))

    def _predict_mean(
        self,
        parameters: Parameters,
        xs: tuple[torch.Tensor, ...],
        ys: np.ndarray,
        embedding: np.ndarray,
    ) -> Callable[[tuple[torch.Tensor, ...]], tuple[np.ndarray, np.ndarray]]:
        """Adapt once a draw (as T tasks) and return a function to mean and spread over draws."""
        import torch

        generator = torch.Generator().manual_seed(derive_seed(self.seed, "draws") % 2**62)
        repeat = tuple(x.expand(self.draws, *x.shape) for x in xs)
        targets = torch.from_numpy(ys).float().expand(self.draws, -1)
        hardware = torch.from_numpy(embedding).float().expand(self.draws, -1)
        model, _ = self._adapt(parameters, repeat, targets, hardware, generator, train=False)
        model = {name: p.detach() for name, p in model.items()}

        def predict(xq: tuple[torch.Tensor, ...]) -> tuple[np.ndarray, np.ndarray]:
            means, spreads = [], []
            with torch.no_grad():
                for start in range(0, len(xq[0]), 2000):
                    part = tuple(
                        x[start : start + 2000].expand(self.draws, *x[start : start + 2000].shape)
                        for x in xq
                    )
                    out = forward(model, part, hardware).numpy()
                    means.append(out.mean(axis=0))
                    spreads.append(out.std(axis=0))
            return np.concatenate(means), np.concatenate(spreads)

        return predict

    # --------------------------------------------------------------- adaptation

    def suggest_genes(self, genes: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
        """Return the rows of the references, then random rows.

        Raises:
            InputError: ``n`` leaves no sample to fine-tune on, or a reference is not in the pool.
        """
        check_pool(len(genes), n)
        references = self._need_references()
        check_count(n, len(references))
        place = {row.tobytes(): i for i, row in enumerate(np.ascontiguousarray(genes))}
        rows = np.ascontiguousarray(references.astype(genes.dtype))
        missing = [i for i, row in enumerate(rows) if row.tobytes() not in place]
        if missing:
            raise InputError(
                f"reference architecture {missing[0]} of HELP is not among those that can be "
                "measured on the new device"
            )
        fixed = np.array([place[row.tobytes()] for row in rows])
        rest = np.setdiff1d(np.arange(len(genes)), fixed)
        return np.concatenate([fixed, rng.choice(rest, size=n - len(fixed), replace=False)])

    def adapt_genes(self, genes: np.ndarray, latencies_ms: np.ndarray) -> AdaptedHelp:
        """Adapt from the references and fine-tuning samples, in any order.

        Raises:
            InputError: a reference was not measured, or nothing else was.
        """
        references = self._need_references()
        place: dict[bytes, int] = {}
        for i, row in enumerate(np.ascontiguousarray(genes)):
            place.setdefault(row.tobytes(), i)
        rows = np.ascontiguousarray(references.astype(genes.dtype))
        missing = [i for i, row in enumerate(rows) if row.tobytes() not in place]
        if missing:
            raise InputError(f"reference architecture {missing[0]} was not measured")
        at = np.array([place[row.tobytes()] for row in rows])
        rest = np.setdiff1d(np.arange(len(genes)), at)
        if rest.size == 0:
            raise InputError("HELP needs a measurement besides its references to fine-tune on")
        measured = latencies_ms[at]
        low, high = measured.min(), measured.max()
        offset, slope = self._range
        span = max(high - low, 1e-9)
        # In units of the embedding; the known devices say where a pool's range lies in them.
        scale = (low + offset * span, max(slope, 1e-6) * span)
        return self.adapt_scaled(genes[rest], latencies_ms[rest], measured, scale)

    def adapt_scaled(
        self,
        genes: np.ndarray,
        latencies_ms: np.ndarray,
        reference_ms: np.ndarray,
        scale: tuple[float, float],
    ) -> AdaptedHelp:
        """Adapt with the target scale given as (fastest, slowest - fastest) in ms.

        HELP's released protocol takes it from 900 measurements of the test device.
        """
        embedding = unit(reference_ms)
        targets = (latencies_ms - scale[0]) / scale[1] * 0.9 + 0.05
        inputs = inputs_of(self.space, genes)
        predict = self._predict_mean(self._parameters, inputs, targets, embedding)
        least = float(min(latencies_ms.min(), reference_ms.min()))
        # The references do not enter the fine-tuning, so they show the error on new ones.
        measured = (reference_ms - scale[0]) / scale[1] * 0.9 + 0.05
        references = inputs_of(self.space, self._need_references())
        return AdaptedHelp(self.space, predict, scale, predict(references)[0] - measured, least)

    def _need_references(self) -> np.ndarray:
        if self.references is None or not self._parameters:
            raise InputError("HELP has not been meta-trained; call meta_fit or load first")
        return self.references

    # -------------------------------------------------------------------- files

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """The network, the references and what adaptation needs."""
        arrays = {n: p.detach().numpy() for n, p in self._parameters.items()}
        arrays["references"] = self._need_references().astype(np.int64)
        return arrays, {
            "range": list(self._range),
            "width": self.width,
            "steps": self.steps,
            "seed": self.seed,
        }

    def restore(self, arrays: dict[str, np.ndarray], settings: dict[str, Any]) -> None:
        """Take over what :meth:`state` returned."""
        import torch

        arrays = dict(arrays)
        self.references = arrays.pop("references")
        self._range = tuple(settings["range"])
        self.width, self.steps = settings["width"], settings["steps"]
        self.seed = settings["seed"]
        inputs = width_of(inputs_of(self.space, self.references))
        expected = initial_weights(self.space, self.width, torch.Generator(), inputs)
        shapes = {name: tuple(p.shape) for name, p in expected.items()}
        if {name: array.shape for name, array in arrays.items()} != shapes:
            raise InputError("the network's weights are not those of its space and width")
        self._parameters = {name: torch.from_numpy(array) for name, array in arrays.items()}


class AdaptedHelp(Adapted):
    """HELP fine-tuned to one device; its spread is that of the draws and of the residuals.

    The released method has no predictive distribution: a normal one is put around it, with the
    residuals of the reference architectures.
    """

    def __init__(
        self,
        space: SearchSpace,
        predict: Callable[[tuple[torch.Tensor, ...]], tuple[np.ndarray, np.ndarray]],
        scale: tuple[float, float],
        residuals: np.ndarray,
        least_ms: float,
    ) -> None:
        self.space = space
        self._predict = predict
        self._scale = scale
        self._residual = float(np.sqrt(np.mean(residuals**2)))
        self._least = least_ms

    def predict_genes(self, genes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation in ms of gene rows (n, choices)."""
        mean, spread = self._predict(inputs_of(self.space, genes))
        unit = self._scale[1] / 0.9
        mean_ms = self._scale[0] + (mean - 0.05) * unit
        std_ms = np.sqrt(spread**2 + self._residual**2) * unit
        return positive(mean_ms.astype(np.float64), self._least), std_ms.astype(np.float64)

    def interval_genes(self, genes: np.ndarray, coverage: float) -> tuple[np.ndarray, np.ndarray]:
        """Normal interval around the mean, in ms."""
        from scipy.stats import norm

        check_coverage(coverage)
        mean, std = self.predict_genes(genes)
        width = norm.ppf(0.5 + coverage / 2) * std
        return np.maximum(mean - width, 0.0), mean + width

    def probability_within_genes(self, genes: np.ndarray, budget_ms: float) -> np.ndarray:
        """Normal probability that the latency is at most ``budget_ms``."""
        from scipy.stats import norm

        mean, std = self.predict_genes(genes)
        return norm.cdf((budget_ms - mean) / np.maximum(std, 1e-9))
