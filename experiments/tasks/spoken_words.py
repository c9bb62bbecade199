"""Make a folder of spoken words in the layout of Speech Commands; voices of the test set are new.

Needs the programs ``espeak-ng`` and ``flite``. Ten words, silence and other words (twelve classes,
as MLPerf Tiny's keyword spotting); every voice belongs to one of the sets, and two voices of the
test set come from another synthesiser than most of the training set.

    python -m experiments.tasks.spoken_words FOLDER
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.io import wavfile
from scipy.signal import resample_poly

from search_spaces.seeds import derive_rng

RATE = 16000
WORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
OTHERS = (
    "bed", "bird", "cat", "dog", "house", "tree", "wow", "happy", "seven", "nine", "three", "four",
)  # fmt: skip
ACCENTS = ("en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-gb-x-gbcwmd")
VARIANTS = ("m1", "m2", "m3", "m4", "m5", "m6", "m7", "f1", "f2", "f3", "f4", "f5")
FLITE = {"train": ("kal16", "awb"), "test": ("rms", "slt")}


@dataclass(frozen=True)
class Voice:
    """A speaker: a synthesiser and its voice."""

    program: str
    name: str
    part: str

    def say(self, word: str, rng: np.random.Generator, folder: Path) -> np.ndarray:
        """Return the samples of ``word`` at 16 kHz within -1 to 1, at a pace and pitch of its own.

        Raises:
            RuntimeError: the program failed.
        """
        path = folder / f"{self.name}-{word}-{rng.integers(1 << 31)}.wav"
        pace, pitch = rng.uniform(0.8, 1.25), rng.uniform(0.85, 1.15)
        if self.program == "espeak-ng":
            command = ["espeak-ng", "-v", self.name, "-s", str(int(165 * pace)), "-p",
                       str(int(50 * pitch)), "-w", str(path), word]  # fmt: skip
        else:
            command = ["flite", "-voice", self.name, "--setf", f"duration_stretch={1 / pace:.3f}",
                       "-t", word, "-o", str(path)]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode or not path.exists():
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
        rate, sound = wavfile.read(path)
        path.unlink()
        values = sound.astype(np.float32) / 32768
        return np.asarray(resample_poly(values, RATE, rate)) if rate != RATE else values


def voices() -> list[Voice]:
    """Return every voice with the set that it belongs to; a variant's accents stay together."""
    found = []
    for i, variant in enumerate(VARIANTS):
        # Of the twelve variants two men and two women are unseen, one of each in validation.
        part = {5: "validation", 9: "validation", 6: "test", 10: "test"}.get(i, "train")
        found += [Voice("espeak-ng", f"{accent}+{variant}", part) for accent in ACCENTS]
    return found + [Voice("flite", n, part) for part, names in FLITE.items() for n in names]


def placed(sound: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return one second of 16-bit samples: the word somewhere in it, at a level, in some noise."""
    loud = np.flatnonzero(np.abs(sound) > 0.02 * np.abs(sound).max(initial=1e-9))
    word = sound[loud[0] : loud[-1] + 1][:RATE] if len(loud) else sound[:0]
    out = noise(rng)
    begin = rng.integers(0, RATE - len(word) + 1)
    level = rng.uniform(0.15, 0.9) / max(1e-3, float(np.abs(word).max(initial=0)))
    out[begin : begin + len(word)] += level * word
    return np.clip(32767 * out, -32768, 32767).astype(np.int16)


def noise(rng: np.random.Generator) -> np.ndarray:
    """Return a second of noise between white and brown, (16000,), at a level of its own."""
    spectrum = np.fft.rfft(rng.standard_normal(RATE))
    spectrum /= np.maximum(1, np.arange(len(spectrum))) ** rng.uniform(0, 1)
    sound = np.fft.irfft(spectrum, RATE)
    return np.asarray(10 ** rng.uniform(-4, -1.6) * sound / sound.std())


def make(folder: Path, *, takes: int = 4, seed: int = 0) -> dict[str, int]:
    """Write the set into ``folder`` and return the number of sounds of each part.

    Args:
        folder: to make; must not exist.
        takes: of each word by each voice.
        seed: of paces, pitches, places and noise.
    """
    folder.mkdir(parents=True)
    listed: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    everyone = voices()

    def one(voice: Voice) -> list[str]:
        speaker = f"{voice.program}-{voice.name}".replace("+", "-")
        rng = derive_rng(seed, "spoken words", voice.name)
        names = []
        with tempfile.TemporaryDirectory() as scratch:
            for word in (*WORDS, *OTHERS, "silence"):
                # Other words and silence are one class each, as large as a word's.
                count = 1 if word in OTHERS and takes <= 4 else takes
                for take in range(count):
                    sound = (
                        np.zeros(0, np.float32)
                        if word == "silence"
                        else voice.say(word, rng, Path(scratch))
                    )
                    path = folder / word / f"{speaker}_nohash_{take}.wav"
                    path.parent.mkdir(exist_ok=True)
                    wavfile.write(path, RATE, placed(sound, rng))
                    names.append(f"{word}/{path.name}")
        return names

    with ThreadPoolExecutor(2) as pool:
        for voice, names in zip(everyone, pool.map(one, everyone), strict=True):
            listed[voice.part] += names
    (folder / "validation_list.txt").write_text("\n".join(listed["validation"]) + "\n")
    (folder / "testing_list.txt").write_text("\n".join(listed["test"]) + "\n")
    return {part: len(names) for part, names in listed.items()}


def main() -> None:
    """Make the set from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--takes", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print(make(given.folder, takes=given.takes, seed=given.seed))


if __name__ == "__main__":
    main()
