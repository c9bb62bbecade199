"""An ONNX file as a trained network; one that was quantised is refused with what to do."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from nas.bits.onnx_source import OnnxNetwork
from search_spaces.errors import InputError

onnx = pytest.importorskip("onnx")


def written(path: Path, operator: str) -> Path:
    """Write a convolution whose input goes through ``operator``."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    weight = onnx.numpy_helper.from_array(np.ones((2, 1, 3, 3), np.float32), "w.weight")
    nodes = [
        helper.make_node(operator, ["x"], ["a"]),
        helper.make_node("Conv", ["a", "w.weight"], ["y"]),
    ]
    ends = [
        helper.make_tensor_value_info("x", kind, ["n", 1, 8, 8]),
        helper.make_tensor_value_info("y", kind, ["n", 2, 6, 6]),
    ]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [weight])
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), path)
    return path


def test_a_quantised_file_is_refused_with_what_to_do(tmp_path):
    file = written(tmp_path / "run" / "models" / "4d25f7758d.onnx", "Round")
    (tmp_path / "run" / "manifest.json").write_text("{}")
    with pytest.raises(
        InputError, match=r"Round \(node a\); .* quantised already.*run --pick 4d25f7758d'"
    ):
        OnnxNetwork(file)
    elsewhere = Path(shutil.copyfile(file, tmp_path / "model.onnx"))
    with pytest.raises(InputError, match="give the float network that it was made of"):
        OnnxNetwork(elsewhere)


def test_another_operator_without_a_translation_is_named_alone(tmp_path):
    with pytest.raises(InputError, match=r"Acosh \(node a\)$"):
        OnnxNetwork(written(tmp_path / "model.onnx", "Acosh"))
    OnnxNetwork(written(tmp_path / "float.onnx", "Relu"))
