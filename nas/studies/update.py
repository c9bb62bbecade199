"""Training a run's network on a device within a budget of memory: what to train, and what for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.bits.update import ChosenUpdate, choose_update, memory_json
from nas.stages.evaluator import Evaluator, metric_of
from nas.studies.faults import chosen_arch
from nas.studies.source import Opened, Source, open_evaluator, own_weights
from search_spaces.atomic import write_json_atomic
from search_spaces.seeds import derive_seed
from search_spaces.training.memory import plan_training_memory
from search_spaces.training.update import Update

if TYPE_CHECKING:
    from torch import Tensor

    from supernet.plain import PlainNetwork

SHARES = (0.125, 0.25, 0.5, 1.0)
"""Of a layer's input channels, that may be trained."""

_CALIBRATION_BATCHES = 8
"""Batches that contributions are the mean of."""


@dataclass(frozen=True)
class UpdateStudy:
    """Which layers of an architecture to train on a device, and how far that brings it.

    The device sees images of a sensor that has drifted: ``gain * x + offset``. Contributions are of
    training images so changed; everything is told on changed validation images.

    Attributes:
        memory_kib: most KiB at once in a step.
        arch: text of the architecture; None takes the knee of the run's front, or the largest.
        shares: of input channels that may be trained.
        optimizer: ``sgd`` or ``momentum``.
        batch: examples of a step.
        gradient_bits: of gradients, in the memory that is told; the reference computes in float32.
        steps: of training in integers; 0 tells the choice alone.
        learning_rate: of it.
        gain, offset: of the images, after normalisation.
        images: validation images used; None takes all.
        seed: of images and of stochastic rounding.
    """

    memory_kib: float
    arch: str | None = None
    shares: Sequence[float] = SHARES
    optimizer: str = "sgd"
    batch: int = 1
    gradient_bits: int = 32
    steps: int = 0
    learning_rate: float = 0.01
    gain: float = 0.6
    offset: float = 0.4
    images: int | None = None
    seed: int = 0

    def run(
        self, source: Source, folder: Path, *, on_record: Callable[[str], None] | None = None
    ) -> dict[str, Any]:
        """Choose, train, write ``update.json`` to ``folder`` and return it.

        Returns:
            ``chosen`` and, beside it, as many last layers as fit the memory and everything: their
            layers, bytes and, with ``steps``, the metric trained in integers.

        Raises:
            InfeasibleError: nothing can be trained in so little memory.
            InputError: a network without integer codes, or with blocks whose memory is not known.
        """
        from supernet.on_device.contribution import contributions

        opened, evaluator = open_evaluator(source)
        arch = chosen_arch(source, opened, self.arch)
        origin = own_weights(source, evaluator, arch)
        network = evaluator.network(arch)
        tell = on_record or (lambda text: None)
        shared = Update(
            optimizer=self.optimizer, batch=self.batch, gradient_bits=self.gradient_bits
        )
        batches = self._batches(opened, network, 32)
        worth = contributions(
            network, [next(batches) for _ in range(_CALIBRATION_BATCHES)], opened.task.loss,
            self.shares,
        )  # fmt: skip
        chosen = choose_update(network.plan, worth, self.memory_kib, update=shared)
        tell(f"chosen: {len(chosen.update.shares)} layers in {chosen.peak_kib:.2f} KiB")
        checks = list(self._validation(evaluator, network))
        rows: dict[str, Any] = {}
        for name, update in self._compared(network, worth, chosen, shared).items():
            memory = plan_training_memory(network.plan, update)
            row = {
                "layers": dict(update.shares),
                "peak_kib": float(memory.peak[0]) / 1024,
                "bytes": memory_json(memory),
            }
            if self.steps:
                row["metric"] = self._trained(opened, network, update, checks)
                tell(f"{name}: {row['metric']:.4f} in {row['peak_kib']:.2f} KiB")
            rows[name] = row
        result = {
            "arch": str(arch),
            "weights": origin,
            "metric": opened.task.metric_name,
            "memory_kib": self.memory_kib,
            "inference_kib": network.plan.peak_memory_kib,
            "shift": {"gain": self.gain, "offset": self.offset},
            "untrained": metric_of(opened.task, network, checks),
            "without_shift": metric_of(opened.task, network, self._plain(evaluator, network)),
            "steps": self.steps,
            "contributions": {n: {f"{s:g}": v for s, v in row.items()} for n, row in worth.items()},
            "depths": [chosen.depths, chosen.of_depths],
            "updates": rows,
        }
        write_json_atomic(Path(folder) / "update.json", result)
        return result

    def _compared(
        self, network: PlainNetwork, worth: Any, chosen: ChosenUpdate, shared: Update
    ) -> dict[str, Update]:
        names = list(worth)
        found = {"chosen": chosen.update}
        last: Update | None = None
        for count in range(1, len(names) + 1):
            update = replace(shared, shares=dict.fromkeys(names[-count:], 1.0))
            if plan_training_memory(network.plan, update).peak[0] / 1024 > self.memory_kib:
                break
            last = update
        if last is not None:
            found["last layers"] = last
        found["everything"] = replace(shared, shares=dict.fromkeys(names, 1.0))
        return found

    def _shifted(self, images: Tensor) -> Tensor:
        return images * self.gain + self.offset

    def _batches(self, opened: Opened, network: PlainNetwork, size: int) -> Any:
        from supernet.resolution import resize_images

        batches = opened.splits.training_batches(
            size, seed=derive_seed(self.seed, "on-device training")
        )
        epoch = 0
        while True:
            for images, targets in batches.epoch(epoch):
                yield self._shifted(resize_images(images, network.plan.input_size)), targets
            epoch += 1

    def _plain(self, evaluator: Evaluator, network: PlainNetwork) -> Iterable[Any]:
        return evaluator.validation(network.plan, self.images)

    def _validation(self, evaluator: Evaluator, network: PlainNetwork) -> Iterable[Any]:
        for images, targets in self._plain(evaluator, network):
            yield self._shifted(images), targets

    def _trained(
        self, opened: Opened, network: PlainNetwork, update: Update, checks: Sequence[Any]
    ) -> float:
        from supernet.on_device.int8 import Int8Training

        training = Int8Training(
            network, update, learning_rate=self.learning_rate,
            seed=derive_seed(self.seed, "rounding") % 2**31,
        )  # fmt: skip
        batches = self._batches(opened, network, self.batch)
        for _ in range(self.steps):
            images, targets = next(batches)
            training.step(images, targets, opened.task.loss)
        return metric_of(opened.task, training.network, checks)
