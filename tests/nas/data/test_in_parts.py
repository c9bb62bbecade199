"""What a pool works out in parts is what it would work out one by one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from nas.data.in_parts import map_in_parts


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 5000])
def test_every_item_in_its_order(count):
    with ThreadPoolExecutor(3) as pool:
        assert list(map_in_parts(pool, lambda i: 2 * i, range(count))) == [
            2 * i for i in range(count)
        ]


def test_an_error_is_raised_here():
    def broken(item):
        if item == 700:
            raise OSError("item 700")
        return item

    with ThreadPoolExecutor(2) as pool, pytest.raises(OSError, match="item 700"):
        list(map_in_parts(pool, broken, range(1000)))


def test_no_task_holds_all_that_others_wait_for():
    class Counting(ThreadPoolExecutor):
        sizes: list[int] = []  # noqa: RUF012

        def map(self, function, parts):  # type: ignore[override]
            self.sizes += map(len, parts)
            return super().map(function, parts)

    with Counting(2) as pool:
        list(map_in_parts(pool, str, range(100_000)))
        list(map_in_parts(pool, str, range(32)))
    assert max(pool.sizes) <= 64 and pool.sizes[-16:] == [2] * 16
