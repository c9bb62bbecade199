"""Latencies: predicted against measured, and devices by how alike they rank."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.report.charts.spec import XY, Axis, Interval, Mark, NothingRecorded, Points, Rule
from nas.report.charts.text import interval, milliseconds, plural
from nas.report.rows import MOST_DOTS, Rows, thin
from predictors.rank_correlation import rank_correlation
from search_spaces.errors import InputError

if TYPE_CHECKING:
    from nas.boards.calibration import Foretold

_EQUAL = Rule("predicted = measured", "equal", "equal")


def predicted_vs_measured(rows: Rows, *, device: str | None = None) -> XY:
    """Return what was predicted against what was measured on a device of a run.

    Verified models, measured after the predictor was fitted, are told apart from the samples
    it may have been fitted on. Bars are 95 % intervals of either value.

    Raises:
        InputError: the run knows no such device.
        NothingRecorded: no device, or no pair was recorded for it.
    """
    device = known_device(rows, device)
    pairs = [s for s in rows.samples if s["device"] == device]
    pairs = [s for s in thin(pairs, MOST_DOTS) if (s["ms"] or 0) > 0 and (s["predicted"] or 0) > 0]
    if not pairs:
        raise NothingRecorded(
            f"no pair of predicted and measured latency was recorded for {device}"
        )
    source = rows.source(device)
    groups = (
        ("other sample, perhaps fitted on", "other",
         lambda s: not s["held_out"] and s["valid"] is not False),
        ("verified model", "front", lambda s: s["held_out"] and s["valid"] is not False),
        ("invalid measurement", "invalid", lambda s: s["valid"] is False),
    )  # fmt: skip
    marks: list[Mark] = [_EQUAL]
    for name, role, wanted in groups:
        chosen = [s for s in pairs if wanted(s)]
        if chosen:
            marks.append(_samples(chosen, name, role, source))
    title = f"Predicted and measured latency on {device}"
    fit = latency_fit(rows.samples, device, held_out=True)
    if fit is not None:
        title += f": mean error {100 * fit['mape']:.1f} % over {plural(fit['n'], 'verified model')}"
    return XY(
        title=title,
        description=f"Predicted against {source} latency on {device}. "
        "Use the arrow keys to go from mark to mark.",
        x=Axis(f"{source} latency on {device}", "ms", rows.runtime(device), scale="log"),
        y=Axis("predicted", "ms", scale="log"),
        marks=tuple(marks),
        notes=tuple(_fit_notes(rows.samples, device)),
        same=True,
    )


def known_device(rows: Rows, device: str | None) -> str:
    """Return the device, by default the first of the run.

    Raises:
        InputError: the run knows no such device.
        NothingRecorded: the run has none.
    """
    if not rows.devices:
        raise NothingRecorded("no pair of predicted and measured latency was recorded")
    if device is None:
        return rows.devices[0]
    if device not in rows.devices:
        raise InputError(f"the run has no device {device!r} (devices: {', '.join(rows.devices)})")
    return device


def prediction(
    measured_ms: Sequence[float],
    predicted_ms: Sequence[float],
    *,
    low_ms: Sequence[float] | None = None,
    high_ms: Sequence[float] | None = None,
    names: Sequence[str] | None = None,
    title: str = "Predicted and measured latency",
) -> XY:
    """Return predictions against measurements that belong to no run.

    Args:
        measured_ms, predicted_ms: (n,), positive.
        low_ms, high_ms: (n,), ends of the predicted intervals; both or neither.
        names: (n,), told of the marks.
        title: of the chart.

    Raises:
        InputError: lengths that differ, or a value that is not positive.
    """
    x, y = np.asarray(measured_ms, dtype=float), np.asarray(predicted_ms, dtype=float)
    if x.shape != y.shape or x.ndim != 1 or not len(x):
        raise InputError(f"{len(x)} measurements do not pair with {len(y)} predictions")
    if not (x > 0).all() or not (y > 0).all():
        raise InputError("latencies must be positive")
    if (low_ms is None) != (high_ms is None):
        raise InputError("give both ends of the intervals, or neither")
    for one in (low_ms, high_ms, names):
        if one is not None and len(one) != len(x):
            raise InputError(f"{len(x)} measurements do not pair with {len(one)} values")
    upwards = None
    if low_ms is not None and high_ms is not None:
        upwards = Interval(_column(low_ms), _column(high_ms))
    called = [""] * len(x) if names is None else [f"{name}\n" for name in names]
    texts = (
        f"{name}measured {milliseconds(float(a))}\npredicted {milliseconds(float(b))}"
        for name, a, b in zip(called, x, y, strict=True)
    )
    points = Points(
        "architecture", "front", _column(x), _column(y), upwards=upwards, texts=tuple(texts)
    )
    return _square(title, (_EQUAL, points))


def foretold(found: Sequence[Foretold], title: str) -> XY:
    """Return a calibration's predictions against its measurements.

    Bars are the predicted 90 % and the measured 95 % intervals; hollow marks are measurements
    that the protocol rejected.

    Args:
        found: what was predicted, then measured.
        title: of the chart.
    """
    marks: list[Mark] = [_EQUAL]
    for name, role, valid in (
        ("measured", "front", True),
        ("rejected by the protocol", "beaten", False),
    ):
        chosen = [one for one in found if one.valid is valid]
        if not chosen:
            continue
        texts = (
            f"{'' if valid else 'INVALID: '}{one.arch}\n"
            f"predicted {milliseconds(one.predicted_ms)}\nmeasured {milliseconds(one.measured_ms)}"
            for one in chosen
        )
        marks.append(
            Points(
                name,
                role,
                _column([one.measured_ms for one in chosen]),
                _column([one.predicted_ms for one in chosen]),
                Interval(
                    _column([one.measured_low_ms for one in chosen]),
                    _column([one.measured_high_ms for one in chosen]),
                ),
                Interval(
                    _column([one.low_ms for one in chosen]),
                    _column([one.high_ms for one in chosen]),
                ),
                texts=tuple(texts),
            )
        )
    return _square(title, tuple(marks), "95 % interval", "90 % interval")


def device_map(names: Sequence[str], points: Any, *, highlighted: Collection[str] = ()) -> XY:
    """Return devices as points; those that rank architectures alike lie close together.

    Args:
        names: of the devices.
        points: (devices, 2), beside the names, as
            :meth:`predictors.transfer_gp.predictor.TransferGP.embedding` returns them.
        highlighted: names drawn as squares, for instance the new device.

    Raises:
        InputError: points that do not fit the names.
    """
    points = np.asarray(points, dtype=float)
    if points.shape != (len(names), 2):
        raise InputError(f"{len(names)} devices need points of shape ({len(names)}, 2), "
                         f"not {points.shape}")  # fmt: skip
    marks: list[Mark] = []
    for new, name, role in ((False, "known device", "front"), (True, "new device", "new")):
        kept = [i for i, one in enumerate(names) if (one in highlighted) is new]
        if kept:
            called = tuple(str(names[i]) for i in kept)
            xy = (_column(points[kept, 0]), _column(points[kept, 1]))
            marks.append(Points(name, role, *xy, texts=called, labels=called))
    # Only distances mean something, so both axes have one scale and no numbers.
    return XY(
        title="Devices by how they rank architectures",
        description="Devices that rank architectures alike lie close together.",
        x=Axis(numbered=False),
        y=Axis(numbered=False),
        marks=tuple(marks),
        same=True,
    )


def latency_fit(
    samples: Sequence[Mapping[str, Any]], device: str, *, held_out: bool
) -> dict[str, Any] | None:
    """Return how well latency was predicted on a device, over valid measured samples.

    Args:
        samples: as :func:`nas.report.rows.sample_rows` gives them.
        device: name.
        held_out: over the models measured after the predictor was fitted, or over the other
            samples, which it may have been fitted on.

    ``mape``: mean absolute error as a fraction of the measured value; ``inside``: share of
    measured values inside the predicted 95 % interval; ``None`` without a pair.
    """
    pairs = [
        s
        for s in samples
        if s["held_out"] is held_out
        and s["device"] == device
        and s["valid"] is not False
        and s["ms"]
        and s["predicted"]
    ]
    if not pairs:
        return None
    bounded = [s for s in pairs if s["predicted_low"] is not None and s["predicted_high"]]
    return {
        "n": len(pairs),
        "mape": sum(abs(s["predicted"] / s["ms"] - 1) for s in pairs) / len(pairs),
        "spearman": _spearman([s["ms"] for s in pairs], [s["predicted"] for s in pairs]),
        "inside": sum(s["predicted_low"] <= s["ms"] <= s["predicted_high"] for s in bounded)
        / len(bounded)
        if bounded
        else None,
        "bounded": len(bounded),
    }


def _samples(chosen: Sequence[Mapping[str, Any]], name: str, role: str, source: str) -> Points:
    texts = []
    for s in chosen:
        measured = f"{source} {milliseconds(s['ms'])}, {interval(s['low'], s['high'])}"
        bounds = interval(s["predicted_low"], s["predicted_high"])
        texts.append(
            f"{s['id']}{' (verified model)' if s['held_out'] else ''}\n"
            f"{measured}{' ⚠ invalid' if s['valid'] is False else ''}\n"
            f"predicted {milliseconds(s['predicted'])}, {bounds}"
        )

    def ends(key: str) -> tuple[float | None, ...]:
        # A bound of 0 has no place on a logarithmic axis.
        return tuple(s[key] if (s[key] or 0) > 0 else None for s in chosen)

    return Points(
        name,
        role,
        tuple(s["ms"] for s in chosen),
        tuple(s["predicted"] for s in chosen),
        Interval(ends("low"), ends("high")),
        Interval(ends("predicted_low"), ends("predicted_high")),
        texts=tuple(texts),
        ids=tuple(s["id"] for s in chosen),
    )


def _fit_notes(samples: Sequence[Mapping[str, Any]], device: str) -> Iterator[str]:
    for held_out, words in (
        (True, "Verified models, measured after the predictor was fitted"),
        (False, "Other samples, which the predictor may have been fitted on"),
    ):
        fit = latency_fit(samples, device, held_out=held_out)
        if fit is None:
            continue
        rank = "undefined" if fit["spearman"] is None else f"{fit['spearman']:.3f}"
        inside = "predicted intervals not recorded"
        if fit["inside"] is not None:
            inside = f"{100 * fit['inside']:.0f} % inside the predicted 95 % interval"
        yield (
            f"{words}: {plural(fit['n'], 'valid pair')}, mean error {100 * fit['mape']:.1f} %, "
            f"rank correlation {rank}, {inside}."
        )
    yield "Bars are 95 % intervals of either value."


def _square(
    title: str, marks: tuple[Mark, ...], of_measured: str = "", of_predicted: str = ""
) -> XY:
    # Without a point there is still a chart, which says so.
    shows = () if any(isinstance(mark, Points) for mark in marks) else (0.1, 1.0)
    return XY(
        title=title,
        description="Predicted against measured latency.",
        x=Axis("measured", "ms", of_measured, scale="log", shows=shows),
        y=Axis("predicted", "ms", of_predicted, scale="log", shows=shows),
        marks=marks,
        same=True,
    )


def _column(values: Any) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _spearman(a: list[float], b: list[float]) -> float | None:
    from scipy.stats import spearmanr

    if len(a) < 3:
        return None
    return rank_correlation(spearmanr, np.array(a), np.array(b))
