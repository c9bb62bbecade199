import pytest

from devices.measuring.energy import CounterMeter, NoMeter, PowerMeter, make_meter
from search_spaces.errors import InputError

RAPL = "/sys/class/powercap/intel-rapl:0"


class Files(dict):
    def __call__(self, path):
        return self.get(path)


def test_a_counter_gives_the_difference_and_survives_an_overflow():
    files = Files({f"{RAPL}/energy_uj": "900", f"{RAPL}/max_energy_range_uj": "1000"})
    meter = make_meter(None, reader=files)
    meter.start()
    files[f"{RAPL}/energy_uj"] = "950"
    assert meter.stop() == pytest.approx(0.05)
    meter.start()
    files[f"{RAPL}/energy_uj"] = "50"
    assert meter.stop() == pytest.approx(0.1)


def test_a_counter_that_vanishes_gives_nothing():
    files = Files({"/x/energy1_input": "1"})
    meter = CounterMeter(["/x/energy1_input"], reader=files)
    meter.start()
    files.clear()
    assert meter.stop() is None


def test_power_is_integrated():
    now = iter(range(100))
    meter = PowerMeter(
        "/x/power1_input", reader=lambda path: "2000000", clock=lambda: next(now), poll_s=60
    )
    meter.start()
    # 2 W from second 0 to second 1.
    assert meter.stop() == pytest.approx(2000.0)


def test_nothing_is_exposed():
    meter = make_meter(None, reader=Files())
    assert isinstance(meter, NoMeter)
    meter.start()
    assert meter.stop() is None


@pytest.mark.parametrize(
    ("source", "text"), [("/etc/passwd", "no energy"), ("/x/power1_input", "read")]
)
def test_a_wrong_source_is_refused(source, text):
    with pytest.raises(InputError, match=text):
        make_meter(source, reader=Files())


def test_a_source_decides_the_meter():
    files = Files({"/h/power2_input": "1", "/h/energy1_input": "1"})
    assert isinstance(make_meter("/h/power2_input", reader=files), PowerMeter)
    assert isinstance(make_meter("/h/energy1_input", reader=files), CounterMeter)
