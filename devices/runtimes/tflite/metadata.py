"""Text by name inside LiteRT files, which the format calls metadata."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


def add_metadata(data: bytes, notes: Mapping[str, str]) -> bytes:
    """Return a LiteRT file with ``notes`` in its metadata; those of the same names are replaced.

    Args:
        data: bytes of the file.
        notes: text by name.
    """
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data))
    kept = [entry for entry in model.metadata or [] if _text(entry.name) not in notes]
    for name, text in notes.items():
        buffer, entry = schema.BufferT(), schema.MetadataT()
        buffer.data = np.frombuffer(text.encode("utf-8"), dtype=np.uint8)
        model.buffers.append(buffer)
        entry.name, entry.buffer = name, len(model.buffers) - 1
        kept.append(entry)
    model.metadata = kept
    builder = flatbuffers.Builder(len(data) + 1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def read_metadata(data: bytes) -> dict[str, str]:
    """Return the text of a LiteRT file's metadata by name; what is no text is left out."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data))
    found = {}
    for entry in model.metadata or []:
        stored = model.buffers[entry.buffer].data
        try:
            found[_text(entry.name)] = bytes(bytearray(stored)).decode("utf-8")
        except UnicodeDecodeError:
            continue
    return found


def _text(name: str | bytes) -> str:
    return name.decode("utf-8") if isinstance(name, bytes) else name
