"""What faults in memory cost a network, which layers they hurt, and what helps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.stages.evaluator import Evaluator, metric_of
from nas.studies.protection import protections
from nas.studies.source import Opened, Source, open_evaluator, own_weights, train_on
from search_spaces.atomic import write_json_atomic
from search_spaces.seeds import derive_seed
from search_spaces.space import Arch

if TYPE_CHECKING:
    from supernet.plain import PlainNetwork

RATES = (0.0001, 0.001, 0.003, 0.01, 0.03)
"""Probabilities that a bit is faulty, by default."""

KINDS = ("flips", "stuck", "variation", "activations")

_DEVIATIONS = 10.0
"""Variation is told at standard deviations of so many times a rate: 1 % of the bits and 10 % of a
weight's value are of like effect."""


@dataclass(frozen=True)
class FaultsStudy:
    """Faults of several kinds and rates in one architecture, and what can be done about them.

    The validation images are halved: on the first half layers are made faulty one at a time and
    protection is chosen, on the second everything is told.

    Attributes:
        arch: text of the architecture; None takes the knee of the run's front, or the largest
            where there is no front yet.
        kinds: of :data:`supernet.faults.injection.KINDS`.
        rates: probabilities that a bit is faulty.
        rate: the one of vulnerability, protection and training.
        draws: faults drawn for each figure.
        protect: share of all bits of weights that may be protected.
        train_steps: steps of training with faults, and of as many without; 0 trains nothing.
        learning_rate: peak of both.
        batch_size: images a step.
        images: validation images used; None takes all.
        seed: of the draws.
    """

    arch: str | None = None
    kinds: Sequence[str] = KINDS
    rates: Sequence[float] = RATES
    rate: float = 0.01
    draws: int = 5
    protect: float = 0.3
    train_steps: int = 0
    learning_rate: float = 1e-3
    batch_size: int = 128
    images: int | None = None
    seed: int = 0

    def run(
        self, source: Source, folder: Path, *, on_record: Callable[[str], None] | None = None
    ) -> dict[str, Any]:
        """Evaluate, write ``faults.json`` to ``folder`` and return it.

        Returns:
            ``clean``: the metric without faults; ``kinds``: kind -> rate -> its mean, lowest and
            highest; ``layers``: of each what it loses alone and its bits; ``protection``: of each
            method the layers, their share of the bits and the metric with faults elsewhere;
            ``training``: clean and faulty, before and after training with faults and without, and
            the share of the loss that was won back.

        Raises:
            InputError: an unknown kind, a rate that makes no sense, or a network without codes.
        """
        opened, evaluator = open_evaluator(source)
        arch = chosen_arch(source, opened, self.arch)
        origin = own_weights(source, evaluator, arch)
        network = evaluator.network(arch)
        first, second = self._halves(evaluator, network)
        bench = Bench(opened, draws=self.draws, seed=self.seed)
        tell = on_record or (lambda text: None)
        result: dict[str, Any] = {
            "arch": str(arch),
            "weights": origin,
            "metric": opened.task.metric_name,
            "rate": self.rate,
            "draws": self.draws,
            "images": {
                "layers": sum(len(y) for _, y in first),
                "all else": sum(len(y) for _, y in second),
            },
            "clean": bench.metric(network, second),
            "kinds": {},
        }
        for kind in self.kinds:
            result["kinds"][kind] = {
                f"{rate:g}": bench.faulty(network, kind, _scaled(kind, rate), second)
                for rate in self.rates
            }
            tell(f"{kind}: done")
        losses, bits = bench.layers(network, self.rate, first, tell)
        result["layers"] = {n: {"loss": losses[n], "bits": bits[n]} for n in losses}
        result["protection"] = bench.protection(
            network, losses, bits, self.protect, self.rate, second
        )
        if self.train_steps:
            result["training"] = self._training(opened, evaluator, arch, second, bench, tell)
        write_json_atomic(Path(folder) / "faults.json", result)
        return result

    def _halves(self, evaluator: Evaluator, network: PlainNetwork) -> tuple[list[Any], list[Any]]:
        every = list(evaluator.validation(network.plan, self.images))
        if len(every) == 1:
            x, y = every[0]
            every = list(zip(x.chunk(2), y.chunk(2), strict=True))
        return every[::2], every[1::2]

    def _training(
        self,
        opened: Opened,
        evaluator: Evaluator,
        arch: Arch,
        images: list[Any],
        bench: Bench,
        tell: Callable[[str], None],
    ) -> dict[str, Any]:
        found: dict[str, Any] = {"steps": self.train_steps, "learning_rate": self.learning_rate}
        own = {a: weights for a, weights in evaluator.finetuned.items() if a == arch}
        for name, rate in (("without", 0.0), ("with", self.rate)):
            # Both from the same weights: its own where it has some, else the shared ones.
            evaluator.finetuned.pop(arch, None)
            evaluator.finetuned.update(own)
            evaluator.finetuned[arch] = trained_with_faults(
                evaluator, opened, arch,
                rate=rate, steps=self.train_steps, learning_rate=self.learning_rate,
                batch_size=self.batch_size, seed=self.seed,
            )  # fmt: skip
            network = evaluator.network(arch)
            clean = bench.metric(network, images)
            faulty = bench.faulty(network, "flips", self.rate, images)
            found[name] = {"clean": clean, "faulty": faulty["mean"]}
            tell(f"trained {name} faults: {clean:.4f} clean, {faulty['mean']:.4f} faulty")
        lost = found["without"]["clean"] - found["without"]["faulty"]
        won = found["with"]["faulty"] - found["without"]["faulty"]
        found["recovered_share"] = won / lost if lost else None
        return found


@dataclass(frozen=True)
class Bench:
    """Evaluates networks with faults drawn several times.

    Attributes:
        opened: gives the task.
        draws: of each figure.
        seed: of the draws.
    """

    opened: Opened
    draws: int = 5
    seed: int = 0

    def metric(self, network: PlainNetwork, images: Iterable[Any]) -> float:
        """Return the task's metric on (inputs, targets) batches."""
        return metric_of(self.opened.task, network, images)

    def faulty(
        self, network: PlainNetwork, kind: str, rate: float, images: Iterable[Any], **which: Any
    ) -> dict[str, float]:
        """Return mean, lowest and highest metric over draws; ``which`` as of ``with_faults``."""
        from supernet.faults.injection import Faults, with_faults

        images = list(images)
        values = []
        for draw in range(self.draws):
            faults = Faults(kind, rate, derive_seed(self.seed, "draw", draw))
            values.append(self.metric(with_faults(network, faults, **which), images))
        return {
            "mean": float(np.mean(values)),
            "lowest": float(min(values)),
            "highest": float(max(values)),
        }

    def layers(
        self,
        network: PlainNetwork,
        rate: float,
        images: Sequence[Any],
        tell: Callable[[str], None] = lambda text: None,
    ) -> tuple[dict[str, float], dict[str, int]]:
        """Return what the metric loses with flipped bits in each layer alone, and its bits."""
        from supernet.faults.injection import stored_bits

        sign = 1 if self.opened.task.higher_is_better else -1
        clean = self.metric(network, images)
        bits = {name: count for name, count in stored_bits(network).items() if count}
        losses = {}
        for name in bits:
            found = self.faulty(network, "flips", rate, images, layers=[name])
            losses[name] = sign * (clean - found["mean"])
            tell(f"faults in {name} alone: {losses[name]:+.4f} lost")
        return losses, bits

    def protection(
        self,
        network: PlainNetwork,
        losses: Mapping[str, float],
        bits: Mapping[str, int],
        share: float,
        rate: float,
        images: Sequence[Any],
    ) -> dict[str, Any]:
        """Return for each method which layers are safe, and the metric with faults elsewhere."""
        total = sum(bits.values())
        found: dict[str, Any] = {
            "nothing": {
                "layers": [],
                "share": 0.0,
                **self.faulty(network, "flips", rate, images),
            }
        }
        for method, chosen in protections(losses, bits, share).items():
            found[method] = {
                "layers": list(chosen),
                "share": sum(bits[name] for name in chosen) / total,
                **self.faulty(network, "flips", rate, images, protected=chosen),
            }
        return found


def trained_with_faults(
    evaluator: Evaluator,
    opened: Opened,
    arch: Arch,
    *,
    rate: float,
    steps: int,
    learning_rate: float,
    batch_size: int = 128,
    seed: int = 0,
    every: int = 2,
) -> Any:
    """Return a supernet whose weights were trained on for ``arch``, with bits flipped or without.

    With faults, steps of weights begin where flipped bits do the least harm
    (:func:`supernet.faults.training.narrow_steps`).

    Args:
        evaluator: whose weights of ``arch`` are begun with; left as they are.
        opened: gives data and loss.
        arch: the architecture.
        rate: probability that a bit is flipped in a faulty step; 0 for none.
        steps, learning_rate, batch_size: of the training.
        seed: of images and flips.
        every: of so many steps the last is faulty.
    """
    import copy

    from supernet.faults.injection import Faults
    from supernet.faults.training import BitErrors, FaultySubnets, disturbed, narrow_steps

    own = copy.deepcopy(evaluator.finetuned.get(arch) or evaluator.supernet)
    if rate > 0:
        narrow_steps(own, own.plan(arch), rate)
    faults = Faults("flips", rate, derive_seed(seed, "training faults") % 2**31)
    errors = BitErrors(faults, every=every)
    with disturbed(own, errors):
        train_on(
            opened, own, FaultySubnets(own.plan(arch), errors=errors), steps=steps,
            learning_rate=learning_rate, batch_size=batch_size,
            seed=derive_seed(seed, "training with faults"),
        )  # fmt: skip
    return own


def chosen_arch(source: Source, opened: Opened, text: str | None) -> Arch:
    """Return an architecture by its text, or the knee of the front, or the largest."""
    from nas.record.run_folder import RunStore
    from nas.report.results import load_results

    if text is not None:
        return opened.space.parse(text)
    if (RunStore(source.folder).folder / "results.json").is_file():
        for entry in load_results(source.folder)["front"]:
            if entry.get("knee"):
                return opened.space.parse(str(entry["arch"]))
    return opened.space.largest()


def _scaled(kind: str, rate: float) -> float:
    return _DEVIATIONS * rate if kind == "variation" else rate
