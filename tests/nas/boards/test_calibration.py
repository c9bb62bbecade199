from dataclasses import replace
from xml.etree import ElementTree

import pytest

from devices.measuring.protocol import Protocol
from devices.measuring.store import MeasurementStore
from devices.simulators.device import make_simulated_device
from nas.boards.calibration import GROUP, calibrate
from nas.cli.device_calibration import report
from nas.plots.board import check_plot_file, write_foretold
from predictors.pool import default_pool
from search_spaces.errors import InputError
from search_spaces.spaces.mobilenet import MobileNetSpace
from search_spaces.tables.table import read_table, write_table

SPACE = MobileNetSpace.from_config(preset="28x28")


@pytest.fixture
def board():
    """A board without noise."""
    return make_simulated_device(
        "npu", simulator="roofline", hardware="bitfusion-16x32", space=SPACE
    )


@pytest.fixture
def files(tmp_path):
    def file(arch):
        path = tmp_path / f"{arch.id}.onnx"
        path.write_text(str(arch))
        return path

    return file


@pytest.mark.slow
def test_ten_are_measured_and_twenty_foretold_before_they_are(board, files, tmp_path):
    told = []
    store = MeasurementStore(tmp_path / "store.db")
    found = calibrate(
        board, SPACE, files, known=default_pool(SPACE), store=store, predictor="macs",
        on_step=lambda step: told.append((step.what, step.count)),
    )  # fmt: skip
    assert told == [("learn", 10)] * 10 + [("check", 20)] * 20
    learned = {one.arch for one in found.learned}
    assert len(learned) == 10 and not learned & {one.arch for one in found.foretold}
    scores = found.scores()
    assert scores["spearman"] > 0.6 and scores["mape"] < 1.0
    for one in found.foretold:
        assert one.low_ms <= one.predicted_ms <= one.high_ms
    write_table(found.table(SPACE), tmp_path / "npu.csv")
    assert len(read_table(tmp_path / "npu.csv", SPACE)) == 30
    # What is known is not measured again.
    again = calibrate(board, SPACE, files, known=default_pool(SPACE), store=store, predictor="macs")
    assert again.scores() == scores and len(store.rows()) == 30


def test_without_known_devices_it_learns_from_the_board_alone(board, files):
    found = calibrate(board, SPACE, files, known=None, measurements=12, checks=5, predictor="ridge")
    assert found.known == () and len(found.foretold) == 5


def test_too_few_are_refused(board, files):
    with pytest.raises(InputError, match="at least 2 measurements and 3 checks"):
        calibrate(board, SPACE, files, known=None, measurements=1)


def test_the_protocol_is_the_callers(board, files):
    protocol = Protocol(processes=2, runs=7)
    seen = []
    calibrate(
        board, SPACE, files, known=None, measurements=2, checks=3, protocol=protocol,
        predictor="ridge",
        on_step=lambda step: seen.append(step.measurement.protocol["runs"]),
    )  # fmt: skip
    assert set(seen) == {7}


class Slow:
    """A board that takes ``seconds`` a model, by a clock of its own, and may give up."""

    def __init__(self, board, seconds=10.0):
        self.board, self.seconds, self.now, self.fails = board, seconds, 0.0, False
        self.spec, self.groups = board.spec, []

    def clock(self):
        return self.now

    def measure(self, models, **options):
        if self.fails:
            raise KeyboardInterrupt
        self.groups.append(len(models))
        found = self.board.measure(models, **options)
        self.now += self.seconds * len(models)
        return found


def test_no_group_is_begun_that_would_end_too_late(board, files):
    slow, left = Slow(board), []
    found = calibrate(
        slow, SPACE, files, known=None, predictor="ridge", minutes=3.0, clock=slow.clock,
        on_step=lambda step: left.append(step.left_s),
    )  # fmt: skip
    assert slow.now <= 180 and slow.groups == [GROUP] * 3
    assert (len(found.learned), len(found.foretold), found.skipped) == (10, 5, 15)
    assert max(left) <= 180
    # The first group is measured whatever it takes; nothing is left to score then.
    slow = Slow(board, seconds=100.0)
    found = calibrate(
        slow, SPACE, files, known=None, predictor="ridge", minutes=1.0, clock=slow.clock
    )
    assert (len(found.learned), found.foretold, found.skipped) == (5, (), 25)
    assert found.scores() is None


def test_one_that_was_broken_off_goes_on(board, files, tmp_path):
    store = MeasurementStore(tmp_path / "store.db")
    slow = Slow(board)

    def stop_at_the_second_check(step):
        slow.fails = step.what == "check"

    options = {"known": None, "predictor": "ridge", "store": store}
    with pytest.raises(KeyboardInterrupt):
        calibrate(slow, SPACE, files, on_step=stop_at_the_second_check, **options)
    assert len(store.rows()) == 10 + GROUP
    found = calibrate(board, SPACE, files, **options)
    assert len(store.rows()) == 30 and len(found.foretold) == 20


def test_rejected_measurements_are_used_and_marked(board, files):
    class Noisy(Slow):
        def measure(self, models, **options):
            found = super().measure(models, **options)
            return [replace(found[0], valid=False, reasons=("background-load",)), *found[1:]]

    found = calibrate(
        Noisy(board), SPACE, files, known=None, predictor="ridge", measurements=10, checks=10
    )
    assert found.invalid == 4 and [one.valid for one in found.learned].count(False) == 2
    assert found.scores() != found.scores(valid_only=True)
    text = "\n".join(report(found))
    assert "4 measurements are INVALID" in text and "background-load 4" in text
    assert text.count("INVALID (background-load)") == 2 and "over the 8 valid ones" in text
    rows = found.to_json()
    assert [one["valid"] for one in rows["foretold"]].count(False) == 2


def test_the_figure_shows_both_intervals_and_what_was_rejected(board, files, tmp_path):
    found = calibrate(board, SPACE, files, known=None, measurements=5, checks=3, predictor="ridge")
    marked = replace(found.foretold[0], reasons=("drift",))
    found = replace(found, foretold=(marked, *found.foretold[1:]))
    path = tmp_path / "board.svg"
    write_foretold(found, path)
    root = ElementTree.fromstring(path.read_text())
    marks = root.findall("{http://www.w3.org/2000/svg}path[@class='mark']")
    assert sorted(mark.get("fill") for mark in marks) == ["#0072b2", "#0072b2", "#ffffff"]
    for mark in marks:
        at = mark.get("transform").removeprefix("translate(").removesuffix(")").split()
        assert all(0 < float(value) < 560 for value in at)
    with pytest.raises(InputError, match=r"\.svg or \.html"):
        check_plot_file(tmp_path / "board.png")
    with pytest.raises(InputError, match="no folder"):
        check_plot_file(tmp_path / "nowhere" / "board.svg")
