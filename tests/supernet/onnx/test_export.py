"""Exported files compute what the extracted network computes, on integers."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from functools import lru_cache

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import nn

from search_spaces.errors import InputError
from search_spaces.model_files.graph import read_graph
from search_spaces.model_files.packed_model import fill_factors
from search_spaces.plan import BlockPlan, LayerPlan, NetworkPlan
from search_spaces.spaces.mobilenet import MobileNetSpace
from supernet.dataflow import DATAFLOWS
from supernet.network import Supernet
from supernet.onnx.export import (
    LARGEST_CODE,
    REDUCED_CODE,
    export_onnx,
    fold,
    reduce_codes,
)
from supernet.plain import PlainBlock, PlainLayer, PlainNetwork, Source
from supernet.quantizers.lsq import weight_range
from tests.supernet.sessions import exact_session

EDGES = ("stem", "head", "classifier", "squeeze", "excite")
MOBILENET_V3_LIKE = {
    "stem_activation": "hswish",
    "stages": (
        {"channels": 8, "stride": 1, "depths": (1, 2), "activation": "hswish", "squeeze": True},
        {"channels": 16, "stride": 2, "depths": (1, 2), "squeeze": True},
    ),
}


def at_bits(plan: NetworkPlan, weight_bits: int, activation_bits: int) -> NetworkPlan:
    """Change the searchable layers, or all of them to float."""

    def change(layer: LayerPlan) -> LayerPlan:
        if layer.role in EDGES and min(weight_bits, activation_bits) < 32:
            return layer
        return replace(layer, weight_bits=weight_bits, activation_bits=activation_bits)

    return replace(
        plan, blocks=tuple(replace(b, layers=tuple(map(change, b.layers))) for b in plan.blocks)
    )


@lru_cache
def make_supernet(options: str) -> Supernet:
    """Build a supernet with random batch-norm parameters of either sign."""
    torch.manual_seed(0)
    space = MobileNetSpace.from_config(preset="8x8", input_channels=1, **json.loads(options))
    supernet = Supernet(space)
    with torch.no_grad():
        for name, parameter in supernet.named_parameters():
            if name.endswith("gamma"):
                sign = torch.sign(torch.randn_like(parameter))
                parameter.copy_(sign * (0.5 + torch.rand_like(parameter)))
            elif name.endswith("beta"):
                parameter.copy_(0.3 * torch.randn_like(parameter))
    return supernet


def make_network(seed: int, bits: tuple[int, int] | None = None, **options) -> PlainNetwork:
    """Extract a random architecture."""
    supernet = make_supernet(json.dumps(options))
    space = supernet.space
    plan = space.plan(space.sample(np.random.default_rng(seed)))
    if bits is not None:
        plan = at_bits(plan, *bits)
    torch.manual_seed(seed)
    network = supernet.extract(
        plan, supernet.statistics(plan, [torch.randn(64, *plan.input_shape)])
    )
    for layer in network.plain_layers():
        if isinstance(layer.norm, nn.BatchNorm2d):
            # Channels that hardly vary over random images would amplify a rounding at random.
            variance = layer.norm.running_var
            variance.clamp_(min=0.5 * float(variance.mean()))
    return network


def run(path, x: torch.Tensor, *, optimise: bool | None = None) -> np.ndarray:
    return exact_session(path, optimise=optimise).run(None, {"input": x.numpy()})[0]


def optimised_operators(path, folder) -> Counter:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    graph = onnx.load(folder / "optimised.onnx").graph
    return Counter(node.op_type for node in graph.node)


def assert_parity(network: PlainNetwork, path, *, error: float = 0.1) -> None:
    x = torch.randn(150, *network.plan.input_shape)
    with torch.no_grad():
        expected = network(x).numpy()
    ordered = np.sort(expected, axis=1)
    # Untrained logits hardly differ between images; a tie says nothing about the export. And an
    # untrained network carries one code rounded the other way through all its layers.
    clear = np.argsort(ordered[:, -1] - ordered[:, -2])[-40:]
    for optimise in (None, False):
        logits = run(path, x, optimise=optimise)
        assert np.linalg.norm(logits - expected) < error * np.linalg.norm(expected)
        same = logits.argmax(1) == expected.argmax(1)
        assert same[clear].mean() >= 0.95


@pytest.mark.parametrize(
    ("bits", "seed"), [((8, 8), 1), ((2, 8), 2), ((3, 3), 3), ((2, 2), 4), (None, 5), (None, 6)]
)
def test_quantised_network_runs_on_integers_with_the_same_outputs(bits, seed, tmp_path):
    network = make_network(seed, bits)
    summary = export_onnx(network, tmp_path / "m.onnx")
    assert_parity(network, tmp_path / "m.onnx")
    operators = optimised_operators(tmp_path / "m.onnx", tmp_path)
    assert operators["QLinearConv"] == sum(n.layer.kind == "conv" for n in network.plain_layers())
    assert operators["QGemm"] == 1
    allowed = {"QLinearConv", "QGemm", "QLinearAdd", "QLinearGlobalAveragePool", "Clip"}
    allowed |= {"QuantizeLinear", "DequantizeLinear", "Transpose", "Flatten"}
    assert set(operators) <= allowed
    assert summary.weights_kib == pytest.approx(network.plan.weights_kib, rel=0.02)
    assert summary.size_kib == pytest.approx((tmp_path / "m.onnx").stat().st_size / 1024)


def test_float_network_is_exact(tmp_path):
    network = make_network(3, (32, 32))
    summary = export_onnx(network, tmp_path / "m.onnx")
    x = torch.randn(16, *network.plan.input_shape)
    with torch.no_grad():
        np.testing.assert_allclose(run(tmp_path / "m.onnx", x), network(x).numpy(), atol=1e-5)
    assert "QuantizeLinear" not in optimised_operators(tmp_path / "m.onnx", tmp_path)
    assert summary.weights_kib == pytest.approx(network.plan.weights_kib, rel=0.02)


@pytest.mark.parametrize("bits", [(8, 8), None], ids=str)
def test_squeeze_and_hard_swish(bits, tmp_path):
    network = make_network(4, bits, **MOBILENET_V3_LIKE)
    summary = export_onnx(network, tmp_path / "m.onnx")
    assert_parity(network, tmp_path / "m.onnx")
    assert summary.weights_kib == pytest.approx(network.plan.weights_kib, rel=0.02)


@pytest.mark.parametrize("bits", [(4, 32), (32, 8), (16, 16)], ids=str)
def test_layers_that_no_integer_kernel_serves(bits, tmp_path):
    widths = (4, 8, 16, 32)
    network = make_network(5, bits, weight_bits=widths, activation_bits=widths)
    summary = export_onnx(network, tmp_path / "m.onnx")
    assert_parity(network, tmp_path / "m.onnx")
    assert summary.weights_kib == pytest.approx(network.plan.weights_kib, rel=0.02)


def test_stored_codes_are_the_codes_of_the_network(tmp_path):
    network = make_network(6, None)
    export_onnx(network, tmp_path / "m.onnx")
    graph = read_graph(tmp_path / "m.onnx")
    weights = {node.name: node.input(1) for node in graph.nodes if node.op in ("Conv", "Gemm")}
    packed = 0
    for layer in network.plain_layers():
        if layer.layer.weight_bits > 4:
            continue  # stored as multiples
        found = graph.codes[weights[layer.layer.name]]
        if found.factored is None:
            continue  # too small for packing to pay
        packed += 1
        expected = layer.weight_codes().numpy().astype(np.int64)
        rows = found.factored.reshape(len(expected), -1), expected.reshape(len(expected), -1)
        same = (rows[0] == rows[1]).all(1) | (rows[0] == -rows[1]).all(1)
        assert same.all()
    assert packed >= 2


@pytest.mark.parametrize("bits", [(2, 8), (3, 8), (4, 4)], ids=str)
def test_packed_files_need_no_newer_runtime_than_others(bits, tmp_path):
    export_onnx(make_network(7, bits), tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert (model.opset_import[0].version, model.ir_version) == (18, 10)
    assert {t.data_type for t in model.graph.initializer} <= {
        onnx.TensorProto.DataType.Value(kind)
        for kind in ("FLOAT", "INT8", "UINT8", "INT32", "INT64")
    }
    assert sum(node.op_type == "BitShift" for node in model.graph.node) >= 1
    assert "BitShift" not in optimised_operators(tmp_path / "m.onnx", tmp_path)


def test_packed_and_int8_storage_give_the_same_outputs(tmp_path):
    network = make_network(7, (2, 4))
    small = export_onnx(network, tmp_path / "packed.onnx")
    large = export_onnx(network, tmp_path / "int8.onnx", weight_storage="int8")
    x = torch.randn(8, *network.plan.input_shape)
    np.testing.assert_array_equal(run(tmp_path / "packed.onnx", x), run(tmp_path / "int8.onnx", x))
    assert small.size_kib < large.size_kib
    assert small.weights_kib == large.weights_kib
    with pytest.raises(InputError, match="weight_storage is 'zip'"):
        export_onnx(network, tmp_path / "x.onnx", weight_storage="zip")


def test_batch_size_and_metadata(tmp_path):
    network = make_network(9)
    export_onnx(network, tmp_path / "m.onnx", batch=3, metadata={"arch": "abc"})
    model = onnx.load(tmp_path / "m.onnx")
    onnx.checker.check_model(model)
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 3
    assert {p.key: p.value for p in model.metadata_props} == {"arch": "abc"}
    assert run(tmp_path / "m.onnx", torch.randn(3, *network.plan.input_shape)).shape == (3, 10)


def test_export_is_deterministic(tmp_path):
    network = make_network(10)
    export_onnx(network, tmp_path / "a.onnx")
    export_onnx(network, tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


# A network by hand: any bits, any batch norm, any dataflow.


def hand_layer(
    bits: int, activation_bits: int, *, name: str = "conv", source: str = "none", channels: int = 2
) -> PlainLayer:
    plan = LayerPlan(
        f"b.{name}", name, channels, 6, 3, 1, 1, 6, 6, bits, activation_bits, "none", source
    )
    op = nn.Conv2d(channels, 6, 3, 1, 1, bias=False)
    norm = nn.BatchNorm2d(6)
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    norm.weight.data[::2] *= -1
    nn.init.normal_(norm.bias)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    step = None
    if bits < 32:
        low, high = weight_range(bits)
        codes = torch.randint(low, high + 1, op.weight.shape).float()
        codes[:, 0, 0, 0] = low
        step = torch.sign(norm.weight.data) / 2 ** (bits - 1)
        op.weight.data = codes * step.view(-1, 1, 1, 1)
    top = 2**activation_bits - 1 if activation_bits < 32 else 0
    before = Source(
        source,
        bits=activation_bits,
        step=4.0 / max(top, 1),
        zero_point=0 if source == "relu" else top // 2,
    )
    return PlainLayer(plan, source=before, op=op, norm=norm, weight_step=step)


def hand_network(kind: str, ops: dict[str, nn.Module], outputs: int = 6) -> PlainNetwork:
    layers = tuple(op.layer for op in ops.values() if isinstance(op, PlainLayer))
    block = BlockPlan("b", kind, layers)
    plan = NetworkPlan("by-hand", (2, 6, 6), outputs, (block,))
    return PlainNetwork(plan, [PlainBlock(block, ops)]).eval()


def pooled(x, ops, residual):
    return ops["point"](ops["second"](ops["conv"](x))).mean((2, 3))


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("activation_bits", [3, 6, 8])
def test_every_bit_width(bits, activation_bits, tmp_path, monkeypatch):
    torch.manual_seed(10 * bits + activation_bits)
    monkeypatch.setitem(DATAFLOWS._parts, "by-hand", pooled)
    ops = {
        "conv": hand_layer(bits, activation_bits),
        "second": hand_layer(bits, activation_bits, name="second", source="relu", channels=6),
        "point": Source("none", bits=8, step=0.5, zero_point=128),
    }
    network = hand_network("by-hand", ops)
    export_onnx(network, tmp_path / "m.onnx")
    x = torch.randn(64, 2, 6, 6)
    with torch.no_grad():
        expected = network(x).numpy()
    # A mean over 36 positions; a code off by one in a few of them is rounding.
    error = np.abs(run(tmp_path / "m.onnx", x) - expected)
    assert error.mean() < 0.02
    assert optimised_operators(tmp_path / "m.onnx", tmp_path)["QLinearConv"] == 2


def test_reduced_range_leaves_no_room_for_saturation(tmp_path, monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setitem(DATAFLOWS._parts, "by-hand", lambda x, ops, r: ops["conv"](x).mean((2, 3)))
    network = hand_network("by-hand", {"conv": hand_layer(8, 8)})
    x = torch.randn(64, 2, 6, 6)
    with torch.no_grad():
        expected = network(x).numpy()
    for reduce_range, largest in ((False, 128), (True, 64)):
        summary = export_onnx(network, tmp_path / "m.onnx", reduce_range=reduce_range)
        assert summary.reduced_layers == (("b.conv",) if reduce_range else ())
        stored = {t.name: t for t in onnx.load(tmp_path / "m.onnx").graph.initializer}
        codes = onnx.numpy_helper.to_array(stored["b.conv.codes"]).astype(np.int64)
        assert np.abs(codes).max() == largest
        found = run(tmp_path / "m.onnx", x, optimise=True if reduce_range else None)
        np.testing.assert_allclose(found, expected, atol=0.05)
    assert 2 * 255 * largest <= 2**15 - 1
    # Fewer input bits cannot saturate, so nothing is given up for them.
    network = hand_network("by-hand", {"conv": hand_layer(8, 7)})
    assert not export_onnx(network, tmp_path / "m.onnx", reduce_range=True).reduced_layers


def test_channels_without_scale_keep_their_bias(tmp_path, monkeypatch):
    monkeypatch.setitem(DATAFLOWS._parts, "by-hand", lambda x, ops, r: ops["conv"](x).mean((2, 3)))
    layer = hand_layer(4, 8)
    with torch.no_grad():
        layer.norm.weight[:2] = 0
        layer.norm.weight[2] = -1e-12
        layer.norm.bias[:3] = torch.tensor([0.0, -3.0, 2.0])
    network = hand_network("by-hand", {"conv": layer})
    folded = fold(layer)
    assert (folded.scale > 0).all()
    assert not folded.codes[:2].any()
    export_onnx(network, tmp_path / "m.onnx")
    logits = run(tmp_path / "m.onnx", torch.randn(4, 2, 6, 6))
    np.testing.assert_allclose(logits[:, :3], [[0.0, -3.0, 2.0]] * 4, atol=1e-4)


def test_folding_refuses_codes_that_do_not_fit(tmp_path, monkeypatch):
    monkeypatch.setitem(DATAFLOWS._parts, "by-hand", lambda x, ops, r: ops["conv"](x).mean((2, 3)))
    layer = hand_layer(4, 8)
    layer.norm.weight.data.neg_()
    with pytest.raises(InputError, match=r"b\.conv: .*beyond 4 bits"):
        export_onnx(hand_network("by-hand", {"conv": layer}), tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()


def attention_head(x, ops, residual):
    h = ops["conv"](x)
    b, c, _, _ = h.shape
    tokens = h.flatten(2).transpose(1, 2)
    q, k, v = tokens.chunk(3, dim=-1)
    weights = torch.softmax(q @ k.transpose(-2, -1) * (c // 3) ** -0.5, dim=-1)
    mixed = torch.cat([weights @ v, nn.functional.silu(q), nn.functional.gelu(k)], dim=-1)
    mixed = nn.functional.layer_norm(mixed, (6,)).reshape(b, -1, 6)
    return nn.functional.relu6(mixed).mean(1) + 0.5


@pytest.mark.parametrize("bits", [8, 32])
def test_dataflow_of_another_package(bits, tmp_path, monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setitem(DATAFLOWS._parts, "attention", attention_head)
    network = hand_network("attention", {"conv": hand_layer(bits, bits)})
    export_onnx(network, tmp_path / "m.onnx")
    x = torch.randn(5, 2, 6, 6)
    with torch.no_grad():
        np.testing.assert_allclose(run(tmp_path / "m.onnx", x), network(x).numpy(), atol=0.01)


def test_operations_without_translation_are_named(tmp_path, monkeypatch):
    monkeypatch.setitem(
        DATAFLOWS._parts, "odd", lambda x, ops, r: torch.fft.fft(ops["conv"](x)).real
    )
    network = hand_network("odd", {"conv": hand_layer(8, 8)})
    with pytest.raises(InputError, match=r"unknown tensor operation '\w*fft"):
        export_onnx(network, tmp_path / "m.onnx")


def test_dataflow_that_looks_at_values_is_refused(tmp_path, monkeypatch):
    def peeks(x, ops, residual):
        h = ops["conv"](x)
        return h if h.sum() > 0 else -h

    monkeypatch.setitem(DATAFLOWS._parts, "peeks", peeks)
    network = hand_network("peeks", {"conv": hand_layer(8, 8)})
    with pytest.raises(InputError, match="depends on values"):
        export_onnx(network, tmp_path / "m.onnx")


codes_of_a_layer = arrays.arrays(
    np.int8, st.tuples(st.integers(1, 6), st.integers(1, 5)), elements=st.integers(-128, 127)
)


@settings(max_examples=60, deadline=None)
@given(codes_of_a_layer, st.floats(-1e4, 1e4), st.sampled_from([LARGEST_CODE, REDUCED_CODE]))
def test_spread_codes_fit_and_round_the_bias_no_worse(codes, bias, largest):
    codes = np.clip(codes, -largest, largest).astype(np.int8)
    units = np.full(len(codes), bias)
    factor = fill_factors(codes, largest)
    assert (factor >= 1).all()
    assert (np.abs(codes.astype(int) * factor[:, None]) <= largest).all()
    error = np.abs(np.round(units * factor) / factor - units)
    assert (error <= np.abs(np.round(units) - units) + 1e-9).all()


@settings(max_examples=60, deadline=None)
@given(codes_of_a_layer)
def test_reduced_codes_are_the_nearest_of_a_doubled_step(codes):
    scale = np.full(len(codes), 0.5, np.float32)
    reduced, steps = reduce_codes(codes, scale)
    assert np.abs(reduced.astype(int)).max() <= REDUCED_CODE
    error = np.abs(reduced * steps[:, None] - codes.astype(int) * 0.5)
    assert (error <= 0.5).all()
    fits = np.abs(codes.astype(int)).max(1) <= REDUCED_CODE
    np.testing.assert_array_equal(reduced[fits], codes[fits])
