"""Windows of signals that are unlike the normal ones, told by how they are given back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from nas.fronts.metrics import MetricKind
from nas.tasks.base import TASKS, Task
from nas.tasks.data import expect
from nas.tasks.multi_label import area_under_roc, average_precision
from nas.tasks.normal_errors import DIRECTIONS, SEGMENT, judge_of, segment_length
from nas.tasks.overlays import Drawing
from nas.tasks.scores import Score, WholeScore
from search_spaces.errors import InputError
from search_spaces.seeds import derive_rng
from search_spaces.spaces.autoencoder import PATCH

if TYPE_CHECKING:
    from torch import Tensor

    from nas.data.batches import Subset
    from nas.data.splits import DataSplits
    from nas.job.sections.data import DataConfig

NORMAL = "normal"
"""The class of windows to learn from where a job names no other (``data.normal``)."""

NOISE = 0.3
"""Deviation of the noise on inputs that networks learn to take off, in deviations of a channel."""

REFERENCES, REFERENCE = 256, 2.0
"""So many normal windows of the training set, at most, are among those of validation and test to
hold errors against, and what their targets say."""


@TASKS.register("anomaly_detection")
class AnomalyDetection(Task):
    """Windows unlike the normal ones: reconstruction, area under the ROC curve of its error.

    Only windows of the classes that ``data.normal`` names are learned from, by default those of
    the class ``normal``. The anomalies, which are all others, serve validation and test: the score
    of a window says how unlikely the difference between its normalised values and what the network
    gives back (Sakurada & Yairi, MLSDA 2014) is beside those of normal windows: of segments of
    windows or of whole ones, see :class:`NormalErrors` and :class:`NormalWindows`, whichever tells
    the anomalies of the validation set better from windows of which nothing is given back. For
    that, validation and test hold some windows of the training set too.
    Noise is on the input alone, so that networks learn to take it off (Vincent et al., ICML 2008):
    :data:`NOISE` unless the job says otherwise.

    Targets are (batch, 1 + channels * length): 1 for an anomaly, 0 for a normal window and
    :data:`REFERENCE` for one of the training set; and its values.
    """

    metric_name = "auc"
    metric_is_share = True
    answers = "grid"
    from_data = True
    from_normal = True
    further_metrics: ClassVar[dict[str, MetricKind]] = {
        "average_precision": MetricKind("", maximise=True, share=True),
    }

    directions = 0
    """Of :func:`judge_of`, chosen in :meth:`load`."""
    without_network = math.nan
    """Area under the ROC curve on validation windows of which nothing is given back."""

    def load(self, config: DataConfig, seed: int) -> DataSplits:
        """See :meth:`Task.load`.

        Raises:
            InputError: images, no such class, windows of a length that no autoencoder has, or a
                set without normal windows or without anomalies.
        """
        from nas.data.augment import Augmentation
        from nas.data.splits import load_splits

        splits = expect(
            load_splits(config, seed, kind="classes", open_classes=True), "classes", self
        )
        check_windows(splits.input_size, splits.origin)
        normal = normal_classes(splits.classes, config.normal, splits.origin)
        parts = {
            name: self._windows(part, splits, [splits.classes.index(n) for n in normal])
            for name, part in (
                ("train", splits.train), ("calibration", splits.calibration),
                ("validation", splits.validation), ("test", splits._test),
            )
        }  # fmt: skip
        train = self._normal(parts["train"], splits.origin)
        judged = {name: parts[name] for name in ("validation", "test")}
        for name in ("validation", "test"):
            part = parts[name]
            share = float(part.labels[part.indices, 0].mean())
            if not 0 < share < 1:
                lacks = "normal windows" if share else "anomalies"
                raise InputError(
                    f"{splits.origin}: the {name} set has no {lacks}, so nothing can be told "
                    f"apart; {_remedy(name, parts['train'], lacks)}"
                )
            parts[name] = _beside(part, train.first(REFERENCES), seed)
        self.without_network, self.directions = _best(parts["validation"], splits.channels)
        noise = NOISE if config.augment.noise is None else config.augment.noise
        return replace(
            splits,
            train=train,
            calibration=self._normal(parts["calibration"], splits.origin),
            validation=parts["validation"],
            _test=parts["test"],
            # What moves a window would have to move what it is compared with.
            augmentation=Augmentation(noise=noise),
            classes=normal,
            targets="values",
            judged=judged,
        )

    @staticmethod
    def _windows(part: Subset, splits: DataSplits, normal: list[int]) -> Subset:
        import torch

        pixels = part.images.at(torch.arange(len(part.labels)))
        values = splits.normalisation(pixels).flatten(1)
        anomalous = (~torch.isin(part.labels, torch.tensor(normal))).float()[:, None]
        return replace(part, labels=torch.cat([anomalous, values], 1))

    @staticmethod
    def _normal(part: Subset, origin: str) -> Subset:
        kept = part.indices[part.labels[part.indices, 0] == 0]
        if not len(kept):
            raise InputError(f"{origin}: no window to learn from is normal (data.normal)")
        return replace(part, indices=kept)

    def outputs(self, splits: DataSplits) -> int:
        """Return the values that each place of the output gives back."""
        return PATCH * splits.channels

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean squared error of what is given back.

        outputs: (batch, PATCH * channels, 1, length / PATCH); targets: (batch, 1 + values), of
        which anomalies (there are some where winners are refitted) are not learned from.
        """
        normal = (targets[:, 0] != 1).to(outputs.dtype)
        each = (given_back(outputs) - targets[:, 1:]).pow(2).mean(1)
        return (each * normal).sum() / normal.sum().clamp(min=1)

    def distillation_loss(self, outputs: Tensor, teacher_outputs: Tensor) -> Tensor:
        """Return the mean squared distance to the teacher's outputs, of one shape."""
        return (outputs - teacher_outputs.detach()).pow(2).mean()

    def score(self) -> Score:
        """See :meth:`Task.score`."""
        return _AnomalyScore(partial(_metrics, directions=self.directions))

    def constant(self, splits: DataSplits) -> float:
        """See :meth:`Task.constant`: of a network that gives nothing back."""
        return self.without_network

    def drawing(self, output: np.ndarray, target: np.ndarray, classes: tuple[str, ...]) -> Drawing:
        """See :meth:`Task.drawing`: how far off it is, and what it is."""
        import torch

        window = given_back(torch.from_numpy(output)[None].float())[0].numpy()
        error = float(((window - target[1:]) ** 2).mean())
        what = "an anomaly" if target[0] == 1 else "normal"
        return Drawing(caption=f"mean squared error {error:.3f}, {what}")

    def output_text(self, splits: DataSplits) -> str:
        """See :meth:`Task.output_text`."""
        _, length = splits.input_size
        long = segment_length(splits.channels, length)
        score = (
            f"the mean square of what is left of a difference without its mean and its "
            f"{self.directions} `directions`, those in which normal windows differ most"
            if self.directions
            else f"the mean over segments of {long} values of each channel, one at every {PATCH}th,"
            " of `d @ errors.inverse @ d / d.size` for `d = segment - errors.mean`"
        )
        return (
            f"(batch, {PATCH * splits.channels}, 1, {length // PATCH}): the window as the network "
            f"gives it back, normalised as its input is. Value t of channel c is at [{PATCH} * c + "
            f"t % {PATCH}, 0, t // {PATCH}]. The anomaly score follows from the differences from "
            "the normalised input, (windows, channels, length): "
            f"`errors = judge_of(them, {self.directions})` of normal windows, of {REFERENCES} of "
            "the training set in the figures above, and `errors.scores(them)` of others "
            f"(nas.tasks.normal_errors, NumPy alone). It is {score}. The same score of windows "
            f"themselves, without a network, has {self.metric_name} {self.without_network:.1%} on "
            "the validation set: use that where the network has no more. Choose the threshold "
            "above which you act from scores of further normal windows, such as their 99 % "
            "quantile."
        )


def normal_classes(
    classes: Sequence[str], given: str | Sequence[str] | None, origin: str
) -> tuple[str, ...]:
    """Return the classes to learn from: those ``given``, or the one called ``normal``.

    Args:
        classes: of the data.
        given: ``data.normal`` of the job.
        origin: of the data, for messages.

    Raises:
        InputError: the data has no such class, or none beside them.
    """
    chosen = (NORMAL,) if given is None else (given,) if isinstance(given, str) else tuple(given)
    known = ", ".join(map(repr, classes))
    missing = [name for name in chosen if name not in classes]
    if missing:
        raise InputError(
            f"{origin} has the classes {known}, and none called {missing[0]!r}; say which to learn "
            "from as data.normal"
        )
    if set(chosen) == set(classes):
        raise InputError(
            f"{origin} has the classes {known}: all of them normal (data.normal), and no anomalies "
            "to validate with"
        )
    return chosen


def check_windows(size: tuple[int, int], origin: str) -> None:
    """Raise :class:`InputError` for inputs of (height, length) that no autoencoder gives back."""
    height, length = size
    if height != 1:
        raise InputError(f"{origin} holds images, and anomaly_detection needs windows of signals")
    if length % PATCH:
        raise InputError(
            f"{origin} has windows of {length} values; autoencoders need a multiple of {PATCH}: "
            f"{length // PATCH * PATCH} or {-(-length // PATCH) * PATCH}, say (data.options.window "
            "of recordings)"
        )


class _AnomalyScore(WholeScore):
    def add(self, outputs: Tensor, targets: Tensor) -> None:
        """See :meth:`Score.add`."""
        away = given_back(outputs).float() - targets[:, 1:]
        places = outputs.shape[-1]
        super().add(away.reshape(len(away), -1, PATCH * places), targets[:, 0])


def given_back(outputs: Tensor) -> Tensor:
    """Return windows (batch, channels * length) from outputs (batch, PATCH * channels, 1, n)."""
    batch, units, _, places = outputs.shape
    patches = outputs.reshape(batch, units // PATCH, PATCH, places)
    return patches.transpose(2, 3).reshape(batch, -1)


def _remedy(name: str, train: Subset, lacks: str) -> str:
    """Return how a set gets the windows that it has none of.

    Args:
        name: of the set.
        train: what is left to learn from, anomalies included.
        lacks: ``anomalies`` or ``normal windows``.
    """
    if lacks == "anomalies" and not bool((train.labels[train.indices, 0] == 1).any()):
        return (
            "it is a share of training data that is all normal: give anomalies in a set of its "
            f"own, such as recordings in a folder {name} (or {name}.csv, x_{name}.npy)"
        )
    return f"give a larger data.{name}, or more recordings of the class it lacks"


def _beside(part: Subset, references: Subset, seed: int) -> Subset:
    """Return ``part`` with ``references`` among its windows, marked as such."""
    import torch

    from nas.data.images import MemoryImages

    images, labels, added = part.images, part.labels, references.indices
    if images is references.images:
        labels = labels.clone()
    else:
        pixels, values = references.at(torch.arange(len(references)))
        own = images.at(torch.arange(len(labels)))
        added = len(labels) + torch.arange(len(references))
        images, labels = MemoryImages(torch.cat([own, pixels])), torch.cat([labels, values])
    labels[added, 0] = REFERENCE
    indices = torch.cat([part.indices, added])
    # In random order, so that the first windows of the set are a fair sample with references.
    order = derive_rng(seed, "references").permutation(len(indices))
    return replace(part, images=images, labels=labels, indices=indices[torch.from_numpy(order)])


def _best(part: Subset, channels: int) -> tuple[float, int]:
    """Return how well windows themselves are told apart, and with how many directions, or 0.

    Whole windows are to be ahead of segments by twice the standard error of that (DeLong et al.,
    Biometrics 1988), of one validation set that all counts are tried on.
    """
    rows = part.labels[part.indices].numpy()
    kinds, windows = rows[:, 0], rows[:, 1:].reshape(len(rows), channels, -1)

    def below(directions: int) -> np.ndarray:
        # The share of normal windows that score less, of each anomaly: their mean is the area.
        judge = judge_of(windows[kinds == REFERENCE], directions)
        normal = np.sort(judge.scores(windows[kinds == 0]))
        scores = judge.scores(windows[kinds == 1])
        counts = np.searchsorted(normal, scores) + np.searchsorted(normal, scores, side="right")
        return counts / (2 * len(normal))

    size = windows[0].size
    fitting = [count for count in DIRECTIONS if count * size <= SEGMENT**2 and count < size]
    found = {count: below(count) for count in (0, *fitting)}
    best = max(found, key=lambda count: float(found[count].mean()))
    ahead = found[best] - found[0]
    if ahead.mean() <= 2 * ahead.std() / math.sqrt(len(ahead)):
        best = 0
    return float(found[best].mean()), best


def _metrics(differences: np.ndarray, kinds: np.ndarray, *, directions: int) -> dict[str, float]:
    if not (kinds == REFERENCE).any():
        raise InputError(
            "none of these windows is a normal one of the training set, to hold errors against: "
            "take more of the validation set (--images), or all"
        )
    judged = kinds != REFERENCE
    scores = judge_of(differences[~judged], directions).scores(differences[judged])
    return {
        "auc": area_under_roc(scores, kinds[judged]),
        "average_precision": average_precision(scores, kinds[judged]),
    }
