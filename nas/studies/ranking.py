"""Does inherited accuracy order architectures as training each alone would?"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nas.studies.expected import BY, expected
from nas.studies.rank import kendall
from nas.studies.records import StudyFolder
from nas.studies.source import Source, open_source
from nas.studies.subnets import Stratified, stratified_subnets
from nas.studies.workers import AloneRecipe, Work, compute_all
from search_spaces.atomic import write_json_atomic
from search_spaces.errors import InputError
from search_spaces.planned import PlannedSpace

PROXY_BATCH = 64


@dataclass(frozen=True)
class RankingStudy:
    """What is compared.

    Attributes:
        subnets: how many architectures, see :func:`stratified_subnets`.
        seeds: trainings alone of each.
        bits: of weights and activations in every searched layer; None mixes them.
        recipe: of the trainings alone.
        seed: of the draw of architectures.
        images: validation images of one evaluation; None takes all.
        proxies: score the zero-cost proxies too.
    """

    recipe: AloneRecipe
    subnets: int = 30
    seeds: int = 2
    bits: tuple[int, int] | None = None
    seed: int = 0
    images: int | None = None
    proxies: bool = True

    def run(
        self,
        source: Source,
        folder: Path,
        *,
        workers: int = 1,
        on_record: Callable[[int, int, Mapping[str, Any]], None] | None = None,
    ) -> dict[str, Any]:
        """Compute what ``folder`` lacks and return the result, see :func:`summarise`.

        Args:
            source: the run whose supernet is judged.
            folder: of the study; what it holds already is not computed again.
            workers: processes of one thread each.
            on_record: called with (done, total, record) after each piece of work.

        Raises:
            InputError: the folder holds another study, or the space lacks the bits.
        """
        space = open_source(source).space
        chosen = stratified_subnets(space, self.subnets, seed=self.seed, bits=self.bits)
        archs = [str(arch) for arch in chosen.archs]
        store = StudyFolder(folder, self._settings(source, chosen))
        store.complete(
            self._work(archs),
            lambda todo: compute_all(
                source, self.recipe, todo, workers=workers, images=self.images
            ),
            on_record,
        )
        result = self._result(space, chosen, store)
        if result is None:
            raise InputError(f"a ranking needs at least 4 architectures, not {len(archs)}")
        write_json_atomic(Path(folder) / "ranking.json", result)
        return result

    def so_far(self, source: Source, folder: Path) -> dict[str, Any] | None:
        """Return the result of what is there; None for fewer than 4 architectures.

        An architecture counts once it has one training alone; its truth is then the mean of
        those it has, and ``trainings`` says how many there are of how many.
        """
        space = open_source(source).space
        chosen = stratified_subnets(space, self.subnets, seed=self.seed, bits=self.bits)
        store = StudyFolder(folder, self._settings(source, chosen))
        return self._result(space, chosen, store, partly=True)

    def _settings(self, source: Source, chosen: Stratified) -> dict[str, Any]:
        return {
            "study": "ranking",
            **source.identity(),
            "subnets": [str(arch) for arch in chosen.archs],
            "macs_bin": chosen.macs_bin,
            "bits": self.bits,
            "recipe": asdict(self.recipe),
            "validation_images": self.images,
            "seed": self.seed,
        }

    def _result(
        self, space: PlannedSpace, chosen: Stratified, store: StudyFolder, *, partly: bool = False
    ) -> dict[str, Any] | None:
        rows = []
        for arch, bin_number in zip(chosen.archs, chosen.macs_bin, strict=True):
            text = str(arch)
            inherited = store.get(_inherited(text))
            alone = [store.get(_alone(text, seed)) for seed in range(self.seeds)]
            scores = store.get(_proxies(text)) if self.proxies else {}
            enough = any(alone) if partly else None not in alone
            if None not in (inherited, scores) and enough:
                rows.append((arch, bin_number, inherited, alone, scores))
        if len(rows) < 4:
            return None
        archs, bins, inherited, alone, scores = zip(*rows, strict=True)
        return summarise(
            space,
            archs,
            bins,
            inherited=[record["accuracy"] for record in inherited],
            alone=[
                [float("nan") if record is None else record["accuracy"] for record in records]
                for records in alone
            ],
            proxies=[record["scores"] for record in scores] if self.proxies else None,
            seed=self.seed,
        )

    def _work(self, archs: Sequence[str]) -> list[Work]:
        # One seed of everything before the next: a study cut short is a study with fewer seeds.
        work = [Work(_inherited(arch), "inherited", arch) for arch in archs]
        if self.proxies:
            options = (("seed", self.seed), ("batch", PROXY_BATCH))
            work += [Work(_proxies(arch), "proxies", arch, options) for arch in archs]
        for seed in range(self.seeds):
            work += [Work(_alone(a, seed), "alone", a, (("seed", seed),)) for a in archs]
        return work


def summarise(
    space: PlannedSpace,
    archs: Sequence[Any],
    macs_bin: Sequence[int],
    *,
    inherited: Sequence[float],
    alone: Sequence[Sequence[float]],
    proxies: Sequence[Mapping[str, float | None]] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Return rank correlations with the mean accuracy of the trainings alone.

    Args:
        space: of the architectures.
        archs: the architectures, n of them.
        macs_bin: (n,) bins of similar MACs.
        inherited: (n,) accuracies with shared weights.
        alone: (n, seeds) accuracies of trainings alone; NaN where one was not done.
        proxies: scores of each architecture by name.
        seed: of the bootstrap.

    Returns:
        ``tau`` and ``within_bins``: by estimate (``inherited``, costs, ``expected`` of both,
        proxies), each with its interval; ``ceiling``: the tau between trainings of different
        seeds, the mean over pairs of seeds; the accuracies themselves in ``subnets``.
    """
    accuracy = np.asarray(alone, dtype=float)
    truth = np.nanmean(accuracy, axis=1)
    groups = np.asarray(macs_bin)
    genes = space.genes(archs)
    costs = space.costs(genes)
    estimates: dict[str, np.ndarray] = {"inherited": np.asarray(inherited, dtype=float)}
    for name in ("macs", "parameters", "bops", "weights_kib"):
        estimates[name] = costs[name]
    # All validation metrics of a ranking are better when larger.
    by_costs = [costs[name] for name in BY]
    estimates["expected"] = np.array(expected(inherited, by_costs, higher_is_better=True))
    for name in proxies[0] if proxies else ():
        values = [scores[name] for scores in proxies or ()]
        # An undefined score ranks last.
        estimates[f"proxy.{name}"] = np.array([-np.inf if v is None else v for v in values])
    tau = {name: kendall(values, truth, seed=seed) for name, values in estimates.items()}
    within = {
        name: kendall(values, truth, groups=macs_bin, seed=seed)
        for name, values in estimates.items()
    }
    pairs = list(itertools.combinations(range(accuracy.shape[1]), 2))
    between, between_within = [], []
    for a, b in pairs:
        both = np.isfinite(accuracy[:, a]) & np.isfinite(accuracy[:, b])
        if both.sum() > 2:
            first, second = accuracy[both, a], accuracy[both, b]
            between.append(kendall(first, second, seed=seed))
            between_within.append(kendall(first, second, groups=groups[both], seed=seed))
    whole = np.isfinite(accuracy).all(axis=1)
    return {
        "subnets_compared": len(archs),
        "seeds": int(accuracy.shape[1]),
        "tau": {name: value.as_dict() for name, value in tau.items()},
        "within_bins": {name: value.as_dict() for name, value in within.items()},
        "ceiling": _mean([value.tau for value in between]),
        "ceiling_within_bins": _mean([value.tau for value in between_within]),
        "ceiling_intervals": [value.as_dict() for value in between],
        "trainings": [int(np.isfinite(accuracy).sum()), accuracy.size],
        "seed_deviation": _mean(accuracy[whole].std(axis=1, ddof=1).tolist())
        if accuracy.shape[1] > 1
        else None,
        "subnets": [
            {
                "id": arch.id,
                "arch": str(arch),
                "macs_bin": int(macs_bin[i]),
                "inherited": float(inherited[i]),
                "alone": [None if np.isnan(value) else value for value in accuracy[i].tolist()],
                **{name: float(costs[name][i]) for name in ("macs", "parameters", "bops")},
                "weight_bits_mean": float(costs["weight_bits_mean"][i]),
                "activation_bits_mean": float(costs["activation_bits_mean"][i]),
                **({"proxies": dict(proxies[i])} if proxies else {}),
            }
            for i, arch in enumerate(archs)
        ],
    }


def _mean(values: Sequence[float]) -> float | None:
    """Mean of what is defined, four decimals; None where nothing is."""
    defined = [value for value in values if np.isfinite(value)]
    return round(float(np.mean(defined)), 4) if defined else None


def _inherited(arch: str) -> str:
    return f"inherited|{arch}"


def _alone(arch: str, seed: int) -> str:
    return f"alone|{seed}|{arch}"


def _proxies(arch: str) -> str:
    return f"proxies|{arch}"
