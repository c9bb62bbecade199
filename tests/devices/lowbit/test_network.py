"""Whole networks of codes against the format's reference, written down here in NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from devices.lowbit.build import find_compiler
from devices.lowbit.library import ConvSpec
from devices.lowbit.network import LowBitNetwork
from search_spaces.errors import EnvironmentProblem, InputError
from search_spaces.model_files.packed_model import Encoding, PackedModel, fill_factors, pack_codes
from tests.devices.lowbit import reference

try:
    find_compiler()
except EnvironmentProblem:  # pragma: no cover
    pytest.skip("no compiler on this machine", allow_module_level=True)

GRIDS = {
    "q": {"scale": 0.05, "zero_point": 120, "bits": 8},
    "a": {"scale": 0.1, "zero_point": 0, "bits": 4},
    "b": {"scale": 0.07, "zero_point": 0, "bits": 5},
    "c": {"scale": 0.02, "zero_point": 7, "bits": 4},
    "a8": {"scale": 0.008, "zero_point": 3, "bits": 8},
    "s": {"scale": 0.03, "zero_point": 9, "bits": 8},
    "gate": {"scale": 1 / 255, "zero_point": 0, "bits": 8},
    "scaled": {"scale": 0.02, "zero_point": 5, "bits": 8},
    "m": {"scale": 0.01, "zero_point": 2, "bits": 8},
}


def _weights(tensors, name, shape, bits, rng, fill=127):
    low = -(2 ** (bits - 1))
    codes = rng.integers(low, -low, shape)
    tensors[f"{name}.codes"] = pack_codes(codes, Encoding(bits, low))
    tensors[f"{name}.scale"] = rng.uniform(1e-4, 6e-4, shape[0]).astype(np.float32)
    tensors[f"{name}.bias"] = rng.integers(-900, 900, shape[0]).astype(np.int32)
    weights = {"shape": list(shape), "bits": bits, "low": low, "stride": 1, "fill": fill}
    return weights | {key: f"{name}.{key}" for key in ("codes", "scale", "bias")}


def _conv(source, target, weights, kernel=1, stride=1, groups=1):
    pad = kernel // 2
    return {
        "op": "conv", "layer": target, "inputs": [source], "output": target, "weights": weights,
        "kernel": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4,
        "dilations": [1, 1], "groups": groups,
    }  # fmt: skip


def make_model(seed: int = 0) -> PackedModel:
    """A block of everything: stem, expand, depthwise, gate, residual, mean, linear."""
    rng = np.random.default_rng(seed)
    t: dict[str, np.ndarray] = {}
    nodes = [
        {"op": "quantize", "inputs": ["input"], "output": "q"},
        _conv("q", "a", _weights(t, "stem", (24, 3, 3, 3), 8, rng), kernel=3, stride=2),
        _conv("a", "b", _weights(t, "deep", (24, 1, 5, 5), 3, rng), kernel=5, groups=24),
        _conv("b", "c", _weights(t, "project", (24, 24, 1, 1), 2, rng)),
        {"op": "requantize", "inputs": ["a"], "output": "a8"},
        {"op": "add", "inputs": ["a8", "c"], "output": "s"},
        {"op": "global_average_pool", "inputs": ["s"], "output": "m"},
        _conv("m", "gate.float", _weights(t, "excite", (24, 24, 1, 1), 8, rng)),
        {"op": "HardSigmoid", "inputs": ["gate.float"], "output": "gate.sigmoid",
         "attributes": {"alpha": 1 / 6, "beta": 0.5}},
        {"op": "quantize", "inputs": ["gate.sigmoid"], "output": "gate"},
        {"op": "dequantize", "inputs": ["s"], "output": "s.float"},
        {"op": "dequantize", "inputs": ["gate"], "output": "gate.float2"},
        {"op": "Mul", "inputs": ["s.float", "gate.float2"], "output": "scaled.float"},
        {"op": "quantize", "inputs": ["scaled.float"], "output": "scaled"},
        {"op": "flatten", "inputs": ["scaled"], "output": "flat", "axis": 1},
        {"op": "linear", "layer": "head", "inputs": ["flat"], "output": "logits",
         "weights": _weights(t, "head", (10, 24 * 5 * 4), 2, rng)},
    ]  # fmt: skip
    grids = {name: {**g, "scale": float(np.float32(g["scale"]))} for name, g in GRIDS.items()}
    grids["flat"] = grids["scaled"]
    graph = {"input": {"name": "input", "shape": [3, 9, 8]}, "output": "logits"}
    return PackedModel({**graph, "grids": grids, "nodes": nodes}, t)


def expected(model: PackedModel, x: np.ndarray) -> np.ndarray:
    """The arithmetic of docs/lowbit-format.md, with the kernels' own reference for layers."""
    grids, nodes = model.graph["grids"], {n["output"]: n for n in model.nodes()}

    def layer(source, node, grid_in, grid, **options):
        weights = node["weights"]
        codes = model.codes(weights)
        factor = fill_factors(codes, weights["fill"])
        bias, scale = model.tensors[weights["bias"]], model.tensors[weights["scale"]]
        multiplier = np.float32(grid_in["scale"]) * scale
        if source.ndim == 2:
            source, codes = source[:, None, None], codes[:, :, None, None]
        spec = ConvSpec(
            batch=len(source), height=source.shape[1], width=source.shape[2],
            channels=source.shape[3], outputs=len(codes), kernel=tuple(codes.shape[2:]),
            stride=tuple(node.get("strides", (1, 1))), pads=tuple(node.get("pads", (0,) * 4)),
            groups=node.get("groups", 1), zero_point=grid_in["zero_point"],
            out_zero_point=grid["zero_point"] if grid else 0,
            out_high=2 ** grid["bits"] - 1 if grid else 255, **options,
        )  # fmt: skip
        acc = reference.conv_sums(source, codes, spec) * factor + bias
        if grid is None:
            return acc.astype(np.float32) * multiplier
        if spec.function == "identity":
            multiplier = multiplier / np.float32(grid["scale"])
        return reference.finish(acc, multiplier, spec)

    def scale(name):
        return np.float32(grids[name]["scale"])

    def zero(name):
        return grids[name]["zero_point"]

    q = reference.to_codes(x / scale("q"), zero("q"), 0, 255).transpose(0, 2, 3, 1)
    a = layer(q, nodes["a"], grids["q"], grids["a"])
    b = layer(a, nodes["b"], grids["a"], grids["b"])
    c = layer(b, nodes["c"], grids["b"], grids["c"])
    a8 = reference.to_codes(
        (a.astype(np.int32) - zero("a")).astype(np.float32) * scale("a") / scale("a8"),
        zero("a8"), 0, 255,
    )  # fmt: skip
    ra, rb = scale("a8") / scale("s"), scale("c") / scale("s")
    constant = np.float32(zero("s")) - reference.fma(
        np.float32(zero("a8")), ra, rb * np.float32(zero("c"))
    )
    s = reference.add_codes(a8, c, ma=ra, mb=rb, constant=constant, low=0, high=255)
    pixels = s.shape[1] * s.shape[2]
    m = reference.mean_codes(
        s.reshape(len(s), pixels, -1),
        zero_point_in=zero("s"),
        m=scale("s") / (scale("m") * np.float32(pixels)),
        zero_point=zero("m"),
    )
    gate = layer(
        m[:, None, None], nodes["gate.float"], grids["m"], grids["gate"],
        function="hard_sigmoid", scale=float(scale("gate")),
    )  # fmt: skip
    scaled = reference.multiply_codes(
        s, gate, za=zero("s"), zb=0, m=scale("s") * scale("gate") / scale("scaled"),
        zero_point=zero("scaled"),
    )  # fmt: skip
    flat = scaled.transpose(0, 3, 1, 2).reshape(len(x), -1)
    return layer(flat, nodes["logits"], grids["scaled"], None).reshape(len(x), -1)


@pytest.mark.parametrize(("batch", "threads"), [(1, 1), (3, 2)])
def test_a_network_is_exact(batch, threads):
    model = make_model()
    x = np.random.default_rng(1).normal(0, 2, (batch, 3, 9, 8)).astype(np.float32)
    network = LowBitNetwork(model, batch=batch, threads=threads, rounds=1)
    want = expected(model, x)
    assert want.std() > 0.01
    np.testing.assert_array_equal(network.run(x), want)
    assert network.float_operations == []
    np.testing.assert_array_equal(network.run(-x), expected(model, -x))
    np.testing.assert_array_equal(network.run(x), want)


def test_every_kernel_of_every_layer_gives_the_same():
    model = make_model(2)
    x = np.random.default_rng(1).normal(0, 2, (1, 3, 9, 8)).astype(np.float32)
    network = LowBitNetwork(model, rounds=0)
    want = network.run(x).copy()
    tried = 0
    for layer in range(network.native.layers):
        for kernel in network.native.kernels(layer):
            network.native.choose(layer, kernel)
            np.testing.assert_array_equal(network.run(x), want)
            tried += 1
    assert tried > 5


def test_the_runner_does_all_layers_and_the_profile_names_them():
    network = LowBitNetwork(make_model(), rounds=1)
    x = np.random.default_rng(3).normal(0, 2, (1, 3, 9, 8)).astype(np.float32)
    want = network.run(x).copy()
    np.copyto(network.input, x)
    network.native.array(0, (1,), np.uint8)  # a view keeps nothing alive but itself
    network.runner()
    np.testing.assert_array_equal(network.execute(), want)
    run, handle = network.native.runner(), network.native
    del network.native
    run()  # a runner keeps its network alive
    network.native = handle
    profile = network.profile(2)
    assert [p["layer"] for p in profile][:2] == ["quantize", "a"]
    assert all(p["ms"] >= 0 for p in profile)
    assert next(p for p in profile if p["layer"] == "c")["kernel"]


def test_float_operations_run_in_numpy_and_are_named():
    rng = np.random.default_rng(0)
    t: dict[str, np.ndarray] = {}
    grid = {"scale": 0.0625, "zero_point": 128, "bits": 8}
    nodes = [
        {"op": "quantize", "inputs": ["input"], "output": "q"},
        {"op": "dequantize", "inputs": ["q"], "output": "q.float"},
        {"op": "Softmax", "inputs": ["q.float"], "output": "soft", "attributes": {"axis": 1}},
        {"op": "Mul", "inputs": ["soft", "k"], "output": "y", "constants": {"k": [2.0]}},
        {"op": "quantize", "inputs": ["y"], "output": "y.codes"},
        _conv("y.codes", "c", _weights(t, "c", (5, 4, 1, 1), 4, rng)),
        {"op": "global_average_pool", "inputs": ["c"], "output": "m"},
        {"op": "dequantize", "inputs": ["m"], "output": "m.float"},
        {"op": "Flatten", "inputs": ["m.float"], "output": "out", "attributes": {"axis": 1}},
    ]
    grids = dict.fromkeys(("q", "c", "m"), grid) | {"y.codes": {**grid, "scale": 1 / 256}}
    graph = {"input": {"name": "input", "shape": [4, 3, 3]}, "output": "out"}
    network = LowBitNetwork(PackedModel({**graph, "grids": grids, "nodes": nodes}, t), rounds=0)
    assert {"Softmax", "Mul"} <= set(network.float_operations)
    x = rng.normal(0, 1, (1, 4, 3, 3)).astype(np.float32)
    q = (reference.to_codes(x * 16, 128, 0, 255).astype(np.float32) - 128) / 16
    powers = np.exp(q)
    y = reference.to_codes(512 * powers / powers.sum(1, keepdims=True), 128, 0, 255)
    got = network.run(x)
    seen = network.tensor("y.codes") * 256 + 128
    assert np.abs(seen - y).max() <= 1
    assert got.shape == (1, 5) and np.isfinite(got).all()


def test_what_it_cannot_run_is_named():
    model = make_model()
    model.graph["nodes"][8] = {**model.graph["nodes"][8], "op": "Einsum"}
    with pytest.raises(InputError, match="Einsum"):
        LowBitNetwork(model, rounds=0)
    model = make_model()
    model.graph["grids"]["a"] = {**model.graph["grids"]["a"], "bits": 16}
    with pytest.raises(InputError, match="16 bits"):
        LowBitNetwork(model, rounds=0)
