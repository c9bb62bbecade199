"""``export.formats``: unknown, repeated and unwritable formats are told before any work."""

from __future__ import annotations

import pytest

from nas.job.check import load_job
from nas.job.yaml_source import DiagnosticsError
from nas.models.formats.base import FORMATS
from search_spaces.errors import MissingExtraError


def job(tmp_path, formats: str):
    path = tmp_path / "job.yaml"
    path.write_text(f"name: digits\ndata: {{name: digits}}\nexport: {{formats: {formats}}}\n")
    return load_job(path)


def test_the_default_is_onnx_and_needs_nothing(tmp_path, monkeypatch):
    def missing():
        raise MissingExtraError("onnx", "search")

    monkeypatch.setattr(FORMATS.get("onnx"), "require", missing)
    assert job(tmp_path, "[onnx]").export.formats == ["onnx"]


@pytest.mark.parametrize(
    ("formats", "message"),
    [
        ("[onnx, cc]", r"job.yaml:3:\d+: export.formats\[?.?1\]?.*unknown export format 'cc'"),
        ("[c, c]", "export.formats: 'c' is there twice"),
        ("[]", "export.formats"),
    ],
)
def test_mistakes_are_told_at_their_line(tmp_path, formats, message):
    with pytest.raises(DiagnosticsError, match=message):
        job(tmp_path, formats)


def test_a_missing_package_is_told_with_its_extra(tmp_path, monkeypatch):
    def missing():
        raise MissingExtraError("openvino", "openvino")

    monkeypatch.setattr(FORMATS.get("openvino"), "require", missing)
    with pytest.raises(DiagnosticsError, match=r"export.formats: openvino .*edge-nas\[openvino\]"):
        job(tmp_path, "[onnx, openvino]")
