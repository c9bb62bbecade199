"""What is said while layers are worked on."""

from __future__ import annotations

import io

from nas.cli.bits.told import LayersTold
from nas.stages.progress import LOG_EVERY_S, Progress


def test_layers_are_told_now_and_then_and_not_one_by_one():
    time, stream = [0.0], io.StringIO()
    progress = Progress(stream=stream, bars=False, clock=lambda: time[0])
    told = LayersTold(progress, clock=lambda: time[0])
    for done in range(1, 11):
        time[0] += 0.4 * LOG_EVERY_S
        told("sensitivity", done, 10)
    lines = stream.getvalue().splitlines()
    assert [line.split("] ")[1] for line in lines] == [
        "sensitivity: 3 of 10 layers", "sensitivity: 6 of 10 layers", "sensitivity: 9 of 10 layers",
    ]  # fmt: skip
