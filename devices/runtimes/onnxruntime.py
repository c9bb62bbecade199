"""ONNX Runtime: the default, for the processor and for every execution provider it has."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from devices.measuring.conditions import has_dot_products
from devices.runtime import (
    RUNTIMES,
    Runtime,
    Session,
    TensorSpec,
    existing_file,
    one_line,
)
from devices.runtimes.agreement import check_parity
from search_spaces.errors import EnvironmentProblem, InputError, MissingExtraError

GRAPH_OPTIMIZATION = {
    "off": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}
_INTEGER_PRODUCTS = {"QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "QGemm"}
_INTEGER_PRODUCTS |= {"MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QAttention"}
_FLOAT_PRODUCTS = {"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul"}

#: Relative error of optimised against unoptimised outputs that is rounding.
_ROUNDING = 0.02

_SHORT_NAMES = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "nnapi": "NnapiExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "xnnpack": "XnnpackExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "qnn": "QNNExecutionProvider",
    "acl": "ACLExecutionProvider",
    "directml": "DmlExecutionProvider",
    "rocm": "ROCMExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider",
}
_TYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(int16)": "int16",
    "tensor(uint16)": "uint16",
    "tensor(int32)": "int32",
    "tensor(uint32)": "uint32",
    "tensor(int64)": "int64",
    "tensor(uint64)": "uint64",
    "tensor(bool)": "bool",
}


@RUNTIMES.register("onnxruntime")
class OnnxRuntime(Runtime):
    """Models in the ONNX format.

    Args:
        provider: execution provider, short ("cpu", "cuda", ...) or in full
            ("CUDAExecutionProvider"); the processor serves operators it lacks.
        provider_options: the provider's own options.
        graph_optimization: "off", "basic", "extended" or "all"; also true ("all") or
            false ("off").
        threads: intra-operator threads. For the rest see :class:`Runtime`.

    Raises:
        InputError: an unknown provider or graph optimisation.
        EnvironmentProblem: the provider is not in the installed build of ONNX Runtime.
    """

    name: ClassVar[str] = "onnxruntime"

    def __init__(
        self,
        *,
        provider: str = "cpu",
        provider_options: Mapping[str, Any] | None = None,
        graph_optimization: str | bool = "all",
        **common: Any,
    ) -> None:
        super().__init__(**common)
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingExtraError("onnxruntime", "runtimes") from error
        self._library = onnxruntime
        if isinstance(graph_optimization, bool):
            graph_optimization = "all" if graph_optimization else "off"
        if graph_optimization not in GRAPH_OPTIMIZATION:
            raise InputError(
                f"graph_optimization is {graph_optimization!r}; use one of "
                f"{', '.join(GRAPH_OPTIMIZATION)}"
            )
        self.graph_optimization = graph_optimization
        self.provider = _provider(provider, onnxruntime)
        self.provider_options = dict(provider_options or {})

    @property
    def version(self) -> str:
        """See :meth:`Runtime.version`."""
        return str(self._library.__version__)

    @property
    def runs_on_cpu(self) -> bool:
        """See :meth:`Runtime.runs_on_cpu`: of the provider."""
        return self.provider in ("CPUExecutionProvider", "XnnpackExecutionProvider")

    def parameters(self) -> dict[str, Any]:
        """See :meth:`Runtime.parameters`: with the provider and the level of optimisation."""
        own: dict[str, Any] = {
            "provider": self.provider,
            "graph_optimization": self.graph_optimization,
        }
        if self.provider_options:
            own["provider_options"] = self.provider_options
        return super().parameters() | own

    def session_options(self) -> Any:
        """Return the library's options for these parameters."""
        ort = self._library
        options = ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = getattr(
            ort.GraphOptimizationLevel, GRAPH_OPTIMIZATION[self.graph_optimization]
        )
        options.log_severity_level = 3
        return options

    def load(self, path: Path) -> Session:
        """See :meth:`Runtime.load`: what the provider cannot run is run on the processor."""
        ort = self._library
        options = self.session_options()
        providers: list[Any] = [(self.provider, self.provider_options)]
        if self.provider != "CPUExecutionProvider":
            providers.append("CPUExecutionProvider")
        path = existing_file(path)
        try:
            session = ort.InferenceSession(str(path), options, providers=providers)
        # The library's exceptions have no common base short of RuntimeError and ValueError.
        except _library_errors() as error:
            raise InputError(f"{path}: ONNX Runtime cannot load it: {one_line(error)}") from error
        # The library falls back to the processor with a log line when a provider
        # cannot start; its latency would then be filed under the wrong device.
        if session.get_providers()[0] != self.provider:
            raise EnvironmentProblem(
                f"{self.provider} is in this build of ONNX Runtime but did not start "
                f"(running: {', '.join(session.get_providers())}); check its driver"
            )
        return _OnnxSession(session, self, path)


class _OnnxSession(Session):
    def __init__(self, session: Any, runtime: OnnxRuntime, path: Path) -> None:
        self._session = session
        self._runtime = runtime
        self._path = path
        specs = []
        for node in session.get_inputs():
            if node.type not in _TYPES:
                raise InputError(
                    f"input {node.name!r} has type {node.type}, which has no NumPy one"
                )
            shape = [size if isinstance(size, int) and size > 0 else None for size in node.shape]
            specs.append(
                TensorSpec(node.name, runtime.resolve_shape(node.name, shape), _TYPES[node.type])
            )
        self.inputs = tuple(specs)

    def __call__(self, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        return tuple(self._session.run(None, self._feed(arrays)))

    def bind(self, *arrays: np.ndarray) -> Callable[[], object]:
        """See :meth:`Session.bind`."""
        run, feed = self._session.run, self._feed(arrays)
        return lambda: run(None, feed)

    def arithmetic(self) -> dict[str, int] | None:
        """Count products of a quantised file in the graph as it was optimised."""
        if not self._quantised() or not self._runtime.runs_on_cpu:
            return None
        try:
            import onnx
        except ImportError:  # boards do without; the runtime then cannot tell
            return None
        ort, runtime = self._runtime._library, self._runtime
        options = runtime.session_options()
        with tempfile.TemporaryDirectory() as folder:
            options.optimized_model_filepath = str(Path(folder) / "optimised.onnx")
            ort.InferenceSession(str(self._path), options, providers=["CPUExecutionProvider"])
            dump = onnx.load(options.optimized_model_filepath, load_external_data=False)
            nodes = dump.graph.node
        counts: Counter[str] = Counter()
        for node in nodes:
            if node.op_type in _INTEGER_PRODUCTS:
                counts["int8"] += 1
            elif node.op_type in _FLOAT_PRODUCTS:
                counts["float32"] += 1
        return dict(counts)

    def doubts(self, *arrays: np.ndarray) -> list[str]:
        """Compare optimised with unoptimised outputs where integer kernels may saturate."""
        runtime = self._runtime
        if not self._quantised() or runtime.graph_optimization == "off":
            return []
        if has_dot_products() or not runtime.runs_on_cpu:
            return []
        plain = OnnxRuntime(
            graph_optimization="off", batch=runtime.batch, shapes=runtime.shapes
        ).load(self._path)
        try:
            check_parity(self, plain, tolerance=_ROUNDING, what="optimised against unoptimised")
        except InputError as error:
            return [f"8-bit kernels saturate here; export with reduce_range ({error})"]
        return []

    def _quantised(self) -> bool:
        return b"QuantizeLinear" in self._path.read_bytes()

    def _feed(self, arrays: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        if len(arrays) != len(self.inputs):
            raise InputError(f"the model has {len(self.inputs)} inputs, {len(arrays)} were given")
        return {spec.name: array for spec, array in zip(self.inputs, arrays, strict=True)}


def _provider(name: str, library: Any) -> str:
    known = {full.lower(): full for full in library.get_all_providers()}
    full = _SHORT_NAMES.get(name.lower(), known.get(name.lower()))
    available = library.get_available_providers()
    if full is None and name not in available:
        raise InputError(
            f"unknown execution provider {name!r} (short names: {', '.join(sorted(_SHORT_NAMES))})"
        )
    full = full or name
    if full not in available:
        raise EnvironmentProblem(
            f"execution provider {name!r} ({full}) is not in the installed ONNX Runtime "
            f"{library.__version__} (available: {', '.join(available)}); install a build that has "
            f"it or use one of these"
        )
    return full


def _library_errors() -> tuple[type[Exception], ...]:
    """Return what the library raises; its own errors have no base of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    names = (
        "Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NoSuchFile",
        "NotImplemented", "RuntimeException", "NoModel", "ModelLoaded", "EPFail",
    )  # fmt: skip
    own = [getattr(state, name) for name in names if hasattr(state, name)]
    return (RuntimeError, ValueError, *own)
