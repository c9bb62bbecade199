"""The float twin: same layers and weights, activations not rounded."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch

from nas.models.float_twin import float_twin, write_float_twin
from nas.models.parity import evaluate_onnx
from search_spaces.errors import InputError
from search_spaces.spaces.mobilenet import MobileNetSpace
from supernet.network import Supernet
from supernet.onnx.export import export_onnx
from supernet.training.subnets import at_bits

EDGES = ("stem", "head", "classifier", "squeeze", "excite")


def at_inner_bits(plan, weight_bits, activation_bits):
    def change(layer):
        if layer.role in EDGES:
            return layer
        return replace(layer, weight_bits=weight_bits, activation_bits=activation_bits)

    return replace(
        plan, blocks=tuple(replace(b, layers=tuple(map(change, b.layers))) for b in plan.blocks)
    )


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    torch.manual_seed(0)
    space = MobileNetSpace.from_config(
        preset="8x8", input_channels=1, weight_bits=(2, 3, 8, 32), activation_bits=(4, 8, 32)
    )
    supernet = Supernet(space)
    plan = space.plan(space.sample(np.random.default_rng(0)))
    images = torch.randn(64, *plan.input_shape)
    folder = tmp_path_factory.mktemp("twins")
    made = {}
    for bits in ((2, 4), (3, 8), (8, 8), (32, 32)):
        chosen = at_bits(plan, *bits) if bits[0] == 32 else at_inner_bits(plan, *bits)
        network = supernet.extract(chosen, supernet.statistics(chosen, [images])).eval()
        made[bits] = folder / f"{bits[0]}.{bits[1]}.onnx"
        export_onnx(network, made[bits])
    return made, images.numpy()


@pytest.mark.parametrize("bits", [(2, 4), (3, 8), (8, 8)])
def test_the_twin_has_the_same_layers_and_no_quantiser(networks, bits, tmp_path):
    files, _ = networks
    twin = onnx.load(write_float_twin(files[bits], tmp_path / "twin.onnx"))
    onnx.checker.check_model(twin, full_check=True)
    kinds = [node.op_type for node in twin.graph.node]
    assert not {"QuantizeLinear", "DequantizeLinear", "Clip", "Cast"} & set(kinds)
    old = [node.op_type for node in onnx.load(files[bits]).graph.node]
    for kind in ("Conv", "Gemm", "Add", "GlobalAveragePool"):
        assert kinds.count(kind) == old.count(kind)
    assert all(t.data_type in (1, 7) for t in twin.graph.initializer)  # floats, shapes


def test_eight_bits_are_near_their_twin_and_two_are_not(networks, tmp_path):
    files, images = networks
    errors = {}
    for bits in ((2, 4), (8, 8)):
        twin = write_float_twin(files[bits], tmp_path / "twin.onnx")
        a, b = (evaluate_onnx(path, [images]) for path in (files[bits], twin))
        errors[bits] = np.linalg.norm(a - b) / np.linalg.norm(b)
    assert errors[8, 8] < 0.3
    assert errors[8, 8] < errors[2, 4]


def test_a_float_model_has_no_twin(networks):
    files, _ = networks
    with pytest.raises(InputError, match="no quantised tensor"):
        float_twin(onnx.load(files[32, 32]))


def test_a_twin_in_half_precision_stays_in_it(tmp_path):
    codes = np.array([[1, -2, 3], [4, 5, -6]], np.int8)
    constants = {
        "codes": codes, "steps": np.array([0.3, 0.7], np.float16),
        "step": np.float16(0.1), "zero": np.uint8(3),
    }  # fmt: skip
    nodes = [
        onnx.helper.make_node("QuantizeLinear", ["x", "step", "zero"], ["q"]),
        onnx.helper.make_node("DequantizeLinear", ["q", "step", "zero"], ["d"]),
        onnx.helper.make_node("DequantizeLinear", ["codes", "steps"], ["w"], axis=0),
        onnx.helper.make_node("Gemm", ["d", "w"], ["y"], transB=1),
    ]
    half = onnx.TensorProto.FLOAT16
    graph = onnx.helper.make_graph(
        nodes,
        "g",
        [onnx.helper.make_tensor_value_info("x", half, [1, 3])],
        [onnx.helper.make_tensor_value_info("y", half, [1, 2])],
        [onnx.numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()],
    )
    opset = [onnx.helper.make_opsetid("", 19)]
    twin = float_twin(onnx.helper.make_model(graph, opset_imports=opset, ir_version=9))
    onnx.checker.check_model(twin, full_check=True)
    (weight,) = (onnx.numpy_helper.to_array(t) for t in twin.graph.initializer)
    np.testing.assert_array_equal(weight, codes * constants["steps"][:, None])
    assert weight.dtype == np.float16
