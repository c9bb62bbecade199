"""What a command left in this process must not reach the next test."""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path

import pytest

from nas.job.trust import Trust, set_trust


@pytest.fixture(scope="session", autouse=True)
def migrations_run_once():
    """Opening a study runs fifteen modules of Optuna that are the same each time."""
    with pytest.MonkeyPatch.context() as patched:
        if importlib.util.find_spec("alembic"):
            from alembic.util import pyfiles

            anew = pyfiles.load_module_py
            once = lru_cache(anew)

            def load(module: str, path: str):
                # Those of MLflow make its tables when they run.
                return (once if "optuna" in Path(path).parts else anew)(module, path)

            patched.setattr(pyfiles, "load_module_py", load)
        yield


@pytest.fixture(autouse=True)
def trust_as_in_python():
    yield
    set_trust(Trust(everything=True))
