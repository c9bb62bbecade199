from dataclasses import replace

import pytest

from devices.measuring.fitness import assess, judge, reference_model
from devices.measuring.measurement import Measurement, Rejected
from devices.measuring.protocol import Protocol
from search_spaces.errors import InputError


def measured(latency, **changes):
    whole = Measurement(
        latency_ms=latency, low_ms=latency, high_ms=latency, iqr_ms=0.0, p90_ms=latency,
        p99_ms=latency, mad_ms=0.0, samples_ms=((latency,),), calls=(1,), valid=True, reasons=(),
        attempts=1, rejected=(), runtime="r", runtime_version="1", parameters={}, protocol={},
        conditions={"before": [{}], "after": [{}]}, pinned=False,
    )  # fmt: skip
    return replace(whole, **changes)


def verdict(found, name):
    (check,) = [check for check in found.checks if check.name == name]
    return check.ok


def states(before, after):
    return {"conditions": {"before": [before], "after": [after]}}


def test_steady_runs_are_fit_and_what_a_board_does_not_tell_is_no_fault():
    found = judge([measured(1.0 + 0.001 * i) for i in (0, 2, 1, 0, 1)])
    assert found.fit and found.spread == pytest.approx(0.002, rel=0.01)
    told = {check.name: check.ok for check in found.checks}
    assert told["governor"] is told["throttling"] is told["temperature"] is told["load"] is None


def test_scattered_medians_and_a_trend_are_each_found():
    scattered = judge([measured(v) for v in (1.0, 1.06, 1.0, 1.06, 1.0)])
    assert verdict(scattered, "repeatability") is False and verdict(scattered, "drift") is True
    trend = judge([measured(1 + 0.01 * i) for i in range(5)])
    assert verdict(trend, "drift") is False and verdict(trend, "repeatability") is True
    assert trend.trend == pytest.approx(0.04 / 1.02)
    assert not scattered.fit and not trend.fit


def test_many_rejections_make_a_board_unfit():
    again = measured(1.0, attempts=3, rejected=(Rejected(("background-load",), ()),) * 2)
    found = judge([again, again, measured(1.0)])
    assert verdict(found, "rejections") is False
    assert "background-load" in next(c.detail for c in found.checks if c.name == "rejections")
    assert judge([measured(1.0)] * 3).fit


def test_throttling_load_temperature_and_governor_are_read():
    hot = measured(
        1.0,
        **states(
            {"throttle_count": 1, "governor": "powersave", "load_1m": 3.0},
            {"throttle_count": 2, "temperature_c": 81.0},
        ),
    )
    found = judge([hot] * 3)
    assert verdict(found, "throttling") is False
    assert verdict(found, "temperature") is True and verdict(found, "load") is None
    assert verdict(found, "governor") is None
    cool = measured(1.0, pinned=True, **states({"governor": "performance", "load_1m": 0.5}, {}))
    assert verdict(judge([cool] * 3), "governor") is True
    assert verdict(judge([cool] * 3), "load") is True


class Board:
    """A device that answers from a list."""

    class spec:
        name = "board"

    def __init__(self, answers):
        self.answers, self.asked = list(answers), []

    def measure(self, models, *, protocol):
        self.asked.append((models, protocol))
        return [self.answers.pop(0)]


def test_each_run_is_measured_anew_and_the_reference_ships_with_the_package():
    board, seen = Board([measured(1.0)] * 4), []
    found = assess(board, runs=4, on_run=lambda i, m: seen.append(i))
    assert found.fit and seen == [0, 1, 2, 3]
    assert len({protocol.seed for _, protocol in board.asked}) == 4
    assert all(models == [reference_model()] for models, _ in board.asked)
    assert reference_model().is_file()


def test_too_few_runs_and_a_model_that_cannot_run():
    with pytest.raises(InputError, match="at least 3 runs"):
        assess(Board([]), runs=2)
    broken = measured(float("nan"), detail="no such operator")
    with pytest.raises(InputError, match="board cannot run the model: no such operator"):
        assess(Board([broken]), protocol=Protocol(processes=2, runs=2))
