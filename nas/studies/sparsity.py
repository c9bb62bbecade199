"""What a run's largest network is worth pruned, beside the front at the sizes of its models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.stages.evaluator import Evaluator
from nas.studies.records import StudyFolder
from nas.studies.source import Opened, Source, open_evaluator, train_on
from search_spaces.atomic import write_json_atomic
from search_spaces.errors import InputError
from search_spaces.plan import NetworkPlan
from search_spaces.seeds import derive_seed
from search_spaces.sparsity import Sparsity, layer_sparsity, parse_sparsity, sparse_kib

if TYPE_CHECKING:
    from supernet.network import Supernet

PATTERNS = ("50%", "75%", "2:4", "1:4")
"""By default."""

_SMALLEST = 0.99
"""Largest share of zeros that is tried to meet a size."""


@dataclass(frozen=True)
class SparsityStudy:
    """One architecture, by default the largest, pruned by magnitude in one shot and trained on.

    The same steps on the same images for every pattern, and for the dense network. The rows that
    stand beside the front are pruned anywhere until sparse storage would take, by estimate, what
    the front's model takes dense.

    Attributes:
        arch: text of the architecture; None takes the largest.
        patterns: of every layer but the first and the last.
        sizes: models of the front to stand beside, evenly over its sizes.
        train_steps: of training with the zeros kept; 0 tells the one shot alone.
        learning_rate, batch_size: of it.
        images: validation images used; None takes all.
        seed: of its images.
    """

    arch: str | None = None
    patterns: Sequence[str] = PATTERNS
    sizes: int = 4
    train_steps: int = 0
    learning_rate: float = 1e-3
    batch_size: int = 128
    images: int | None = None
    seed: int = 0

    def run(
        self, source: Source, folder: Path, *, on_record: Callable[[str], None] | None = None
    ) -> dict[str, Any]:
        """Evaluate, write ``folder``'s ``sparsity.json`` and return it; goes on if cut off.

        Returns:
            ``arch``, ``metric``, ``dense_kib``, and ``rows``: of each pattern (``dense`` first)
            the metric pruned in one shot and trained on, the estimate of sparse storage and the
            layers that stay dense; ``front``: rows likewise, each with the model of the front that
            it stands beside.

        Raises:
            InputError: a pattern that makes no sense or that no layer can have, or a folder of
                another study.
        """
        opened, evaluator = open_evaluator(source)
        arch = opened.space.largest() if self.arch is None else opened.space.parse(self.arch)
        plan = opened.space.plan(arch)
        store = StudyFolder(
            folder,
            {
                **source.identity(),
                "arch": str(arch),
                "steps": self.train_steps,
                "learning_rate": self.learning_rate,
                "batch_size": self.batch_size,
                "images": self.images,
                "seed": self.seed,
            },
        )
        tell = on_record or (lambda text: None)
        one = _Bench(self, opened, evaluator, plan, store, tell)
        rows = [one.row(parse_sparsity(text)) for text in ("dense", *self.patterns)]
        beside = []
        for entry in _spread(_front(source.folder), plan.weights_kib, self.sizes):
            share = share_for(plan, entry["weights_kib"])
            found = {"error": "no share of zeros makes it so small"} if share is None else (
                one.row(Sparsity(share))
            )  # fmt: skip
            beside.append({"model": entry, **found})
        result = {
            "arch": str(arch),
            "metric": opened.task.metric_name,
            "higher_is_better": opened.task.higher_is_better,
            "dense_kib": plan.weights_kib,
            "steps": self.train_steps,
            "size": "sparse_kib is an estimate; files store zeros like other codes",
            "rows": rows,
            "front": beside,
        }
        write_json_atomic(Path(folder) / "sparsity.json", result)
        return result


@dataclass
class _Bench:
    study: SparsityStudy
    opened: Opened
    evaluator: Evaluator
    plan: NetworkPlan
    store: StudyFolder
    tell: Callable[[str], None]

    def row(self, pattern: Sparsity) -> dict[str, Any]:
        """Return what a pattern of every layer costs, from the record where it is there."""
        key = str(pattern)
        known = self.store.get(key)
        if known is not None:
            return known
        layers = list(self.plan.layers())
        patterns = layer_sparsity(layers, pattern)
        if not pattern.dense and all(each.dense for each in patterns.values()):
            raise InputError(f"no layer of the network can be {pattern}; give a share of zeros")
        own = self._pruned(patterns)
        beside = self.plan.weights_kib - sparse_kib(layers, {})
        row: dict[str, Any] = {
            "pattern": key,
            "share": pattern.share,
            "weights_kib": self.plan.weights_kib,
            "sparse_kib": sparse_kib(layers, patterns) + beside,
            "dense_layers": [name for name, each in patterns.items() if each.dense],
            "one_shot": self._metric(own),
        }
        if self.study.train_steps:
            row["trained"] = self._metric(self._trained(own))
        self.store.add(key, row)
        self.tell(", ".join(f"{n} {row[n]:.4f}" for n in ("one_shot", "trained") if n in row)
                  + f" at {key}")  # fmt: skip
        return row

    def _pruned(self, patterns: Mapping[str, Sparsity]) -> Supernet:
        from supernet.sparsity.training import pruned

        return pruned(self.evaluator.supernet, self.plan, patterns)

    def _metric(self, own: Supernet) -> float:
        network = self.evaluator.network(self.plan, own=own)
        return self.evaluator.accuracy(network, images=self.study.images)

    def _trained(self, own: Supernet) -> Supernet:
        from supernet.training.finetune import FixedSubnets

        study = self.study
        train_on(
            self.opened, own, FixedSubnets(self.plan), steps=study.train_steps,
            learning_rate=study.learning_rate, batch_size=study.batch_size,
            seed=derive_seed(study.seed, "pruned training"),
        )  # fmt: skip
        return own


def share_for(plan: NetworkPlan, kib: float) -> float | None:
    """Return the least share of zeros at which a network would take ``kib``, to a thousandth.

    Zeros anywhere in every layer but the first and the last; sizes are estimates of sparse
    storage (:func:`search_spaces.sparsity.sparse_kib`). None where no share does.
    """
    layers = list(plan.layers())
    beside = plan.weights_kib - sparse_kib(layers, {})

    def size(thousandths: int) -> float:
        share = Sparsity(thousandths / 1000)
        return sparse_kib(layers, layer_sparsity(layers, share)) + beside

    low, high = 0, round(1000 * _SMALLEST)
    if size(high) > kib:
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if size(middle) <= kib else (middle + 1, high)
    return low / 1000


def _front(run: Path) -> list[dict[str, Any]]:
    """Return id, dense size and validation metric of each model of a run's front, if it has one."""
    from nas.report.results import load_results

    if not (run / "results.json").is_file():
        return []
    return [
        {
            "id": str(entry["id"]),
            "weights_kib": float(entry["costs"]["weights_kib"]),
            "validation": entry["validation_accuracy"],
        }
        for entry in load_results(run)["front"]
    ]


def _spread(entries: list[dict[str, Any]], largest: float, count: int) -> list[dict[str, Any]]:
    """Return ``count`` of the models smaller than ``largest``, evenly by rank of size."""
    smaller = sorted((e for e in entries if e["weights_kib"] < largest),
                     key=lambda e: float(e["weights_kib"]))  # fmt: skip
    if len(smaller) <= count:
        return smaller
    if count < 2:
        return smaller[:count]
    places = [round(i * (len(smaller) - 1) / (count - 1)) for i in range(count)]
    return [smaller[place] for place in dict.fromkeys(places)]
