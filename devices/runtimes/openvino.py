"""OpenVINO: Intel processors and graphics, and Arm processors; reads ONNX as it is."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from devices.runtime import RUNTIMES, Runtime, Session, TensorSpec, existing_file, one_line
from devices.runtimes.widening import with_whole_bytes
from search_spaces.errors import EnvironmentProblem, InputError, MissingExtraError

_HINTS = {"file": "f32", "float32": "f32", "float16": "f16", "bfloat16": "bf16"}
_PRODUCTS = {"Convolution", "Deconvolution", "FullyConnected", "MatMul"}
_WEIGHTED = {"Convolution", "GroupConvolution", "ConvolutionBackpropData", "MatMul"}
_OF_CODES = {"Convert", "Subtract", "Multiply", "Reshape"}
"""Operators between codes and what reads their values."""


@RUNTIMES.register("openvino")
class OpenVino(Runtime):
    """ONNX and OpenVINO IR (``.xml`` beside its ``.bin``) files; QDQ pairs run on integers.

    Args:
        device: OpenVINO's name of it: "CPU", "GPU", "NPU".
        precision: arithmetic of the float operators; left to itself the library would choose
            bfloat16 or float16 where the processor has them, so "file" means float32.

    Raises:
        EnvironmentProblem: the machine has no such device.
    """

    name: ClassVar[str] = "openvino"
    formats: ClassVar[tuple[str, ...]] = (".onnx", ".xml")
    precisions: ClassVar[tuple[str, ...]] = tuple(_HINTS)

    def __init__(self, *, device: str = "CPU", **common: Any) -> None:
        super().__init__(**common)
        # Asked for by its name, the library would else send a usage event at import.
        os.environ.setdefault("OPENVINO_TELEMETRY", "0")
        try:
            import openvino
        except ImportError as error:
            raise MissingExtraError("openvino", "openvino") from error
        self._library = openvino
        self.device = device
        self._core = openvino.Core()
        available = self._core.available_devices
        if device.split(".")[0] not in {name.split(".")[0] for name in available}:
            raise EnvironmentProblem(
                f"OpenVINO {self.version} has no device {device!r} here "
                f"(available: {', '.join(available)})"
            )

    @property
    def version(self) -> str:
        """See :meth:`Runtime.version`: without the build."""
        return str(self._library.__version__).split("-")[0]

    @property
    def runs_on_cpu(self) -> bool:
        """See :meth:`Runtime.runs_on_cpu`: of the device."""
        return self.device == "CPU"

    def parameters(self) -> dict[str, Any]:
        """See :meth:`Runtime.parameters`: with the device."""
        return super().parameters() | {"device": self.device}

    def load(self, path: Path) -> Session:
        """See :meth:`Runtime.load`: compiled for the latency of one inference."""
        path = existing_file(path)
        properties: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": _HINTS[self.precision],
        }
        if self.runs_on_cpu:
            properties |= {
                "INFERENCE_NUM_THREADS": self.threads,
                "NUM_STREAMS": 1,
                # The protocol pins the process; the library would pin over it.
                "ENABLE_CPU_PINNING": False,
            }
        try:
            model = self._core.read_model(self._source(path))
            if path.suffix.lower() == ".onnx":
                keep_roundings(model)
            specs = [self._spec(port) for port in model.inputs]
            model.reshape({spec.name: list(spec.shape) for spec in specs})
            compiled = self._core.compile_model(model, self.device, properties)
        except RuntimeError as error:
            raise InputError(f"{path}: OpenVINO cannot load it: {one_line(error)}") from error
        return _OpenVinoSession(compiled, tuple(specs))

    def _source(self, path: Path) -> str | bytes:
        """Return what to read: ONNX with 2-bit weights, which the library refuses, is widened."""
        if path.suffix.lower() != ".onnx":
            return str(path)
        return with_whole_bytes(path, extra="openvino") or str(path)

    def _spec(self, port: Any) -> TensorSpec:
        shape = [dim.get_length() if dim.is_static else None for dim in port.get_partial_shape()]
        name = port.get_any_name()
        dtype = np.dtype(port.get_element_type().to_dtype()).name
        return TensorSpec(name, self.resolve_shape(name, shape), dtype)


def keep_roundings(model: Any) -> None:
    """Make OpenVINO round the outputs of convolutions that a sum reads, as the file says.

    Its processor plug-in drops that rounding where a convolution, its codes, a sum and the sum's
    codes become one kernel ("drop rounding one special residual pattern" in its sources,
    dnnl_postops_composer.cpp), and after some blocks the codes are others. It does so only if the
    codes come first after the convolution, so a PReLU with slope 1, which changes nothing and runs
    in the same kernel, is put between.

    Args:
        model: an ``openvino.Model`` as it was read; changed in place.
    """
    from openvino import opset13

    for node in model.get_ordered_ops():
        if node.get_type_name() == "FakeQuantize" and _of_weights(node) and _summed(node):
            source = node.input_value(0)
            one = opset13.constant(np.ones(1, source.get_element_type().to_dtype()))
            node.input(0).replace_source_output(opset13.prelu(source, one).output(0))


def _of_weights(node: Any) -> bool:
    """Whether a node's first input is a product with weights, or that and its bias."""
    source = node.input_value(0).get_node()
    if source.get_type_name() == "Add":
        source = source.input_value(0).get_node()
    return source.get_type_name() in _WEIGHTED


def _summed(node: Any) -> bool:
    """Whether a sum reads the values of a node's codes."""
    found = [target.get_node() for target in node.output(0).get_target_inputs()]
    while found:
        reader = found.pop()
        if reader.get_type_name() == "Add":
            return True
        if reader.get_type_name() in _OF_CODES:
            found += [target.get_node() for target in reader.output(0).get_target_inputs()]
    return False


class _OpenVinoSession(Session):
    def __init__(self, compiled: Any, inputs: tuple[TensorSpec, ...]) -> None:
        self._compiled = compiled
        self._request = compiled.create_infer_request()
        self.inputs = inputs

    def __call__(self, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        results = self._request.infer(
            {spec.name: array for spec, array in zip(self.inputs, arrays, strict=True)}
        )
        return tuple(np.array(results[port]) for port in self._compiled.outputs)

    def bind(self, *arrays: np.ndarray) -> Callable[[], object]:
        """See :meth:`Session.bind`: the library reads the arrays where they are."""
        from openvino import Tensor

        for spec, array in zip(self.inputs, arrays, strict=True):
            # Shared memory: the copy into the library's own tensor is no part of inference.
            array = np.require(array, requirements=["C", "A", "W"])
            self._request.set_tensor(spec.name, Tensor(array, shared_memory=True))
        run = self._request.infer
        return lambda: run(share_inputs=True, share_outputs=True)

    def arithmetic(self) -> dict[str, int]:
        """Count by the precision that the compiled graph says it executes."""
        counts: Counter[str] = Counter()
        for op in self._compiled.get_runtime_model().get_ops():
            info = op.get_rt_info()
            if "layerType" in info and str(info["layerType"].value) in _PRODUCTS:
                counts[_arithmetic(str(info["runtimePrecision"].value))] += 1
        return dict(counts)


def _arithmetic(precision: str) -> str:
    match = re.fullmatch(r"([uif]|bf)(\d+)", precision)
    if match is None:
        return precision
    kind = {"u": "int", "i": "int", "f": "float", "bf": "bfloat"}[match[1]]
    return f"{kind}{match[2]}"
