"""Settings of all tests: reproducible examples, one thread so that sums are exact repeats.

``--quick`` runs what needs neither torch nor a process: a test that reaches for one of them is
skipped at that moment, with the reason, so no list has to be kept. What is slow without
either is marked ``slow`` and left out.

Files marked ``long`` come first, so that none of them is what one worker still does when the
other has nothing left. Tests that docs/search.md names for a known fault must pass: there,
being skipped or expected to fail is a failure (see tests/known_faults.py).
"""

from __future__ import annotations

import gc
import importlib.abc
import multiprocessing.process
import os
import subprocess
import sys
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import settings

from tests.known_faults import FORKING, must_pass, name_of

# Hundreds of processes import the project: without bytecode each would compile it anew, and so
# would each of the workers every file of tests. Python's default, whatever the caller's is.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

settings.register_profile("tests", deadline=None, derandomize=True, max_examples=50)
# Hypothesis raises the same examples each time, so fewer are a part of the whole suite's.
settings.register_profile("quick", deadline=None, derandomize=True, max_examples=12)
settings.load_profile("tests")

TOO_HEAVY = (
    "torch", "torchvision", "ray", "mlflow", "wandb", "matplotlib", "nbclient", "jupytext"
)  # fmt: skip
"""Packages that take seconds to import."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--quick``."""
    parser.addoption(
        "--quick", action="store_true", help="only what needs neither torch nor processes"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Settings of all tests."""
    # Workers of xdist take files as they come: sorted by the number of their tests, the long
    # ones, which have few, would come last.
    config.option.loadscopereorder = False
    if config.getoption("--quick"):
        settings.load_profile("quick")


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Let tests of ``--quick`` be skipped where they reach for torch or a process."""
    # Nearly all that collecting makes lives to the end: looking for garbage would find little.
    gc.disable()
    config = session.config
    # What hands tests to workers runs none and starts them; a worker has said by now what it is.
    hands_out = config.getoption("numprocesses", None) and not hasattr(config, "workerinput")
    if hands_out or not config.getoption("--quick"):
        return
    sys.meta_path.insert(0, _SkipsHeavyImports())

    def no_process(*args: Any, **kwargs: Any) -> NoReturn:
        _skip("starts a process")

    subprocess.Popen.__init__ = no_process  # type: ignore[method-assign]  # this process is ours
    os.fork = no_process
    multiprocessing.process.BaseProcess.start = no_process  # type: ignore[method-assign]


def pytest_collection_finish(session: pytest.Session) -> None:
    """Keep modules and tests, which live to the end, out of every later collection of garbage."""
    gc.collect()
    gc.freeze()
    gc.enable()


class _SkipsHeavyImports(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: Sequence[str] | None, target: Any = None) -> None:
        if name in TOO_HEAVY:
            _skip(f"needs {name}")


_reached: list[str] = []
"""What the running test reached for: code under test may have kept the skip to itself."""


def _skip(why: str) -> NoReturn:
    _reached.append(f"--quick: {why}")
    pytest.skip(_reached[-1], allow_module_level=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Skip a test of ``--quick`` that failed because it was refused torch or a process."""
    _reached.clear()
    try:
        return (yield)
    except (Exception, pytest.fail.Exception):
        if _reached:
            pytest.skip(_reached[0])
        raise


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Fail the test of a known fault that was skipped or expected to fail."""
    report = yield
    if not item.config.getoption("--quick"):
        must_pass(report)
    return report


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave files without tests that fork out of the run of those alone: most import torch."""
    if config.option.markexpr != "forks" or not collection_path.is_file():
        return None
    return True if b"mark.forks" not in collection_path.read_bytes() else None


# Before the items that -m and -k leave out are gone.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put tests that fork and then train first: torch refuses once its parent has trained."""
    items.sort(key=lambda item: [not item.get_closest_marker(mark) for mark in ("forks", "long")])
    config.stash[FORKING] = {
        name_of(item.nodeid) for item in items if item.get_closest_marker("forks")
    }
    if config.getoption("--quick"):
        slow = [item for item in items if item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]


@pytest.fixture(autouse=True)
def _plain_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    # Output must not depend on the width or the colours of whoever runs the tests.
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")


@pytest.fixture
def needs_compiler() -> None:
    """Skip where the kernels of the low-bit runtime cannot be built."""
    from devices.lowbit.build import find_compiler
    from search_spaces.errors import EnvironmentProblem

    try:
        find_compiler()
    except EnvironmentProblem as error:
        pytest.skip(str(error))
