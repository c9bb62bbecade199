"""Tensors and their description in one safetensors file, written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from search_spaces.atomic import write_bytes_atomic, write_json_atomic
from search_spaces.errors import InputError

_HEADER = "edge-nas"


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write ``tensors`` and the JSON-able ``state`` to ``path`` in one atomic step.

    ``state`` is also written beside it as ``<name>.json`` for people; only the copy in the
    file itself is read back, so the two cannot be torn apart by a crash.
    """
    from safetensors.torch import save

    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # Serialised here, not by the library's own file writer, so that a full disk is an OSError.
    data = save(contiguous, metadata={_HEADER: json.dumps(dict(state))})
    write_bytes_atomic(path, data)
    write_json_atomic(path.with_suffix(".json"), dict(state))


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the state of a file that :func:`save_checkpoint` wrote.

    A plain safetensors file of somebody else's has an empty state.

    Raises:
        InputError: the file is missing, cannot be read or is no safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            state = json.loads((file.metadata() or {}).get(_HEADER, "{}"))
            return {name: file.get_tensor(name) for name in file.keys()}, state  # noqa: SIM118
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist") from error
    except SafetensorError as error:
        raise InputError(f"{path} is no safetensors file: {error}") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}") from error
