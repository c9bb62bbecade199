"""What every executor must do: each item once, errors told as they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from nas.executors import Executor, Work
from search_spaces.errors import InputError

SQUARING = f"{__name__}:squaring"
"""Work that workers of other processes can import."""


def squaring(*, offset: int = 0, threads: int | None = None) -> Callable[[Mapping[str, int]], int]:
    """Return a function that squares an item's ``x`` and refuses a negative one."""

    def square(item: Mapping[str, int]) -> int:
        if item["x"] < 0:
            raise InputError(f"{item['x']} is negative")
        return item["x"] ** 2 + offset

    return square


class ExecutorContract:
    """The promises of :class:`~nas.executors.Executor`."""

    @pytest.fixture
    def executor(self) -> Any:
        """An executor under test, entered."""
        raise NotImplementedError("give the suite a fixture 'executor'")

    def test_every_item_comes_back_once_with_its_own_result(self, executor: Executor) -> None:
        """The order is the executor's; the number says whose result it is."""
        found = list(executor.run(Work(SQUARING, {"offset": 1}), [{"x": x} for x in range(7)]))
        assert sorted(found) == [(x, x * x + 1) for x in range(7)]

    def test_no_items_no_results(self, executor: Executor) -> None:
        """Nothing to do is no error."""
        assert list(executor.run(Work(SQUARING), [])) == []

    def test_another_work_is_another_function(self, executor: Executor) -> None:
        """Workers that are kept build the function of the work that is sent anew."""
        first = list(executor.run(Work(SQUARING, {"offset": 0}), [{"x": 2}]))
        second = list(executor.run(Work(SQUARING, {"offset": 5}), [{"x": 2}]))
        assert (first, second) == ([(0, 4)], [(0, 9)])

    def test_an_error_of_the_function_is_raised_as_it_is(self, executor: Executor) -> None:
        """Type and words of an error are those of the worker, so the exit code is too."""
        with pytest.raises(InputError, match="-4 is negative"):
            list(executor.run(Work(SQUARING), [{"x": -4}]))
