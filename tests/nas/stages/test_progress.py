import io

from nas.stages.progress import LOG_EVERY_S, Progress


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_log_lines_come_at_intervals_and_name_the_time_left():
    stream, clock = io.StringIO(), Clock()
    with Progress(stream=stream, clock=clock).stage("training", 100, unit="steps") as stage:
        for _ in range(100):
            clock.now += LOG_EVERY_S / 10
            stage.advance(note="loss 0.5")
    lines = stream.getvalue().splitlines()
    assert lines[0] == "[0:00] training: 100 steps"
    assert lines[1] == "[0:15] training: 10 of 100 steps, 2:15 left, loss 0.5"
    assert lines[-1] == "[2:30] training: done in 2:30"
    assert len(lines) == 12


def test_a_resumed_stage_counts_only_its_own_pace():
    stream, clock = io.StringIO(), Clock()
    with Progress(stream=stream, clock=clock).stage("training", 100, done=80) as stage:
        clock.now = 50.0
        stage.advance(10)  # reading files and starting workers is no pace
        clock.now += 20.0
        stage.advance(5)
    assert "training: 90 of 100\n" in stream.getvalue()
    assert "training: 95 of 100, 0:20 left" in stream.getvalue()


def test_a_stage_that_fails_is_not_said_to_be_done():
    stream = io.StringIO()
    try:
        with Progress(stream=stream).stage("training", 3):
            raise ValueError
    except ValueError:
        pass
    assert "done" not in stream.getvalue()


def test_bars_write_notes_and_messages_literally():
    stream = io.StringIO()
    progress = Progress(stream=stream, bars=True)
    with progress.stage("outer", 2), progress.stage("inner") as stage:
        stage.advance(note="[bold]x")
        progress.log("a [message]")
    assert "a [message]" in stream.getvalue()
    assert "[bold]x" in stream.getvalue()


def test_bars_only_on_a_terminal():
    assert Progress(stream=io.StringIO()).bars is False
