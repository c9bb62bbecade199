"""Compiling the kernels: once, however many ask for them at the same time."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from devices.lowbit import build


@pytest.fixture
def compiled(tmp_path, monkeypatch) -> list[Path]:
    """Folders in which was compiled, with nothing compiled in fact."""
    folders: list[Path] = []

    def call(command):
        if "-o" in command:
            Path(command[command.index("-o") + 1]).write_text("a library")
        return "a compiler 1.0"

    def compile_all(compiler, flags, folder):
        folders.append(folder)
        time.sleep(0.05)
        return []

    monkeypatch.setenv("EDGE_NAS_CACHE", str(tmp_path))
    monkeypatch.setattr(build, "find_compiler", lambda: "c++")
    monkeypatch.setattr(build, "_call", call)
    monkeypatch.setattr(build, "_compile", compile_all)
    return folders


def test_of_several_that_need_it_at_once_one_compiles(compiled):
    with ThreadPoolExecutor(4) as pool:
        paths = set(pool.map(lambda _: build.build(), range(4)))
    assert len(compiled) == 1 and len(paths) == 1
    assert paths.pop().read_text() == "a library" and build.is_built()


def test_it_is_compiled_again_when_asked_to_or_a_source_changed(compiled, tmp_path, monkeypatch):
    first = build.build()
    assert build.build(force=True) == first and len(compiled) == 2
    sources = tmp_path / "kernels"
    sources.mkdir()
    (sources / "portable.cpp").write_text("int changed;")
    monkeypatch.setattr(build, "KERNELS", sources)
    assert not build.is_built()
    assert build.build() != first and len(compiled) == 3
