"""LiteRT (formerly TensorFlow Lite): phones, boards, and with XNNPACK most processors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from devices.runtime import RUNTIMES, Session, TensorSpec, one_line
from devices.runtimes.conversion import ConvertingRuntime
from devices.runtimes.tflite.file import TURNED
from devices.runtimes.tflite.writer import write_litert
from search_spaces.errors import InputError, MissingExtraError
from search_spaces.model_files.graph import read_graph

_WRITER = 4
"""Raised when the same graph gives another file, so that kept conversions are made again."""

_PRODUCTS = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "BATCH_MATMUL", "TRANSPOSE_CONV"}


@RUNTIMES.register("litert")
class LiteRt(ConvertingRuntime):
    """``.tflite`` files, and ONNX files converted by :mod:`devices.runtimes.tflite.writer`.

    Args:
        xnnpack: run what XNNPACK can run on it; otherwise LiteRT's own kernels, which round the
            sums of a layer twice: some per cent of the codes are one too large.
        integers_only: convert without floats between one grid and another, for accelerators
            and microcontrollers that have none.
    """

    name: ClassVar[str] = "litert"
    formats: ClassVar[tuple[str, ...]] = (".onnx", ".tflite")
    native: ClassVar[str] = "model.tflite"

    def __init__(self, *, xnnpack: bool = True, integers_only: bool = False, **common: Any) -> None:
        super().__init__(**common)
        try:
            from ai_edge_litert import interpreter
        except ImportError as error:
            raise MissingExtraError("ai-edge-litert", "litert") from error
        self._library = interpreter
        self.xnnpack = bool(xnnpack)
        self.integers_only = bool(integers_only)

    @property
    def version(self) -> str:
        """See :meth:`Runtime.version`."""
        return version("ai-edge-litert")

    def parameters(self) -> dict[str, Any]:
        """See :meth:`Runtime.parameters`: with the delegate."""
        more = {"integers_only": True} if self.integers_only else {}
        return super().parameters() | {"xnnpack": self.xnnpack} | more

    def recipe(self) -> dict[str, Any]:
        """See :meth:`ConvertingRuntime.recipe`: with the number of this writer's version."""
        return super().recipe() | {"writer": _WRITER, "integers_only": self.integers_only}

    def convert(self, path: Path, folder: Path, inputs: Sequence[TensorSpec]) -> None:
        """See :meth:`ConvertingRuntime.convert`: written without another library's converter."""
        from ai_edge_litert import schema_py_generated as schema

        try:
            write_litert(
                schema,
                read_graph(path),
                folder / self.native,
                inputs,
                integers_only=self.integers_only,
            )
        except InputError as error:
            raise InputError(f"{path}: {one_line(error)}") from error

    def load_native(self, path: Path, inputs: Sequence[TensorSpec] | None) -> Session:
        """See :meth:`ConvertingRuntime.load_native`."""
        resolver = self._library.OpResolverType
        kind = resolver.AUTO if self.xnnpack else resolver.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        try:
            interpreter = self._library.Interpreter(
                model_path=str(path), num_threads=self.threads, experimental_op_resolver_type=kind
            )
            if inputs is None:
                inputs = self._own_inputs(interpreter)
            interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{path}: LiteRT cannot load it: {one_line(error)}") from error
        return _LiteRtSession(interpreter, tuple(inputs), path)

    def _own_inputs(self, interpreter: Any) -> list[TensorSpec]:
        specs = []
        for detail in interpreter.get_input_details():
            signature = detail.get("shape_signature", detail["shape"])
            shape = [int(n) if n >= 0 else None for n in signature]
            spec = TensorSpec(
                detail["name"],
                self.resolve_shape(detail["name"], shape),
                np.dtype(detail["dtype"]).name,
            )
            interpreter.resize_tensor_input(detail["index"], list(spec.shape))
            specs.append(spec)
        return specs


class _LiteRtSession(Session):
    def __init__(self, interpreter: Any, inputs: tuple[TensorSpec, ...], path: Path) -> None:
        self._interpreter = interpreter
        self._path = path
        self.inputs = inputs
        self._in = interpreter.get_input_details()
        self._out = interpreter.get_output_details()

    def __call__(self, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        self._set(arrays)
        self._interpreter.invoke()
        return tuple(self._interpreter.get_tensor(detail["index"]) for detail in self._out)

    def bind(self, *arrays: np.ndarray) -> Callable[[], object]:
        """See :meth:`Session.bind`: the inputs are copied into the interpreter once."""
        self._set(arrays)
        return self._interpreter.invoke

    def arithmetic(self) -> dict[str, int]:
        """Count by the types of the weights in the file, which LiteRT runs as they are."""
        from ai_edge_litert import schema_py_generated as schema

        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(self._path.read_bytes()))
        names = {v: k for k, v in vars(schema.BuiltinOperator).items() if k[0] != "_"}
        types = {v: k.lower() for k, v in vars(schema.TensorType).items() if k[0] != "_"}
        counts: Counter[str] = Counter()
        for graph in model.subgraphs:
            for op in graph.operators:
                entry = model.operatorCodes[op.opcodeIndex]
                code = max(entry.builtinCode, entry.deprecatedBuiltinCode)
                if names.get(code) in _PRODUCTS:
                    counts[types[graph.tensors[op.inputs[0]].type]] += 1
        return dict(counts)

    def _set(self, arrays: Sequence[np.ndarray]) -> None:
        for detail, array in zip(self._in, arrays, strict=True):
            if detail["name"].endswith(TURNED):
                array = np.moveaxis(array, 1, -1)
            self._interpreter.set_tensor(detail["index"], np.ascontiguousarray(array))
