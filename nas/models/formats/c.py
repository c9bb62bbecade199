"""A C99 project for microcontrollers."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import ClassVar

from nas.models.c_project.project import write_c_project
from nas.models.formats.base import FORMATS, OnnxBased, Source, Written
from nas.models.formats.packed import packed_agreement
from search_spaces.errors import InputError
from search_spaces.model_files.packing import pack_model

_SECONDS = 600

_WITHOUT_KERNELS = {
    "boxes": "detectors, whose outputs are cells of several maps",
    "masks": "segmenters, which resize maps",
    "tokens": "language models",
    "pairs": "encoders and decoders of sequences",
}
"""Kinds of targets -> the networks for them, as far as they have no C project."""


@FORMATS.register("c")
class CProject(OnnxBased):
    """A folder of C99 without heap and without floating point; who builds it needs a compiler."""

    name: ClassVar[str] = "c"
    embeds: ClassVar[bool] = True
    summary: ClassVar[str] = "C99 project for microcontrollers (folder ID-c), integers throughout"

    @classmethod
    def write(cls, source: Source, folder: Path) -> Written:
        """See :meth:`Format.write`: the model is packed first, and that is what is checked."""
        cls.require()
        import onnx

        model = pack_model(onnx.load(str(source.path)))
        project = folder / f"{source.file_id}-c"
        found, note = packed_agreement(model, source)
        try:
            write_c_project(
                model,
                project,
                name=source.id,
                labels=source.labels,
                promised=dict(source.costs),
                meaning=source.meaning,
                one_class=bool(source.preprocessing.get("one_class", True)),
                pixels=source.preprocessing if source.embed else None,
            )
        except InputError as problem:
            if source.targets not in _WITHOUT_KERNELS:
                raise
            raise InputError(
                f"there are no C kernels for {_WITHOUT_KERNELS[source.targets]} yet; give another "
                f"format, such as lowbit or litert ({problem})"
            ) from problem
        return Written.compared(
            cls.name,
            tuple(f"{project.name}/{name}" for name in _files(project)),
            found,
            note=note or _tried(project),
        )


def _files(project: Path) -> list[str]:
    """Return the names of the files, what to read first at the head."""
    names = sorted(path.name for path in project.iterdir() if path.is_file())
    return sorted(names, key=lambda name: name != "README.md")


def _tried(project: Path) -> str:
    """Build and run the example where there is a compiler; says how it went.

    Raises:
        InputError: it computes something else than the low-bit runtime.
    """
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if not compiler or not shutil.which("make"):
        return "not built here: there is no C compiler or no make; make run does it"
    build = project / "build"
    try:
        done = subprocess.run(
            ["make", "-s", "run", f"CC={compiler}"],
            cwd=project, capture_output=True, text=True, timeout=_SECONDS, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise InputError(f"{project}: its example did not end within {_SECONDS} s") from error
    finally:
        shutil.rmtree(build, ignore_errors=True)
    if done.returncode:
        text = (done.stdout + done.stderr).strip()[-300:]
        raise InputError(f"{project}: its example fails on this machine: {text}")
    return "built and run here: bit-exact with the low-bit runtime"
