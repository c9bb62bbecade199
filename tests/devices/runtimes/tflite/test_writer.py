"""What LiteRT files compute, against the ONNX they were made from."""

import numpy as np
import pytest

from devices.runtime import make_runtime, random_inputs


@pytest.fixture
def few_bits(tmp_path):
    """A network that goes from grids of 8 bits to ones of 4 and ends in a mean, as ONNX."""
    torch = pytest.importorskip("torch")
    from search_spaces.bits import set_bits
    from search_spaces.spaces.registry import build_space
    from supernet.network import Supernet
    from supernet.onnx.export import export_onnx

    torch.manual_seed(0)
    bits = {"weight_bits": [4, 8], "activation_bits": [4, 8]}
    space = build_space("mobilenet", preset="8x8", input_channels=1, outputs=5, **bits)
    made = Supernet(space)
    genes = set_bits(space, space.genes([space.smallest()]), 8, 4)
    plan = space.plan(space.decode(genes)[0])
    images = torch.randn(16, *plan.input_shape)
    with torch.no_grad():
        export_onnx(made.extract(plan, made.statistics(plan, [images])).eval(), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def operators(path):
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes()))
    names = {v: k for k, v in vars(schema.BuiltinOperator).items() if k[0] != "_"}
    (graph,) = model.subgraphs
    for op in graph.operators:
        yield names[model.operatorCodes[op.opcodeIndex].builtinCode], op, graph.tensors


def test_codes_reach_another_grid_as_the_file_says(few_bits, tmp_path, monkeypatch):
    pytest.importorskip("ai_edge_litert")
    monkeypatch.setenv("EDGE_NAS_CACHE", str(tmp_path / "cache"))
    runtime = make_runtime("litert", {"integers_only": True})
    file = runtime.converted(few_bits) / "model.tflite"
    kinds = [(name, tensors[op.inputs[0]].type) for name, op, tensors in operators(file)]
    assert "QUANTIZE" in {name for name, _ in kinds}  # of the input, in floats
    assert all(kind == 0 for name, kind in kinds if name == "QUANTIZE")
    reference = make_runtime("onnxruntime", {"graph_optimization": "off"}).load(few_bits)
    session = runtime.load(few_bits)
    for seed in range(4):
        inputs = random_inputs(reference.inputs, seed)
        expected = np.array(reference(*inputs)[0])
        assert np.abs(session(*inputs)[0] - expected).max() < 0.01 * np.ptp(expected)
