"""MNN: Alibaba's engine for phones and boards, through its Python interface alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from devices.runtime import RUNTIMES, Session, TensorSpec, one_line
from devices.runtimes.conversion import ConvertingRuntime
from devices.runtimes.graph import read_float_graph
from devices.runtimes.mnn_writer import write_mnn
from search_spaces.errors import InputError, MissingExtraError

_OUTPUTS = "outputs.json"


@RUNTIMES.register("mnn")
class Mnn(ConvertingRuntime):
    """``.mnn`` files, and ONNX files with float weights.

    ONNX is translated by :mod:`devices.runtimes.mnn_writer`. MNN's interface has no operator
    for a convolution with its activation in one, which its converter makes; a file that you
    convert with it yourself may be faster, and is measured as it is.
    """

    name: ClassVar[str] = "mnn"
    formats: ClassVar[tuple[str, ...]] = (".onnx", ".mnn")
    precisions: ClassVar[tuple[str, ...]] = ("file", "float32")
    native: ClassVar[str] = "model.mnn"

    def __init__(self, **common: Any) -> None:
        super().__init__(**common)
        try:
            import MNN
        except ImportError as error:
            raise MissingExtraError("MNN", "mnn") from error
        self._library = MNN

    @property
    def version(self) -> str:
        """See :meth:`Runtime.version`."""
        return version("MNN")

    def convert(self, path: Path, folder: Path, inputs: Sequence[TensorSpec]) -> None:
        """See :meth:`ConvertingRuntime.convert`: quantised files are refused."""
        graph = read_float_graph(path, self.name)
        try:
            write_mnn(self._library.expr, graph, folder / self.native, inputs)
            (folder / _OUTPUTS).write_text(json.dumps(list(graph.outputs)), encoding="utf-8")
        # Its expressions raise whatever fits the argument that they do not understand.
        except (InputError, RuntimeError, TypeError, ValueError) as error:
            raise InputError(f"{path}: MNN has no counterpart: {one_line(error)}") from error

    def load_native(self, path: Path, inputs: Sequence[TensorSpec] | None) -> Session:
        """See :meth:`ConvertingRuntime.load_native`: computes in float32."""
        interpreter = self._library.Interpreter(str(path))
        options = {"backend": "CPU", "numThread": self.threads, "precision": "high"}
        session = interpreter.createSession(options)
        if session is None:
            raise InputError(f"{path}: MNN cannot load it")
        tensors = dict(interpreter.getSessionInputAll(session))
        if inputs is None:
            inputs = [
                TensorSpec(name, self.resolve_shape(name, _open(tensor.getShape())), _kind(tensor))
                for name, tensor in sorted(tensors.items())
            ]
            for spec in inputs:
                interpreter.resizeTensor(tensors[spec.name], spec.shape)
            interpreter.resizeSession(session)
        missing = [spec.name for spec in inputs if spec.name not in tensors]
        if missing:
            raise InputError(f"{path}: input {missing[0]!r} has no effect on the outputs")
        order = path.with_name(_OUTPUTS)
        names = json.loads(order.read_text(encoding="utf-8")) if order.is_file() else []
        return _MnnSession(self._library, interpreter, session, tuple(inputs), names)


class _MnnSession(Session):
    def __init__(
        self,
        library: Any,
        interpreter: Any,
        session: Any,
        inputs: tuple[TensorSpec, ...],
        outputs: Sequence[str],
    ) -> None:
        self._library, self._interpreter, self._session = library, interpreter, session
        self.inputs = inputs
        self._in = dict(interpreter.getSessionInputAll(session))
        found = dict(interpreter.getSessionOutputAll(session))
        # The library knows them by their names alone.
        self._out = [found[name] for name in (outputs if set(outputs) == set(found) else found)]

    def __call__(self, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        self._set(arrays)
        self._interpreter.runSession(self._session)
        return tuple(self._read(tensor) for tensor in self._out)

    def bind(self, *arrays: np.ndarray) -> Callable[[], object]:
        """See :meth:`Session.bind`: the inputs are copied into the session once."""
        self._set(arrays)
        run, session = self._interpreter.runSession, self._session
        return lambda: run(session)

    def _set(self, arrays: Sequence[np.ndarray]) -> None:
        for spec, array in zip(self.inputs, arrays, strict=True):
            whole = array.dtype.kind in "iub"
            array = np.ascontiguousarray(array, dtype=np.int32 if whole else np.float32)
            self._in[spec.name].copyFrom(self._host(array, whole=whole))

    def _read(self, tensor: Any) -> np.ndarray:
        whole = tensor.getDataType() == self._library.Halide_Type_Int
        host = self._host(
            np.zeros(tensor.getShape(), np.int32 if whole else np.float32), whole=whole
        )
        tensor.copyToHostTensor(host)
        return np.array(host.getNumpyData())

    def _host(self, array: np.ndarray, *, whole: bool) -> Any:
        library = self._library
        kind = library.Halide_Type_Int if whole else library.Halide_Type_Float
        return library.Tensor(array.shape, kind, array, library.Tensor_DimensionType_Caffe)


def _open(shape: Sequence[int]) -> list[int | None]:
    return [size if size > 0 else None for size in shape]


def _kind(tensor: Any) -> str:
    return str(np.asarray(tensor.getNumpyData()).dtype)
