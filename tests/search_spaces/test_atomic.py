"""A file is wholly old or wholly new, whatever fails."""

from __future__ import annotations

import json
import os
import stat

import pytest

from search_spaces import atomic
from search_spaces.atomic import (
    null_for_undefined,
    write_atomic,
    write_bytes_atomic,
    write_json_atomic,
    write_text_atomic,
)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    return path


def names(folder) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_a_new_file_replaces_the_old_one(path):
    write_text_atomic(path, "nëw")
    assert path.read_bytes() == "nëw".encode()
    assert names(path.parent) == ["file.txt"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


@pytest.mark.parametrize("problem", [OSError(28, "No space left"), KeyboardInterrupt()])
def test_a_failing_writer_leaves_the_old_file_and_nothing_else(path, problem):
    def write(temporary):
        temporary.write_text("half of the n")
        raise problem

    with pytest.raises(type(problem)):
        write_atomic(path, write)
    assert path.read_text() == "old"
    assert names(path.parent) == ["file.txt"]


def test_where_nothing_can_be_written_the_file_itself_is_named(path, monkeypatch):
    def refuse(**_):
        raise OSError(30, "Read-only file system", f"{path.parent}/.file.txt.x.tmp")

    monkeypatch.setattr(atomic.tempfile, "mkstemp", refuse)
    with pytest.raises(OSError, match="Read-only") as found:
        write_text_atomic(path, "new")
    assert found.value.filename == str(path)


@pytest.mark.parametrize("step", ["fsync", "replace", "chmod"])
def test_a_failing_system_call_leaves_the_old_file_and_nothing_else(path, monkeypatch, step):
    def fail(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(atomic.os, step, fail)
    with pytest.raises(OSError, match="Input/output"):
        write_bytes_atomic(path, b"new")
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert names(path.parent) == ["file.txt"]


def test_nothing_appears_under_the_name_before_it_is_complete(tmp_path):
    path = tmp_path / "deep" / "er" / "file"

    def write(temporary):
        temporary.write_text("a")
        assert temporary.parent == path.parent
        assert not path.exists()

    write_atomic(path, write)
    assert path.read_text() == "a"


def test_the_content_reaches_the_disk_before_the_name(path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(
            atomic.os, name, lambda *a, name=name, real=real: (calls.append(name), real(*a))[1]
        )
    write_text_atomic(path, "new")
    assert calls[:2] == ["fsync", "replace"]


def test_json_refuses_numbers_that_other_readers_refuse(path):
    write_json_atomic(path, {"a": [1, 2.5, None]})
    assert json.loads(path.read_text()) == {"a": [1, 2.5, None]}
    with pytest.raises(ValueError, match=r"a\.1\.b is nan, which is not JSON compliant"):
        write_json_atomic(path, {"a": [1, {"b": float("nan")}]})
    assert json.loads(path.read_text()) == {"a": [1, 2.5, None]}
    assert names(path.parent) == ["file.txt"]


def test_undefined_numbers_become_null_wherever_they_are(path):
    value = {"a": [1, float("nan"), (2.5, float("inf"))], "b": {"c": -float("inf"), "d": "nan"}}
    write_json_atomic(path, null_for_undefined(value))
    assert json.loads(path.read_text()) == {
        "a": [1, None, [2.5, None]],
        "b": {"c": None, "d": "nan"},
    }
