"""``nas export --format`` and ``nas demo`` on the command line."""

from __future__ import annotations

from typer.testing import CliRunner

from nas.cli.main import app
from nas.models.formats.base import FORMATS


def call(*arguments: str):
    return CliRunner().invoke(app, list(arguments))


def test_formats_are_listed_without_a_run():
    done = call("export", "--list-formats")
    assert done.exit_code == 0
    assert [line.split()[0] for line in done.output.splitlines()] == list(FORMATS)


def test_a_run_is_needed_and_must_exist(tmp_path):
    assert call("export").exit_code == 2
    assert call("export", str(tmp_path / "none"), "--format", "c").exit_code == 2


def test_a_demo_does_not_overwrite(tmp_path):
    done = call("demo", "--output", str(tmp_path))
    assert done.exit_code == 2 and not list(tmp_path.iterdir())


def test_formats_may_stand_in_one_list(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "nas.models.export_formats.export_formats",
        lambda *parts, formats, **rest: asked.extend(formats) or [],
    )
    done = call("export", str(tmp_path), "--format", "c, onnx", "--format", "litert")
    assert done.exit_code == 0, done.output
    assert asked == ["c", "onnx", "litert"]
