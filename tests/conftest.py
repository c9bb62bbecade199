"""Settings of all tests: reproducible examples, and one thread so that sums are exact repeats."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

settings.register_profile("tests", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("tests")


@pytest.fixture(autouse=True)
def _plain_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    # Output must not depend on the width or the colours of whoever runs the tests.
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put tests that fork and then train first: torch refuses once its parent has trained."""
    items.sort(key=lambda item: item.get_closest_marker("forks") is None)
