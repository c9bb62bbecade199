"""The single trainings and evaluations of a study, in this process or in several."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nas.studies.source import Opened, Source, load_supernet, open_source, train_on
from search_spaces.bits import set_bits
from search_spaces.seeds import derive_seed

if TYPE_CHECKING:
    from nas.stages.evaluator import Evaluator
    from supernet.network import Supernet


@dataclass(frozen=True)
class AloneRecipe:
    """How an architecture is trained alone, the same for all of a study.

    Attributes:
        steps: optimiser steps.
        batch_size: images a step.
        learning_rate: peak.
        weight_decay: of weights.
        float_share: share of the steps in float, before its bits are set.
    """

    steps: int
    batch_size: int = 128
    learning_rate: float = 0.008
    weight_decay: float = 0.01
    float_share: float = 0.4


@dataclass(frozen=True)
class Work:
    """One thing to compute.

    Attributes:
        key: of its record.
        kind: ``inherited``, ``alone``, ``proxies`` or ``continued``.
        arch: text of the architecture.
        options: what else the kind needs.
    """

    key: str
    kind: str
    arch: str
    options: tuple[tuple[str, Any], ...] = ()


class Bench:
    """Computes work with everything loaded once.

    Args:
        source: the run.
        recipe: of trainings alone.
        images: validation images of one evaluation; None takes all.
    """

    def __init__(self, source: Source, recipe: AloneRecipe, *, images: int | None = None) -> None:
        self.source, self.recipe, self.images = source, recipe, images
        self.opened: Opened = open_source(source)
        self._supernet: Supernet | None = None
        self._evaluator: Evaluator | None = None

    def compute(self, work: Work) -> dict[str, Any]:
        """Return the record of ``work``."""
        begin, cpu = time.monotonic(), time.process_time()
        values = getattr(self, f"_{work.kind}")(work.arch, **dict(work.options))
        return {
            "kind": work.kind,
            "arch": work.arch,
            **dict(work.options),
            **values,
            "seconds": round(time.monotonic() - begin, 1),
            "cpu_seconds": round(time.process_time() - cpu, 1),
        }

    @property
    def supernet(self) -> Supernet:
        """The trained supernet, loaded when first asked for."""
        if self._supernet is None:
            self._supernet = load_supernet(self.source, self.opened.space)
        return self._supernet

    def evaluate(self, supernet: Supernet, arch: Any) -> float:
        """Return the validation accuracy of ``arch``, batch norm calibrated at its bits."""
        from nas.stages.evaluator import Evaluator

        if self._evaluator is None:
            self._evaluator = Evaluator(supernet, self.opened.splits, self.opened.task)
        # The evaluator keeps the images it prepared; only the weights change.
        self._evaluator.supernet = supernet
        return self._evaluator.accuracy(self._evaluator.network(arch), images=self.images)

    def _inherited(self, arch: str) -> dict[str, Any]:
        return {"accuracy": self.evaluate(self.supernet, self.opened.space.parse(arch))}

    def _alone(self, arch: str, *, seed: int) -> dict[str, Any]:
        from nas.job.sections.supernet import quantizer_scheme
        from supernet.training.standalone import train_alone
        from supernet.training.train import Recipe

        opened, recipe = self.opened, self.recipe
        network = train_alone(
            opened.space,
            opened.space.parse(arch),
            batches=opened.splits.training_batches(
                recipe.batch_size, seed=derive_seed(seed, "alone")
            ),
            loss=opened.task.loss,
            recipe=Recipe(
                steps=recipe.steps,
                learning_rate=recipe.learning_rate,
                weight_decay=recipe.weight_decay,
            ),
            seed=derive_seed(seed, "alone weights") % 2**63,
            float_share=recipe.float_share,
            quantizers=quantizer_scheme(opened.job.supernet),
        )
        return {"accuracy": self.evaluate(network, network.space.largest())}

    def _continued(
        self, arch: str, *, seed: int, steps: int, learning_rate: float, bits: tuple[int, ...]
    ) -> dict[str, Any]:
        """Train the inherited weights on for one architecture, at each of ``bits`` in every step.

        The accuracy is returned by bits. Everything learns from the targets.
        """
        import copy

        from supernet.training.finetune import FixedSubnets

        opened = self.opened
        genes = opened.space.genes([opened.space.parse(arch)])
        archs = {b: opened.space.decode(set_bits(opened.space, genes, b, b))[0] for b in bits}
        own = copy.deepcopy(self.supernet)
        if steps:
            train_on(
                opened, own, FixedSubnets(*(own.plan(each) for each in archs.values())),
                steps=steps, learning_rate=learning_rate, batch_size=self.recipe.batch_size,
                seed=derive_seed(seed, "continued"), weight_decay=self.recipe.weight_decay,
            )  # fmt: skip
        return {"accuracy": {str(b): self.evaluate(own, each) for b, each in archs.items()}}

    def _proxies(self, arch: str, *, seed: int, batch: int) -> dict[str, Any]:
        import torch

        from predictors.zero_cost import zero_cost_scores
        from search_spaces.spaces.single import SingleSpace
        from supernet.network import Supernet
        from supernet.resolution import resize_images
        from supernet.training.subnets import float_plan

        opened = self.opened
        space = opened.space
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "proxies") % 2**63)
            # A zero scale of residual branches would hide them from a proxy.
            network = Supernet(SingleSpace(space, space.parse(arch)), zero_init_residual=False)
        plan = float_plan(network.plan(network.space.largest()))
        subset = opened.splits.calibration.first(batch)
        images, labels = next(iter(opened.splits.evaluation_batches(subset, batch_size=batch)))
        images = resize_images(images, plan.input_size)
        plain = network.extract(plan, network.statistics(plan, [images]))
        scores = zero_cost_scores(plain, images, labels, seed=seed)
        # JSON knows no NaN.
        return {"scores": {k: None if math.isnan(v) else v for k, v in scores.items()}}


def compute_all(
    source: Source,
    recipe: AloneRecipe,
    work: Sequence[Work],
    *,
    workers: int = 1,
    images: int | None = None,
) -> Iterator[tuple[Work, dict[str, Any]]]:
    """Yield the record of each work as it is done, in any order.

    Args:
        source: the run.
        recipe: of trainings alone.
        work: what to compute.
        workers: processes of one thread each; 1 computes in this process.
        images: validation images of one evaluation.
    """
    if not work:
        return
    if workers == 1:
        bench = Bench(source, recipe, images=images)
        for item in work:
            yield item, bench.compute(item)
        return
    from nas.executors.pool import as_done, worker_pool

    pool = worker_pool(min(workers, len(work)), _begin, (source, recipe, images))
    yield from as_done(pool, _compute, work)


_BENCH: list[Bench] = []


def _begin(source: Source, recipe: AloneRecipe, images: int | None) -> None:
    from nas.stages.threads import set_threads

    set_threads(1)
    _BENCH[:] = [Bench(source, recipe, images=images)]


def _compute(work: Work) -> dict[str, Any]:
    return _BENCH[0].compute(work)
