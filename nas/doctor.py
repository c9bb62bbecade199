"""What this machine offers: processor, memory, versions, runtimes, data."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from search_spaces.errors import NasError

PACKAGES = {
    "base": ("numpy", "onnxruntime", "pydantic", "typer"),
    "search": (
        "torch", "torchvision", "optuna", "scikit-learn", "onnx", "onnxscript", "pymoo", "moocore",
        "safetensors", "pandas",
    ),
    "hub": ("fastapi", "uvicorn"),
}  # fmt: skip
"""Extra -> the packages whose versions matter."""


def diagnose() -> Iterator[str]:
    """Yield one line for each fact; what is missing begins with ``missing``."""
    import psutil

    memory = psutil.virtual_memory()
    yield f"edge-nas     {_version('edge-nas') or 'not installed'}"
    yield f"python       {platform.python_version()} ({sys.executable})"
    yield f"system       {platform.system()} {platform.release()} {platform.machine()}"
    yield f"processor    {_processor()}, {_cores()} of {os.cpu_count()} cores usable"
    yield f"memory       {memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB free"
    yield f"disk         {shutil.disk_usage(Path.cwd()).free / 2**30:.1f} GiB free in {Path.cwd()}"
    for extra, packages in PACKAGES.items():
        found = {package: _version(package) for package in packages}
        yield f"{extra:<12} " + ", ".join(f"{p} {v}" for p, v in found.items() if v)
        absent = [package for package, version in found.items() if not version]
        if absent:
            yield (
                f"missing      {', '.join(absent)}; install with: pip install 'edge-nas[{extra}]'"
            )
    yield f"accelerator  {_accelerator()}"
    yield from _runtimes()


def _runtimes() -> Iterator[str]:
    from devices.runtime import make_runtime
    from nas.job import registry_for

    for name in registry_for("devices.runtime"):
        try:
            yield f"runtime      {name} {make_runtime(name).version}"
        except NasError as error:
            yield f"missing      runtime {name}: {error}"


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
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _accelerator() -> str:
    try:
        import torch
    except ImportError:
        return "unknown without torch"
    if torch.cuda.is_available():
        return f"cuda: {torch.cuda.get_device_name()}"
    return "cpu (no CUDA device)"
