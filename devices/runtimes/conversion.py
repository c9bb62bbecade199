"""Models in a runtime's own format, made from ONNX, checked, and kept for the next time."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from devices import user_folders
from devices.runtime import Runtime, Session, TensorSpec, existing_file
from devices.runtimes.agreement import check_parity
from devices.runtimes.onnxruntime import OnnxRuntime
from search_spaces.errors import EnvironmentProblem

_INPUTS = "inputs.json"

#: Relative error of the outputs that any conversion may have.
TOLERANCE = {"file": 1e-3, "float32": 1e-3, "float16": 2e-2, "bfloat16": 5e-2}


class ConvertingRuntime(Runtime):
    """A runtime with a format of its own, which ONNX files are converted to.

    A conversion is done once for each file, set of parameters and library version, checked
    against ONNX Runtime, and kept in :func:`cache_folder`. Models already in the runtime's
    format are loaded as they are.

    Attributes:
        native: name of the model inside the folder of a conversion.
    """

    native: ClassVar[str]

    @abstractmethod
    def convert(self, path: Path, folder: Path, inputs: Sequence[TensorSpec]) -> None:
        """Convert an ONNX file; writes ``native`` and what belongs to it into ``folder``.

        Args:
            inputs: the file's inputs, every axis known; the result is for these shapes.

        Raises:
            InputError: something in the file has no counterpart.
        """

    @abstractmethod
    def load_native(self, path: Path, inputs: Sequence[TensorSpec] | None) -> Session:
        """Load a model in the runtime's format.

        Args:
            inputs: those of the ONNX file it was made from; the session takes these. None
                for a file that was not converted here.
        """

    def recipe(self) -> dict[str, Any]:
        """Return what a conversion depends on beside the file."""
        return {
            "runtime": self.name,
            "version": self.version,
            "batch": self.batch,
            "shapes": {name: list(shape) for name, shape in self.shapes.items()},
            "precision": self.precision,
        }

    def load(self, path: Path) -> Session:
        """See :meth:`Runtime.load`: ONNX files are converted first, others taken as they are."""
        path = existing_file(path)
        if path.suffix.lower() in self.formats and path.suffix.lower() != ".onnx":
            return self.load_native(path, None)
        folder = self.converted(path)
        return self.load_native(folder / self.native, read_specs(folder / _INPUTS))

    def converted(self, path: Path) -> Path:
        """Return the folder of the conversion of an ONNX file, making it if need be.

        Raises:
            InputError: it cannot be converted, or the result computes something else.
        """
        key = hashlib.sha256(path.read_bytes())
        key.update(json.dumps(self.recipe(), sort_keys=True).encode())
        folder = cache_folder() / f"{self.name}-{key.hexdigest()[:32]}"
        if folder.is_dir():
            return folder
        reference = _reference(self, path)
        try:
            user_folders.make_cache(folder.parent)
            made = Path(tempfile.mkdtemp(prefix=".converting-", dir=folder.parent))
        except OSError as error:
            raise EnvironmentProblem(
                f"cannot write converted models to {folder.parent}: {error.strerror}; set "
                f"EDGE_NAS_CACHE to a folder that can be written"
            ) from error
        try:
            self.convert(path, made, reference.inputs)
            write_specs(made / _INPUTS, reference.inputs)
            check_parity(
                self.load_native(made / self.native, reference.inputs),
                reference,
                tolerance=TOLERANCE[self.precision],
                what=f"{path}: converted for {self.name}",
            )
            try:
                made.rename(folder)
            except OSError:  # another process was faster
                if not folder.is_dir():
                    raise
        finally:
            shutil.rmtree(made, ignore_errors=True)
        return folder


def cache_folder() -> Path:
    """Return where conversions are kept: ``$EDGE_NAS_CACHE``, or a folder of the user's."""
    return user_folders.cache_folder("converted")


def read_specs(path: Path) -> tuple[TensorSpec, ...]:
    """Read the inputs kept beside a conversion."""
    values = json.loads(path.read_text(encoding="utf-8"))
    return tuple(TensorSpec(name, tuple(shape), dtype) for name, shape, dtype in values)


def write_specs(path: Path, specs: Sequence[TensorSpec]) -> None:
    """Keep the inputs of the ONNX file beside its conversion."""
    path.write_text(json.dumps([[s.name, list(s.shape), s.dtype] for s in specs]), encoding="utf-8")


def _reference(runtime: Runtime, path: Path) -> Session:
    # Unoptimised: integer kernels may saturate, the reference must not.
    plain = OnnxRuntime(graph_optimization="off", batch=runtime.batch, shapes=runtime.shapes)
    return plain.load(path)
