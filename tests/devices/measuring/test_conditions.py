import pytest

from devices.measuring.conditions import choose_cores, frequency_pinned, read_conditions
from search_spaces.errors import InputError

CPU = "/sys/devices/system/cpu/cpu"
BOARD = {
    f"{CPU}0/cpufreq/scaling_governor": "ondemand",
    f"{CPU}0/cpufreq/scaling_cur_freq": "1500000",
    f"{CPU}0/cpufreq/scaling_min_freq": "600000",
    f"{CPU}0/cpufreq/scaling_max_freq": "1800000",
    f"{CPU}1/cpufreq/scaling_cur_freq": "1400000",
    f"{CPU}0/thermal_throttle/core_throttle_count": "3",
    "/sys/class/thermal/thermal_zone0/temp": "61500",
    "/sys/class/thermal/thermal_zone1/temp": "48000",
    "/sys/class/thermal/cooling_device0/type": "pwm-fan",
    "/sys/class/thermal/cooling_device0/cur_state": "9",
    "/sys/class/thermal/cooling_device1/type": "cpufreq-cpu0",
    "/sys/class/thermal/cooling_device1/cur_state": "2",
    "/proc/loadavg": "0.42 0.30 0.20 1/100 999",
    "/proc/stat": "cpu  9 9 9 9\ncpu0 10 0 5 100 0 0 0 7\ncpu1 900 0 5 100 0 0 0 1",
}


def test_a_board_is_read():
    found = read_conditions([0, 1], reader=BOARD.get)
    assert found == {
        "governor": "ondemand",
        "frequency_mhz": 1400.0,
        "frequency_limits_mhz": [600.0, 1800.0],
        "temperature_c": 61.5,
        "throttle_count": 3.0,
        "cooling_state": 2.0,
        "load_1m": 0.42,
        "steal_ticks": 8.0,
    }
    assert not frequency_pinned(found)


def test_a_machine_that_says_nothing_is_not_guessed():
    found = read_conditions([0], reader=lambda path: None)
    assert set(found.values()) == {None}
    assert not frequency_pinned(found)


def test_frequency_of_a_process_that_wanders_is_not_reported():
    found = read_conditions([], reader=BOARD.get)
    assert found["governor"] == "ondemand" and found["frequency_mhz"] is None


def test_frequency_is_pinned_by_governor_or_by_equal_limits():
    assert frequency_pinned({"governor": "performance"})
    assert frequency_pinned({"governor": "userspace", "frequency_limits_mhz": [1500.0, 1500.0]})


def test_cores_are_the_fastest_then_the_idlest():
    capacity = {0: "400", 1: "400", 2: "1024", 3: "1024"}
    readings = iter([{2: 0, 3: 0}, {2: 1, 3: 40}])
    now = next(readings)

    def reader(path):
        if path == "/proc/stat":
            return "\n".join(f"cpu{core} {ticks} 0 0 0 0 0 0 0" for core, ticks in now.items())
        for core, value in capacity.items():
            if path == f"{CPU}{core}/cpu_capacity":
                return value
        return None

    def sleep(seconds):
        nonlocal now
        now = next(readings)

    assert choose_cores(1, allowed=[0, 1, 2, 3], reader=reader, sleep=sleep) == [2]


def test_more_threads_than_cores():
    with pytest.raises(InputError, match="may use 2 cores"):
        choose_cores(3, allowed=[0, 1], reader=lambda path: None)
