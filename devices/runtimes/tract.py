"""tract: a small inference engine in Rust, for processors; reads ONNX as it is."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from devices.runtime import (
    RUNTIMES,
    Runtime,
    Session,
    TensorSpec,
    existing_file,
    one_line,
    only_one_thread,
)
from devices.runtimes.widening import with_whole_bytes
from search_spaces.errors import InputError, MissingExtraError

_TYPES = {"f": "float", "u": "uint", "i": "int"}


@RUNTIMES.register("tract")
class Tract(Runtime):
    """ONNX files, on one thread."""

    name: ClassVar[str] = "tract"

    def __init__(self, **common: Any) -> None:
        super().__init__(**common)
        try:
            import tract
        except ImportError as error:
            raise MissingExtraError("tract", "tract") from error
        self._library = tract
        only_one_thread(self.name, self.threads)

    @property
    def version(self) -> str:
        """See :meth:`Runtime.version`."""
        return version("tract")

    def load(self, path: Path) -> Session:
        """See :meth:`Runtime.load`: weights of fewer than 8 bits are widened first."""
        path = existing_file(path)
        try:
            model = self._read(path)
            specs = []
            for index in range(model.input_count()):
                spec = self._spec(model.input_name(index), str(model.input_fact(index)))
                specs.append(spec)
                kind = re.sub(r"[a-z]+", lambda m: m[0][0], spec.dtype)
                model.set_input_fact(index, ",".join(map(str, (*spec.shape, kind))))
            runnable = model.into_model().into_runnable()
        except self._library.TractError as error:
            raise InputError(f"{path}: tract cannot load it: {one_line(error)}") from error
        return _TractSession(self._library, runnable, tuple(specs))

    def _read(self, path: Path) -> Any:
        """Read ONNX; weights of 2 and 4 bits, which the library refuses, are widened."""
        widened = with_whole_bytes(path, extra="tract")
        if widened is None:
            return self._library.onnx().load(str(path))
        with tempfile.TemporaryDirectory() as folder:  # it reads files only
            copy = Path(folder) / path.name
            copy.write_bytes(widened)
            return self._library.onnx().load(str(copy))

    def _spec(self, name: str, fact: str) -> TensorSpec:
        """Read a fact such as ``batch,3,96,96,f32``; open axes are symbols or ``?``."""
        *sizes, kind = [part.strip() for part in fact.split(",")]
        match = re.fullmatch(r"([fui])(\d+)", kind.lower())
        if match is None:
            raise InputError(f"input {name!r} has type {kind}, which has no NumPy one")
        shape = [int(size) if size.isdigit() else None for size in sizes]
        return TensorSpec(name, self.resolve_shape(name, shape), f"{_TYPES[match[1]]}{match[2]}")


class _TractSession(Session):
    def __init__(self, library: Any, runnable: Any, inputs: tuple[TensorSpec, ...]) -> None:
        self._library = library
        self._runnable = runnable
        self.inputs = inputs

    def __call__(self, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        return tuple(output.to_numpy() for output in self._runnable.run(list(arrays)))

    def bind(self, *arrays: np.ndarray) -> Callable[[], object]:
        """See :meth:`Session.bind`: the arrays are tensors once."""
        tensors = [self._library.Tensor.from_numpy(array) for array in arrays]
        run = self._runnable.run
        return lambda: run(tensors)
