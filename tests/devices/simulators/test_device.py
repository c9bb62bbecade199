import json

import pytest

from devices.measuring.protocol import Protocol
from devices.measuring.store import MeasurementStore
from devices.simulators.device import make_simulated_device
from search_spaces.errors import InputError
from search_spaces.space import Choice, SearchSpace
from search_spaces.spaces.mobilenet import MobileNetSpace

SPACE = MobileNetSpace.from_config(preset="8x8")


def device(**options):
    values = {"simulator": "roofline", "hardware": "bitfusion-16x32", "space": SPACE}
    return make_simulated_device("npu", **(values | options))


@pytest.fixture
def files(tmp_path):
    archs = [SPACE.largest(), SPACE.smallest()]
    paths = [tmp_path / f"{i}.onnx" for i in range(2)]
    for i, path in enumerate(paths):
        path.write_bytes(bytes([i]))
    return paths, [str(arch) for arch in archs]


def test_estimates_are_labelled_and_kept_in_the_store(files, tmp_path):
    paths, archs = files
    store = MeasurementStore(tmp_path / "store.db")
    seen = []
    found = device().measure(
        paths, archs=archs, space="mobilenet", store=store, on_result=lambda i, m: seen.append(i)
    )
    assert [m.conditions["latency_source"] for m in found] == ["estimated"] * 2
    assert all(m.valid and m.device == "npu" and m.runtime == "roofline" for m in found)
    assert all(m.energy_mj > 0 for m in found)
    assert found[0].latency_ms > found[1].latency_ms > 0
    assert sorted(seen) == [0, 1]
    json.dumps(found[0].to_json())

    class Gone(type(device())):
        def _measure(self, queries, protocol, done):
            raise AssertionError("stored estimates are read back")

    again = device()
    again.__class__ = Gone
    read = again.measure(paths, archs=archs, space="mobilenet", store=store)
    assert [m.latency_ms for m in read] == [m.latency_ms for m in found]


def test_another_description_is_another_device():
    assert device().fingerprint() != device(hardware="loom-16x16").fingerprint()


def test_a_file_without_an_architecture(files):
    with pytest.raises(InputError, match="without one"):
        device().measure(files[0], protocol=Protocol())


def test_unknown_simulators_and_spaces_without_layers():
    with pytest.raises(InputError, match="available: roofline"):
        device(simulator="guess")
    with pytest.raises(InputError, match="layers"):
        device(space=SearchSpace("table", [Choice("a", (1, 2))]))
