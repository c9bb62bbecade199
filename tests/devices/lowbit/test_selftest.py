"""The C++ self-test under the sanitizers: no read or write beyond a buffer, no undefined step."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from devices.lowbit.build import build_selftest
from search_spaces.errors import EnvironmentProblem


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="no compiler")
def test_the_kernels_are_clean_under_asan_and_ubsan(tmp_path):
    try:
        program = build_selftest(tmp_path)
    except EnvironmentProblem as error:
        if "sanitize" in str(error) or "asan" in str(error):
            pytest.skip("the compiler comes without sanitizers")
        raise
    done = subprocess.run([program, "40"], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "exact" in done.stdout
