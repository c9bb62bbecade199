"""What a run records of where it comes from: its command, and the versions it ran with."""

from __future__ import annotations

import platform
import shlex
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from nas.record.run_folder import JOB_FILE

_RECORDED_PACKAGES = (
    "edge-nas", "torch", "torchvision", "numpy", "onnx", "onnxruntime", "optuna",
    "scikit-learn", "scipy", "moocore", "safetensors",
)  # fmt: skip


def command_of(folder: Path) -> str:
    """Return the command that makes such a run again.

    One that Python code began is made again from the job that the run folder holds.
    """
    program = Path(sys.argv[0])
    if program.stem == "torchrun" and program.parent.name == "stages":
        return shlex.join(["torchrun", "-m", "nas.stages.torchrun", *sys.argv[1:]])
    if program.stem == "nas" or program.parts[-2:] in (("nas", "__main__.py"), ("cli", "main.py")):
        return shlex.join(["nas", *sys.argv[1:]])
    return shlex.join(["nas", "run", str(folder / JOB_FILE), "--output", "NEW_FOLDER"])


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for package in _RECORDED_PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
