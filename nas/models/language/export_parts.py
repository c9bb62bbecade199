"""Writing the files that a model of texts has beside the one that reads everything at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from nas.models.language.parts import ENCODE, parts_of
from nas.models.language.sequence_files import export_decoding, export_encoding
from nas.models.language.step_file import export_step
from search_spaces.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from supernet.onnx.export import ExportSummary
    from supernet.plain import PlainNetwork


def export_part(
    network: PlainNetwork,
    path: Path,
    part: str,
    inputs: Tensor,
    *,
    has_vnni: bool | None = None,
    weight_storage: str = "packed",
    metadata: Mapping[str, str] | None = None,
) -> ExportSummary:
    """Write a part of a network as ONNX, and see that it gives what the whole does.

    Args:
        network: in evaluation mode.
        path: file to write.
        part: of :func:`parts_of`.
        inputs: of the network, (batch, 1, 1, n), for the comparison.
        has_vnni: see :func:`nas.models.parity.export_checked`.
        weight_storage, metadata: see :func:`supernet.onnx.export.export_onnx`.

    Raises:
        InputError: the network has no such part.
        UnusableModel: the part gives something else; the file is removed.
    """
    known = parts_of(network.plan)
    if part not in known:
        raise InputError(
            f"a network of {network.plan.space} has no file of its own for {part!r} (it has "
            f"{', '.join(known) or 'none'})"
        )
    write = (
        export_step if len(known) == 1 else export_encoding if part == ENCODE else export_decoding
    )
    return write(
        network, path, inputs, has_vnni=has_vnni, weight_storage=weight_storage, metadata=metadata
    )
