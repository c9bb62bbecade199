"""Native layers that make codes of numbers give what NumPy makes of them, bit by bit."""

from functools import partial

import numpy as np
import pytest

from devices.lowbit.floats import UNARY
from devices.lowbit.integers.gates import of_codes, of_floats, product_codes, product_numbers
from devices.lowbit.integers.norms import norm_numbers, normalised
from devices.lowbit.integers.resampling import image_taps, matrix_taps, resample_numbers, resampled
from devices.lowbit.integers.steps import Steps, function_steps
from devices.lowbit.library import Native
from devices.lowbit.network import LowBitNetwork
from devices.lowbit.number_layers import operand_form
from devices.lowbit.rounding import to_codes
from search_spaces.errors import InputError
from search_spaces.model_files.packed_model import PackedModel

GRID = {"scale": 0.03, "zero_point": 90, "bits": 8}
OUT = {"scale": 0.011, "zero_point": 40, "bits": 7}


pytestmark = pytest.mark.usefixtures("needs_compiler")


def made(nodes, shape, grids):
    """Run nodes on images: 1 x 1 layers give ``a`` and ``b`` in floats, ``qa`` are their codes."""
    rng = np.random.default_rng(3)
    channels = shape[0]
    tensors, layers = {}, []
    for name in "ab":
        codes = rng.integers(-128, 128, (channels, channels, 1, 1))
        tensors[f"{name}.codes"] = (codes + 128).astype(np.uint8).ravel()
        tensors[f"{name}.scale"] = rng.uniform(1e-3, 3e-3, channels).astype(np.float32)
        tensors[f"{name}.bias"] = rng.integers(-900, 900, channels).astype(np.int32)
        weights = {"shape": [channels, channels, 1, 1], "bits": 8, "low": -128, "stride": 1}
        weights |= {key: f"{name}.{key}" for key in ("codes", "scale", "bias")} | {"fill": 0}
        layers.append(
            {
                "op": "conv", "inputs": ["q"], "output": name, "layer": name, "weights": weights,
                "kernel": [1, 1], "strides": [1, 1], "pads": [0] * 4, "dilations": [1, 1],
                "groups": 1,
            }
        )  # fmt: skip
    first = [{"op": "quantize", "inputs": ["x"], "output": "q"}, *layers]
    first += [{"op": "quantize", "inputs": ["a"], "output": "qa"}]
    first += [{"op": "dequantize", "inputs": ["qa"], "output": "qa.float"}]
    graph = {
        "input": {"name": "x", "shape": list(shape)}, "output": nodes[-1]["output"],
        "nodes": [*first, *nodes], "grids": {"q": GRID, "qa": GRID, **grids},
    }  # fmt: skip
    model = PackedModel(graph, tensors)
    network = LowBitNetwork(model, batch=2, threads=2, rounds=0)
    network.run(rng.standard_normal((2, *shape)).astype(np.float32) * 2)
    return network


def quantised(op, out="y", **more):
    inputs = more.pop("inputs", ["a"])
    node = {"op": op, "inputs": inputs, "output": "float", **more}
    return [node, {"op": "quantize", "inputs": ["float"], "output": out}]


@pytest.mark.parametrize("name", ["Sigmoid", "Swish", "Gelu", "LeakyRelu", "Exp"])
def test_stairs(name):
    network = made(quantised(name), (5, 4, 3), {"y": OUT})
    assert network.float_operations == []
    function = partial(UNARY[name], {}) if name in UNARY else np.exp
    wanted = function_steps(function, OUT)(network.tensor("a"))
    values = to_values(wanted, OUT)
    np.testing.assert_array_equal(network.tensor("y"), values)
    assert len(np.unique(wanted)) > 5


def to_values(codes, grid):
    return (codes.astype(np.int32) - grid["zero_point"]).astype(np.float32) * np.float32(
        grid["scale"]
    )


@pytest.mark.parametrize("count", [0, 1, 7, 900])
def test_stairs_of_any_width(count):
    rng = np.random.default_rng(count)
    # Some lie next to each other, many far from the rest.
    places = np.unique(np.append(rng.standard_normal(count) ** 5, [1, np.nextafter(1, 2)][:count]))
    places = places.astype(np.float32)
    places = np.unique(places)
    steps = Steps(places, rng.integers(0, 256, len(places) + 1).astype(np.uint8))
    x = np.concatenate([places, np.nextafter(places, np.float32(-9)), rng.standard_normal(999)])
    x = x.astype(np.float32)
    native = Native()
    source, target = native.buffer(x.nbytes), native.buffer(x.size)
    native.array(source, x.shape, np.float32)[:] = x
    native.layer("steps", source, target, x.size, len(places), places, steps.codes)
    native.run()
    np.testing.assert_array_equal(native.array(target, x.shape, np.uint8), steps(x))


def test_stairs_must_ascend():
    native = Native()
    source, target = native.buffer(4), native.buffer(1)
    with pytest.raises(InputError, match="places ascend"):
        places = np.float32([2, 1])
        native.layer("steps", source, target, 1, 2, places, np.zeros(3, np.uint8))


def test_slopes_of_channels():
    slopes = np.float32([0.2, -0.5, 0.01, 1.5, 0])
    node = {"constants": {"c": slopes.reshape(5, 1, 1).tolist()}, "inputs": ["a", "c"]}
    network = made(quantised("PRelu", **node), (5, 4, 3), {"y": OUT})
    assert network.float_operations == []
    x = network.tensor("a")
    values = np.where(x < 0, slopes.reshape(5, 1, 1) * x, x) / np.float32(OUT["scale"])
    wanted = to_codes(values.astype(np.float32), OUT["zero_point"], 0, 127)
    np.testing.assert_array_equal(network.tensor("y"), to_values(wanted, OUT))


@pytest.mark.parametrize("ceil", [0, 1])
@pytest.mark.parametrize("padding", [0, 1])
def test_pools_that_count_less_at_the_border(ceil, padding):
    attributes = {
        "kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 1], "ceil_mode": ceil,
        "count_include_pad": padding,
    }  # fmt: skip
    nodes = quantised("AveragePool", inputs=["qa.float"], attributes=attributes)
    network = made(nodes, (5, 8, 6), {"y": GRID})
    assert network.float_operations == []
    x = network.tensor("qa").astype(np.float64)
    exact = windows_mean(x, (3, 2), (2, 2), [1, 0, 1, 1], ceil, padding) / 0.03 + 90
    found = network.tensor("y") / 0.03 + 90
    assert found.shape == exact.shape and np.abs(found - np.clip(exact, 0, 255)).max() <= 0.501


def windows_mean(x, kernel, strides, pads, ceil, padding):
    """Return ONNX's AveragePool, window by window."""
    places = []
    for axis in range(2):
        size, before, after = x.shape[2 + axis], pads[axis], pads[axis + 2]
        span = size + before + after - kernel[axis]
        count = (-(-span // strides[axis]) if ceil else span // strides[axis]) + 1
        if ceil and (count - 1) * strides[axis] >= size + before:
            count -= 1
        starts = [i * strides[axis] - before for i in range(count)]
        counted = [
            (max(s, 0), min(s + kernel[axis], size), min(s + kernel[axis], size + after) - s)
            for s in starts
        ]
        places.append(counted)
    rows = []
    for top, bottom, tall in places[0]:
        row = []
        for left, right, wide in places[1]:
            part = x[:, :, top:bottom, left:right]
            area = tall * wide if padding else part.shape[2] * part.shape[3]
            row.append(part.sum((2, 3)) / area)
        rows.append(np.stack(row, -1))
    return np.stack(rows, -2)


@pytest.mark.parametrize("shared", ["none", "pixels", "channels", "rows"])
def test_gates(shared):
    shape = (5, 4, 3)
    sigmoid = partial(UNARY["Sigmoid"], {})
    nodes, gate = [], "b"
    if shared != "none":
        axes = {"pixels": [2, 3], "channels": [1], "rows": [3]}[shared]
        nodes = quantised("ReduceMax", "qb", inputs=["b"], attributes={"axes": axes})
        nodes += [{"op": "dequantize", "inputs": ["qb"], "output": "qb.float"}]
        gate = "qb.float"
    nodes += [{"op": "Sigmoid", "inputs": [gate], "output": "gate"}]
    nodes += [{"op": "Mul", "inputs": ["a", "gate"], "output": "product"}]
    nodes += [{"op": "quantize", "inputs": ["product"], "output": "y"}]
    network = made(nodes, shape, {"y": OUT, "qb": GRID})
    a, b = network.tensor("a"), network.tensor(gate.removesuffix(".float"))
    exact = a.astype(np.float64) * sigmoid(b.astype(np.float64)) / OUT["scale"] + 40
    found = network.tensor("y") / OUT["scale"] + 40
    assert np.abs(found - np.clip(exact, 0, 127)).max() <= 0.501
    if shared == "none":
        assert network.float_operations == []
        bound = 1e3
        # Kernels give what the plan's operands are, whatever their bound.
        operands = of_floats(bound, None), of_floats(bound, sigmoid)
        near = to_values(product_codes(operands, (a, b), OUT), OUT)
        assert (network.tensor("y") != near).mean() < 0.01


def native_layer(name, arrays, out_shape, dtype, *numbers):
    """Return what one native layer makes of arrays (batch, height, width, channels)."""
    native = Native(threads=3)
    buffers = [native.buffer(a.nbytes) for a in arrays]
    for buffer, array in zip(buffers, arrays, strict=True):
        native.array(buffer, array.shape, array.dtype)[...] = array
    out = native.buffer(int(np.prod(out_shape)) * np.dtype(dtype).itemsize)
    native.layer(name, *buffers, out, *numbers)
    native.run()
    return native.array(out, out_shape, dtype).copy()


def form(operand, by_pixel=True, by_channel=True):
    return operand_form(operand, (by_pixel, by_channel))


@pytest.mark.parametrize("kinds", [("codes", "curve"), ("table", "floats"), ("curve", "curve")])
@pytest.mark.parametrize("reach", [(True, True), (False, True), (True, False)])
def test_a_gate_gives_the_bits_of_its_operands(kinds, reach):
    rng = np.random.default_rng(0)
    tanh = partial(UNARY["Tanh"], {})
    make = {
        "codes": lambda: of_codes(GRID, None), "table": lambda: of_codes(GRID, tanh),
        "floats": lambda: of_floats(7.0, None), "curve": lambda: of_floats(7.0, tanh),
    }  # fmt: skip
    operands = [make[kind]() for kind in kinds]
    shapes = (2, 4, 3, 5), (2, *([4, 3] if reach[0] else [1, 1]), 5 if reach[1] else 1)
    arrays = [
        rng.integers(0, 256, shape).astype(np.uint8)
        if kind in ("codes", "table")
        else (rng.standard_normal(shape) / 4).astype(np.float32)
        for kind, shape in zip(kinds, shapes, strict=True)
    ]
    shift, multiplier = product_numbers(operands, OUT)
    found = native_layer(
        "gate", arrays, (2, 4, 3, 5), np.uint8, 2, 12, 5, *form(operands[0]),
        *form(operands[1], *reach), shift, float(multiplier), 40, 127,
    )  # fmt: skip
    np.testing.assert_array_equal(found, product_codes(operands, arrays, OUT))
    assert len(np.unique(found)) > 10


def test_resampling_gives_the_bits_of_its_taps():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 5, 4, 3)).astype(np.float32)
    matrices = (np.float32([[0.25, 0.75, 0, 0, 0], [0, 0, 0.1, 0.9, 0], [0, 0, 0, 0, 1]]), None)
    axes = [None if m is None else matrix_taps(m) for m in matrices]
    rows, columns = image_taps(axes, (5, 4), "y")
    operand = of_floats(5.0, None, positive=True)
    lift, multiplier = resample_numbers(operand, OUT)
    taps = [v for t in (rows, columns) for v in (t.weights.shape[1], t.first, t.weights.ravel())]
    found = native_layer(
        "resample", [x], (2, 3, 4, 3), np.uint8, 2, 5, 4, 3, 3, 4, *form(operand), lift, *taps,
        float(multiplier), 40, 0, 127,
    )  # fmt: skip
    wanted = resampled(operand, x.transpose(0, 3, 1, 2), rows, columns, OUT)
    np.testing.assert_array_equal(found, wanted.transpose(0, 2, 3, 1))


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_norms_give_the_bits_of_their_numbers(groups):
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((3, 7, 5, 6)) * 3 - 1).astype(np.float32)
    gain, bias = (rng.standard_normal(6).astype(np.float32) for _ in range(2))
    norm = norm_numbers(40.0, groups, 1e-5, gain, bias, 35, positive=groups == 2)
    found = native_layer(
        "norm", [x], x.shape, np.float32, 3, 35, 6, groups, norm.point, norm.low, norm.limit,
        norm.shift, norm.epsilon, norm.gain, norm.bias,
    )  # fmt: skip
    wanted = normalised(norm, x.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(found, wanted)
