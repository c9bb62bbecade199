import gc

import numpy as np
import pytest

from devices.measuring.protocol import Protocol
from devices.measuring.sampling import Clocks, run_sequence, time_calls


class Clock:
    """Wall time that moves only when an inference is made."""

    def __init__(self, latency_ms):
        self.latency_ms = latency_ms
        self.now = 0
        self.made = 0

    def __call__(self):
        self.made += 1
        self.now += round(self.latency_ms(self.made) * 1e6)

    @property
    def clocks(self):
        return Clocks(wall_ns=lambda: self.now, processor_ns=lambda: self.now // 2)


@pytest.mark.parametrize(
    "latency_ms, calls", [(0.01, 100), (0.3, 4), (0.5, 2), (1.0, 1), (250.0, 1)]
)
def test_a_sample_lasts_long_enough_and_latency_is_per_inference(latency_ms, calls):
    device = Clock(lambda made: latency_ms)
    block = time_calls(device, Protocol(runs=20), clocks=device.clocks)
    assert block.calls == calls
    assert len(block.samples_ns) == 20
    assert min(block.samples_ns) >= 1e6
    assert block.samples_ms == pytest.approx([latency_ms] * 20)
    assert block.settled
    assert block.processor_share == pytest.approx(0.5)


def test_warm_up_goes_on_until_the_windows_agree():
    # The first second is slow, as with a processor that raises its clock late.
    device = Clock(lambda made: 0)
    device.latency_ms = lambda made: 4.0 if device.now < 1e9 * (made % 2) else 2.0
    block = time_calls(device, Protocol(runs=10), clocks=device.clocks)
    assert block.samples_ms == pytest.approx([2.0] * 10)


def test_warm_up_is_capped_and_the_block_says_so():
    device = Clock(lambda made: 1.0 + (made // 20) % 2)
    protocol = Protocol(runs=10, warmup_max_s=0.5)
    block = time_calls(device, protocol, clocks=device.clocks)
    assert not block.settled
    assert device.now < 2e9


def test_a_device_that_speeds_up_after_the_warm_up_is_sampled_anew():
    device = Clock(lambda made: 0.5 if device.now < 60e6 else 0.1)
    block = time_calls(device, Protocol(runs=100), clocks=device.clocks)
    assert np.median(block.samples_ns) >= 1e6
    assert block.samples_ms == pytest.approx([0.1] * 100)
    # Warm-up, a few samples that were too short, and the others: not twice the others.
    assert device.now < 60e6 + 1.2 * sum(block.samples_ns)


def test_conditions_are_read_around_the_samples_and_collection_is_off_during_them():
    device = Clock(lambda made: 5.0)
    states = []

    def call():
        states.append(gc.isenabled())
        device()

    seen = []

    def conditions():
        seen.append(device.made)
        return {"at": device.made}

    block = time_calls(call, Protocol(runs=10), clocks=device.clocks, conditions=conditions)
    assert block.after["at"] - block.before["at"] == 10 and len(seen) == 2
    assert not any(states) and gc.isenabled()


def test_a_model_that_fails_leaves_the_others(play):
    played = play()
    models = [played.model("a"), played.model("b", "bad"), played.model("c")]
    messages = []
    run_sequence(
        played.runtime,
        models,
        [2, 1, 0],
        Protocol(runs=5),
        emit=messages.append,
        clocks=played.machine.clocks,
        reader=played.machine.read,
    )
    assert [(m["event"], m["index"]) for m in messages] == [
        ("start", 2),
        ("block", 2),
        ("start", 1),
        ("failure", 1),
        ("start", 0),
        ("block", 0),
    ]
    assert "cannot be loaded" in messages[3]["detail"]
