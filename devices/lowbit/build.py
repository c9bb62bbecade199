"""Compiling the kernels: on first use, into a folder of the user's, or ahead of time.

    python -m devices.lowbit.build [--force] [--sanitize]

Needs a C++17 compiler (``$CXX``, ``c++``, ``g++`` or ``clang++``) and nothing else. The library
is kept by the hash of sources, compiler and flags, so a new version never loads an old one.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from devices import user_folders
from devices.locks import file_lock
from search_spaces.errors import EnvironmentProblem

_LOG = logging.getLogger(__name__)

KERNELS = Path(__file__).parent / "kernels"
"""The sources."""

# Float sums must not be contracted: results are the same on every processor.
_FLAGS = (
    "-std=c++17",
    "-O3",
    "-fPIC",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-Wall",
    "-Wextra",
    "-Wno-maybe-uninitialized",  # of the intrinsics of GCC 12
)
_SANITIZE = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
# A file for another instruction set is called only where the processor has it.
_AVX2 = ("-mavx2", "-mfma", "-mf16c")
_AVX512 = (
    *_AVX2,
    "-mavx512f",
    "-mavx512bw",
    "-mavx512vl",
    "-mavx512dq",
    "-mavx512vnni",
    "-mprefer-vector-width=512",
)
_X86 = {
    "avx2.cpp": _AVX2,
    "grouped_avx2.cpp": _AVX2,
    "avx512.cpp": _AVX512,
    "grouped_avx512.cpp": _AVX512,
    "grouped_amx.cpp": _AVX512,
}
_DOTPROD = ("-march=armv8.2-a+dotprod",)
_AARCH64 = {"neon_dotprod.cpp": _DOTPROD, "grouped_neon_dotprod.cpp": _DOTPROD}
_LIBRARY = "liblowbit.so" if sys.platform != "darwin" else "liblowbit.dylib"


def library_path() -> Path:
    """Return the compiled library, compiling it if need be.

    Raises:
        EnvironmentProblem: there is no compiler, or it fails on the sources.
    """
    return build()


def build(*, force: bool = False) -> Path:
    """Compile the shared library unless it is there already; returns its path.

    Raises:
        EnvironmentProblem: there is no compiler, or it fails on the sources.
    """
    compiler = find_compiler()
    flags = {name: _flags(name) for name in _sources()}
    path = _target(compiler, flags)
    if path.is_file() and not force:
        return path
    # Before minutes of compiling: there must be somewhere to put the result.
    user_folders.make_cache(path.parent)
    # Of several processes that need it at once, one compiles.
    with file_lock(path.parent / "lock", "another process to compile the low-bit kernels"):
        if path.is_file() and not force:
            return path
        # A warning, so that whoever waits for it sees why without setting up a log.
        _LOG.warning("compiling the low-bit kernels, once on this machine; it may take minutes")
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            objects = _compile(compiler, flags, Path(folder))
            made = Path(folder) / _LIBRARY
            _call([compiler, "-shared", "-o", str(made), *objects, "-pthread"])
            os.replace(made, path)
    return path


def is_built() -> bool:
    """Whether :func:`build` finds the library there already.

    Raises:
        EnvironmentProblem: there is no compiler.
    """
    compiler = find_compiler()
    return _target(compiler, {name: _flags(name) for name in _sources()}).is_file()


def build_selftest(
    folder: Path,
    *,
    compiler: str | None = None,
    sanitize: bool = True,
    machine: str | None = None,
) -> Path:
    """Compile the self-test program into ``folder``, by default under ASan and UBSan.

    Args:
        folder: for the program and its objects.
        compiler: by default that of this machine.
        sanitize: under the sanitizers.
        machine: what a cross compiler compiles for, such as ``aarch64``; the program is then
            static, to run under an emulator without that machine's libraries.

    Raises:
        EnvironmentProblem: there is no compiler, or it fails, for instance for want of the
            sanitizers' libraries.
    """
    compiler = compiler or find_compiler()
    extra = _SANITIZE if sanitize else ()
    static = () if machine is None else ("-static",)
    flags = {name: (*_flags(name, machine), *extra) for name in ("selftest.cpp", *_sources())}
    objects = _compile(compiler, flags, folder)
    program = folder / "lowbit_selftest"
    _call([compiler, "-o", str(program), *objects, "-pthread", *extra, *static])
    return program


def find_compiler() -> str:
    """Return the C++ compiler to use.

    Raises:
        EnvironmentProblem: there is none.
    """
    wanted = os.environ.get("CXX")
    for name in [wanted] if wanted else ["c++", "g++", "clang++"]:
        found = shutil.which(name)
        if found:
            return found
    raise EnvironmentProblem(
        f"the low-bit runtime is compiled on first use and needs a C++17 compiler; "
        f"{f'CXX={wanted} was not found' if wanted else 'none was found'}. Install one "
        "(for instance: apt-get install g++) or use the runtime onnxruntime"
    )


def _sources() -> list[str]:
    """Return the files in the order in which they are linked.

    What several of them hold (functions of templates and of the standard library that were not
    inlined) the linker takes from the first. Those for any processor come first, so that none of
    them runs a copy that was compiled for instructions which the processor may lack.
    """
    names = [p.name for p in KERNELS.glob("*.cpp") if p.name != "selftest.cpp"]
    own = _X86 | _AARCH64
    return sorted(names, key=lambda name: (len(own.get(name, ())), name))


def _flags(name: str, machine: str | None = None) -> tuple[str, ...]:
    machine = machine or platform.machine().lower()
    if machine in ("x86_64", "amd64"):
        return (*_FLAGS, *_X86.get(name, ()))
    if machine in ("aarch64", "arm64"):
        return (*_FLAGS, *_AARCH64.get(name, ()))
    return _FLAGS


def _digest(compiler: str, flags: dict[str, tuple[str, ...]]) -> str:
    version = _call([compiler, "--version"]).splitlines()[0]
    digest = hashlib.sha256(f"{version}|{platform.machine()}|{sorted(flags.items())}".encode())
    for path in sorted(KERNELS.iterdir()):
        if path.suffix in (".cpp", ".h", ".inc"):
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _target(compiler: str, flags: dict[str, tuple[str, ...]]) -> Path:
    return _cache_folder() / _digest(compiler, flags) / _LIBRARY


def _cache_folder() -> Path:
    return user_folders.cache_folder("lowbit")


def _compile(compiler: str, flags: dict[str, tuple[str, ...]], folder: Path) -> list[str]:
    def one(name: str) -> str:
        target = folder / f"{name}.o"
        _call([compiler, *flags[name], "-c", str(KERNELS / name), "-o", str(target)])
        return str(target)

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return list(pool.map(one, flags))


def _call(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise EnvironmentProblem(
            f"{' '.join(command[:1])} failed on the low-bit kernels: "
            f"{(done.stderr or done.stdout).strip()[:2000]}"
        )
    return done.stdout


def main(arguments: Sequence[str] | None = None) -> int:
    """Build from the command line; prints the path."""
    parser = argparse.ArgumentParser(prog="python -m devices.lowbit.build", description=__doc__)
    parser.add_argument("--force", action="store_true", help="compile even if it is there")
    parser.add_argument(
        "--sanitize", action="store_true", help="build and run the self-test under ASan and UBSan"
    )
    options = parser.parse_args(arguments)
    try:
        if options.sanitize:
            with tempfile.TemporaryDirectory() as folder:
                program = build_selftest(Path(folder))
                return subprocess.run([str(program)], check=False).returncode
        print(build(force=options.force))
    except EnvironmentProblem as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
