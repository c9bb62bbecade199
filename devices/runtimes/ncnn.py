"""ncnn: Tencent's engine for phones and boards without a heavy runtime."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from devices.runtime import RUNTIMES, Session, TensorSpec, existing_file
from devices.runtimes.conversion import ConvertingRuntime
from devices.runtimes.graph import read_float_graph
from search_spaces.errors import EnvironmentProblem, InputError, MissingExtraError

_CONVERSION_S = 300


@RUNTIMES.register("ncnn")
class Ncnn(ConvertingRuntime):
    """``.param`` files beside their ``.bin``, and ONNX files with float weights, through pnnx.

    One image at a time: ncnn has no batch axis, so ``batch`` runs the images in turn.

    Args:
        precision: "float16" and "bfloat16" store and, where the processor can, compute in 16
            bits; "file" and "float32" in 32.
    """

    name: ClassVar[str] = "ncnn"
    formats: ClassVar[tuple[str, ...]] = (".onnx", ".param")
    precisions: ClassVar[tuple[str, ...]] = ("file", "float32", "float16", "bfloat16")
    native: ClassVar[str] = "model.ncnn.param"

    def __init__(self, **common: Any) -> None:
        super().__init__(**common)
        try:
            import ncnn
        except ImportError as error:
            raise MissingExtraError("ncnn", "ncnn") from error
        self._library = ncnn

    @property
    def version(self) -> str:
        """See :meth:`Runtime.version`."""
        return version("ncnn")

    def convert(self, path: Path, folder: Path, inputs: Sequence[TensorSpec]) -> None:
        """See :meth:`ConvertingRuntime.convert`: quantised files are refused.

        Raises:
            InputError: pnnx cannot convert it or takes too long, or ncnn lacks an operator.
            MissingExtraError: the package pnnx is not installed.
            EnvironmentProblem: pnnx cannot be started.
        """
        try:
            from pnnx import EXEC_PATH
        except ImportError as error:
            raise MissingExtraError("pnnx", "ncnn") from error
        read_float_graph(path, self.name)
        shapes = ",".join(f"[1,{','.join(map(str, spec.shape[1:]))}]" for spec in inputs)
        source = folder / "model.onnx"
        source.symlink_to(path.absolute())
        command = [EXEC_PATH, str(source), f"inputshape={shapes}", "fp16=0"]
        try:
            done = subprocess.run(
                command, cwd=folder, capture_output=True, timeout=_CONVERSION_S, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise InputError(f"{path}: pnnx did not finish within {_CONVERSION_S} s") from error
        except OSError as error:
            raise EnvironmentProblem(f"cannot start pnnx: {error.strerror}") from error
        source.unlink()
        written = folder / self.native
        if done.returncode or not written.is_file():
            text = (done.stderr or done.stdout).decode("utf-8", errors="replace")
            raise InputError(f"{path}: pnnx cannot convert it: {text.strip()[-300:]}")
        unknown = re.findall(r"^(?:pnnx|aten|prim|F|nn|torch)\.\S+", written.read_text(), re.M)
        if unknown:
            raise InputError(f"{path}: ncnn has no operator for {', '.join(sorted(set(unknown)))}")
        for extra in folder.iterdir():
            if ".ncnn." not in extra.name:
                extra.unlink()

    def load_native(self, path: Path, inputs: Sequence[TensorSpec] | None) -> Session:
        """See :meth:`ConvertingRuntime.load_native`.

        Raises:
            InputError: ncnn cannot load it, or nothing says the shapes of its inputs.
        """
        weights = existing_file(path.with_suffix(".bin"))
        net = self._library.Net()
        half, brain = self.precision == "float16", self.precision == "bfloat16"
        net.opt.use_vulkan_compute = False
        net.opt.num_threads = self.threads
        net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = half
        net.opt.use_bf16_storage = brain
        if net.load_param(str(path)) or net.load_model(str(weights)):
            raise InputError(f"{path}: ncnn cannot load it")
        if inputs is None:
            if any(name not in self.shapes for name in net.input_names()):
                raise InputError(
                    f"{path}: an ncnn file does not say the shapes of its inputs; name them, "
                    f"for instance shapes: {{{net.input_names()[0]}: [1, 3, 224, 224]}}"
                )
            inputs = [TensorSpec(n, self.shapes[n], "float32") for n in net.input_names()]
        return _NcnnSession(self._library, net, tuple(inputs))


class _NcnnSession(Session):
    def __init__(self, library: Any, net: Any, inputs: tuple[TensorSpec, ...]) -> None:
        self._library = library
        self._net = net
        self.inputs = inputs
        self._names = net.input_names()
        self._outputs = net.output_names()

    def __call__(self, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        rows = [self._run(mats) for mats in self._mats(arrays)]
        return tuple(
            np.stack([np.array(row[place]) for row in rows]) for place in range(len(self._outputs))
        )

    def bind(self, *arrays: np.ndarray) -> Callable[[], object]:
        """See :meth:`Session.bind`: an image at a time, as ncnn has no batches."""
        mats = self._mats(arrays)
        run = self._run
        if len(mats) == 1:
            only = mats[0]
            return lambda: run(only)
        return lambda: [run(image) for image in mats]

    def _mats(self, arrays: Sequence[np.ndarray]) -> list[list[Any]]:
        # A matrix only refers to its array, so it is cloned.
        return [
            [self._library.Mat(np.ascontiguousarray(array[i])).clone() for array in arrays]
            for i in range(len(arrays[0]))
        ]

    def _run(self, mats: Sequence[Any]) -> list[Any]:
        extractor = self._net.create_extractor()
        for name, mat in zip(self._names, mats, strict=True):
            extractor.input(name, mat)
        outputs = []
        for name in self._outputs:
            code, mat = extractor.extract(name)
            if code:
                raise RuntimeError(f"ncnn stopped at {name!r} with code {code}")
            outputs.append(mat)
        return outputs
