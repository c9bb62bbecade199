"""What is compared: one layer in ONNX Runtime (int8, float) and in the low-bit runtime."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from devices.lowbit.library import ConvSpec, Native

Run = Callable[[], object]

WEIGHTS = {1: (-1, 1), 2: tuple(range(-2, 2)), 4: tuple(range(-8, 8)), 8: tuple(range(-64, 65))}
"""Codes by bits; 8 bits are kept to 7, as for ONNX Runtime without VNNI."""

GEMMS = (
    (3136, 64, 128),
    (784, 128, 256),
    (196, 256, 512),
    (49, 512, 1024),
    (196, 40, 240),
    (196, 240, 40),
    (784, 24, 144),
    (3136, 576, 64),
    (784, 1152, 128),
    (196, 2304, 256),
    (49, 4608, 512),
    (1, 1024, 4096),
)
"""Rows, inner size and outputs of layers of MobileNet and ResNet-18."""

CONVS = ((56, 64), (28, 128), (14, 256), (7, 512))
"""Side and channels of ResNet-18's 3x3 convolutions."""


@dataclass(frozen=True)
class Shape:
    """A layer: rows and sizes of a product, or side and channels of a 3x3 convolution."""

    name: str
    rows: int
    inner: int
    outputs: int
    side: int = 0

    @property
    def multiplications(self) -> int:
        return self.rows * self.inner * self.outputs * (9 if self.side else 1)

    def spec(self, largest: int) -> ConvSpec:
        if self.side:
            return ConvSpec(
                height=self.side,
                width=self.side,
                channels=self.inner,
                outputs=self.outputs,
                kernel=(3, 3),
                pads=(1, 1, 1, 1),
                largest=largest,
            )
        return ConvSpec(batch=self.rows, channels=self.inner, outputs=self.outputs, largest=largest)


SHAPES = tuple(Shape(f"{m},{k},{n}", m, k, n) for m, k, n in GEMMS) + tuple(
    Shape(f"conv3x3 {s}x{s}x{c}", s * s, c, c, s) for s, c in CONVS
)


class LowBit:
    """The low-bit runtime on one layer with random codes; the kernel is chosen by timing."""

    def __init__(self, shape: Shape, weight_bits: int, activation_bits: int, threads: int) -> None:
        rng = np.random.default_rng(0)
        spec = shape.spec(2**activation_bits - 1)
        x = rng.integers(0, spec.largest + 1, shape.rows * shape.inner).astype(np.uint8)
        alphabet = np.array(WEIGHTS[weight_bits], np.int8)
        codes = rng.choice(alphabet, (spec.outputs, spec.channels, *spec.kernel))
        self.net = Native(threads)
        source = self.net.buffer(x.size)
        target = self.net.buffer(shape.rows * shape.outputs)
        self.net.array(source, x.shape, np.uint8)[...] = x
        self.layer = self.net.conv(source, target, spec, codes, multiplier=0.01)
        self.kernels = [k for k in self.net.kernels(self.layer) if "portable" not in k]
        self.times: dict[str, float] = {}
        for _ in range(3):
            for kernel in self.kernels:
                self.net.choose(self.layer, kernel)
                took = self.net.time(self.layer, 5)
                self.times[kernel] = min(took, self.times.get(kernel, took))
        self.kernel = min(self.times, key=self.times.__getitem__)
        self.net.choose(self.layer, self.kernel)
        self.run: Run = self.net.runner()


def onnx_run(shape: Shape, kind: str, threads: int) -> Run:
    """Return a call of ONNX Runtime on one layer.

    Args:
        shape: the layer.
        kind: ``int8`` (QLinearMatMul; QLinearConv with channels last, without the
            transpositions that a layout of planes would cost it) or ``float``.
        threads: intra-operator threads.
    """
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    integer = kind == "int8"
    kernel = (3, 3) if shape.side else ()

    def grid(prefix: str, scale: float, zero: int, dtype: type) -> list[object]:
        made = [(f"{prefix}_s", np.float32(scale)), (f"{prefix}_z", dtype(zero))]
        return [numpy_helper.from_array(np.asarray(v), n) for n, v in made]

    if shape.side and not integer:
        dims = [1, shape.inner, shape.side, shape.side]
    elif shape.side:
        dims = [1, shape.side, shape.side, shape.inner]
    else:
        dims = [shape.rows, shape.inner]
    weight_dims = (
        (shape.outputs, shape.inner, *kernel) if shape.side else (shape.inner, shape.outputs)
    )
    if integer:
        x = rng.integers(0, 256, dims).astype(np.uint8)
        weight = rng.integers(-64, 65, weight_dims).astype(np.int8)
        constants = [
            *grid("x", 0.1, 3, np.uint8),
            *grid("w", 0.1, 0, np.int8),
            *grid("y", 0.1 * np.sqrt(shape.inner) * 30, 128, np.uint8),
        ]
        names = ["x", "x_s", "x_z", "w", "w_s", "w_z", "y_s", "y_z"]
        if shape.side:
            node = helper.make_node(
                "QLinearConv",
                names,
                ["y"],
                "n",
                domain="com.microsoft",
                channels_last=1,
                kernel_shape=[3, 3],
                pads=[1, 1, 1, 1],
                strides=[1, 1],
            )
        else:
            node = helper.make_node("QLinearMatMul", names, ["y"])
    else:
        x = rng.standard_normal(dims).astype(np.float32)
        weight = rng.standard_normal(weight_dims).astype(np.float32)
        constants = []
        if shape.side:
            node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])
        else:
            node = helper.make_node("MatMul", ["x", "w"], ["y"])
    element = TensorProto.UINT8 if integer else TensorProto.FLOAT
    graph = helper.make_graph(
        [node],
        "layer",
        [helper.make_tensor_value_info("x", element, dims)],
        [helper.make_tensor_value_info("y", element, None)],
        [numpy_helper.from_array(weight, "w"), *constants],
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)],
        ir_version=8,
    )
    return bound(ort_session(model.SerializeToString(), threads), {"x": x})


def ort_session(model: bytes | str, threads: int):
    """Return a session with spinning threads and all optimisations."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def bound(session, feed: Mapping[str, np.ndarray]) -> Run:
    """Return a call with inputs and outputs bound beforehand: the least of Python's overhead."""
    binding = session.io_binding()
    for name, value in feed.items():
        binding.bind_cpu_input(name, value)
    for output in session.get_outputs():
        binding.bind_output(output.name)
    binding._keep = list(feed.values())
    return lambda: session.run_with_iobinding(binding)


def interleave(runs: Mapping[str, Run], rounds: int) -> dict[str, np.ndarray]:
    """Time all contenders in turn; returns ms of each run, (rounds,), after warming up."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    clock = time.perf_counter_ns
    for turn in range(-3, rounds):
        for name, run in runs.items():
            run()  # warms this contender's data after the others ran
            start = clock()
            run()
            took = clock() - start
            if turn >= 0:
                times[name].append(took * 1e-6)
    return {name: np.array(values) for name, values in times.items()}
