"""Every path of a job is relative to its file, and absolute once it is loaded."""

from __future__ import annotations

import typing
from pathlib import Path

import pytest
from pydantic import BaseModel

from nas.job.paths import RelativePath, marker_of, with_absolute_paths
from nas.job.schema import Job
from nas.job.values import Section


class _Inner(Section):
    path: RelativePath | None = None
    word: str = "x"


class _Outer(Section):
    one: _Inner = _Inner()
    many: list[_Inner] = []  # noqa: RUF012
    paths: list[RelativePath] = []  # noqa: RUF012


def test_marked_keys_are_resolved_at_any_depth_and_no_others(tmp_path):
    given = _Outer(
        one=_Inner(path="a", word="a"), many=[_Inner(), _Inner(path="../b")], paths=["c", "/d"]
    )
    found = with_absolute_paths(given, tmp_path / "jobs")
    assert found.one.path == str(tmp_path / "jobs" / "a") and found.one.word == "a"
    assert [item.path for item in found.many] == [None, str(tmp_path / "b")]
    assert found.paths == [str(tmp_path / "jobs" / "c"), "/d"]


def test_what_has_no_path_stays_as_it_was_given(tmp_path):
    given = _Outer(one=_Inner(word="y"))
    found = with_absolute_paths(given, tmp_path)
    assert found is given and found.model_fields_set == {"one"}


def test_the_home_folder_is_known(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert with_absolute_paths(_Inner(path="~/x"), Path("/")).path == str(tmp_path / "x")


def _fields(model, place=""):
    for name, field in model.model_fields.items():
        yield f"{place}{name}", field
        for part in _models(field.annotation):
            yield from _fields(part, f"{place}{name}.")


def _models(hint):
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        yield hint
    for part in typing.get_args(hint):
        yield from _models(part)


FIELDS = dict(_fields(Job))


@pytest.mark.parametrize(
    "name", [n for n, f in FIELDS.items() if "relative to the job file" in (f.description or "")]
)
def test_a_key_that_is_described_as_relative_to_the_job_file_is_marked(name):
    assert marker_of(FIELDS[name]) is not None


def test_the_paths_of_a_job_are_those_that_are_known():
    marked = {name for name, field in FIELDS.items() if marker_of(field) is not None}
    files = {"data.path", "study", "supernet.init_from", "supernet.focus.run", "search.warm_start"}
    assert files | {"latency.known_devices", "devices.token_file", "devices.hardware"} <= marked
