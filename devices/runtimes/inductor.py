"""torch inductor: PyTorch's compiler, generating code for this processor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from devices.runtime import RUNTIMES, Runtime, Session, TensorSpec, existing_file, one_line
from search_spaces.errors import EnvironmentProblem, InputError, MissingExtraError
from search_spaces.model_files.graph import PRODUCTS, read_graph

_DTYPES = {"file": "float32", "float32": "float32", "bfloat16": "bfloat16", "float16": "float16"}


@RUNTIMES.register("inductor")
class Inductor(Runtime):
    """ONNX files as torch modules through ``torch.compile``; needs a C++ compiler.

    A quantised file keeps its rounding, but its products run in floats and
    :meth:`Session.arithmetic` says so.

    Args:
        mode: of ``torch.compile``: "default", "reduce-overhead", "max-autotune"; or "eager"
            to run without compiling.
    """

    name: ClassVar[str] = "inductor"
    precisions: ClassVar[tuple[str, ...]] = tuple(_DTYPES)

    def __init__(self, *, mode: str = "default", **common: Any) -> None:
        super().__init__(**common)
        modes = ("default", "reduce-overhead", "max-autotune", "eager")
        if mode not in modes:
            raise InputError(f"mode is {mode!r}; use one of {', '.join(modes)}")
        try:
            import torch
        except ImportError as error:
            raise MissingExtraError("torch", "search") from error
        self._library = torch
        self.mode = mode

    @property
    def version(self) -> str:
        """See :meth:`Runtime.version`: that of torch."""
        return str(self._library.__version__)

    def parameters(self) -> dict[str, Any]:
        """See :meth:`Runtime.parameters`: with the mode of compilation."""
        return super().parameters() | {"mode": self.mode}

    def load(self, path: Path) -> Session:
        """See :meth:`Runtime.load`: compiled here, if the mode is another than "eager"."""
        torch = self._library
        from devices.runtimes.torch_graph import GraphModule

        path = existing_file(path)
        torch.set_num_threads(self.threads)
        graph = read_graph(path)
        specs = tuple(
            TensorSpec(name, self.resolve_shape(name, graph.shapes[name]), graph.types[name])
            for name in graph.inputs
        )
        kind = getattr(torch, _DTYPES[self.precision])
        module = GraphModule(path, graph=graph).eval()
        for name, buffer in module.named_buffers():
            if buffer.is_floating_point():
                setattr(module, name, buffer.to(kind))
        run: Callable[..., Any] = module
        if self.mode != "eager":
            torch._dynamo.reset()  # else models share one cache, and its limit
            run = torch.compile(module, dynamic=False, mode=self.mode)
        session = _TorchSession(torch, run, specs, kind, len(_products(graph)))
        try:
            session(*(np.zeros(spec.shape, spec.dtype) for spec in specs))
        except torch._inductor.exc.InductorError as error:
            raise EnvironmentProblem(f"torch cannot compile here: {one_line(error)}") from error
        return session


class _TorchSession(Session):
    def __init__(
        self, torch: Any, run: Callable[..., Any], inputs: tuple[TensorSpec, ...], kind: Any,
        products: int,
    ) -> None:  # fmt: skip
        self._torch, self._run, self._kind, self._products = torch, run, kind, products
        self.inputs = inputs

    def __call__(self, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        with self._torch.inference_mode():
            outputs = self._run(*self._tensors(arrays))
        return tuple((o.float() if o.is_floating_point() else o).numpy().copy() for o in outputs)

    def bind(self, *arrays: np.ndarray) -> Callable[[], object]:
        """See :meth:`Session.bind`: the arrays are tensors once, and no gradients are recorded."""
        tensors = self._tensors(arrays)
        run, mode = self._run, self._torch.inference_mode

        def call() -> object:
            with mode():
                return run(*tensors)

        return call

    def arithmetic(self) -> dict[str, int]:
        """Products are in floats, whatever the file says."""
        return {str(self._kind).removeprefix("torch."): self._products}

    def _tensors(self, arrays: tuple[np.ndarray, ...]) -> list[Any]:
        tensors = [self._torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]
        return [t.to(self._kind) if t.is_floating_point() else t for t in tensors]


def _products(graph: Any) -> list[Any]:
    return [node for node in graph.nodes if node.op in PRODUCTS]
