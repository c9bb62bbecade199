"""What every tracker must do: show numbers at their steps, and go on with a run where it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from nas.trackers import Row, TrackedRun, Tracker
from search_spaces.errors import MissingExtraError

Shown = dict[tuple[str, str], dict[int, float]]
"""(group, name) -> step -> value, as the tool gives them back."""


class TrackerContract:
    """The promises of :class:`~nas.trackers.Tracker`.

    A subclass gives two fixtures: ``make``, which returns a new tracker of one and the same place,
    and ``read``, which returns what that place shows of the run.
    """

    @pytest.fixture
    def make(self, tmp_path: Path) -> Callable[[], Tracker]:
        """Makes trackers of one place."""
        raise NotImplementedError("give the suite a fixture 'make'")

    @pytest.fixture
    def read(self, tmp_path: Path) -> Callable[[], Shown]:
        """Reads what is shown there of the run in ``tmp_path / "run"``."""
        raise NotImplementedError("give the suite a fixture 'read'")

    @pytest.fixture
    def run(self, tmp_path: Path) -> TrackedRun:
        """The run that is shown."""
        folder = tmp_path / "run"
        folder.mkdir()
        return TrackedRun(folder, "project", "run", "0f" * 32, {"data.name": "digits", "seed": "0"})

    def test_numbers_are_shown_at_their_steps(
        self, make: Callable[[], Tracker], read: Callable[[], Shown], run: TrackedRun
    ) -> None:
        """Numbers of a group stand at the steps that they were logged at."""
        tracker = make()
        assert tracker.begin(run, None)
        tracker.log("training", [(1, {"loss": 2.0, "rate": 0.5}), (2, {"loss": 1.0})])
        tracker.log("search", [(0, {"accuracy": 0.25})])
        assert tracker.place()
        tracker.end(finished=True)
        shown = read()
        assert shown["training", "loss"] == {1: 2.0, 2: 1.0}
        assert shown["training", "rate"] == {1: 0.5}
        assert shown["search", "accuracy"] == {0: 0.25}

    def test_a_run_goes_on_under_its_name(
        self, make: Callable[[], Tracker], read: Callable[[], Shown], run: TrackedRun
    ) -> None:
        """A run that is resumed adds to what is shown, and begins no second one."""
        first = make()
        name = first.begin(run, None)
        first.log("training", [(1, {"loss": 2.0})])
        first.end(finished=False)
        second = make()
        assert second.begin(run, name) == name
        second.log("training", [(2, {"loss": 1.0})])
        second.end(finished=True)
        assert read()["training", "loss"] == {1: 2.0, 2: 1.0}

    def test_what_is_gone_is_begun_anew(self, make: Callable[[], Tracker], run: TrackedRun) -> None:
        """A name that the place has no run of gets a new one."""
        tracker = make()
        assert tracker.begin(run, "gone") != "gone"
        tracker.end(finished=False)

    def test_names_may_hold_any_characters(
        self, make: Callable[[], Tracker], run: TrackedRun
    ) -> None:
        """Names of metrics hold brackets, signs and spaces."""
        tracker = make()
        tracker.begin(run, None)
        tracker.log("front", [(0, {"latency_ms[board+1 µ]": 1.5, "a/b c:d": 2.0})])
        tracker.end(finished=True)

    def test_many_numbers_are_shown(
        self, make: Callable[[], Tracker], read: Callable[[], Shown], run: TrackedRun
    ) -> None:
        """None is lost where a place takes only so many at once."""
        tracker = make()
        tracker.begin(run, None)
        rows: list[Row] = [(step, {"a": float(step), "b": -float(step)}) for step in range(1200)]
        tracker.log("search", rows)
        tracker.end(finished=True)
        assert read()["search", "b"] == {step: -float(step) for step in range(1200)}

    def test_files_are_taken(self, make: Callable[[], Tracker], run: TrackedRun) -> None:
        """Files of the run folder, those of folders within it too."""
        (run.folder / "front.csv").write_text("id\n")
        tracker = make()
        tracker.begin(run, None)
        tracker.keep({"front.csv": run.folder / "front.csv"})
        tracker.keep({"models/one.csv": run.folder / "front.csv"})
        tracker.end(finished=True)

    def test_a_missing_package_is_named_with_its_extra(
        self, make: Callable[[], Tracker], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The error says what to install."""
        kind = type(make())
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(MissingExtraError, match=rf"edge-nas\[{kind.extra}\]"):
            kind.require()
