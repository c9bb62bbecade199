import os
import struct

import pytest

from devices.measuring.counters import (
    Counts,
    NoCounters,
    PerfCounters,
    make_counters,
    waited_ns,
)


def test_a_kernel_without_hardware_counters_gives_none():
    counters = make_counters(open_event=lambda attributes: -1)
    counters.start()
    assert isinstance(counters, NoCounters) and counters.stop() is None


def test_the_first_counter_is_closed_where_the_second_is_refused():
    opened = []

    def open_event(attributes):
        if opened:
            return -1
        opened.append(os.open(os.devnull, os.O_RDONLY))
        return opened[0]

    assert isinstance(make_counters(open_event=open_event), NoCounters)
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(opened[0])


def test_cycles_and_instructions_are_asked_for_in_user_mode_and_subtracted():
    asked = []

    def open_event(attributes):
        asked.append(attributes)
        return len(asked)

    assert isinstance(make_counters(open_event=open_event), PerfCounters)
    for attributes, event in zip(asked, (0, 1), strict=True):
        kind, size, config = struct.unpack_from("IIQ", attributes)
        (flags,) = struct.unpack_from("Q", attributes, 40)
        assert (kind, size, config) == (0, len(attributes), event)
        assert flags == 2 | 32 | 64  # inherited by threads; neither kernel nor hypervisor
    values = iter([100, 10, 600, 210])
    counters = PerfCounters((1, 2), read=lambda fd, size: struct.pack("Q", next(values)))
    counters.start()
    assert counters.stop() == Counts(500, 200)


def test_counters_that_stand_still_are_none():
    counters = PerfCounters((1, 2), read=lambda fd, size: struct.pack("Q", 7))
    counters.start()
    assert counters.stop() is None


def test_waiting_is_summed_over_threads_and_nothing_where_it_is_not_counted(tmp_path):
    for thread, waited in (("1", 500), ("2", 1500)):
        (tmp_path / thread).mkdir()
        (tmp_path / thread / "schedstat").write_text(f"9 {waited} 3\n")
    (tmp_path / "3").mkdir()  # a thread that ended meanwhile
    assert waited_ns(folder=str(tmp_path)) == 2000
    assert waited_ns(folder=str(tmp_path / "absent")) == 0
