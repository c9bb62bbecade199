"""What a data source holds, seen from its arrays, or from file names and a few headers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from search_spaces.errors import InputError

_TARGETS = {
    "classes": ("class", "classes"),
    "labels": ("label",),
    "values": ("number to predict", "numbers to predict"),
    "boxes": ("class of boxes", "classes of boxes"),
    "masks": ("class of pixels", "classes of pixels"),
}
"""Kinds of targets -> what is counted of them: one, several."""


_LONGER = 1.5
"""How many times as long as what networks hear sounds last, to be heard for longer, or told."""
_FRAMES = 100
"""Frames of a spectrogram of long sounds: more take long to train on."""


@dataclass(frozen=True)
class Survey:
    """The examples of a data source, roughly.

    Attributes:
        examples: for training, those that validation will take included.
        classes: how many classes, labels or values; of a text the vocabulary.
        height, width: of an example in pixels, of pictures in files the median of the shorter
            sides; a signal or a text has height 1.
        channels: 1 where every picture looked at is grey.
        targets: see :class:`~nas.data.sources.RawData`.
        files: whether they are pictures in files, which any size and channels can be asked of.
        options: of the source, with which they were read.
        names: of the classes, labels or values.
        unseen: what networks do not see of the pictures, where it is much.
        counts: examples of each class, in the order of ``names``; empty where they have none.
        apart: how many examples more are in sets of their own, for validation and test.
    """

    examples: int
    classes: int
    height: int
    width: int
    channels: int
    targets: str = "classes"
    files: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)
    names: tuple[str, ...] = field(default=(), compare=False)
    unseen: str | None = field(default=None, compare=False)
    counts: tuple[int, ...] = field(default=(), compare=False)
    apart: tuple[tuple[int, str], ...] = field(default=(), compare=False)

    @property
    def text(self) -> str:
        """What was seen, in words."""
        if self.targets in ("tokens", "pairs"):
            return f"{self.examples} examples of at most {self.width} symbols"
        if self.files:
            colour = "grey" if self.channels == 1 else "colour"
            shown = f"{self.examples} {colour} pictures of about {self.side} pixels"
        elif self.height == 1:
            channels = _counted(self.channels, "channel")
            cut = self.options.get("window")
            shown = f"{self.examples} signals of {channels}, {self.width} values each"
            if cut:
                shown = (
                    f"{self.examples} windows of {cut} rows of recordings (--option window=N cuts "
                    f"others), {channels}"
                )
        else:
            shape = f"{self.channels} x {self.height} x {self.width}"
            shown = f"{self.examples} examples of {shape} values"
        if self.apart:
            shown += (
                f" for training ({', '.join(f'{n} more for {part}' for n, part in self.apart)})"
            )
        unseen = f"\nwarning: {self.unseen}" if self.unseen else ""
        return f"{shown}; {_counted(self.classes, *_TARGETS[self.targets])}{self._uneven}{unseen}"

    @property
    def uneven(self) -> bool:
        """Whether the rarest and the most frequent class are far apart."""
        return self._far_apart is not None

    @property
    def _far_apart(self) -> tuple[int, int] | None:
        from nas.data.doubts import uneven

        return uneven(self.counts)

    @property
    def _uneven(self) -> str:
        """Which classes are rarest and most frequent, where that is far apart."""
        if self._far_apart is None:
            return ""
        few, many = (f"{self.counts[i]} of {self.names[i]}" for i in self._far_apart)
        return f", {few} to {many}"

    @property
    def side(self) -> int:
        """The shorter side, pixels."""
        return min(self.height, self.width)

    @property
    def values(self) -> int:
        """Numbers in all examples together."""
        return self.examples * self.channels * self.height * self.width


def survey(
    source: str,
    path: Path,
    *,
    task: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Survey:
    """Return what ``path``, laid out as data source ``source`` reads it, holds.

    Args:
        source: a registered data source.
        path: of the data.
        task: for sources that read several kinds of targets; by default their values say it.
        options: of the source; what the files say, as the rate of sounds, is looked up where it
            is not given.

    Raises:
        InputError: it is not laid out so, or an example that is looked at cannot be read; an
            option that the source does not take, or not so.
        EnvironmentProblem: there is no such folder.
        MissingExtraError: a library that reads such files is not installed.
    """
    from nas.data.pictures import readable, usual_picture
    from nas.data.sources import DATA_SOURCES, ImageFiles, taken
    from nas.data.targets import refuse_constant
    from nas.job.option_types import wrong_options
    from nas.job.sections.data import SET_OPTIONS, DataConfig
    from nas.tasks.base import TASKS
    from nas.tasks.data import kind_for

    read = DATA_SOURCES.get(source)
    wrong = wrong_options(
        ("data", "options"), options or {}, read, f"data source {source!r}", own=SET_OPTIONS
    )
    for _, message in wrong:
        raise InputError(message)
    given = {**_found_options(source, path, options or {}), **(options or {})}
    kind = None if task is None else kind_for(task)
    # Anomalies need not be among what is learned from.
    anomalies = task is not None and TASKS.get(task).from_normal
    told = taken(read, kind=kind, open_classes=anomalies)
    raw = read(DataConfig(name=source, path=str(path)), **given, **told)
    names = tuple(map(readable, raw.classes))
    if raw.targets == "values":
        refuse_constant(raw.train.labels, names, path)
    classes = len(names)
    counts: tuple[int, ...] = ()
    if raw.targets == "classes":
        counts = tuple(np.bincount(raw.train.labels, minlength=classes).tolist())
    others = ((raw.validation, "validation"), (raw.test, "the test"))
    apart = tuple((len(part.labels), name) for part, name in others if part is not None)
    if isinstance(raw.train, ImageFiles):
        usual = usual_picture(raw.train.paths)
        return Survey(
            len(raw.train.paths), classes, usual.shorter, usual.shorter, 1 if usual.grey else 3,
            raw.targets, options=given, names=names,
            unseen=None if raw.train.whole else usual.unseen, counts=counts, apart=apart,
        )  # fmt: skip
    examples, channels, height, width = raw.train.images.shape
    return Survey(
        examples, classes, height, width, channels, raw.targets, files=False, options=given,
        names=names, unseen=_unseen(source, path, given, raw.train.images.shape), counts=counts,
        apart=apart,
    )  # fmt: skip


def _unseen(
    source: str, path: Path, options: Mapping[str, Any], shape: tuple[int, ...]
) -> str | None:
    """Return what networks do not see of sounds, or that a signal's axes may be exchanged."""
    if source == "audio_folder":
        from nas.data.audio import LogMel, usual_seconds

        taken = float(options.get("seconds", LogMel.seconds))
        lasts = usual_seconds(path)
        if lasts is not None and lasts > _LONGER * taken:
            return (
                f"sounds last about {lasts:.3g} s, and networks hear the {taken:g} s in their "
                f"middle; say --option seconds={lasts:.2g} where more matters"
            )
    _, channels, height, width = shape
    if source == "signal_numpy" and height == 1 and channels > width:
        return (
            f"signals have {channels} channels and {width} values each; arrays are (signals, "
            "channels, length), transpose those that are (signals, length, channels)"
        )
    return None


def _found_options(source: str, path: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options that the files themselves say."""
    if not path.is_dir():
        return {}
    if source == "signal_csv":
        from nas.data.signals.rows import recorded

        return recorded(path, options)
    if source == "signal_ts":
        from nas.data.signals.ts_file import says_unequal

        problem = options.get("problem") or "*"
        unequal = any(map(says_unequal, path.glob(f"{problem}_TRAIN.ts")))
        return {"unequal": "pad"} if unequal else {}
    if source == "image_csv":
        from nas.job.first.layouts import table_of_pictures

        name = table_of_pictures(path)
        return {} if name in (None, "labels.csv") else {"labels": name}
    if source != "audio_folder":
        return {}
    from nas.data.audio import LogMel, common_rate, usual_seconds
    from nas.data.sound_table import table_of_sounds

    rate, lasts, table = common_rate(path), usual_seconds(path), table_of_sounds(path)
    found: dict[str, Any] = {} if table is None else {"labels": table}
    if rate not in (None, LogMel.rate):
        found["rate"] = rate
    if lasts is not None and lasts > _LONGER * LogMel.seconds and "seconds" not in options:
        found |= {"seconds": round(lasts, 1)}
        if "hop_ms" not in options:
            # As many frames as of a sound of a second would have, or twice as many.
            found["hop_ms"] = float(round(max(LogMel.hop_ms, lasts * 1000 / _FRAMES)))
    return found


def _counted(count: int, one: str, several: str | None = None) -> str:
    return f"{count} {one if count == 1 else several or one + 's'}"
