import numpy as np
import pytest

from search_spaces.errors import InputError
from search_spaces.model_files.graph import read_graph


@pytest.fixture
def torch_module():
    pytest.importorskip("torch")
    module = pytest.importorskip("devices.runtimes.executorch_module")
    import torch.ao.quantization.fx._decomposed  # noqa: F401  registers the operators

    return module


@pytest.fixture
def executorch(tmp_path, monkeypatch):
    pytest.importorskip("executorch")
    from devices.runtime import make_runtime

    monkeypatch.setenv("EDGE_NAS_CACHE", str(tmp_path / "cache"))
    return lambda **options: make_runtime("executorch", options)


@pytest.mark.parametrize("clip", [True, False])
def test_the_module_computes_what_the_file_says(torch_module, make_quantised, clip):
    torch = pytest.importorskip("torch")
    reference = pytest.importorskip("onnx.reference")
    path = make_quantised(clip=clip)
    images = np.random.default_rng(1).standard_normal((2, 3, 8, 8)).astype(np.float32)
    (expected,) = reference.ReferenceEvaluator(str(path)).run(None, {"x": images})
    module = torch_module.QuantisedModule(path)
    (output,) = module(torch.from_numpy(images))
    step = 0.2 if clip else 0.02
    # A sum in another order may fall on the other side of a rounding, nowhere further.
    assert np.abs(output.numpy() - expected).max() <= step * 1.01
    assert np.mean(output.numpy() != expected) < 0.01


def test_limits_on_codes_stand_before_the_rounding(torch_module, make_quantised):
    graph = torch_module.rewritten(read_graph(make_quantised(clip=True)))
    assert [node.op for node in graph.nodes][-4:] == [
        "Conv", "Clip", "QuantizeLinear", "DequantizeLinear",
    ]  # fmt: skip
    clip = next(node for node in graph.nodes if node.op == "Clip")
    low, high = (float(graph.constants[name]) for name in clip.inputs[1:])
    assert low == 0 and high == pytest.approx(15 * 0.2)


def test_a_product_with_a_float_output_gets_float_weights(torch_module, make_quantised, tmp_path):
    onnx = pytest.importorskip("onnx")
    model = onnx.load(make_quantised(clip=False))
    del model.graph.node[-2:]
    model.graph.output[0].name = "c"
    path = tmp_path / "open.onnx"
    onnx.save(model, path)
    graph = torch_module.rewritten(read_graph(path))
    conv = next(node for node in graph.nodes if node.op == "Conv")
    weight = graph.constants[conv.inputs[1]]
    values = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
    np.testing.assert_allclose(
        weight, values["codes"] * values["scales"][:, None, None, None], rtol=1e-6
    )


def test_arithmetic_on_codes_is_refused(torch_module, make_quantised, tmp_path):
    onnx = pytest.importorskip("onnx")
    model = onnx.load(make_quantised(clip=True))
    clip = next(node for node in model.graph.node if node.op_type == "Clip")
    clip.op_type, clip.input[:] = "Add", ["r", "r"]
    path = tmp_path / "codes.onnx"
    onnx.save(model, path)
    with pytest.raises(InputError, match="Add computes with integer codes"):
        torch_module.rewritten(read_graph(path))


def test_a_quantised_file_runs_on_integers_and_the_portable_kernels_say_they_do_not(
    executorch, make_quantised
):
    path = make_quantised(clip=True)
    assert executorch().load(path).arithmetic() == {"int8": 1}
    session = executorch(backend="portable").load(path)
    assert session.arithmetic() == {"float32": 1}


def test_a_program_is_loaded_without_its_source(executorch, make_model, tmp_path):
    from devices.untrusted.model_check import SUFFIXES, check_model

    runtime = executorch()
    program = runtime.converted(make_model(batch=1)) / runtime.native
    assert SUFFIXES[check_model(program)] == program.suffix
    alone = tmp_path / "alone.pte"
    alone.write_bytes(program.read_bytes())
    session = executorch().load(alone)
    assert session.inputs[0].shape == (1, 3, 8, 8) and session.arithmetic() is None
    (output,) = session(np.zeros((1, 3, 8, 8), np.float32))
    assert output.shape == (1, 4, 8, 8)
    alone.write_bytes(program.read_bytes()[:100])
    with pytest.raises(InputError, match=r"alone\.pte"):
        executorch().load(alone)


def test_an_unknown_backend(executorch):
    with pytest.raises(InputError, match="backend is 'vulkan'"):
        executorch(backend="vulkan")
