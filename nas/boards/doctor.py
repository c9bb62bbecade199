"""What this machine offers: versions, runtimes that really run, fitness to measure on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from nas.boards.fitness import machine_checks, verdict
from search_spaces.errors import NasError

RUN_SECONDS = 120
"""After which a runtime that is tried counts as not working."""

_TRIAL = """
import sys, time
import numpy as np
from devices.measuring.fitness import reference_model
from devices.runtime import make_runtime
from search_spaces.errors import NasError
try:
    session = make_runtime(sys.argv[1]).load(reference_model())
    images = [np.zeros(spec.shape, spec.dtype) for spec in session.inputs]
    session(*images)
    start = time.perf_counter()
    outputs = session(*images)
    spent = 1e3 * (time.perf_counter() - start)
    assert all(np.isfinite(out).all() for out in outputs), "outputs are not finite"
except (NasError, AssertionError) as error:
    print("failed:", error)
else:
    print(f"ran {spent:.2f}")
"""


def diagnose(*, run_models: bool = True) -> Iterator[str]:
    """Yield one line for each fact; what is missing begins with ``missing``, what fails with
    ``broken``, what makes latencies doubtful with ``doubt``.

    Args:
        run_models: run a small model in every installed runtime, each in its own process.
    """
    yield from _machine()
    yield ""
    yield from _packages()
    yield ""
    yield f"accelerator  {_accelerator()}"
    yield from _runtimes(run_models)
    yield ""
    yield from _fitness()


def extras() -> dict[str, list[str]]:
    """Return the packages of every extra, and those of the base as ``base``, as installed."""
    found: dict[str, list[str]] = {"base": []}
    for requirement in importlib.metadata.requires("edge-nas") or []:
        name = re.match(r"[A-Za-z0-9._-]+", requirement)
        extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)['\"]", requirement)
        if name is None or name[0].lower() == "edge-nas":
            continue  # an extra that is made of others
        found.setdefault(extra[1] if extra else "base", []).append(name[0])
    return found


def _machine() -> Iterator[str]:
    import psutil

    memory = psutil.virtual_memory()
    yield f"edge-nas     {_version('edge-nas') or 'not installed'}"
    yield f"python       {platform.python_version()} ({sys.executable})"
    yield f"system       {platform.system()} {platform.release()} {platform.machine()}"
    yield f"processor    {_processor()}, {_cores()} of {os.cpu_count()} cores usable"
    yield f"memory       {memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB free"
    yield f"disk         {shutil.disk_usage(Path.cwd()).free / 2**30:.1f} GiB free in {Path.cwd()}"


def _packages() -> Iterator[str]:
    for extra, packages in _once(extras()).items():
        versions = {package: _version(package) for package in packages}
        present = ", ".join(f"{p} {v}" for p, v in versions.items() if v)
        if present:
            yield f"{extra:<12} {present}"
        absent = [package for package, version in versions.items() if not version]
        if absent:
            command = "pip install edge-nas" if extra == "base" else (
                f"pip install 'edge-nas[{extra}]'"
            )  # fmt: skip
            yield f"missing      {', '.join(absent)}; install with: {command}"


def _once(found: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Name each package with the first extra that brings it, the base first."""
    seen: set[str] = set()
    out = {}
    for extra, packages in found.items():
        fresh = [p for p in dict.fromkeys(packages) if p.lower() not in seen]
        seen |= {p.lower() for p in fresh}
        if fresh:
            out[extra] = fresh
    return out


def _runtimes(run_models: bool) -> Iterator[str]:
    from devices.runtime import make_runtime
    from nas.job.registries import registry_for

    registry = registry_for("devices.runtime")
    for name in registry:
        try:
            version = make_runtime(name).version
        except NasError as error:
            yield f"missing      runtime {name}: {error}"
            continue
        yield _tried(name, version) if run_models else f"runtime      {name} {version}"
    for name, why in registry.broken.items():
        yield f"broken       runtime {name}: {why}"


def _tried(name: str, version: str) -> str:
    """Run the reference model in a process of its own, which may crash or hang."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _TRIAL, name],
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"broken       runtime {name} {version}: no result within {RUN_SECONDS} s"
    said = (done.stdout.strip().splitlines() or [""])[-1]
    if done.returncode == 0 and said.startswith("ran "):
        return f"runtime      {name} {version}: ran the reference model in {said[4:]} ms"
    last = said.removeprefix("failed: ") or (done.stderr.strip().splitlines() or [""])[-1]
    return f"broken       runtime {name} {version}: {last or f'exit code {done.returncode}'}"


def _fitness() -> Iterator[str]:
    checks = machine_checks()
    for check in checks:
        mark = {True: "fit", False: "doubt", None: "unknown"}[check.ok]
        advice = f"; {check.advice}" if check.advice and check.ok is not True else ""
        yield f"{mark:<12} {check.name}: {check.detail}{advice}"
    yield f"measuring    {verdict(checks)}"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def _cores() -> int:
    from devices.measuring.conditions import allowed_cores

    return len(allowed_cores())


def _accelerator() -> str:
    try:
        import torch
    except ImportError:
        return "unknown without torch"
    if torch.cuda.is_available():
        return f"cuda: {torch.cuda.get_device_name()}"
    return "cpu (no CUDA device)"
