"""float32 in integers is float32: each function of the C sources against NumPy."""

from __future__ import annotations

import ctypes
import subprocess
from importlib import resources

import numpy as np
import pytest


@pytest.fixture(scope="module")
def c(tmp_path_factory):
    import shutil

    compiler = shutil.which("gcc") or shutil.which("cc") or pytest.skip("no C compiler")
    folder = resources.files("nas.models.c_project") / "sources"
    target = tmp_path_factory.mktemp("c") / "arithmetic.so"
    shim = target.with_suffix(".c")
    shim.write_text(
        '#include "edge_nas_arithmetic.h"\n'
        "int32_t en_round_any(int32_t, int32_t, int, int32_t, int32_t);\n"
        "int32_t en_round_any(int32_t a, int32_t m, int s, int32_t l, int32_t h) {\n"
        "  return en_round(a, m, s, l, h); }\n"
    )
    sources = [folder / name for name in ("edge_nas_arithmetic.c", "edge_nas_operators.c")]
    command = [compiler, "-std=c99", "-shared", "-fPIC", "-O2", f"-I{folder}", "-o", str(target)]
    subprocess.run([*command, str(shim), *map(str, sources)], check=True)
    library = ctypes.CDLL(str(target))
    for name in ("en_float", "en_float_times", "en_float_plus", "en_float_over", "en_float_fma"):
        getattr(library, name).restype = ctypes.c_uint32
    return library


def floats(rng, count):
    """Numbers of networks: all mantissas, sizes from 2^-30 to 2^20, and some that are even."""
    values = rng.standard_normal(count) * 2.0 ** rng.integers(-30, 20, count)
    values[::7] = np.round(values[::7] * 4) / 4
    return values.astype(np.float32)


def bits(value) -> int:
    return int(np.float32(value).view(np.uint32))


def same(result: int, value: np.float32) -> bool:
    return result == bits(value) or (np.float32(value) == 0 and result & 0x7FFFFFFF == 0)


def test_operations_have_the_bits_of_float32(c):
    rng = np.random.default_rng(0)
    for a, b in zip(floats(rng, 4000), floats(rng, 4000), strict=True):
        x, y = ctypes.c_uint32(bits(a)), ctypes.c_uint32(bits(b))
        assert same(c.en_float_times(x, y), a * b)
        assert same(c.en_float_plus(x, y), a + b)
        assert b == 0 or same(c.en_float_over(x, y), a / b)
        # 32 bits times 24, plus 24: exact in two doubles at most, so rounded from long double.
        code = int(rng.integers(0, 256))
        fused = np.float32(np.longdouble(code) * np.longdouble(a) + np.longdouble(b))
        assert same(c.en_float_fma(code, x, y), fused)


def test_rounding_a_scaled_sum_is_that_of_float32(c):
    from nas.models.c_project.constants import multiplier

    rng = np.random.default_rng(1)
    scales = 2.0 ** rng.uniform(-20, 1, 6000)
    scales[::5] = 2.0 ** rng.integers(-12, 1, len(scales[::5]))  # which meet the middle exactly
    for scale in scales.astype(np.float32):
        mantissa, shift = multiplier(scale, "layer")
        acc = (
            int(rng.integers(-300, 300) / float(scale))
            if rng.random() < 0.8
            else int(rng.integers(-(2**31) + 1, 2**31 - 1))
        )
        acc = max(min(acc, 2**31 - 1), -(2**31) + 1)
        value = np.float32(acc) * scale
        expected = int(np.rint(np.clip(value, np.float32(-120), np.float32(135))))
        for function in (c.en_round_any, c.en_round_exactly):
            assert function(acc, mantissa, shift, -120, 135) == expected, (acc, scale)
        assert same(c.en_float(acc, mantissa, shift), value)


def test_softmax_and_class(c):
    rng = np.random.default_rng(2)
    for _ in range(50):
        logits = (rng.standard_normal(10) * rng.choice([0.1, 1, 5, 30])).astype(np.float32)
        found = np.zeros(10, np.uint16)
        values = logits.tobytes()
        c.en_softmax(values, 10, found.ctypes.data_as(ctypes.c_void_p))
        powers = np.exp(logits - logits.max())
        assert np.abs(found / 32768 - powers / powers.sum()).max() < 0.002
        assert c.en_argmax(values, 10) == logits.argmax()
