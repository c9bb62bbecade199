"""Functions of floats, norms, gates and images of other sizes in C: the low-bit runtime's bits."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from torch import nn

from devices.lowbit.network import LowBitNetwork
from nas.models.c_project.lowering import lower
from nas.models.c_project.project import write_c_project
from search_spaces.errors import InputError
from search_spaces.model_files.packing import pack_onnx
from supernet.network import Supernet
from supernet.onnx.export import export_onnx
from supernet.own_model.wrap import wrap

CHANNELS = 6


# The outputs that a project is compared with come from the low-bit runtime.
pytestmark = pytest.mark.usefixtures("needs_compiler")


def floats(b, source, name, kernel=(3, 3)):
    """Add a layer whose sums stay floats, ``name``."""
    b.conv(source, name, CHANNELS, kernel)
    del b.grids[name]
    return name


def quantised(b, floats_, name, scale=0.05, shape=None):
    b.node("quantize", [floats_], name)
    b.grid(name, 8, scale)
    b.shapes[name] = shape or b.shapes[floats_]
    return name


def constant(value):
    return {"constants": {"c": np.asarray(value, np.float32).tolist()}}


def functions(b):
    """SiLU and leaky ReLU of sums, one of them read twice; PReLU; a table of two functions."""
    x = floats(b, "q", "f")
    b.node("Sigmoid", [x], "f.s")
    b.node("Mul", [x, "f.s"], "f.silu")
    first = quantised(b, "f.silu", "silu")
    b.node("LeakyRelu", [x], "f.leaky")
    second = quantised(b, "f.leaky", "leaky")
    b.node("add", [first, second], "sum")
    b.grid("sum", 8, 0.1)
    y = floats(b, "sum", "g")
    slopes = b.rng.uniform(-1, 1, (CHANNELS, 1, 1))
    b.node("PRelu", [y, "c"], "g.p", **constant(slopes))
    third = quantised(b, "g.p", "prelu")
    b.node("dequantize", [third], "prelu.f")
    b.node("Tanh", ["prelu.f"], "t")
    b.node("Exp", ["t"], "e")
    return quantised(b, "e", "table", 0.01)


def pools(b):
    """Pools that count less at the border, or round up; the largest of a map."""
    b.conv("q", "a", CHANNELS, (3, 3))
    b.node("dequantize", ["a"], "a.f")
    form = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 0, 1, 1]}
    b.node("AveragePool", ["a.f"], "m", attributes={**form, "ceil_mode": 1})
    quantised(b, "m", "mean", 0.06, (CHANNELS, 6, 5))
    b.node("MaxPool", ["a.f"], "x", attributes={**form, "pads": [0] * 4, "ceil_mode": 1})
    quantised(b, "x", "most", 0.04, (CHANNELS, 5, 4))
    b.conv("mean", "c", CHANNELS, (2, 2), pads=(0, 0, 0, 0))
    b.node("add", ["c", "most"], "sum")
    b.grid("sum", 8, 0.1)
    b.node("dequantize", ["sum"], "sum.f")
    axes = {"constants": {"c": [2, 3]}, "attributes": {"keepdims": 1}}
    b.node("ReduceMax", ["sum.f", "c"], "largest", **axes)
    quantised(b, "largest", "largest.q", 0.08, (CHANNELS, 1, 1))
    b.node("dequantize", ["largest.q"], "largest.f")
    b.node("Mul", ["sum.f", "largest.f"], "p")
    return quantised(b, "p", "product", 0.3, (CHANNELS, 5, 4))


def gates(b):
    """Gates of a map, of its channels, of its pixels, and halves of one layer."""
    x = floats(b, "q", "x")
    b.node("Sigmoid", [floats(b, "q", "g")], "g.s")
    b.node("Mul", [x, "g.s"], "glu")
    quantised(b, "glu", "q1")
    b.node("global_average_pool", ["q1"], "level")
    b.grid("level", 8, 0.02)
    b.shapes["level"] = (CHANNELS, 1, 1)
    b.node("Sigmoid", [floats(b, "level", "u", (1, 1))], "u.s")
    b.node("dequantize", ["q1"], "q1.f")
    b.node("Mul", ["q1.f", "u.s"], "squeezed")
    quantised(b, "squeezed", "q2", shape=b.shapes["q1"])
    b.conv("q2", "spot", 1, (3, 3))
    b.node("dequantize", ["spot"], "spot.f")
    b.node("Sigmoid", ["spot.f"], "spot.s")
    b.node("dequantize", ["q2"], "q2.f")
    b.node("Mul", ["spot.s", "q2.f"], "attended")
    quantised(b, "attended", "q3", shape=b.shapes["q1"])
    y = floats(b, "q3", "halves")
    for i, function in enumerate(("Tanh", "Sigmoid")):
        cut = {"constants": {"b": [3 * i], "e": [3 * i + 3], "a": [1]}}
        b.node("Slice", [y, "b", "e", "a"], f"half{i}", **cut)
        b.node(function, [f"half{i}"], f"half{i}.f")
    b.node("Mul", ["half0.f", "half1.f"], "last")
    return quantised(b, "last", "q4", 0.01, (3, 11, 9))


def of_codes(b):
    """A norm and a PReLU of codes, as networks have them that were trained with points there."""
    b.conv("q", "a", CHANNELS, (3, 3))
    b.node("dequantize", ["a"], "a.f")
    numbers = {k: b.rng.uniform(-2, 2, CHANNELS).tolist() for k in "gb"}
    b.node("InstanceNormalization", ["a.f", "g", "b"], "n", constants=numbers)
    quantised(b, "n", "q1", 0.03, b.shapes["a"])
    b.node("dequantize", ["q1"], "q1.f")
    slopes = b.rng.uniform(-1, 1, (CHANNELS, 1, 1))
    b.node("PRelu", ["q1.f", "c"], "p", **constant(slopes))
    return quantised(b, "p", "q2", 0.02, b.shapes["a"])


def norms(b):
    """An instance norm and a group norm as exporters write it, each before a function."""
    x = floats(b, "q", "x")
    numbers = {k: b.rng.uniform(-2, 2, CHANNELS).tolist() for k in "gb"}
    b.node("InstanceNormalization", [x, "g", "b"], "n", constants=numbers)
    b.node("Relu", ["n"], "n.r")
    quantised(b, "n.r", "q1", 0.03)
    y = floats(b, "q1", "y")
    b.node("Reshape", [y, "s"], "apart", constants={"s": [0, 2, -1]})
    b.node("InstanceNormalization", ["apart", "g", "b"], "m",
           constants={"g": [1.0, 1.0], "b": [0.0, 0.0]})  # fmt: skip
    b.node("Reshape", ["m", "s"], "back", constants={"s": [0, CHANNELS, 11, 9]})
    b.node("Mul", ["back", "c"], "scaled", **constant(b.rng.uniform(-2, 2, (CHANNELS, 1, 1))))
    b.node("Add", ["scaled", "c"], "moved", **constant(b.rng.uniform(-1, 1, (CHANNELS, 1, 1))))
    b.node("Sigmoid", ["moved"], "moved.s")
    b.node("Mul", ["moved", "moved.s"], "silu")
    return quantised(b, "silu", "q2", 0.02, (CHANNELS, 11, 9))


def moved(b):
    """Floats that are shuffled, cut and pooled before a function or a norm reads them."""
    b.conv("q", "x", 8, (3, 3))
    del b.grids["x"]
    b.node("DepthToSpace", ["x"], "d", attributes={"blocksize": 2, "mode": "CRD"})
    cut = {"constants": {"b": [1], "e": [-2], "a": [3]}}
    b.node("Slice", ["d", "b", "e", "a"], "s", **cut)
    b.node("Slice", ["d", "b", "e", "a"], "again", **cut)
    b.node("Sigmoid", ["s"], "g")
    b.node("Mul", ["again", "g"], "silu")
    quantised(b, "silu", "q1", 0.05, (2, 22, 15))
    b.conv("q1", "y", 8, (3, 3))
    del b.grids["y"]
    b.node("Relu", ["y"], "r")
    numbers = {k: b.rng.uniform(-2, 2, 8).tolist() for k in "gb"}
    b.node("InstanceNormalization", ["r", "g", "b"], "n", constants=numbers)
    quantised(b, "n", "q2", 0.05, (8, 22, 15))
    b.conv("q2", "z", 8, (3, 3))
    del b.grids["z"]
    b.node("Relu", ["z"], "z.r")
    b.node("MaxPool", ["z.r"], "p", attributes={"kernel_shape": [3, 3], "strides": [2, 2]})
    return quantised(b, "p", "q3", 0.05, (8, 10, 7))


def enlarged(b):
    """A map twice and half again as large, by interpolation, of floats and of codes."""
    rows, columns = (weights(11, 22), weights(9, 13))
    b.node("Relu", [floats(b, "q", "x")], "x.r")
    b.node("MatMul", ["x.r", "w"], "wide", constants={"w": columns.T.tolist()})
    b.node("MatMul", ["h", "wide"], "large", constants={"h": rows.tolist()})
    quantised(b, "large", "q1", 0.04, (CHANNELS, 22, 13))
    b.conv("q1", "a", CHANNELS, (3, 3), strides=(2, 2))
    b.node("dequantize", ["a"], "a.f")
    b.node("MatMul", ["h", "a.f"], "tall", constants={"h": rows.tolist()})
    b.node("Relu", ["tall"], "tall.r")
    return quantised(b, "tall.r", "q2", 0.04, (CHANNELS, 22, 7))


def weights(size, out):
    """Return linear interpolation along one axis, (out, size)."""
    places = np.clip((np.arange(out) + 0.5) * size / out - 0.5, 0, size - 1)
    first = np.minimum(places.astype(int), size - 2)
    made = np.zeros((out, size))
    made[np.arange(out), first] = 1 - (places - first)
    made[np.arange(out), first + 1] = places - first
    return made


PARTS = {f.__name__: f for f in (functions, pools, gates, of_codes, norms, moved, enlarged)}


def network(builder, name):
    b = builder(np.random.default_rng(2), (3, 11, 9), 4)
    last = PARTS[name](b)
    b.node("dequantize", [last], "last.f")
    b.node("GlobalAveragePool", ["last.f"], "means")
    b.node("Flatten", ["means"], "y")
    return b.model("y")


@pytest.mark.parametrize("name", PARTS)
def test_it_is_exact_and_clean_under_sanitizers(builder, make, c_compiler, tmp_path, name):
    model = network(builder, name)
    assert LowBitNetwork(model, rounds=0).float_operations == []
    write_c_project(model, tmp_path)
    done = make(tmp_path, "-s", "sanitize", f"CC={c_compiler}")
    assert done.returncode == 0, done.stdout
    assert "PASS 3 of 3" in done.stdout


@pytest.mark.parametrize("target", ["cortex-m4", "rv32imc"])
@pytest.mark.parametrize("name", PARTS)
def test_microcontrollers_compute_the_same(builder, make, tmp_path, name, target):
    tools = {
        "cortex-m4": ("arm-none-eabi-gcc", "qemu-system-arm"),
        "rv32imc": ("riscv64-unknown-elf-gcc", "qemu-system-riscv32"),
    }
    missing = [tool for tool in tools[target] if not shutil.which(tool)]
    if missing:
        pytest.skip(f"{', '.join(missing)} is not installed; see docs/export-formats.md")
    write_c_project(network(builder, name), tmp_path)
    done = make(tmp_path, "-s", "run", f"TARGET={target}")
    assert done.returncode == 0, done.stdout
    assert "PASS 3 of 3" in done.stdout


def test_a_function_that_alone_follows_takes_no_memory(builder, tmp_path):
    """Sums become codes at once: a byte each, where floats would take four."""
    b = builder(np.random.default_rng(0), (3, 11, 9), 4)
    x = floats(b, "q", "x")
    b.node("LeakyRelu", [x], "l")
    program = lower(b.model(quantised(b, "l", "y")))
    assert program.sizes[:2] == (3 * 11 * 9, CHANNELS * 11 * 9)


def test_tables_are_counted(builder, tmp_path):
    report = write_c_project(network(builder, "functions"), tmp_path)
    model = (tmp_path / "model.c").read_text()
    sizes = {"uint8_t": 1, "int32_t": 4, "uint32_t": 4}
    counted = 0
    for line in model.splitlines():
        words = line.split()
        if line.startswith("static const") and words[2] in sizes and "[" in words[3]:
            name, count = words[3].removesuffix("]").split("[")
            counted += sizes[words[2]] * int(count) * (not name.startswith("weights"))
    assert report.table_bytes == counted > 1500


def test_products_of_rows_and_columns_are_refused(builder):
    b = builder(np.random.default_rng(0), (3, 11, 9), 4)
    b.conv("q", "row", 3, (1, 9), pads=(0, 0, 0, 0))
    b.conv("q", "column", 3, (11, 1), pads=(0, 0, 0, 0))
    for name in ("row", "column"):
        b.node("dequantize", [name], f"{name}.f")
        b.node("Sigmoid", [f"{name}.f"], f"{name}.s")
    b.node("Mul", ["row.s", "column.s"], "p")
    model = b.model(quantised(b, "p", "y", shape=(3, 11, 9)))
    with pytest.raises(InputError, match="share numbers between all pixels or all channels"):
        lower(model)
    # The low-bit runtime has them.
    assert LowBitNetwork(model, rounds=0).float_operations == []


class Functions(nn.Module):
    """Functions of codes and of sums, and a gate."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.c, self.d = nn.Linear(8, 8), nn.Linear(8, 5)

    def forward(self, x):
        """``x``: (batch, 3, height, width) -> (batch, 5)."""
        x = nn.functional.silu(self.a(x))
        x = (x * torch.sigmoid(self.b(x))).mean((2, 3))
        return self.d(torch.tanh(self.c(x)))


def test_the_promise_of_a_network_of_ones_own_holds_its_tables(make, c_compiler, tmp_path):
    torch.manual_seed(0)
    space = wrap(
        Functions(), input_shape=(3, 16, 16), weight_bits=(4, 8), activation_bits=(8,)
    )  # fmt: skip
    plan = space.plan(space.largest())
    supernet, images = Supernet(space), torch.randn(16, 3, 16, 16)
    with torch.no_grad():
        trained = supernet.extract(plan, supernet.statistics(plan, [images])).eval()
    export_onnx(trained, tmp_path / "m.onnx")
    model = pack_onnx(tmp_path / "m.onnx", tmp_path / "m.lowbit")
    report = write_c_project(model, tmp_path / "c", storage="fields")
    constants = report.weight_bytes + report.channel_bytes + report.table_bytes
    promised = 1024 * plan.flash_kib
    assert report.table_bytes > 1000 and constants <= promised <= 1.2 * constants
    assert make(tmp_path / "c", "-s", "run", f"CC={c_compiler}").returncode == 0
