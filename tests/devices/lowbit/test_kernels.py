"""Every kernel against NumPy, bit by bit, over random shapes, strides, groups and bits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from devices.lowbit.build import find_compiler
from devices.lowbit.library import CODES, FLOATS, SUMS, ConvSpec, Native, features, restrict
from search_spaces.errors import EnvironmentProblem, InputError
from tests.devices.lowbit import reference

try:
    find_compiler()
except EnvironmentProblem:  # pragma: no cover
    pytest.skip("no compiler on this machine", allow_module_level=True)

WEIGHTS = {
    "1": [0, 1],
    "1 negative": [-1, 0],
    "1 signs": [-1, 1],
    "2": [-2, -1, 0, 1],
    "3": list(range(-4, 4)),
    "4": list(range(-8, 8)),
    "7": list(range(-64, 65)),
    "8": list(range(-128, 128)),
}
SLOW = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)


@st.composite
def convolutions(draw):
    """A convolution with its weights' alphabet; depthwise, grouped, pointwise or dense."""
    style = draw(st.sampled_from(["dense", "dense", "pointwise", "grouped", "depthwise", "linear"]))
    groups = {"grouped": draw(st.integers(2, 3))}.get(style, 1)
    inner, outer = draw(st.integers(1, 40)), draw(st.integers(1, 70))
    kernel = (draw(st.sampled_from([1, 2, 3, 5])), draw(st.sampled_from([1, 3, 5])))
    if style in ("pointwise", "linear"):
        kernel = (1, 1)
    channels, outputs = inner * groups, outer * groups
    if style == "depthwise":
        groups = channels = outputs = draw(st.integers(2, 70))
    bits = draw(st.integers(1, 8))
    largest = 2**bits - 1
    dilation = draw(st.sampled_from([(1, 1), (1, 1), (2, 1)]))
    pads = tuple(draw(st.integers(0, 2)) for _ in range(4))
    size = [1, 1]
    if style != "linear":
        size = [
            max(draw(st.integers(1, 9)), dilation[i] * (kernel[i] - 1) + 1 - pads[i] - pads[i + 2])
            for i in range(2)
        ]
    spec = ConvSpec(
        batch=draw(st.integers(1, 3)),
        height=size[0],
        width=size[1],
        channels=channels,
        outputs=outputs,
        kernel=kernel,
        stride=(draw(st.integers(1, 3)), draw(st.integers(1, 2))),
        pads=(0, 0, 0, 0) if style == "linear" else pads,
        dilation=dilation,
        groups=groups,
        largest=largest,
        zero_point=draw(st.integers(0, largest)),
    )
    return spec, draw(st.sampled_from(sorted(WEIGHTS))), draw(st.integers(0, 2**31))


def data(spec, weights, seed):
    """Random codes; a tenth of the cases at their extremes, where sums overflow first."""
    rng = np.random.default_rng(seed)
    shape = (spec.outputs, spec.channels // spec.groups, *spec.kernel)
    codes = rng.choice(np.array(WEIGHTS[weights], np.int8), shape)
    x = rng.integers(0, spec.largest + 1, (spec.batch, spec.height, spec.width, spec.channels))
    if seed % 5 == 0:
        codes[...] = WEIGHTS[weights][0 if seed % 2 else -1]
        x[...] = spec.largest
    return x.astype(np.uint8), codes


def run(x, codes, spec, *, threads=1, **numbers):
    """Yield (kernel, output) for every kernel that can run the layer."""
    net = Native(threads)
    dtype = {CODES: np.uint8, FLOATS: np.float32, SUMS: np.int32}[spec.kind]
    shape = (spec.batch, *spec.out_size, spec.outputs)
    source = net.buffer(x.size)
    target = net.buffer(int(np.prod(shape)) * np.dtype(dtype).itemsize)
    layer = net.conv(source, target, spec, codes, **numbers)
    net.array(source, x.shape, np.uint8)[...] = x
    out = net.array(target, shape, dtype)
    for kernel in net.kernels(layer):
        net.choose(layer, kernel)
        out[...] = 77
        net.run()
        yield kernel, out.copy()


@SLOW
@given(convolutions())
def test_sums_are_exact(case):
    spec, weights, seed = case
    spec = replace(spec, kind=SUMS)
    x, codes = data(*(spec, weights, seed))
    expected = reference.conv_sums(x, codes, spec)
    kernels = []
    for kernel, got in run(x, codes, spec, threads=1 + seed % 2):
        np.testing.assert_array_equal(got, expected, err_msg=kernel)
        kernels.append(kernel)
    assert any("portable" in kernel for kernel in kernels)


@SLOW
@given(convolutions(), st.sampled_from(["identity", "hard_swish", "hard_sigmoid"]))
def test_codes_are_exact(case, function):
    spec, weights, seed = case
    rng = np.random.default_rng(seed)
    low, high = sorted(rng.integers(0, 256, 2).tolist())
    spec = replace(
        spec,
        function=function,
        out_zero_point=int(rng.integers(0, 256)),
        out_low=low,
        out_high=high,
        scale=1.0 if function == "identity" else float(np.float32(rng.uniform(0.01, 1))),
    )
    x, codes = data(spec, weights, seed)
    sums = reference.conv_sums(x, codes, spec)
    factor = rng.integers(1, 60, spec.outputs) if seed % 3 else np.ones(spec.outputs, int)
    spread = max(1, int(np.abs(sums * factor).max()))
    bias = rng.integers(-spread, spread + 1, spec.outputs)
    multiplier = (rng.uniform(0.2, 2, spec.outputs) * 128 / spread).astype(np.float32)
    expected = reference.finish(sums * factor + bias, multiplier, spec)
    numbers = dict(factor=factor, bias=bias, multiplier=multiplier)
    for kernel, got in run(x, codes, spec, **numbers):
        np.testing.assert_array_equal(got, expected, err_msg=kernel)


@pytest.mark.parametrize("activation_bits", [4, 5, 8])
@pytest.mark.parametrize("weights", ["1 signs", "2", "3", "4"])
def test_few_bits_have_table_kernels(weights, activation_bits):
    spec = ConvSpec(channels=64, outputs=64, largest=2**activation_bits - 1, kind=SUMS)
    x, codes = data(spec, weights, 1)
    names = [kernel for kernel, _ in run(x, codes, spec)]
    assert any("tables" in name for name in names)
    if len(features()) > 1:
        assert sum("tables" in name for name in names) >= 2


def test_long_sums_do_not_overflow():
    """More inner products than 16-bit sums hold, at the largest codes, in every kernel."""
    for weights in WEIGHTS:
        for largest in (15, 31, 255):
            for code in (WEIGHTS[weights][0], WEIGHTS[weights][-1]):
                spec = ConvSpec(channels=4612, outputs=33, largest=largest, kind=SUMS, batch=3)
                codes = np.full((33, 4612, 1, 1), code, np.int8)
                codes[0] = WEIGHTS[weights][0]  # so that the alphabet stays what it is
                codes[1] = WEIGHTS[weights][-1]
                x = np.full((3, 1, 1, 4612), largest, np.uint8)
                expected = reference.conv_sums(x, codes, spec)
                for kernel, got in run(x, codes, spec):
                    np.testing.assert_array_equal(got, expected, err_msg=kernel)


def test_threads_share_tiles_or_outputs():
    rng = np.random.default_rng(0)
    for shape in (
        dict(channels=64, outputs=300, batch=1),
        dict(channels=16, outputs=40, height=30, width=31, kernel=(3, 3), pads=(1, 1, 1, 1)),
        dict(channels=48, outputs=48, groups=48, height=9, width=9, kernel=(3, 3)),
    ):
        spec = ConvSpec(**shape, largest=15, zero_point=3, kind=SUMS)
        x, codes = data(spec, "2", int(rng.integers(1, 1000)) * 10 + 1)
        expected = reference.conv_sums(x, codes, spec)
        for threads in (1, 2, 5):
            for kernel, got in run(x, codes, spec, threads=threads):
                np.testing.assert_array_equal(got, expected, err_msg=f"{kernel}, {threads}")


def test_portable_kernels_alone_give_the_same():
    spec = ConvSpec(channels=20, outputs=9, height=6, width=5, kernel=(3, 3), largest=15, kind=SUMS)
    x, codes = data(spec, "2", 3)
    expected = dict(run(x, codes, spec))
    restrict("portable")
    try:
        assert features() == ("portable",)
        alone = dict(run(x, codes, spec))
    finally:
        restrict("")
    assert alone and set(alone) <= set(expected)
    for kernel, got in alone.items():
        np.testing.assert_array_equal(got, expected[kernel])


def test_float_output_is_the_scaled_sum():
    spec = ConvSpec(channels=12, outputs=7, kind=FLOATS, zero_point=9)
    x, codes = data(spec, "8", 11)
    sums = reference.conv_sums(x, codes, spec)
    for _, got in run(x, codes, spec, multiplier=0.125, bias=np.arange(7)):
        np.testing.assert_array_equal(got, ((sums + np.arange(7)) * 0.125).astype(np.float32))


def _unary(x, size, add):
    net = Native()
    source, target = net.buffer(x.size), net.buffer(size)
    net.array(source, x.shape, np.uint8)[...] = x
    add(net, source, target)
    net.run()
    return net.array(target, (size,), np.uint8).copy()


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(0, 2**31))
def test_elementwise_layers(seed):
    rng = np.random.default_rng(seed)
    batch, pixels, channels = (int(n) for n in rng.integers(1, 40, 3))
    za, zb, zero = (int(n) for n in rng.integers(0, 256, 3))
    low, high = sorted(int(n) for n in rng.integers(0, 256, 2))
    ma, mb = (float(np.float32(v)) for v in rng.uniform(0.001, 2, 2))
    a, b = (rng.integers(0, 256, (batch, pixels, channels)).astype(np.uint8) for _ in range(2))
    gate = rng.integers(0, 256, (batch, 1, channels)).astype(np.uint8)
    limits = dict(zero_point=zero, low=low, high=high)
    net = Native(1 + seed % 2)
    buffers = [net.buffer(v.size) for v in (a, b, gate)]
    for buffer, v in zip(buffers, (a, b, gate), strict=True):
        net.array(buffer, v.shape, np.uint8)[...] = v
    outs = [net.buffer(a.size) for _ in range(4)]
    tail = (zero, low, high)
    net.layer("sum", buffers[0], buffers[1], outs[0], a.size, ma, mb, -ma * za, low, high)
    net.layer(
        "product", buffers[0], buffers[2], outs[1], batch, pixels, channels, za, zb, ma / 99, *tail
    )
    net.layer("mean", buffers[0], outs[2], batch, pixels, channels, za, ma / pixels, *tail)
    net.layer("rescale", buffers[0], outs[3], a.size, za, ma, mb, *tail)
    net.run()
    got = [net.array(o, a.shape, np.uint8) for o in outs]
    np.testing.assert_array_equal(
        got[0],
        reference.add_codes(a, b, ma=ma, mb=mb, constant=np.float32(-ma * za), low=low, high=high),
    )
    np.testing.assert_array_equal(
        got[1], reference.multiply_codes(a, gate, za=za, zb=zb, m=np.float32(ma / 99), **limits)
    )
    np.testing.assert_array_equal(
        got[2].reshape(-1)[: batch * channels].reshape(batch, channels),
        reference.mean_codes(a, zero_point_in=za, m=np.float32(ma / pixels), **limits),
    )
    centred = (a.astype(np.int32) - za).astype(np.float32) * np.float32(ma) / np.float32(mb)
    np.testing.assert_array_equal(got[3], reference.to_codes(centred, zero, low, high))


def test_quantise_turns_planes_into_channels():
    rng = np.random.default_rng(4)
    x = rng.normal(0, 3, (2, 3, 4, 5)).astype(np.float32)
    net = Native()
    source, target = net.buffer(x.nbytes), net.buffer(x.size)
    net.array(source, x.shape, np.float32)[...] = x
    net.layer("quantise", source, target, 2, 3, 20, 0.05, 100, 255)
    net.run()
    expected = reference.to_codes(x / np.float32(0.05), 100, 0, 255).transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(net.array(target, (2, 4, 5, 3), np.uint8), expected)


def test_max_pool_map_planar_and_copy():
    rng = np.random.default_rng(5)
    x = rng.integers(0, 256, (1, 5, 6, 3)).astype(np.uint8)
    pooled = _unary(
        x, 3 * 3 * 3, lambda n, s, t: n.layer("max_pool", s, t, 1, 5, 6, 3, 3, 3, 2, 2, 1, 1, 1, 1)
    )
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    expected = np.array(
        [[padded[0, i : i + 3, j : j + 3].max((0, 1)) for j in (0, 2, 4)] for i in (0, 2, 4)]
    )
    np.testing.assert_array_equal(pooled.reshape(3, 3, 3), expected)
    table = rng.integers(0, 256, 256).astype(np.uint8)
    mapped = _unary(x, x.size, lambda n, s, t: n.map(s, t, x.size, table))
    np.testing.assert_array_equal(mapped.reshape(x.shape), table[x])
    planar = _unary(x, x.size, lambda n, s, t: n.layer("planar", s, t, 1, 30, 3))
    np.testing.assert_array_equal(planar.reshape(3, 5, 6), x[0].transpose(2, 0, 1))
    copied = _unary(x, 30 * 5, lambda n, s, t: n.layer("copy", s, t, 30, 2, 3, 1, 5, 3))
    np.testing.assert_array_equal(copied.reshape(30, 5)[:, 3:], x.reshape(30, 3)[:, 1:])


def test_bad_layers_are_refused_with_a_reason():
    net = Native()
    small, big = net.buffer(4), net.buffer(4096)
    codes = np.zeros((8, 16, 1, 1), np.int8)
    with pytest.raises(InputError, match="input buffer is too small"):
        net.conv(small, big, ConvSpec(channels=16, outputs=8), codes)
    with pytest.raises(InputError, match="zero point"):
        spec = ConvSpec(channels=16, outputs=8, largest=15, zero_point=16)
        net.conv(big, big, spec, codes)
    with pytest.raises(InputError, match="shape"):
        net.conv(big, big, ConvSpec(channels=16, outputs=9), codes)
    with pytest.raises(InputError, match="32 bits"):
        net.conv(big, big, ConvSpec(channels=16, outputs=8), codes + 9, factor=2**20)
    with pytest.raises(InputError, match="no buffer 7"):
        net.layer("rescale", 7, big, 4, 0, 1.0, 1.0, 0, 0, 255)
    with pytest.raises(InputError, match="restrict"):
        restrict("sse")
