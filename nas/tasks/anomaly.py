"""Windows of signals that are unlike the normal ones, told by how badly they are given back."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from nas.fronts.metrics import MetricKind
from nas.tasks.base import TASKS, Task
from nas.tasks.data import expect
from nas.tasks.multi_label import area_under_roc, average_precision
from nas.tasks.overlays import Drawing
from nas.tasks.scores import Score, WholeScore
from search_spaces.errors import InputError
from search_spaces.spaces.autoencoder import PATCH

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from nas.data.batches import Subset
    from nas.data.splits import DataSplits
    from nas.job.sections.data import DataConfig

NORMAL = "normal"
"""The class of windows to learn from; those of every other class are anomalies."""


@TASKS.register("anomaly_detection")
class AnomalyDetection(Task):
    """Windows unlike the normal ones: reconstruction, area under the ROC curve of its error.

    The data has classes, one of them ``normal``. Only normal windows are learned from, and their
    anomalies serve validation and test: the anomaly score of a window is the mean squared
    difference between its normalised values and what the network gives back (Sakurada & Yairi,
    MLSDA 2014). Noise, where the data is augmented by it, is on the input alone, so that networks
    learn to take it off (Vincent et al., ICML 2008).

    Targets are (batch, 1 + channels * length): whether a window is an anomaly, and its values.
    """

    metric_name = "auc"
    metric_is_share = True
    answers = "grid"
    further_metrics: ClassVar[dict[str, MetricKind]] = {
        "average_precision": MetricKind("", maximise=True, share=True),
    }

    def load(self, config: DataConfig, seed: int) -> DataSplits:
        """See :meth:`Task.load`.

        Raises:
            InputError: images, no class ``normal``, windows of a length that no autoencoder has,
                or a set without normal windows or without anomalies.
        """
        from nas.data.augment import Augmentation
        from nas.data.splits import load_splits

        splits = expect(load_splits(config, seed, kind="classes"), "classes", self)
        height, length = splits.input_size
        if height != 1:
            raise InputError(
                f"{splits.origin} holds images, and anomaly_detection needs windows of signals"
            )
        if NORMAL not in splits.classes:
            raise InputError(
                f"{splits.origin} has the classes {', '.join(splits.classes)}; name the one to "
                f"learn from {NORMAL!r}"
            )
        if length % PATCH:
            raise InputError(
                f"{splits.origin} has windows of {length} values; autoencoders need a multiple of "
                f"{PATCH} (data.options.window)"
            )
        normal = splits.classes.index(NORMAL)
        parts = {
            name: self._windows(part, splits, normal)
            for name, part in (
                ("train", splits.train), ("calibration", splits.calibration),
                ("validation", splits.validation), ("test", splits._test),
            )
        }  # fmt: skip
        for name in ("validation", "test"):
            part = parts[name]
            share = float(part.labels[part.indices, 0].mean())
            if not 0 < share < 1:
                raise InputError(
                    f"{splits.origin}: the {name} set has no "
                    f"{'normal windows' if share else 'anomalies'}, so nothing can be told apart"
                )
        return replace(
            splits,
            train=self._normal(parts["train"], splits.origin),
            calibration=self._normal(parts["calibration"], splits.origin),
            validation=parts["validation"],
            _test=parts["test"],
            # What moves a window would have to move what it is compared with.
            augmentation=Augmentation(noise=splits.augmentation.noise),
            classes=(NORMAL,),
            targets="values",
        )

    @staticmethod
    def _windows(part: Subset, splits: DataSplits, normal: int) -> Subset:
        import torch

        pixels = part.images.at(torch.arange(len(part.labels)))
        values = splits.normalisation(pixels).flatten(1)
        anomalous = (part.labels != normal).float()[:, None]
        return replace(part, labels=torch.cat([anomalous, values], 1))

    @staticmethod
    def _normal(part: Subset, origin: str) -> Subset:
        kept = part.indices[part.labels[part.indices, 0] == 0]
        if not len(kept):
            raise InputError(f"{origin}: no window to learn from is of the class {NORMAL!r}")
        return replace(part, indices=kept)

    def outputs(self, splits: DataSplits) -> int:
        """Return the values that each place of the output gives back."""
        return PATCH * splits.channels

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean squared error of what is given back.

        outputs: (batch, PATCH * channels, 1, length / PATCH); targets: (batch, 1 + values).
        """
        return (given_back(outputs) - targets[:, 1:]).pow(2).mean()

    def distillation_loss(self, outputs: Tensor, teacher_outputs: Tensor) -> Tensor:
        """Return the mean squared distance to the teacher's outputs, of one shape."""
        return (outputs - teacher_outputs.detach()).pow(2).mean()

    def score(self) -> Score:
        """See :meth:`Task.score`."""
        return _AnomalyScore(_metrics)

    def drawing(self, output: np.ndarray, target: np.ndarray, classes: tuple[str, ...]) -> Drawing:
        """See :meth:`Task.drawing`: how far off it is, and what it is."""
        import torch

        error = float(anomaly_scores(torch.from_numpy(output)[None].float(),
                                     torch.from_numpy(target)[None])[0])  # fmt: skip
        return Drawing(caption=f"error {error:.3f}, {'an anomaly' if target[0] else 'normal'}")

    def output_text(self, splits: DataSplits) -> str:
        """See :meth:`Task.output_text`."""
        _, length = splits.input_size
        return (
            f"(batch, {PATCH * splits.channels}, 1, {length // PATCH}): the window as the network "
            f"gives it back, normalised as its input is. Value t of channel c is at [{PATCH} * c + "
            f"t % {PATCH}, 0, t // {PATCH}]. The mean squared difference from the normalised input "
            "is the anomaly score; choose the threshold above which you act from scores of normal "
            "windows of your own, such as their 99 % quantile."
        )


class _AnomalyScore(WholeScore):
    def add(self, outputs: Tensor, targets: Tensor) -> None:
        """See :meth:`Score.add`."""
        super().add(anomaly_scores(outputs, targets), targets[:, 0])


def given_back(outputs: Tensor) -> Tensor:
    """Return windows (batch, channels * length) from outputs (batch, PATCH * channels, 1, n)."""
    batch, units, _, places = outputs.shape
    patches = outputs.reshape(batch, units // PATCH, PATCH, places)
    return patches.transpose(2, 3).reshape(batch, -1)


def anomaly_scores(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the mean squared error of each window, (batch,); see :class:`AnomalyDetection`."""
    return (given_back(outputs).float() - targets[:, 1:]).pow(2).mean(1)


def _metrics(scores: np.ndarray, anomalous: np.ndarray) -> dict[str, float]:
    return {
        "auc": area_under_roc(scores, anomalous),
        "average_precision": average_precision(scores, anomalous),
    }
