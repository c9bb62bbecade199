"""ExecuTorch: PyTorch's runtime for phones and boards, here with its XNNPACK kernels."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from devices.runtime import RUNTIMES, Session, TensorSpec, one_line
from devices.runtimes.conversion import ConvertingRuntime
from search_spaces.errors import InputError, MissingExtraError

_BACKENDS = ("xnnpack", "portable")
_PRODUCTS = ("convolution", "conv1d", "conv2d", "conv3d", "linear", "addmm", "mm", "bmm", "matmul")
_PLAN = "arithmetic.json"
#: ExecuTorch's numbers of element types.
_TYPES = {0: "uint8", 1: "int8", 2: "int16", 3: "int32", 4: "int64", 5: "float16", 6: "float32",
          7: "float64", 11: "bool"}  # fmt: skip


@RUNTIMES.register("executorch")
class ExecuTorch(ConvertingRuntime):
    """``.pte`` files, and ONNX files exported through torch.

    Its Python package runs programs through torch's tensors, so torch is needed to measure as
    well as to convert. A board without it takes the ``.pte`` file of
    :meth:`~devices.runtimes.conversion.ConvertingRuntime.converted` and times it with
    ExecuTorch's own runner, by the runtime ``command``.

    Args:
        backend: "xnnpack" runs what XNNPACK can on it, the rest on the portable kernels;
            "portable" runs everything on these, which are slow.
    """

    name: ClassVar[str] = "executorch"
    formats: ClassVar[tuple[str, ...]] = (".onnx", ".pte")
    native: ClassVar[str] = "model.pte"

    def __init__(self, *, backend: str = "xnnpack", **common: Any) -> None:
        super().__init__(**common)
        if backend not in _BACKENDS:
            raise InputError(f"backend is {backend!r}; use one of {', '.join(_BACKENDS)}")
        try:
            import torch
            from executorch import runtime
            from executorch.extension.pybindings import portable_lib
        except ImportError as error:
            raise MissingExtraError("executorch", "executorch") from error
        self._torch, self._library, self._bindings = torch, runtime, portable_lib
        self.backend = backend

    @property
    def version(self) -> str:
        """See :meth:`Runtime.version`."""
        return version("executorch")

    def parameters(self) -> dict[str, Any]:
        """See :meth:`Runtime.parameters`: with the backend."""
        return super().parameters() | {"backend": self.backend}

    def recipe(self) -> dict[str, Any]:
        """See :meth:`ConvertingRuntime.recipe`: the version of torch, whose exporter it is, too."""
        torch_version = str(self._torch.__version__)
        return super().recipe() | {"backend": self.backend, "torch": torch_version}

    def convert(self, path: Path, folder: Path, inputs: Sequence[TensorSpec]) -> None:
        """See :meth:`ConvertingRuntime.convert`: exported as a torch module."""
        from executorch.exir import to_edge_transform_and_lower

        from devices.runtimes.executorch_module import QuantisedModule
        from devices.runtimes.torch_graph import GraphModule

        torch = self._torch
        # The portable kernels have no integer products: there everything runs in floats.
        module = (QuantisedModule if self.backend == "xnnpack" else GraphModule)(path).eval()
        example = tuple(
            torch.zeros(spec.shape, dtype=getattr(torch, spec.dtype)) for spec in inputs
        )
        partitioners = []
        if self.backend == "xnnpack":
            from executorch.backends.xnnpack.partition.xnnpack_partitioner import (
                XnnpackPartitioner,
            )

            partitioners.append(XnnpackPartitioner())
        try:
            program = torch.export.export(module, example, strict=False)
            edge = to_edge_transform_and_lower(program, partitioner=partitioners)
            plan = products(edge.exported_program())
            written = edge.to_executorch().buffer
        except InputError as error:
            raise InputError(f"{path}: {one_line(error)}") from error
        # The exporter raises whatever its many passes raise.
        except Exception as error:
            raise InputError(f"{path}: ExecuTorch cannot export it: {one_line(error)}") from error
        (folder / self.native).write_bytes(written)
        (folder / _PLAN).write_text(json.dumps(plan), encoding="utf-8")

    def load_native(self, path: Path, inputs: Sequence[TensorSpec] | None) -> Session:
        """See :meth:`ConvertingRuntime.load_native`: sets the threads of the whole process."""
        # One pool a process: a measuring process has one runtime.
        self._bindings._unsafe_reset_threadpool(self.threads)
        try:
            program = self._library.Runtime.get().load_program(path)
            method = program.load_method("forward")
        except (RuntimeError, ValueError) as error:
            raise InputError(f"{path}: ExecuTorch cannot load it: {one_line(error)}") from error
        if method is None:
            raise InputError(f"{path}: the program has no method 'forward'")
        specs = self._own_inputs(method) if inputs is None else tuple(inputs)
        plan = path.with_name(_PLAN)
        counts = json.loads(plan.read_text(encoding="utf-8")) if plan.is_file() else None
        return _ExecuTorchSession(self._torch, program, method, specs, counts)

    def _own_inputs(self, method: Any) -> tuple[TensorSpec, ...]:
        about, specs = method.metadata, []
        for index in range(about.num_inputs()):
            meta, name = about.input_tensor_meta(index), f"input{index}"
            if meta.dtype() not in _TYPES:
                raise InputError(f"input {name!r} has element type {meta.dtype()}, unknown here")
            shape = self.resolve_shape(name, list(meta.sizes()))
            specs.append(TensorSpec(name, shape, _TYPES[meta.dtype()]))
        return tuple(specs)


class _ExecuTorchSession(Session):
    def __init__(
        self,
        torch: Any,
        program: Any,
        method: Any,
        inputs: tuple[TensorSpec, ...],
        plan: dict[str, dict[str, int]] | None,
    ) -> None:
        self._torch, self._program, self._method = torch, program, method
        self._plan = plan
        self.inputs = inputs

    def __call__(self, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        outputs = self._method.execute(self._tensors(arrays))
        return tuple(output.detach().numpy().copy() for output in outputs)

    def bind(self, *arrays: np.ndarray) -> Callable[[], object]:
        """See :meth:`Session.bind`: the arrays are tensors once."""
        tensors, run = self._tensors(arrays), self._method.execute
        return lambda: run(tensors)

    def arithmetic(self) -> dict[str, int] | None:
        """Count what was handed to a backend and what was not; unknown for a bare program."""
        if self._plan is None:
            return None
        counts: Counter[str] = Counter()
        for part in self._plan.values():
            counts.update(part)
        return dict(counts)

    def doubts(self, *arrays: np.ndarray) -> list[str]:
        """Name products that no backend took: the portable kernels are a reference, and slow."""
        left = sum((self._plan or {}).get("portable", {}).values())
        if not left or not (self._plan or {}).get("backend"):
            return []
        return [f"{left} products run on ExecuTorch's portable kernels, XNNPACK took the others"]

    def _tensors(self, arrays: Sequence[np.ndarray]) -> list[Any]:
        return [self._torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]


def products(program: Any) -> dict[str, dict[str, int]]:
    """Count the products of a lowered program by who runs them and in which arithmetic.

    Args:
        program: torch's ExportedProgram after lowering.

    Returns:
        ``{"backend": {"int8": 12}, "portable": {"float32": 1}}``. The partitioner hands a
        product with int8 codes to integer kernels; outside it everything is in floats.
    """
    found: dict[str, Counter[str]] = {"backend": Counter(), "portable": Counter()}
    for node, lowered in _nodes(program):
        if lowered:
            # Both factors: with float weights the product is in floats whatever goes in.
            codes = sum("dequantize" in str(factor.target) for factor in node.all_input_nodes)
            found["backend"]["int8" if codes >= 2 else "float32"] += 1
        else:
            found["portable"]["float32"] += 1
    return {who: dict(counts) for who, counts in found.items()}


def _nodes(program: Any) -> Iterator[tuple[Any, bool]]:
    modules = [(program.graph_module, False)]
    for node in program.graph_module.graph.nodes:
        if node.op == "get_attr":
            inner: Any = getattr(program.graph_module, node.target, None)
            if hasattr(inner, "original_module"):
                modules.append((inner.original_module.graph_module, True))
    for module, lowered in modules:
        for node in module.graph.nodes:
            operator = re.search(r"aten\.(\w+)", str(node.target))
            if node.op == "call_function" and operator and operator[1] in _PRODUCTS:
                yield node, lowered
