"""Installs the example packages beside each other, as pip would leave them."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    from pip._vendor import tomli as tomllib

HERE = Path(__file__).parent
PACKAGES = ("metric", "runtime", "block")


def install(package: Path, site: Path) -> None:
    """Copy the module of ``package`` to ``site`` with its metadata and entry points."""
    about = tomllib.loads((package / "pyproject.toml").read_text("utf-8"))["project"]
    for module in package.glob("*.py"):
        shutil.copy(module, site)
    name = about["name"].replace("-", "_")
    info = site / f"{name}-{about['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {about['name']}\nVersion: {about['version']}\n"
    )
    groups = [
        f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in entries.items())
        for group, entries in about["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("\n".join(groups))


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of installed packages."""
    folder = tmp_path_factory.mktemp("site")
    for name in PACKAGES:
        install(HERE / name, folder)
    return folder


@pytest.fixture(scope="session")
def environment(site: Path) -> dict[str, str]:
    """Variables of a process that finds this project and the example packages."""
    root = str(HERE.parents[1])
    path = [str(site), root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
