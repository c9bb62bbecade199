import pytest

from devices.protocol import Protocol
from devices.simulators.device import make_simulated_device
from devices.store import MeasurementStore
from nas.device_calibration import UntrainedFiles, calibrate
from predictors.pool import default_pool
from search_spaces.errors import InputError
from search_spaces.mobilenet import MobileNetSpace
from search_spaces.table import read_table, write_table

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


def test_ten_are_measured_and_twenty_foretold_before_they_are(board, files, tmp_path):
    told = []
    store = MeasurementStore(tmp_path / "store.db")
    found = calibrate(
        board, SPACE, files, known=default_pool(SPACE), store=store, predictor="macs",
        on_measured=lambda what, i, n, m: told.append((what, n)),
    )  # fmt: skip
    assert told == [("learn", 10)] * 10 + [("check", 20)] * 20
    learned = {str(arch) for arch, _ in found.learned}
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


def test_untrained_files_are_models_of_the_architecture(tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    from devices.runtime import make_runtime

    space = MobileNetSpace.from_config(preset="8x8")
    for integer in (False, True):
        path = UntrainedFiles(space, tmp_path, integer=integer)(space.smallest())
        session = make_runtime("onnxruntime").load(path)
        assert session.inputs[0].shape[2:] == space.plan(space.smallest()).input_shape[1:]
        assert (b"QuantizeLinear" in path.read_bytes()) is integer


def test_the_protocol_is_the_callers(board, files):
    protocol = Protocol(processes=2, runs=7)
    seen = []
    calibrate(
        board, SPACE, files, known=None, measurements=2, checks=3, protocol=protocol,
        predictor="ridge",
        on_measured=lambda what, i, n, m: seen.append(m.protocol["runs"]),
    )  # fmt: skip
    assert set(seen) == {7}
