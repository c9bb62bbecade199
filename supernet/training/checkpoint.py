"""Tensors and their description in one safetensors file, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from search_spaces.atomic import null_for_undefined, write_bytes_atomic, write_json_atomic
from search_spaces.errors import InputError

_HEADER = "edge-nas"
_CHECKSUM = "sha256"


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write ``tensors`` and the JSON-able ``state`` to ``path`` in one atomic step.

    ``state`` is also written beside it as ``<name>.json`` for people; only the copy in the
    file itself is read back, so the two cannot be torn apart by a crash.
    """
    from safetensors.torch import save

    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # Serialised here, not by the library's own file writer, so that a full disk is an OSError.
    text = json.dumps(dict(state))
    header = {_HEADER: text, _CHECKSUM: _digest(contiguous, text)}
    write_bytes_atomic(path, _in_order(save(contiguous, metadata=header)))
    write_json_atomic(path.with_suffix(".json"), null_for_undefined(dict(state)))


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the state of a file that :func:`save_checkpoint` wrote.

    A plain safetensors file of somebody else's has an empty state.

    Raises:
        InputError: the file is missing, cannot be read, is no safetensors file, or does not hold
            what was written. A file of an older version has no checksum and is read as it is.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist") from error
    except SafetensorError as error:
        raise InputError(f"{path} is no safetensors file: {error}{_if_pickled(path)}") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    text = header.get(_HEADER, "{}")
    if _CHECKSUM in header and header[_CHECKSUM] != _digest(tensors, text):
        raise InputError(
            f"{path} is damaged: its content does not have the checksum it was written with; "
            "restore it from a copy, or delete it to train again"
        )
    return tensors, json.loads(text)


def _if_pickled(path: Path) -> str:
    """Return what to do with a file of ``torch.save``, whose pickles may run code when read."""
    with path.open("rb") as file:
        begin = file.read(2)
    if begin not in (b"PK", b"\x80\x02"):
        return ""
    return (
        ". It looks like one of torch.save, which may run code when it is read; if you trust it, "
        "write its tensors once, in Python: safetensors.torch.save_file("
        "{k: v.clone().contiguous() for k, v in "
        f"torch.load({str(path)!r}, weights_only=True).items()}}, "
        f"{str(path.with_suffix('.safetensors'))!r})"
    )


def _in_order(data: bytes) -> bytes:
    """Return a safetensors file with its metadata sorted, so that equal contents are equal files.

    The library writes metadata in the order of a hash table, another one each time. A file begins
    with the length of its header in 8 bytes, and the header, JSON, may end with blanks.
    """
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return b"".join((len(text).to_bytes(8, "little"), text, memoryview(data)[8 + size :]))


def _digest(tensors: Mapping[str, Tensor], text: str) -> str:
    """Return a SHA-256 of names, types, shapes and values of tensors, and of the state."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        # Bytes, since NumPy has no bfloat16.
        flat = tensor.contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()
