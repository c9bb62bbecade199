"""The low-bit runtime: integer kernels for weights of few bits, compiled on this machine."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from devices.runtime import RUNTIMES, Preparation, Runtime, Session, TensorSpec, existing_file
from search_spaces.errors import EnvironmentProblem, InputError
from search_spaces.model_files.graph import read_graph
from search_spaces.model_files.packed_model import PackedModel, read_packed_model
from search_spaces.model_files.packing import pack_graph

_TIMINGS = 15
"""Rounds in which the kernels of a layer are compared when a model is loaded."""


@RUNTIMES.register("lowbit")
class LowBitRuntime(Runtime):
    """Packed low-bit models, and integer ONNX files, which are packed on the way.

    Needs a C++ compiler once, see :mod:`devices.lowbit.build`; for ONNX files the package onnx.

    Args:
        threads: of the kernels.
        instructions: use no more than "portable", "avx2", "avx512" or "neon"; "" for all
            there is.
        tune: choose the kernel of each layer by timing when a model is loaded; otherwise by
            a fixed order.

    Raises:
        EnvironmentProblem: the kernels cannot be compiled here.
    """

    name: ClassVar[str] = "lowbit"
    formats: ClassVar[tuple[str, ...]] = (".lowbit", ".onnx")

    def __init__(self, *, instructions: str = "", tune: bool = True, **options: Any) -> None:
        super().__init__(**options)
        from devices.lowbit.library import features, restrict

        restrict(instructions)
        self.instructions = instructions
        self.tune = tune
        self._features = features()

    @classmethod
    def preparation(cls) -> Preparation | None:
        """See :meth:`Runtime.preparation`: the kernels are compiled for this processor."""
        from devices.lowbit.build import is_built

        try:
            ready = is_built()
        except EnvironmentProblem:  # no compiler: building the runtime says so
            return None
        command = (sys.executable, "-m", "devices.lowbit.build")
        return None if ready else Preparation("compiling the low-bit kernels", command)

    @property
    def version(self) -> str:
        """See :meth:`Runtime.version`: of the kernels' sources, and which instructions they use."""
        return f"{_sources_version()}+{'.'.join(self._features)}"

    def parameters(self) -> dict[str, Any]:
        """See :meth:`Runtime.parameters`: what restricts instructions and tuning, where it does."""
        own: dict[str, Any] = {}
        if self.instructions:
            own["instructions"] = self.instructions
        if not self.tune:
            own["tune"] = False
        return super().parameters() | own

    def load(self, path: Path) -> Session:
        """See :meth:`Runtime.load`: compares the kernels of each layer, unless told not to."""
        from devices.lowbit.library import restrict
        from devices.lowbit.network import LowBitNetwork

        path = existing_file(path)
        model, batch = read_model(path)
        name = model.graph["input"]["name"]
        shape = self.resolve_shape(
            name,
            [batch, *(n or None for n in model.graph["input"]["shape"])],
        )
        model.graph["input"]["shape"] = list(shape[1:])
        restrict(self.instructions)
        network = LowBitNetwork(
            model, batch=shape[0], threads=self.threads, rounds=_TIMINGS if self.tune else 0
        )
        others = [
            TensorSpec(entry["name"], (shape[0], *entry["shape"]), "float32")
            for entry in model.graph.get("others", ())
        ]
        return _LowBitSession(network, (TensorSpec(name, shape, "float32"), *others))


class _LowBitSession(Session):
    """A packed network; of a language model's step it holds the keys and values itself."""

    def __init__(self, network: Any, specs: tuple[TensorSpec, ...]) -> None:
        self.network = network
        self.inputs = specs

    def __call__(self, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        return (self.network.run(*self._checked(arrays)).copy(),)

    def bind(self, *arrays: np.ndarray) -> Callable[[], object]:
        """See :meth:`Session.bind`: the inputs are copied once."""
        network = self.network
        for target, given in zip(
            (network.input, *network.others), self._checked(arrays), strict=True
        ):
            np.copyto(target, given)
        runner: Callable[[], object] = network.runner
        return runner

    def arithmetic(self) -> dict[str, int]:
        """Return how many layers run on codes, and how many operations in NumPy floats."""
        layers = sum(1 for i in range(self.network.native.layers) if self.network.native.kernels(i))
        floats = len(self.network.float_operations)
        return {"int8": layers} | ({"float32": floats} if floats else {})

    def doubts(self, *arrays: np.ndarray) -> list[str]:
        """See :meth:`Session.doubts`: operations that have no kernel."""
        operations = sorted(set(self.network.float_operations))
        if not operations:
            return []
        return [
            f"these operations have no integer kernel and run in NumPy, slowly: "
            f"{', '.join(operations)}"
        ]

    def _checked(self, arrays: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        if len(arrays) != len(self.inputs):
            raise InputError(
                f"the model has {len(self.inputs)} input{'s' if len(self.inputs) > 1 else ''}, "
                f"{len(arrays)} were given"
            )
        for array, spec in zip(arrays, self.inputs, strict=True):
            if array.shape != spec.shape:
                raise InputError(
                    f"input {spec.name!r} has shape {list(array.shape)}, not {list(spec.shape)}"
                )
        return arrays


def read_model(path: Path) -> tuple[PackedModel, int | None]:
    """Read a packed model, or pack an ONNX file in memory.

    Returns:
        the model, and the batch that the file fixes; None where it is open, as in packed models.

    Raises:
        InputError: the file is neither, or has a form that cannot be packed.
        MissingExtraError: an ONNX file, and the package onnx is not installed.
    """
    if path.suffix.lower() != ".onnx":
        return read_packed_model(path), None
    graph = read_graph(path)
    model = pack_graph(graph)
    return model, next(iter(graph.shapes[model.graph["input"]["name"]]), None)


@lru_cache(maxsize=1)
def _sources_version() -> str:
    """The hash of the kernels' sources: their results and speed follow from nothing else."""
    from devices.lowbit.build import KERNELS

    digest = hashlib.sha256()
    for source in sorted(KERNELS.iterdir()):
        if source.suffix in (".cpp", ".h", ".inc"):
            digest.update(source.read_bytes())
    return digest.hexdigest()[:12]
