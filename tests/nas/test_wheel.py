"""A wheel holds every file that the packages read: code, kernels, templates, tables, jobs."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("nas", "supernet", "predictors", "devices", "search_spaces")


def test_no_file_of_a_package_is_left_out(tmp_path):
    pytest.importorskip("setuptools", minversion="77")
    # A copy, so that no build folder is left in the checkout.
    listed = subprocess.run(
        ["git", "ls-files", *PACKAGES, "pyproject.toml", "README.md", "LICENSE"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in listed.stdout.split("\n"):
        if name and (ROOT / name).is_file():
            target = tmp_path / "source" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    done = subprocess.run(
        [
            sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
            "--wheel-dir", str(tmp_path), str(tmp_path / "source"),
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    (wheel,) = tmp_path.glob("*.whl")
    inside = set(zipfile.ZipFile(wheel).namelist())
    wanted = {name for name in listed.stdout.split("\n") if name.startswith(PACKAGES)}
    assert sorted(wanted - inside) == []
