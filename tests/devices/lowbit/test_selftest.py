"""The C++ self-test under the sanitizers: no read or write beyond a buffer, no undefined step."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from devices.lowbit.build import build_selftest
from search_spaces.errors import EnvironmentProblem

pytestmark = pytest.mark.long


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


@pytest.mark.slow
def test_the_arm_kernels_are_exact_under_an_emulator(tmp_path):
    emulator = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
    compiler = shutil.which("aarch64-linux-gnu-g++")
    if not emulator or not compiler:
        pytest.skip("needs qemu-aarch64 and aarch64-linux-gnu-g++; scripts/cross-tools")
    program = build_selftest(tmp_path, compiler=compiler, sanitize=False, machine="aarch64")
    # Without and with products of bytes that are summed by four.
    for cpu, kernels in (("cortex-a53", "neon,"), ("cortex-a76", "neon_dotprod,neon,")):
        done = subprocess.run(
            [emulator, "-cpu", cpu, str(program), "20"],
            capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        assert "exact" in done.stdout and f"({kernels}" in done.stdout
