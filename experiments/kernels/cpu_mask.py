"""Making a process see an AVX2 processor without VNNI, so that both sides of a comparison do."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import tempfile
from pathlib import Path

from devices.lowbit.build import find_compiler
from search_spaces.errors import EnvironmentProblem

SOURCE = Path(__file__).parent / "cpu_mask.c"


def hide_avx512() -> None:
    """Hide AVX-512, VNNI and AMX from every library loaded from now on.

    Call it before onnxruntime is imported: its kernels are chosen by CPUID at loading.

    Raises:
        EnvironmentProblem: the processor or the kernel cannot trap CPUID, or onnxruntime is
            loaded already.
    """
    if "onnxruntime" in sys.modules:
        raise EnvironmentProblem("onnxruntime is loaded already and has chosen its kernels")
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "cpu_mask.so"
        command = [find_compiler(), "-x", "c", "-O1", "-shared", "-fPIC", str(SOURCE)]
        done = subprocess.run(
            [*command, "-o", str(library)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise EnvironmentProblem(f"{SOURCE.name} does not compile here: {done.stderr[:300]}")
        if ctypes.CDLL(str(library)).mask_on():
            raise EnvironmentProblem(
                "this processor or kernel cannot trap CPUID; compare on a machine without AVX-512"
            )
