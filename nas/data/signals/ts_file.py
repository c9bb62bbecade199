"""Series in the ``.ts`` format of the UCR and UEA archives (Dau et al. 2019, Bagnall et al. 2018).

A header of ``@key value`` lines, then one case a line after ``@data``: channels divided by
``:``, values by ``,``, the class or target last.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nas.data.problems import Problems
from search_spaces.errors import InputError


@dataclass(frozen=True)
class Series:
    """The cases of one file.

    Attributes:
        values: (cases, channels, length) float32.
        labels: as they are written, one a case.
        classes: those that the header names; empty where the label is a number to predict.
    """

    values: np.ndarray
    labels: tuple[str, ...]
    classes: tuple[str, ...]


UNEQUAL = ("pad", "stretch")
"""What may be done with series of unequal length."""


def read_ts(path: Path, *, unequal: str | None = None, length: int | None = None) -> Series:
    """Read a ``.ts`` file of series of one length, or bring them to one.

    Args:
        path: of the file.
        unequal: ``pad`` holds the last value of shorter series and cuts longer ones at their end;
            ``stretch`` resamples them along straight lines. None refuses series of unequal length.
        length: that they are brought to; by default that of the longest.

    Raises:
        InputError: no such file; series of unequal length, missing values, words that are no
            numbers, time stamps: all of them at once, each with its line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is no text in UTF-8 ({error})") from error
    problems = Problems(path)
    header, start = _header(path, lines, problems)
    labelled = header["classes"] is not None or header["target"]
    cases: list[list[list[float]]] = []
    labels: list[str] = []
    first: tuple[int, int, int] | None = None
    for number, text in _cases(lines, start):
        parts = text.split(":")
        label = parts.pop().strip() if labelled else ""
        channels = [
            _numbers(part, path, number, c, problems) for c, part in enumerate(parts, start=1)
        ]
        lengths = {len(channel) for channel in channels}
        shape = (number, len(channels), max(lengths, default=0))
        if not channels or 0 in lengths:
            problems.add(path, f"case {len(cases) + 1} has no values", line=number)
        elif len(lengths) > 1:
            told = ", ".join(str(len(channel)) for channel in channels)
            problems.add(path, f"channels of unequal length ({told})", line=number)
        elif first is None:
            first = shape
        elif shape[1] != first[1] or (unequal is None and shape[2] != first[2]):
            problems.add(
                path,
                f"{shape[1]} channels of {shape[2]} values; the case in line {first[0]} has "
                f"{first[1]} of {first[2]}",
                line=number,
            )
        if header["classes"] and label not in header["classes"]:
            told = ", ".join(header["classes"])
            problems.add(path, f"class {label!r} is not in the header ({told})", line=number)
        cases.append(channels)
        labels.append(label)
    if not cases:
        problems.add(path, "holds no case after @data")
    problems.raise_any(
        "series must be of one length without gaps: cut, pad or resample them, and fill what is "
        "missing; data.options.unequal: pad holds the last value of shorter ones, and stretch "
        "resamples them"
    )
    if unequal is not None:
        length = length or max(len(case[0]) for case in cases)
        cases = [[_brought(channel, length, unequal) for channel in case] for case in cases]  # type: ignore[misc]
    return Series(np.array(cases, dtype=np.float32), tuple(labels), tuple(header["classes"] or ()))


def says_unequal(path: Path) -> bool:
    """Return whether the header of a ``.ts`` file says that its series are of unequal length."""
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            words = line.lower().split()
            if words[:1] == ["@data"]:
                return False
            if words[:2] == ["@equallength", "false"]:
                return True
    return False


def _brought(channel: list[float], length: int, how: str) -> np.ndarray:
    values = np.array(channel)
    if how == "stretch":
        places = np.linspace(0, len(values) - 1, length)
        return np.asarray(np.interp(places, np.arange(len(values)), values))
    return np.pad(values[:length], (0, max(0, length - len(values))), mode="edge")


def _header(path: Path, lines: list[str], problems: Problems) -> tuple[dict, int]:
    header: dict = {"classes": None, "target": False}
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text or text.startswith(("#", "%")):
            continue
        if not text.startswith("@"):
            problems.add(path, "a line before @data does not begin with @ or #", line=number)
            return header, number
        key, *words = text[1:].split()
        yes = bool(words) and words[0].lower() == "true"
        match key.lower():
            case "data":
                return header, number
            case "timestamps" if yes:
                problems.add(path, "has time stamps, which are not read", line=number)
            case "classlabel" if yes:
                header["classes"] = words[1:]
            case "targetlabel" if yes:
                header["target"] = True
    problems.add(path, "has no @data line, so it is no .ts file")
    return header, len(lines)


def _cases(lines: list[str], start: int) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(lines[start:], start=start + 1):
        if line.strip() and not line.startswith(("#", "%")):
            yield number, line


def _numbers(part: str, path: Path, line: int, channel: int, problems: Problems) -> list[float]:
    values = []
    for place, word in enumerate(part.split(","), start=1):
        text = word.strip()
        try:
            value = math.nan if text == "?" else float(text)
        except ValueError:
            problems.add(
                path, f"channel {channel}, value {place}: {text!r} is no number", line=line
            )
            value = 0.0
        if not math.isfinite(value):
            problems.add(path, f"channel {channel}, value {place} is missing ({text})", line=line)
            value = 0.0
        values.append(value)
    return values
