"""What a format is, and the registry of those there are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from devices.runtimes.agreement import Agreement
from nas.models.formats.preprocessing import PIXELS, SOUND, VALUES, kind_of
from search_spaces.errors import MissingExtraError
from search_spaces.registry import Registry

_SUFFIX = {PIXELS: "uint8", SOUND: "int16", VALUES: "values"}


@dataclass(frozen=True)
class Source:
    """A model to be written in other formats.

    Attributes:
        path: its ONNX file, batch axis open or 1.
        id: of the model; names the files.
        labels: names of the outputs; empty where they are no classes.
        costs: what the search promised, such as ``flash_kib``.
        preprocessing: of its card, see
            :func:`~nas.models.formats.preprocessing.with_preprocessing`.
        embed: put the pre-processing into the file: pixels, samples or values in, a class out.
        meaning: in words, how inputs are made and outputs decoded.
        targets: of the task, see :class:`~nas.data.sources.RawData`.
    """

    path: Path
    id: str
    labels: tuple[str, ...] = ()
    costs: Mapping[str, float] = field(default_factory=dict)
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    embed: bool = False
    meaning: str = ""
    targets: str = "classes"

    @property
    def file_id(self) -> str:
        """What names the files of a format: a file that takes other inputs has another name."""
        return f"{self.id}-{_SUFFIX[kind_of(self.preprocessing)]}" if self.embed else self.id


@dataclass(frozen=True)
class Written:
    """Files of one format, and how far they compute what the ONNX computes.

    Attributes:
        format: its name.
        files: in the folder that was written to; the first is the model.
        relative_error: norm of the difference of the outputs over the norm of the reference's, on
            seeded noise; ``None`` where nothing here runs the format.
        reference: what they were compared with.
        note: what a user of the files must know.
        range_error: largest difference of one output over the range of the reference's outputs.
        same_largest: share of the inputs with the same largest output.
    """

    format: str
    files: tuple[str, ...]
    relative_error: float | None
    reference: str
    note: str = ""
    range_error: float | None = None
    same_largest: float | None = None

    @classmethod
    def compared(
        cls,
        format: str,
        files: tuple[str, ...],
        found: Agreement | None,
        reference: str = "the run's ONNX file, unoptimised",
        note: str = "",
    ) -> Written:
        """Return files whose outputs were compared; ``found`` is None where nothing runs them."""
        if found is None:
            return cls(format, files, None, reference, note)
        return cls(
            format, files, found.relative_error, reference, note, found.range_error,
            found.same_largest,
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {**asdict(self), "files": list(self.files)}


class Format(ABC):
    """A format that models are handed over in. Has no state; a part is the class itself."""

    #: Its registered name.
    name: ClassVar[str]
    #: What it is, one line for ``nas export --list-formats``.
    summary: ClassVar[str]
    #: Whether the pre-processing can be part of the file.
    embeds: ClassVar[bool] = False

    @classmethod
    def require(cls) -> None:
        """Check that this machine can write the format.

        Raises:
            MissingExtraError: a package is missing; the message names the extra.
            EnvironmentProblem: something else is.
        """
        return None

    @classmethod
    @abstractmethod
    def write(cls, source: Source, folder: Path) -> Written:
        """Write the model into ``folder``, which exists, and check what was written.

        Raises:
            InputError: something in the model has no counterpart, or the written file computes
                something else.
            MissingExtraError, EnvironmentProblem: see :meth:`require`.
        """


class OnnxBased(Format):
    """A format that is written with the package onnx."""

    @classmethod
    def require(cls) -> None:
        """See :meth:`Format.require`."""
        try:
            import onnx  # noqa: F401
        except ImportError as error:
            raise MissingExtraError("onnx", "search") from error


FORMATS: Registry[type[Format]] = Registry(
    "export format",
    group="nas.formats",
    modules=[
        f"nas.models.formats.{name}"
        for name in ("onnx_file", "converted", "openvino_ir", "tensorrt", "packed", "c")
    ],
)
"""Formats of ``nas export`` and ``export.formats``; others by the entry point nas.formats."""
