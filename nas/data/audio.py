"""Spoken words and other sounds from WAV and FLAC files, as log-mel spectrograms.

A sound becomes an input (1, frames, bins): the logarithm of the energy in ``bins`` bands of the
mel scale (O'Shaughnessy, 1987), for a window every ``hop_ms``. That is the front end of the keyword
networks of Zhang et al. (2017, "Hello Edge") without the last cosine transform.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nas.data.folders import class_folders, folder_of, part_folders
from nas.data.problems import Problems, class_names
from nas.data.sound_table import SUFFIXES, Listed, listed_sounds, table_of_sounds
from nas.data.sources import DATA_SOURCES, ImageArrays, RawData
from search_spaces.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from nas.job.sections.data import DataConfig

LISTS = {"validation": "validation_list.txt", "test": "testing_list.txt"}
FLOOR = 1e-6
"""Energy added to that of a band before the logarithm."""


@dataclass(frozen=True)
class LogMel:
    """How a sound becomes a spectrogram.

    Attributes:
        rate: samples a second.
        seconds: of a sound; shorter ones get silence on both sides, longer ones lose both ends.
        bins: mel bands.
        window_ms, hop_ms: of the short-time Fourier transform, Hann window.
        lowest_hz: of the lowest band.
    """

    rate: int = 16000
    seconds: float = 1.0
    bins: int = 40
    window_ms: float = 30.0
    hop_ms: float = 20.0
    lowest_hz: float = 20.0

    def __post_init__(self) -> None:
        for name in ("rate", "seconds", "bins", "window_ms", "hop_ms"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
                raise InputError(f"data.options.{name}: {value!r} is no number above 0")
        if self.frames < 1:
            raise InputError(
                f"data.options.window_ms: a window of {self.window_ms:g} ms is longer than the "
                f"sound of {self.seconds:g} s"
            )

    @property
    def samples(self) -> int:
        """Samples of a sound."""
        return round(self.seconds * self.rate)

    @property
    def window(self) -> int:
        """Samples of a window."""
        return round(self.window_ms * self.rate / 1000)

    @property
    def hop(self) -> int:
        """Samples from one window to the next."""
        return max(1, round(self.hop_ms * self.rate / 1000))

    @property
    def frames(self) -> int:
        """Windows of a sound."""
        return (self.samples - self.window) // self.hop + 1

    @property
    def fft(self) -> int:
        """Points of the Fourier transform: the power of two that holds a window."""
        return 1 << (self.window - 1).bit_length()

    @property
    def macs(self) -> int:
        """Multiply-accumulates of a sound's front end, about: real FFTs, powers, bands."""
        transform = self.fft * int(math.log2(self.fft))
        bands = int(np.count_nonzero(self.filters))
        return self.frames * (self.window + transform + self.fft + bands)

    @cached_property
    def filters(self) -> np.ndarray:
        """Triangular bands, (bins, fft / 2 + 1)."""

        def mel(hz: np.ndarray | float) -> np.ndarray:
            return np.asarray(2595 * np.log10(1 + np.asarray(hz) / 700))

        edges = np.linspace(mel(self.lowest_hz), mel(self.rate / 2), self.bins + 2)
        points = mel(np.arange(self.fft // 2 + 1) * self.rate / self.fft)
        rising = (points - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
        falling = (edges[2:, None] - points) / (edges[2:] - edges[1:-1])[:, None]
        return np.maximum(0, np.minimum(rising, falling))

    def __call__(self, sound: np.ndarray) -> np.ndarray:
        """Return the spectrogram (frames, bins) float32 of samples (n,) within -1 to 1."""
        missing = self.samples - len(sound)
        if missing > 0:
            sound = np.pad(sound, (missing // 2, missing - missing // 2))
        elif missing < 0:
            sound = sound[-missing // 2 :][: self.samples]
        starts = np.arange(self.frames)[:, None] * self.hop
        windows = sound[starts + np.arange(self.window)] * np.hanning(self.window)
        power = np.abs(np.fft.rfft(windows, self.fft)) ** 2
        return np.log(power @ self.filters.T + FLOOR).astype(np.float32)

    def to_json(self) -> dict[str, float]:
        """Return the arguments, for whoever makes the same spectrograms."""
        return asdict(self)

    def text(self) -> str:
        """Return how a user makes an input, for the model card."""
        return (
            f"Log-mel spectrogram as (1, {self.frames}, {self.bins}): the middle "
            f"{self.seconds:g} s at {self.rate} Hz within -1 to 1, shorter sounds between zeros, "
            f"symmetric Hann windows (0.5 - 0.5 cos(2 pi n / {self.window - 1})) of {self.window} "
            f"samples every {self.hop}, powers of a real FFT of {self.fft} points, {self.bins} mel "
            "bands (2595 log10(1 + f / 700)), triangles on the mel scale with corners evenly from "
            f"{self.lowest_hz:g} to {self.rate // 2} Hz, ln(energy + {FLOOR:g}); about "
            f"{self.macs:,} multiply-accumulates, which the costs of the network do not hold. As "
            f"a stream, a new frame comes every {1000 * self.hop / self.rate:g} ms. Values as they "
            "are"
        )


@DATA_SOURCES.register("audio_folder")
def audio_folder(
    config: DataConfig,
    *,
    words: Sequence[str] | None = None,
    unknown: str | None = None,
    rate: int = 16000,
    seconds: float = 1.0,
    bins: int = 40,
    window_ms: float = 30.0,
    hop_ms: float = 20.0,
    labels: str | None = None,
    target: str | None = None,
    group: str | None = None,
) -> RawData:
    """Return sounds laid out as Speech Commands (Warden, 2018): a folder of files for each word.

    ``validation_list.txt`` and ``testing_list.txt`` name the files of these sets, if they are
    there. Otherwise the sets are drawn by speaker, the part of a name before ``_nohash_``, so that
    no voice is in two of them. Or the folders of words lie in ``train``, ``val`` and ``test``.
    Folders that begin with ``_`` or ``.`` are left out. Or a CSV file names sounds and their
    classes, as in ESC-50 (``meta/esc50.csv``): its folds are never divided.

    Args:
        config: ``path`` is the folder.
        words: the classes; by default every folder.
        unknown: name of one class for all folders that are not among ``words``.
        rate, seconds, bins, window_ms, hop_ms: see :class:`LogMel`.
        labels, target, group: a CSV file below ``path`` and its columns, see
            :func:`nas.data.sound_table.listed_sounds`.

    Raises:
        InputError: files of another rate, empty or damaged ones: all at once, by name.
        EnvironmentProblem: the folder is not there.
    """
    front = LogMel(rate, seconds, bins, window_ms, hop_ms)
    root = folder_of(config, "the folder of the sounds")
    found = (
        _foldered(root, words)
        if labels is None
        else listed_sounds(root, labels, target=target, group=group)
    )
    if labels is None and (target or group):
        raise InputError("data.options.target and group are columns; name their file as labels")
    learned = [found.labels[i] for i in found.parts["train"]]
    known = tuple(sorted(set(learned))) if labels is None else class_names(learned)
    wanted = list(words) if words is not None else list(known)
    for word in wanted:
        if word not in known:
            raise InputError(
                f"data.options.words: {root / word} is no folder of sounds"
                if labels is None
                else f"data.options.words: {root / labels} has no class {word!r}"
            )
    classes = (*wanted, *([unknown] if unknown is not None and unknown not in wanted else []))
    others = sorted(set(found.labels) - set(wanted))
    if others and words is None:
        raise InputError(f"{root}: class {others[0]!r} is not among the training classes")
    if len(classes) < 2:
        raise InputError(f"{root}: needs at least two classes of sounds, found {len(classes)}")
    named = [label if label in wanted else unknown for label in found.labels]
    taken = [i for i, label in enumerate(named) if label is not None]
    spectrograms = _spectrograms(root, [found.files[i] for i in taken], front)
    numbers = np.array([classes.index(named[i]) for i in taken], dtype=np.int64)
    rows = {part: np.flatnonzero(np.isin(taken, here)) for part, here in found.parts.items()}
    arrays = {part: ImageArrays(spectrograms[here], numbers[here]) for part, here in rows.items()}
    return RawData(
        train=arrays["train"],
        test=arrays.get("test"),
        validation=arrays.get("validation"),
        classes=classes,
        channels=1,
        image_size=(front.frames, front.bins),
        origin=str(root),
        crop_padding=2,
        noise=0.1,
        groups=None if found.groups is None else found.groups[taken][rows["train"]],
        input_text=front.text(),
        sound=front.to_json(),
    )


def read_sound(path: Path) -> tuple[int, np.ndarray]:
    """Return the rate and the samples (n,) float32 within -1 to 1 of a file, channels averaged.

    Raises:
        InputError: the file is damaged or of another format.
        MissingExtraError: a FLAC file, and soundfile is not installed.
    """
    if path.suffix.lower() == ".flac":
        try:
            import soundfile
        except ImportError as error:
            raise MissingExtraError("soundfile", "audio") from error
        try:
            sound, rate = soundfile.read(path, dtype="float32", always_2d=True)
        except (OSError, RuntimeError) as error:
            raise InputError(f"{path}: cannot be read as FLAC ({error})") from error
        return int(rate), sound.mean(axis=1)
    import warnings

    from scipy.io import wavfile

    try:
        with warnings.catch_warnings():
            # Chunks of text that some programs add are skipped.
            warnings.simplefilter("ignore", wavfile.WavFileWarning)
            rate, sound = wavfile.read(path)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: cannot be read as WAV ({error})") from error
    scale = {"i": -float(np.iinfo(sound.dtype).min) if sound.dtype.kind == "i" else 1.0, "u": 128.0}
    values = sound.astype(np.float32)
    if sound.dtype.kind == "u":
        values -= 128.0
    values /= scale.get(sound.dtype.kind, 1.0)
    return int(rate), values if values.ndim == 1 else values.mean(axis=1)


def common_rate(root: Path, *, looked_at: int = 20) -> int | None:
    """Return the samples a second of the sounds in the folders of ``root``; None if they differ."""
    rates = {rate for rate, _ in _heard(root, looked_at)}
    return rates.pop() if len(rates) == 1 else None


def usual_seconds(root: Path, *, looked_at: int = 20) -> float | None:
    """Return how long the sounds in the folders of ``root`` last, the median; None without any."""
    lasts = [len(sound) / rate for rate, sound in _heard(root, looked_at) if rate]
    return float(np.median(lasts)) if lasts else None


def _heard(root: Path, looked_at: int) -> list[tuple[int, np.ndarray]]:
    """Return rate and samples of sounds spread over all, but of those that cannot be read."""
    found = [path for pattern in ("*/*", "*/*/*") for path in root.glob(pattern)]
    words = [path for path in found if path.parent.name[0] not in "_."]
    files = sorted(path for path in words if path.suffix.lower() in SUFFIXES)
    heard = []
    for path in files[:: max(1, len(files) // looked_at)]:
        try:
            heard.append(read_sound(path))
        except InputError:
            continue  # named where all of them are read
    return heard


def _spectrograms(root: Path, files: Sequence[Path], front: LogMel) -> np.ndarray:
    """Return (n, 1, frames, bins) float32; decoded in threads, mistakes told all at once."""

    def one(path: Path) -> np.ndarray | str | int:
        try:
            rate, sound = read_sound(path)
        except InputError as error:
            return str(error).removeprefix(f"{path}: ")
        if rate != front.rate:
            return rate
        if not len(sound):
            return "is empty"
        if not np.isfinite(sound).all():
            return "holds values that are not finite"
        return front(sound)

    problems = Problems(root)
    others: dict[int, list[Path]] = {}
    out = np.zeros((len(files), 1, front.frames, front.bins), dtype=np.float32)
    with ThreadPoolExecutor(4, thread_name_prefix="sound") as pool:
        for i, found in enumerate(pool.map(one, files)):
            if isinstance(found, int):
                others.setdefault(found, []).append(files[i])
            elif isinstance(found, str):
                problems.add(files[i], found)
            else:
                out[i, 0] = found
    for rate, sounds in others.items():
        more = f", as have {len(sounds) - 1} more sounds" if len(sounds) > 1 else ""
        problems.add(sounds[0], f"has {rate} samples a second, not {front.rate}{more}")
    problems.raise_any(
        "resample or leave out what is named; data.options.rate says which rate all sounds have"
    )
    return out


def _foldered(root: Path, words: Sequence[str] | None) -> Listed:
    """Return the sounds of folders that are called as their classes, of which ``words`` matter."""
    places = part_folders(root)
    files: list[Path] = []
    labels: list[str] = []
    told: list[str] = []
    for part, place in (places or {"train": root}).items():
        for name in class_folders(place, left_out="_."):
            here = sorted(f for f in (place / name).iterdir() if f.suffix.lower() in SUFFIXES)
            if not here and (words is None or name in words):
                table = table_of_sounds(root)
                hint = f"; say data.options.labels: {table}" if table else ""
                raise InputError(f"{place / name}: holds no sounds ({', '.join(SUFFIXES)}){hint}")
            files += here
            labels += [name] * len(here)
            told += [part] * len(here)
    if not files:
        raise InputError(f"{root}: holds no folders of sounds")
    parts = (
        {part: np.flatnonzero(np.array(told) == part) for part in dict.fromkeys(told)}
        if places
        else _parts(root, files)
    )
    return Listed(tuple(files), tuple(labels), parts, _speakers(files))


def _parts(root: Path, files: Sequence[Path]) -> dict[str, np.ndarray]:
    names = {f"{path.parent.name}/{path.name}": i for i, path in enumerate(files)}
    rows = {"train": np.ones(len(files), dtype=bool)}
    for part, listed in LISTS.items():
        if not (root / listed).is_file():
            continue
        here = np.zeros(len(files), dtype=bool)
        for line in (root / listed).read_text(encoding="utf-8").splitlines():
            if line.strip() in names:
                here[names[line.strip()]] = True
        rows["train"] &= ~here
        if here.any():
            rows[part] = here
    if not rows["train"].any():
        raise InputError(f"{root}: the lists of validation and test leave nothing to learn from")
    return {part: np.flatnonzero(here) for part, here in rows.items()}


def _speakers(files: Sequence[Path]) -> np.ndarray:
    names = [re.sub(r"_nohash_.*$", "", path.stem) for path in files]
    return np.unique(names, return_inverse=True)[1]
