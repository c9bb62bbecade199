"""Signals that are made, not read: for demonstrations and tests without a download."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nas.data.problems import whole_option
from nas.data.sources import DATA_SOURCES, ImageArrays, RawData
from search_spaces.errors import InputError
from search_spaces.seeds import derive_rng

if TYPE_CHECKING:
    from nas.job.sections.data import DataConfig

CLASSES = ("cylinder", "bell", "funnel")
MACHINE = ("normal", "bearing", "imbalance", "belt")
"""Classes of :func:`rotating_machine`: a machine as it should be, and three faults."""


@DATA_SOURCES.register("cylinder_bell_funnel")
def cylinder_bell_funnel(
    config: DataConfig, *, examples: int = 1200, length: int = 128, kind: str | None = None
) -> RawData:
    """Return cylinder, bell and funnel (Saito, 1994): an event in noise, of one of three shapes.

    The event begins at a random moment between 1/8 and 1/4 of the signal and lasts 1/4 to 3/4 of
    it; its level is 6 plus normal noise, and noise of deviation 1 lies over everything. The test
    set is another draw of half as many.

    Args:
        config: of the job; nothing of it is needed.
        examples: signals to learn from, at least 30.
        length: of a signal, at least 16.
        kind: ``classes`` (the shape) or ``values`` (where the event begins and how long it
            lasts, as shares of the signal); by default the task's.

    Raises:
        InputError: fewer examples or a shorter length; labels, which there are none of.
    """
    whole_option("examples", examples, least=30)
    whole_option("length", length, least=16)
    kind = kind or "classes"
    if kind == "labels":
        raise InputError("cylinder_bell_funnel has one shape a signal, not several labels")
    train, test = (
        _draw(count, length, kind, derive_rng(0, "cylinder bell funnel", part))
        for part, count in (("train", examples), ("test", max(30, examples // 2)))
    )
    return RawData(
        train=train,
        test=test,
        classes=CLASSES if kind == "classes" else ("onset", "duration"),
        channels=1,
        image_size=(1, length),
        origin="cylinder_bell_funnel, made",
        scale=1.0 if kind == "values" else 0.9,
        noise=0.05,
        targets=kind,
        input_text="A signal as (1, 1, length), its values as they are",
    )


def _draw(count: int, length: int, kind: str, rng: np.random.Generator) -> ImageArrays:
    shape = np.arange(count) % len(CLASSES)
    begin = rng.uniform(length / 8, length / 4, (count, 1))
    lasts = rng.uniform(length / 4, 3 * length / 4, (count, 1))
    time = np.arange(length)[None]
    inside = (time >= begin) & (time <= begin + lasts)
    share = (time - begin) / lasts
    form = np.select([shape[:, None] == 0, shape[:, None] == 1], [np.ones_like(share), share],
                     1 - share)  # fmt: skip
    level = 6 + rng.standard_normal((count, 1))
    values = level * inside * form + rng.standard_normal((count, length))
    if kind == "classes":
        targets = shape.astype(np.int64)
    else:
        targets = (np.concatenate([begin, lasts], axis=1) / length).astype(np.float32)
    return ImageArrays(values.astype(np.float32)[:, None, None], targets)


@DATA_SOURCES.register("rotating_machine")
def rotating_machine(
    config: DataConfig, *, examples: int = 2000, length: int = 256, kind: str | None = None
) -> RawData:
    """Return made vibrations of a machine that turns, normal ones and those of three faults.

    A window has the harmonics of a speed that changes from window to window, at random phases, and
    noise. A bearing with a crack adds short rings of high frequency at a rhythm of its own; an
    imbalance makes the first harmonic larger than the others allow; a loose belt lets the speed
    waver within the window. Faults are of random strength, the weakest hardly visible. A fifth of
    the windows have a fault. The test set is another draw of half as many.

    Args:
        config: of the job; nothing of it is needed.
        examples: windows to learn from, at least 60.
        length: of a window, at least 64.
        kind: ``classes``.

    Raises:
        InputError: fewer examples or a shorter length; values or labels, which there are none of.
    """
    whole_option("examples", examples, least=60)
    whole_option("length", length, least=64)
    if kind not in (None, "classes"):
        raise InputError(f"rotating_machine has one state a window, no {kind}")
    train, test = (
        _machine(count, length, derive_rng(0, "rotating machine", part))
        for part, count in (("train", examples), ("test", max(30, examples // 2)))
    )
    return RawData(
        train=train,
        test=test,
        classes=MACHINE,
        channels=1,
        image_size=(1, length),
        origin="rotating_machine, made",
        noise=0.05,
        input_text="A window as (1, 1, length), its values as they are",
    )


def _machine(count: int, length: int, rng: np.random.Generator) -> ImageArrays:
    state = np.where(np.arange(count) % 5 == 0, 1 + np.arange(count) // 5 % 3, 0)
    strength = rng.uniform(0.15, 1.0, (count, 1))
    time = np.arange(length)[None]
    waver = (state[:, None] == 3) * 1.5 * strength
    turned = 2 * np.pi * rng.uniform(0.02, 0.04, (count, 1)) * time
    turned = turned + waver * np.sin(2 * np.pi * (0.006 * time + rng.random((count, 1))))
    values = 0.15 * rng.standard_normal((count, length))
    for harmonic, level in ((1, 1.0), (2, 0.5), (3, 0.3)):
        levels = level * rng.uniform(0.8, 1.2, (count, 1))
        if harmonic == 1:
            levels = levels * (1 + (state[:, None] == 2) * strength)
        values += levels * np.sin(harmonic * turned + rng.uniform(0, 2 * np.pi, (count, 1)))
    rhythm = rng.uniform(24, 40, (count, 1))
    since = (time + rng.uniform(0, 40, (count, 1))) % rhythm
    ring = np.exp(-since / 4) * np.sin(2 * np.pi * 0.35 * since)
    values += (state[:, None] == 1) * 1.2 * strength * ring
    return ImageArrays(values.astype(np.float32)[:, None, None], state.astype(np.int64))
